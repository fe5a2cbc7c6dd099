"""Outlines of many objects in three arrays, found by the id of the annotation."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ld_hub.formats.masks import mask_of
from ld_hub.formats.outlines import packed

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outlines:
    """Outlines of S objects, four bytes a number; forked workers share them.

    Attributes:
        ids: ``(S,)`` of the annotations, sorted.
        starts: ``(S,)`` where the bytes of each begin in `data`.
        ends: ``(S,)`` where they end.
        data: Of all of them, see `ld_hub.formats.outlines.packed`.
    """

    ids: Ints
    starts: Ints
    ends: Ints
    data: NDArray[np.uint8]

    @classmethod
    def gather(cls, pairs: Iterable[tuple[int, Any]]) -> Outlines:
        """Keep what outlines something.

        Args:
            pairs: Annotation id and its ``segmentation`` as COCO writes it, or packed, one after the other.
        """
        ids, ends, data = array("q"), array("q"), bytearray()
        for number, segmentation in pairs:
            found = packed(segmentation)
            if found:
                ids.append(number)
                data += found
                ends.append(len(data))
        numbers, stops = np.array(ids, dtype=np.int64), np.array(ends, dtype=np.int64)
        order = np.argsort(numbers, kind="stable")
        starts = np.concatenate([np.zeros(1, dtype=np.int64), stops])[:-1]
        return cls(numbers[order], starts[order], stops[order], np.frombuffer(data, dtype=np.uint8))

    @classmethod
    def joined(cls, parts: Sequence[tuple[Outlines | None, Ints]]) -> Outlines | None:
        """The outlines of several files, if there are any; annotations are numbered anew, from 1 in their order.

        Args:
            parts: Of each file the outlines and the ids of all annotations.
        """
        ids: list[Ints] = []
        starts: list[Ints] = []
        ends: list[Ints] = []
        data: list[NDArray[np.uint8]] = []
        count = size = 0
        for outlines, own in parts:
            if outlines is not None:
                places = outlines.places(own)
                kept = np.flatnonzero(places >= 0)
                ids.append(kept + count + 1)
                starts.append(outlines.starts[places[kept]] + size)
                ends.append(outlines.ends[places[kept]] + size)
                data.append(outlines.data)
                size += len(outlines.data)
            count += len(own)
        if not ids:
            return None
        return cls(np.concatenate(ids), np.concatenate(starts), np.concatenate(ends), np.concatenate(data))

    def places(self, ids: Ints) -> Ints:
        """``(K,)`` ids of annotations to ``(K,)`` places among the S outlines, -1 where there is none."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        found = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return np.where(self.ids[found] == ids, found, -1)

    def masks(self, places: Ints, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Pixels of objects.

        Args:
            places: ``(G,)`` of `places`.
            size: Height and width of their image in px.

        Returns:
            ``(G, h, w)``, nothing but False where there is no outline.
        """
        made = np.zeros((len(places), *size), dtype=bool)
        for k, place in enumerate(places.tolist()):
            if place >= 0:
                made[k] = mask_of(self.data[self.starts[place] : self.ends[place]], size)
        return made
