"""What a run says, and does, when its directory cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_ROOM = 1.05  # of the bytes of the tensors: headers, JSON, what a file system needs for itself


def bytes_of(*groups: Iterable[Tensor]) -> int:
    """Bytes that tensors take in files."""
    return sum(tensor.numel() * tensor.element_size() for tensors in groups for tensor in tensors)


def require_room(place: Path, size: int) -> None:
    """Refuse to begin a file that will not fit.

    Args:
        place: Directory that exists, or will.
        size: Bytes.

    Raises:
        OSError: ENOSPC; says how much is needed and how much is free.
    """
    there = next(each for each in (place, *place.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if free < _ROOM * size:
        raise OSError(
            errno.ENOSPC, f"{_ROOM * size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free", str(place)
        )


def describe_fault(error: OSError, place: Path) -> str:
    """An error of the system in words, with the way out.

    Args:
        error: What it said.
        place: The run's directory.
    """
    if error.errno in _FULL:
        known = error.strerror or ""
        reason = f"the disk is full ({known})" if "needed" in known else "the disk is full"
        way_out = "make room there, keep fewer checkpoints (--keep_checkpoints 1), or save less often (--save_every)"
    elif error.errno == errno.EROFS:
        reason, way_out = "it is read-only", "make it writable"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        reason, way_out = "too many files are open", "raise the limit (ulimit -n), or use fewer --workers"
    else:
        reason = error.strerror or str(error) or os.strerror(error.errno or errno.EIO)
        way_out = "see to the disk, or continue elsewhere: --output_dir NEW --resume RUN"
    return f"'{place}' cannot be written: {reason}; {way_out}"
