"""Annotations of very large files: small columns, of which rows are made when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from ld_hub.structures import AnnotationRow

_PART = 1 << 16  # rows made at a time


@dataclass(frozen=True, eq=False)
class AnnotationColumns(Sequence[AnnotationRow]):
    """K annotations; what is done with a row does not change them.

    Attributes:
        ids: ``(K,)``.
        images: ``(K,)`` ids of their images.
        categories: ``(K,)`` ids of their categories.
        boxes: ``(K, 4)`` x, y, width, height in px.
        areas: ``(K,)`` px².
        crowd: ``(K,)``.
        ignore: ``(K,)``.
    """

    ids: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    categories: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    crowd: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, key: int) -> AnnotationRow: ...

    @overload
    def __getitem__(self, key: slice) -> AnnotationColumns: ...

    def __getitem__(self, key: int | slice) -> AnnotationRow | AnnotationColumns:
        if isinstance(key, slice):
            return self._taken(key)
        if not -len(self) <= key < len(self):
            raise IndexError(key)
        return next(iter(self._taken(slice(key, key + 1 or None))))

    def __iter__(self) -> Iterator[AnnotationRow]:
        for start in range(0, len(self), _PART):
            part = self._taken(slice(start, start + _PART))
            columns = (part.ids, part.images, part.categories, part.boxes, part.areas, part.crowd, part.ignore)
            for number, image, category, box, area, crowd, ignore in zip(*(c.tolist() for c in columns), strict=True):
                yield {
                    "id": number,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                    "ignore": int(ignore),
                }

    def of_images(self, image_ids: Collection[int]) -> AnnotationColumns:
        """Those on some images, with the ids that they have here."""
        return self._taken(np.flatnonzero(np.isin(self.images, np.array(sorted(image_ids), dtype=np.int64))))

    def _taken(self, rows: slice | npt.NDArray[np.int64]) -> AnnotationColumns:
        return AnnotationColumns(
            self.ids[rows],
            self.images[rows],
            self.categories[rows],
            self.boxes[rows],
            self.areas[rows],
            self.crowd[rows],
            self.ignore[rows],
        )


class GrowingColumns:
    """Columns while rows are read."""

    def __init__(self) -> None:
        self._images, self._categories, self._marks = array("q"), array("q"), array("B")
        self._boxes, self._areas = array("d"), array("d")

    def add(self, row: AnnotationRow) -> None:
        """Append a row.

        Raises:
            ValueError: If an id is no whole number of 64 bits; nothing is appended then.
        """
        try:
            image, category = int(row["image_id"]), int(row["category_id"])
            if (image, category) != (row["image_id"], row["category_id"]):
                raise ValueError("an id is no whole number")
            ids = array("q", (image, category))
        except OverflowError as error:
            raise ValueError(str(error)) from None
        self._images.append(ids[0])
        self._categories.append(ids[1])
        self._boxes.extend(row["bbox"])
        self._areas.append(row["area"])
        self._marks.append(row["iscrowd"] + 2 * row["ignore"])

    def done(self) -> AnnotationColumns:
        """All rows, numbered from 1."""
        marks = np.frombuffer(self._marks, dtype=np.uint8)
        return AnnotationColumns(
            ids=np.arange(1, len(marks) + 1, dtype=np.int64),
            images=np.frombuffer(self._images, dtype=np.int64),
            categories=np.frombuffer(self._categories, dtype=np.int64),
            boxes=np.frombuffer(self._boxes, dtype=np.float64).reshape(-1, 4),
            areas=np.frombuffer(self._areas, dtype=np.float64),
            crowd=(marks & 1).astype(bool),
            ignore=(marks & 2).astype(bool),
        )
