"""Whether a checkpoint is what was written: by its manifest, without which it does not exist.

Earlier versions wrote none (`UNPROVEN`); theirs are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.hub.manifest import MANIFEST_NAME, damages

STATE = "state.json"
TENSORS = ("model.safetensors", "optimizer.safetensors", "ema.safetensors")
FORMAT = 3  # of STATE
UNPROVEN = 2  # the last format without a manifest


def is_checkpoint(path: Path) -> bool:
    """Whether a directory was written to the end; `faults` tells whether it still is what was written."""
    return (path / MANIFEST_NAME).is_file() or _is_unproven(path)


def step_of(checkpoint: Path) -> int:
    """Optimizer steps made when a checkpoint was written, by its name."""
    return int(checkpoint.name.removeprefix("step_"))


def retire(path: Path) -> None:
    """Let a directory be a checkpoint no longer, whatever becomes of its other files."""
    (path / MANIFEST_NAME).unlink(missing_ok=True)
    (path / STATE).unlink(missing_ok=True)


def require_whole(path: Path) -> None:
    """Refuse a checkpoint that is not what was written.

    Args:
        path: Its directory.

    Raises:
        MissingFileError: If it is none.
        CheckpointError: If a file is missing, cut short or changed.
    """
    if not is_checkpoint(path):
        raise MissingFileError(
            f"'{path}' is no checkpoint: it has no {MANIFEST_NAME}. Checkpoints are RUN/checkpoints/step_*."
        )
    if found := faults(path):
        raise CheckpointError(f"'{path}' is damaged: {'; '.join(found)}. Take another checkpoint: --resume RUN.")


def last_whole(checkpoints: Sequence[Path]) -> Path | None:
    """The last one that is what was written; None where there are none at all.

    Args:
        checkpoints: Oldest first.

    Raises:
        CheckpointError: If there are some, and all are damaged.
    """
    whole = next((path for path in reversed(checkpoints) if not faults(path)), None)
    if whole is None and checkpoints:
        found = ", ".join(f"'{path}' ({'; '.join(faults(path))})" for path in checkpoints)
        raise CheckpointError(
            f"No checkpoint of the run is whole: {found}. Bring one back from a copy, or begin another --output_dir."
        )
    return whole


def faults(path: Path) -> tuple[str, ...]:
    """What is wrong with a checkpoint, in words that begin with the file.

    One that was looked at is not read again while its files keep their size and time.

    Args:
        path: Its directory.
    """
    if _is_unproven(path):
        return ()
    known = [path / name for name in (MANIFEST_NAME, STATE, *TENSORS)]
    states = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in known if file.is_file())
    return _faults(path.resolve(), states)


@lru_cache(maxsize=16)
def _faults(path: Path, states: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    return tuple(damages(path))


def _is_unproven(path: Path) -> bool:
    if (path / MANIFEST_NAME).exists():
        return False
    try:
        return bool(json.loads((path / STATE).read_text(encoding="utf-8")).get("format") == UNPROVEN)
    except (OSError, ValueError, AttributeError):
        return False
