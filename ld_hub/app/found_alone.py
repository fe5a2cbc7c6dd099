"""What one detector finds on an image and another does not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.ops.boxes import pairwise_iou
from ld_hub.structures import Detections

OVERLAP = 0.5  # least IoU of two boxes of one object


@dataclass(frozen=True)
class Difference:
    """Objects without a counterpart.

    Attributes:
        first: Indices of the first detector's.
        second: Indices of the second one's.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]


def differences(first: Detections, second: Detections, overlap: float = OVERLAP) -> Difference:
    """Match detections of one image by class name and IoU, the best score first, each once.

    Args:
        first: Best first, as detectors give them.
        second: The same of the other detector.
        overlap: Least IoU, 0..1.
    """
    names = [first.label_names[k] for k in first.labels.tolist()]
    others = [second.label_names[k] for k in second.labels.tolist()]
    ious = _overlaps(first.boxes, second.boxes).tolist()
    left = set(range(len(others)))
    alone = []
    for k, name in enumerate(names):
        fitting = [j for j in left if others[j] == name and ious[k][j] >= overlap]
        if fitting:
            left.remove(max(fitting, key=lambda j: (ious[k][j], -j)))
        else:
            alone.append(k)
    return Difference(tuple(alone), tuple(sorted(left)))


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    if not len(first) or not len(second):
        return torch.zeros(len(first), len(second))
    return pairwise_iou(first.float(), second.float())
