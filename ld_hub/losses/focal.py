"""Sigmoid Focal Loss (arXiv 1708.02002, eq. 5) with gamma = 2, as every published configuration has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ld_hub.losses.quality_focal import negative_row_sums

ALPHA = 0.25


def _positive_correction(picked: Tensor, alpha: float) -> Tensor:
    """What the logit of a row's own class adds beyond its loss as a negative: ``(K,)``."""
    p = picked.sigmoid()
    as_positive = alpha * F.softplus(-picked, threshold=40) * (1 - p).square()
    return as_positive - (1 - alpha) * F.softplus(picked, threshold=40) * p.square()


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = ALPHA) -> Tensor:
    """Focal loss of each row, summed over classes.

    Args:
        logits: ``(M, C)``.
        labels: ``(M,)`` int64; a row is positive iff its label is in 0..C-1.
        alpha: Weight of the positive entry of a row; the others have ``1 - alpha``.

    Returns:
        ``(M,)``.
    """
    positive = (labels >= 0) & (labels < logits.shape[1])
    picked = logits.gather(1, torch.where(positive, labels, 0)[:, None]).squeeze(1)
    correction = torch.where(positive, _positive_correction(picked, alpha), 0)
    return (1 - alpha) * negative_row_sums(logits) + correction


def focal_loss_sum(
    logits: Tensor, weights: Tensor, rows: Tensor, row_weights: Tensor, labels: Tensor, alpha: float = ALPHA
) -> Tensor:
    """The weighted sum of `focal_loss` over a batch of which the positive rows are known.

    Args:
        logits: ``(M, C)``.
        weights: ``(M,)`` label weights.
        rows: ``(K,)`` indices of the positives.
        row_weights: ``(K,)`` 1, or 0 for filling rows (`ld_hub.structures.Rows`).
        labels: ``(K,)`` int64 in 0..C-1.
        alpha: See `focal_loss`.

    Returns:
        Scalar.
    """
    picked = logits.flatten().index_select(0, rows * logits.shape[1] + labels)
    correction = _positive_correction(picked, alpha) * weights.index_select(0, rows) * row_weights
    return (1 - alpha) * (negative_row_sums(logits) @ weights) + correction.sum()
