"""What was found on an image, in NumPy's arrays; the fields are those of `ld_hub.Detections`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FoundObject(NamedTuple):
    """One object: its class name, its score in 0..1, and its box ``(x1, y1, x2, y2)`` in px."""

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Found:
    """The objects found on one image, best first.

    Attributes:
        boxes: ``(K, 4)`` float32 xyxy px of the original image.
        scores: ``(K,)`` float32 in 0..1.
        labels: ``(K,)`` int64 in 0..C-1.
        label_names: C class names.
        category_ids: C ids of the data set.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[FoundObject]:
        for box, score, name in zip(self.boxes.tolist(), self.scores.tolist(), self.names, strict=True):
            yield FoundObject(name, score, tuple(box))

    @property
    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.label_names[label] for label in self.labels.tolist()]

    def filter(self, threshold: float) -> Found:
        """Those whose score is above `threshold`."""
        keep = self.scores > threshold
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])
