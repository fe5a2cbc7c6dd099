"""Centerness loss (FCOS, arXiv 1904.01355, sec. 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def centerness_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy to a soft target.

    Args:
        logits: ``(K,)``.
        target: ``(K,)`` in [0, 1], e.g. of `ld_hub.structures.Assignment.centerness`.

    Returns:
        ``(K,)``; at least the entropy of the target.
    """
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")
