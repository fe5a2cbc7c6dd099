"""Class-aware non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def class_aware_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Greedy NMS within each class, by shifting the boxes of each class apart.

    Args:
        boxes: ``(K, 4)`` xyxy px of one image.
        scores: ``(K,)``.
        labels: ``(K,)`` int64.
        iou_threshold: A box is dropped if its IoU with a better one of its class is larger.
        most: Keep at most this many, the best ones.

    Returns:
        Indices of the kept boxes, best score first.
    """
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # float64: a shift of classes x image size leaves a float32 coordinate only 1/128 px of resolution
    wide = boxes.double()
    shifted = wide + (labels.double() * (wide.max() - wide.min() + 1))[:, None]
    kept: Tensor = nms(shifted, scores.double(), iou_threshold)
    return kept[:most]
