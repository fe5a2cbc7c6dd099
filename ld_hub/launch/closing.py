"""What is done and said when a run has ended."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
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


@contextlib.contextmanager
def left_together() -> Iterator[None]:
    """Where a run ends early, end the processes' group as it is done at a run's end."""
    from ld_hub.engine.leaving import LeftEarly

    try:
        yield
    except LeftEarly:
        from ld_hub.engine.devices import end_processes

        end_processes()
        raise
