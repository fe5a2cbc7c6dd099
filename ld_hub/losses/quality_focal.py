"""Quality Focal Loss (GFL, arXiv 2006.04388, eq. 5 with beta = 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ld_hub.losses.negatives import Correction, as_negative, row_losses, weighted_sum


def _positives(quality: Tensor) -> Correction:
    def correction(picked: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(picked, quality, reduction="none")
        return entropy * (quality - picked.sigmoid()).square() - as_negative(picked)

    return correction


def quality_focal_loss(logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss of each row, summed over classes.

    The modulating factor carries gradient, as published.

    Args:
        logits: ``(M, C)``.
        labels: ``(M,)`` int64; a row is positive iff its label is in 0..C-1.
        quality: ``(M,)`` target of the labelled class (IoU of the predicted box), in [0, 1].

    Returns:
        ``(M,)``.
    """
    return row_losses(logits, labels, _positives(quality))


def quality_focal_loss_sum(
    logits: Tensor,
    weights: Tensor,
    rows: Tensor,
    row_weights: Tensor,
    labels: Tensor,
    quality: Tensor,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The weighted sum of `quality_focal_loss` over a batch of which the positive rows are known.

    Args:
        logits: ``(M, C)``.
        weights: ``(M,)`` label weights.
        rows: ``(K,)`` indices of the positives.
        row_weights: ``(K,)`` 1, or 0 for filling rows (`ld_hub.structures.Rows`).
        labels: ``(K,)`` int64 in 0..C-1.
        quality: ``(K,)`` in [0, 1].
        class_weights: ``(C,)`` factors of the entries of each class; None for 1 each.

    Returns:
        Scalar.
    """
    return weighted_sum(logits, weights, rows, row_weights, labels, _positives(quality), class_weights=class_weights)
