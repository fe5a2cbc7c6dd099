"""Quality Focal Loss (GFL, arXiv 2006.04388, eq. 5 with beta = 2).

Nearly all entries are negatives with target 0, and on a CPU their loss is the largest part of a criterion's time.
`_Negatives` computes it and its derivative in one pass over blocks that stay in cache; the few positives are a
correction written in plain autograd.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1 << 16  # entries per block: 256 KiB of float32, within a core's second-level cache


def _negative_rows(logits: Tensor, want_grad: bool) -> tuple[Tensor, Tensor | None]:
    """Row sums ``(M,)`` of ``sigmoid(x)^2 softplus(x)`` over ``(M, C)`` logits and the entrywise derivative."""
    rows = max(1, _BLOCK // max(1, logits.shape[1])) if logits.device.type == "cpu" else max(1, logits.shape[0])
    total = logits.new_empty(logits.shape[0])
    grad = torch.empty_like(logits) if want_grad else None
    for start in range(0, logits.shape[0], rows):
        x = logits[start : start + rows]
        p = x.sigmoid()
        log_q = F.softplus(x, threshold=40)  # -log(1 - p)
        square = p.square()
        torch.sum(square * log_q, dim=1, out=total[start : start + rows])
        if grad is not None:  # p^2 * (p + 2 (1 - p) softplus)
            torch.mul(log_q.mul_(1 - p).mul_(2).add_(p), square, out=grad[start : start + rows])
    return total, grad


class _Negatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        total, grad = _negative_rows(logits.detach(), ctx.needs_input_grad[0])
        if grad is not None:
            ctx.save_for_backward(grad)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        grad: Tensor = ctx.saved_tensors[0]
        return grad * upstream[:, None]


def negative_row_sums(logits: Tensor) -> Tensor:
    """``sum over c of sigmoid(x_c)^2 softplus(x_c)``, the loss of rows without object: ``(M, C)`` to ``(M,)``."""
    total: Tensor = _Negatives.apply(logits)
    return total


def _positive_correction(picked: Tensor, quality: Tensor) -> Tensor:
    """What the logit of a row's own class adds beyond its loss as a negative: ``(K,)``."""
    p = picked.sigmoid()
    as_positive = F.binary_cross_entropy_with_logits(picked, quality, reduction="none") * (quality - p).square()
    return as_positive - F.softplus(picked, threshold=40) * p.square()


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
    positive = (labels >= 0) & (labels < logits.shape[1])
    picked = logits.gather(1, torch.where(positive, labels, 0)[:, None]).squeeze(1)
    return negative_row_sums(logits) + torch.where(positive, _positive_correction(picked, quality), 0)


def quality_focal_loss_sum(
    logits: Tensor, weights: Tensor, rows: Tensor, row_weights: Tensor, labels: Tensor, quality: Tensor
) -> Tensor:
    """The weighted sum of `quality_focal_loss` over a batch of which the positive rows are known.

    Args:
        logits: ``(M, C)``.
        weights: ``(M,)`` label weights.
        rows: ``(K,)`` indices of the positives.
        row_weights: ``(K,)`` 1, or 0 for filling rows (`ld_hub.structures.Rows`).
        labels: ``(K,)`` int64 in 0..C-1.
        quality: ``(K,)`` in [0, 1].

    Returns:
        Scalar.
    """
    picked = logits.flatten().index_select(0, rows * logits.shape[1] + labels)
    correction = _positive_correction(picked, quality) * weights.index_select(0, rows) * row_weights
    return negative_row_sums(logits) @ weights + correction.sum()
