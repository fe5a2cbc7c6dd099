"""Boxes as ``(..., 4)`` xyxy tensors: areas and overlaps, in pairs and row by row.

Shapes: N images, G ground truths, A anchors, K rows.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

EPS = 1e-6
CHUNK = 1 << 21  # entries of a temporary matrix: 8 MiB of float32, while a matrix of nine anchors per cell has 150
Overlap = Literal["iou", "giou", "diou", "ciou"]


def chunks(number: int, width: int) -> list[slice]:
    """Cut G ground truths into parts whose temporary matrices stay small and in cache.

    A compiled graph needs no parts: it fuses what would be temporary.

    Args:
        number: G.
        width: Entries that a matrix has for each ground truth, N * A.

    Returns:
        Slices of G, a single one where the whole matrix has at most `CHUNK` entries.
    """
    step = number if torch.compiler.is_compiling() else max(1, CHUNK // max(1, width))
    return [slice(start, start + step) for start in range(0, number, max(1, step))]


def area(boxes: Tensor) -> Tensor:
    """``(..., 4)`` boxes to ``(...)`` areas."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(first: Tensor, second: Tensor, eps: float = EPS) -> Tensor:
    """IoU of every pair, with the union clamped to at least `eps`.

    Args:
        first: ``(N, G, 4)``.
        second: ``(A, 4)``, shared by all images.
        eps: Lower bound of the union, px².

    Returns:
        ``(N, G, A)``.
    """
    parts = chunks(first.shape[1], first.shape[0] * second.shape[0])
    if len(parts) == 1:
        return _pairwise_iou(first, second, eps)
    result = first.new_empty(*first.shape[:2], second.shape[0])
    for part in parts:
        result[:, part] = _pairwise_iou(first[:, part], second, eps)
    return result


def _pairwise_iou(first: Tensor, second: Tensor, eps: float) -> Tensor:
    x1, y1, x2, y2 = (side.unsqueeze(-1) for side in first.unbind(-1))  # (N, G, 1)
    u1, v1, u2, v2 = second.T.contiguous().unbind(0)  # (A,)
    width = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    height = torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    intersection = width.mul_(height)
    union = (area(first).unsqueeze(-1) + area(second)).sub_(intersection).clamp_(min=eps)
    return intersection.div_(union)


def centre_penalty(first: Tensor, second: Tensor, eps: float = EPS) -> Tensor:
    """Squared distance of centres over the squared diagonal of the enclosing box (DIoU, arXiv 1911.08287, eq. 6).

    Args:
        first: ``(N, G, 4)``.
        second: ``(A, 4)``.
        eps: Lower bound of the squared diagonal.

    Returns:
        ``(N, G, A)`` in [0, 1].
    """
    x1, y1, x2, y2 = (side.unsqueeze(-1) for side in first.unbind(-1))
    u1, v1, u2, v2 = second.T.contiguous().unbind(0)
    width = torch.maximum(x2, u2).sub_(torch.minimum(x1, u1))
    height = torch.maximum(y2, v2).sub_(torch.minimum(y1, v1))
    diagonal = width.square_().add_(height.square_()).clamp_(min=eps)
    dx = ((x1 + x2) / 2 - (u1 + u2) / 2).square_()
    dy = ((y1 + y2) / 2 - (v1 + v2) / 2).square_()
    return dx.add_(dy).div_(diagonal)


def overlap(pred: Tensor, target: Tensor, kind: Overlap = "iou", *, eps: float = EPS, reference: str = "") -> Tensor:
    """Overlap of each predicted box with its own target, differentiable.

    Args:
        pred: ``(K, 4)``.
        target: ``(K, 4)``.
        kind: ``"iou"``, ``"giou"`` (arXiv 1902.09630), ``"diou"`` or ``"ciou"`` (arXiv 1911.08287).
        eps: Lower bound of unions and enclosing areas.
        reference: For CIoU, ``"ld"`` or ``"bckd"`` follows that code base (reference SPEC 1): LD lets the gradient
            through the aspect-ratio trade-off, BCKD (as the default here) does not.

    Returns:
        ``(K,)``; IoU in [0, 1], the others at most 1.
    """
    top_left = torch.maximum(pred[:, :2], target[:, :2])
    bottom_right = torch.minimum(pred[:, 2:], target[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=1)
    union = area(pred) + area(target) - intersection
    if kind in {"iou", "giou"}:
        iou = intersection / union.clamp(min=eps)
    else:
        iou = intersection / (union + eps)  # the published DIoU and CIoU add eps instead of clamping
    if kind == "iou":
        return iou
    hull = (torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(pred[:, :2], target[:, :2])).clamp(min=0)
    if kind == "giou":
        enclosing = hull.prod(dim=1).clamp(min=eps)
        return iou - (enclosing - union.clamp(min=eps)) / enclosing
    diagonal = hull.square().sum(dim=1) + eps
    distance = ((pred[:, :2] + pred[:, 2:]) - (target[:, :2] + target[:, 2:])).square().sum(dim=1) / 4
    if kind == "diou":
        return iou - distance / diagonal
    return _ciou(pred, target, iou, distance / diagonal, eps, reference)


def _ciou(pred: Tensor, target: Tensor, iou: Tensor, penalty: Tensor, eps: float, reference: str) -> Tensor:
    def angle(box: Tensor) -> Tensor:
        return torch.atan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1] + eps))

    shape = (4 / math.pi**2) * (angle(target) - angle(pred)).square()
    if reference == "ld":
        return iou - (penalty + shape.square() / (1 - iou + shape))
    with torch.no_grad():
        trade_off = (iou > 0.5).to(iou.dtype) * shape / (1 - iou + shape)
    return (iou - (penalty + trade_off * shape)).clamp(min=-1.0, max=1.0)
