"""Focal losses of entries that are nearly all negatives.

An entry without object costs ``sigmoid(x)^2 softplus(x)`` in focal loss (gamma = 2) and quality focal loss (beta = 2)
alike, up to a factor. On a CPU these entries are the largest part of a criterion's time: `_Negatives` computes them and
their derivative in one pass over blocks that stay in cache. The few positives are a correction written in plain
autograd; what it is makes the difference between the losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1 << 16  # entries per block: 256 KiB of float32, within a core's second-level cache

# What the logits ``(K,)`` of rows' own classes add beyond their loss as negatives, ``(K,)``.
Correction = Callable[[Tensor], Tensor]


def _negative_rows(logits: Tensor, class_weights: Tensor | None, want_grad: bool) -> tuple[Tensor, Tensor | None]:
    """Row sums ``(M,)`` of ``w_c sigmoid(x)^2 softplus(x)`` over ``(M, C)`` logits and the entrywise derivative."""
    rows = max(1, _BLOCK // max(1, logits.shape[1])) if logits.device.type == "cpu" else max(1, logits.shape[0])
    total = logits.new_empty(logits.shape[0])
    grad = torch.empty_like(logits) if want_grad else None
    for start in range(0, logits.shape[0], rows):
        x = logits[start : start + rows]
        p = x.sigmoid()
        log_q = F.softplus(x, threshold=40)  # -log(1 - p)
        square = p.square()
        losses = square * log_q if class_weights is None else square * log_q * class_weights
        torch.sum(losses, dim=1, out=total[start : start + rows])
        if grad is not None:  # p^2 * (p + 2 (1 - p) softplus)
            torch.mul(log_q.mul_(1 - p).mul_(2).add_(p), square, out=grad[start : start + rows])
    if grad is not None and class_weights is not None:
        grad *= class_weights
    return total, grad


class _Negatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, class_weights: Tensor | None) -> Tensor:
        total, grad = _negative_rows(logits.detach(), class_weights, ctx.needs_input_grad[0])
        if grad is not None:
            ctx.save_for_backward(grad)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        grad: Tensor = ctx.saved_tensors[0]
        return grad * upstream[:, None], None


def negative_row_sums(logits: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """``sum over c of w_c sigmoid(x_c)^2 softplus(x_c)``, the loss of rows without object.

    Args:
        logits: ``(M, C)``.
        class_weights: ``(C,)`` w; None for 1 each.

    Returns:
        ``(M,)``.
    """
    total: Tensor = _Negatives.apply(logits, class_weights)
    return total


def as_negative(picked: Tensor) -> Tensor:
    """The same of single entries, in plain autograd; what a correction takes away."""
    return F.softplus(picked, threshold=40) * picked.sigmoid().square()


def row_losses(logits: Tensor, labels: Tensor, correction: Correction, negative: float = 1.0) -> Tensor:
    """Loss of each row, summed over classes.

    Args:
        logits: ``(M, C)``.
        labels: ``(M,)`` int64; a row is positive iff its label is in 0..C-1.
        correction: Of the positive rows; called with ``(M,)`` logits, of class 0 for rows that are not positive.
        negative: Factor of the negative entries.

    Returns:
        ``(M,)``.
    """
    positive = (labels >= 0) & (labels < logits.shape[1])
    picked = logits.gather(1, torch.where(positive, labels, 0)[:, None]).squeeze(1)
    return negative * negative_row_sums(logits) + torch.where(positive, correction(picked), 0)


def weighted_sum(
    logits: Tensor,
    weights: Tensor,
    rows: Tensor,
    row_weights: Tensor,
    labels: Tensor,
    correction: Correction,
    negative: float = 1.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The weighted sum of `row_losses` over a batch of which the positive rows are known.

    Args:
        logits: ``(M, C)``.
        weights: ``(M,)`` label weights.
        rows: ``(K,)`` indices of the positives.
        row_weights: ``(K,)`` 1, or 0 for filling rows (`ld_hub.structures.Rows`).
        labels: ``(K,)`` int64 in 0..C-1.
        correction: Of these rows.
        negative: Factor of the negative entries.
        class_weights: ``(C,)`` factors of the entries of each class; None for 1 each.

    Returns:
        Scalar.
    """
    picked = logits.flatten().index_select(0, rows * logits.shape[1] + labels)
    added = correction(picked) * weights.index_select(0, rows) * row_weights
    if class_weights is not None:
        added = added * class_weights[labels]
    return negative * (negative_row_sums(logits, class_weights) @ weights) + added.sum()
