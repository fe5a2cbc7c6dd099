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


def rebin(bin_logits: Tensor, bins: int, shift: Tensor | None = None) -> Tensor:
    """Move distributions over distances to another number of bins, or to another origin.

    Each bin's mass goes to the distance it stands for, shared between the two bins around it, so that the mean moves
    by exactly `shift`; what would leave the range gathers in the first or the last bin.

    Args:
        bin_logits: ``(..., R+1)``; bins stand for 0..R strides.
        bins: Number of bins of the result.
        shift: ``(...)`` strides added to every distance; None for 0.

    Returns:
        ``(..., bins)`` log-probabilities, minus infinity for empty bins.
    """
    mass = bin_logits.softmax(dim=-1)
    place = torch.arange(mass.shape[-1], dtype=mass.dtype, device=mass.device)
    place = place.expand_as(mass) if shift is None else place + shift[..., None]
    place = place.clamp(min=0, max=bins - 1)
    low = place.floor()
    share = place - low
    low = low.long()
    moved = mass.new_zeros(*mass.shape[:-1], bins)
    moved = moved.scatter_add(-1, low, mass * (1 - share))
    return moved.scatter_add(-1, (low + 1).clamp(max=bins - 1), mass * share).log()
