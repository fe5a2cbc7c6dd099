"""Between box-edge distributions over R+1 bins and distances in stride units (GFL, arXiv 2006.04388, sec. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def expectation(bin_logits: Tensor) -> Tensor:
    """Mean distance of each distribution: ``(..., R+1)`` logits to ``(...)`` stride units in [0, R]."""
    bins = torch.arange(bin_logits.shape[-1], dtype=bin_logits.dtype, device=bin_logits.device)
    return (bin_logits.softmax(dim=-1) * bins).sum(dim=-1)  # not a matmul: autocast would round it to bfloat16


def distances_to_boxes(centers: Tensor, distances: Tensor) -> Tensor:
    """Left, top, right, bottom distances ``(..., 4)`` around ``(..., 2)`` centers to ``(..., 4)`` xyxy, same unit."""
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)


def boxes_to_distances(centers: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of `distances_to_boxes`; negative where a center lies outside its box."""
    return torch.cat([centers - boxes[..., :2], boxes[..., 2:] - centers], dim=-1)
