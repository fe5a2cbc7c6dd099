"""A page to try detectors on (extra ``app``): `launch` serves it, ``ld-hub app`` does so on the command line."""

from __future__ import annotations

from typing import Any


def launch(names: list[str], **options: Any) -> None:
    """Load detectors and serve the page; of a Space this is all that its app has to do.

    Args:
        names: Names that have weights, directories, ``org/name``, or exports.
        **options: Of gradio's ``Blocks.launch``.
    """
    from ld_hub.app.columns import open_columns
    from ld_hub.app.tryout import build
    from ld_hub.ops.hardware import resolve_device

    build(open_columns(names, resolve_device())).launch(**options)
