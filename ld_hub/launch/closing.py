"""What is said when a run has ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ld_hub.launch.data_arguments import DataArguments


def next_commands(model: Path, data: DataArguments, tiling: Sequence[str] = ()) -> str:
    """What a user may type when a run has ended.

    Args:
        model: Directory of the model that came out.
        data: Flags of the run.
        tiling: Flags of tiles, where it was trained on some.
    """
    place = shlex.quote(str(model))
    lines = [" ".join(["ld-hub predict PHOTO.jpg --model", place, *tiling])]
    flags = {"data": data.data, "images": data.val_images, "annotations": data.val_annotations}
    given = [word for flag, value in flags.items() if value is not None for word in (f"--{flag}", value)]
    if data.data is not None or data.val_annotations is not None:
        lines.append(f"ld-hub eval {place} {shlex.join([*given, *tiling])}")
    return "next: " + "\n      ".join(lines)
