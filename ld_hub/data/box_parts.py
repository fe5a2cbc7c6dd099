"""Many boxes gone through a part at a time, so that what is computed on the way stays small."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ld_hub.data.annotations import Bools, CocoFile

PART = 1 << 18  # annotations
COLUMNS = ("ids", "image_of", "category_of", "boxes", "areas", "crowd", "ignore")  # one row per annotation


def in_parts(coco: CocoFile) -> Iterator[CocoFile]:
    """The same images with some of the annotations, part after part; all at once where they are few.

    Of arrays that lie in a file, memory holds no more than a part.
    """
    if len(coco.ids) <= PART:
        yield coco
        return
    for start in range(0, len(coco.ids), PART):
        rows = slice(start, start + PART)
        yield replace(coco, **{name: getattr(coco, name)[rows] for name in COLUMNS})
        for name in COLUMNS:
            _let_go(getattr(coco, name))


def mask(coco: CocoFile, test: Callable[[CocoFile], Bools]) -> Bools:
    """``(K,)`` of a test that looks at annotations one by one.

    Args:
        coco: The annotations.
        test: Gives such a mask of a part.
    """
    return np.concatenate([test(part) for part in in_parts(coco)])


def _let_go(array: object) -> None:
    """Drop the pages of a mapped file from memory; they are read again where they are needed."""
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    if isinstance(array, mmap.mmap) and hasattr(array, "madvise"):  # not on Windows
        array.madvise(mmap.MADV_DONTNEED)
