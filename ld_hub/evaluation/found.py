"""Detections of a whole data set as arrays, the form in which they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ld_hub.structures import ResultRow


@dataclass(frozen=True, eq=False)
class Found:
    """K detections; those of one image in the order in which the model gave them.

    Attributes:
        image_ids: ``(K,)``.
        category_ids: ``(K,)``.
        boxes: ``(K, 4)`` x, y, width, height in px.
        scores: ``(K,)``.
    """

    image_ids: npt.NDArray[np.int64]
    category_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[ResultRow]) -> Found:
        """Rows of a COCO results file."""
        return cls(
            np.array([row["image_id"] for row in rows], dtype=np.int64),
            np.array([row["category_id"] for row in rows], dtype=np.int64),
            np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4),
            np.array([row["score"] for row in rows], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def rows(self) -> list[ResultRow]:
        """As rows of a COCO results file."""
        columns = (self.image_ids, self.category_ids, self.boxes, self.scores)
        return [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def best(self, most: int) -> Found:
        """The best of each image, where only so many count; of equal scores those that came first."""
        order = np.lexsort((-self.scores, self.image_ids))
        images = self.image_ids[order]
        place = np.arange(len(order)) - np.searchsorted(images, images)
        return self.take(np.sort(order[place < most]))

    def take(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Found:
        """The detections of these indices, or of a mask ``(K,)``."""
        return Found(self.image_ids[chosen], self.category_ids[chosen], self.boxes[chosen], self.scores[chosen])

    def beyond(self, most: int) -> int:
        """Number of detections that are too many, where only so many count of each class and image."""
        if not len(self):
            return 0
        pairs = np.stack([self.image_ids, self.category_ids])
        order = np.lexsort(pairs)
        starts = np.flatnonzero(np.concatenate([[True], (np.diff(pairs[:, order]) != 0).any(axis=0)]))
        counts = np.diff(np.append(starts, len(self)))
        return int((counts - most).clip(min=0).sum())
