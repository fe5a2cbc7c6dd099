"""Sigmoid Focal Loss (arXiv 1708.02002, eq. 5) with gamma = 2, as every published configuration has it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ld_hub.losses.negatives import Correction, as_negative, row_losses, weighted_sum

ALPHA = 0.25


def _positives(alpha: float) -> Correction:
    def correction(picked: Tensor) -> Tensor:
        as_positive = alpha * F.softplus(-picked, threshold=40) * (1 - picked.sigmoid()).square()
        return as_positive - (1 - alpha) * as_negative(picked)

    return correction


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = ALPHA) -> Tensor:
    """Focal loss of each row, summed over classes.

    Args:
        logits: ``(M, C)``.
        labels: ``(M,)`` int64; a row is positive iff its label is in 0..C-1.
        alpha: Weight of the positive entry of a row; the others have ``1 - alpha``.

    Returns:
        ``(M,)``.
    """
    return row_losses(logits, labels, _positives(alpha), negative=1 - alpha)


def focal_loss_sum(
    logits: Tensor,
    weights: Tensor,
    rows: Tensor,
    row_weights: Tensor,
    labels: Tensor,
    alpha: float = ALPHA,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The weighted sum of `focal_loss` over a batch of which the positive rows are known.

    Args:
        logits: ``(M, C)``.
        weights: ``(M,)`` label weights.
        rows: ``(K,)`` indices of the positives.
        row_weights: ``(K,)`` 1, or 0 for filling rows (`ld_hub.structures.Rows`).
        labels: ``(K,)`` int64 in 0..C-1.
        alpha: See `focal_loss`.
        class_weights: ``(C,)`` factors of the entries of each class; None for 1 each.

    Returns:
        Scalar.
    """
    return weighted_sum(
        logits, weights, rows, row_weights, labels, _positives(alpha), negative=1 - alpha, class_weights=class_weights
    )
