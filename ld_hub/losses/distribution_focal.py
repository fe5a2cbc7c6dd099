"""Distribution Focal Loss (GFL, arXiv 2006.04388, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def distribution_focal_loss(bin_logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy to the two bins beside a continuous distance, weighted by closeness.

    Args:
        bin_logits: ``(..., R+1)``.
        target: ``(...)`` distances in stride units, in [0, R).

    Returns:
        ``(...)``.
    """
    left = target.floor()
    log_p = bin_logits.log_softmax(dim=-1)
    pair = torch.stack([left, left + 1], dim=-1).long()
    share = torch.stack([left + 1 - target, target - left], dim=-1)
    return -(log_p.gather(-1, pair) * share).sum(dim=-1)
