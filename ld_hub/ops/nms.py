"""Class-aware non-maximum suppression: greedy, soft, and with voting. Inference only: the host waits for sizes.

Shapes: K boxes of one image, G classes that occur, M boxes of the class that has most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

from ld_hub.ops.boxes import CHUNK, overlap

VOTERS = 0.01  # IoU above which a box has a vote (PAA, section 3.4)


def class_aware_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Greedy NMS within each class, by shifting the boxes of each class apart.

    Args:
        boxes: ``(K, 4)`` xyxy px of one image.
        scores: ``(K,)``.
        labels: ``(K,)`` int64.
        iou_threshold: A box is dropped if its IoU with a better one of its class is larger.
        most: Keep at most this many, the best ones.

    Returns:
        Indices of the kept boxes, best score first.
    """
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # float64: a shift of classes x image size leaves a float32 coordinate only 1/128 px of resolution
    wide = boxes.double()
    shifted = wide + (labels.double() * (wide.max() - wide.min() + 1))[:, None]
    kept: Tensor = nms(shifted, scores.double(), iou_threshold)
    return kept[:most]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    decay: Literal["linear", "gaussian"],
    *,
    iou_threshold: float,
    sigma: float,
    least: float,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Soft-NMS within each class (arXiv 1704.04503): overlapping boxes lose score instead of being dropped.

    Again and again the best box left of a class is taken, and the others' scores are multiplied by 1 - IoU where that
    is larger than `iou_threshold` (``"linear"``, eq. 2) or by exp(-IoU^2 / sigma) (``"gaussian"``, eq. 3). All classes
    take their step at once. Scores only fall, so `most` steps are enough.

    Args:
        boxes: ``(K, 4)`` xyxy px of one image.
        scores: ``(K,)``.
        labels: ``(K,)`` int64.
        decay: How scores fall.
        iou_threshold: For ``"linear"``.
        sigma: For ``"gaussian"``.
        least: Keep boxes whose lowered score is larger.
        most: Keep at most this many, the best ones.

    Returns:
        Indices of the kept boxes, best lowered score first, and those scores.
    """
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), scores
    factor = partial(_linear, threshold=iou_threshold) if decay == "linear" else partial(_gaussian, sigma=sigma)
    table = _by_class(scores, labels)
    index, value = _soft_steps(boxes[table], torch.where(table >= 0, scores[table], 0.0), factor, most)
    index = table.gather(1, index).flatten()
    value, order = value.flatten().sort(descending=True, stable=True)
    keep = value > least
    return index[order][keep][:most], value[keep][:most]


def _linear(iou: Tensor, *, threshold: float) -> Tensor:
    return torch.where(iou > threshold, 1 - iou, 1.0)


def _gaussian(iou: Tensor, *, sigma: float) -> Tensor:
    return torch.exp(-iou.square() / sigma)


def _soft_steps(boxes: Tensor, scores: Tensor, factor: Callable[[Tensor], Tensor], most: int) -> tuple[Tensor, Tensor]:
    """Take the best box of each class, lower the others, up to `most` times.

    Args:
        boxes: ``(G, M, 4)``.
        scores: ``(G, M)``, 0 where a class has no more boxes.
        factor: Of the scores, from the IoU.
        most: Steps.

    Returns:
        ``(G, S)`` places in M and ``(G, S)`` scores of what was taken in each step, 0 where nothing was left.
    """
    classes, width = scores.shape
    places, values = [], []
    for _ in range(min(width, most)):
        value, place = scores.max(dim=1, keepdim=True)
        places.append(place)
        values.append(value)
        best = boxes.gather(1, place[..., None].expand(-1, -1, 4)).expand(-1, width, -1)
        iou = overlap(best.reshape(-1, 4), boxes.reshape(-1, 4)).view(classes, width)
        scores = (scores * factor(iou)).scatter(1, place, 0.0)
    return torch.cat(places, dim=1), torch.cat(values, dim=1)


def _by_class(scores: Tensor, labels: Tensor) -> Tensor:
    """Indices ``(G, M)`` of the boxes of each class that occurs, -1 where a class has fewer."""
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    _, row, number = labels[order].unique_consecutive(return_inverse=True, return_counts=True)
    table = torch.full((len(number), int(number.max())), -1, device=labels.device)
    table[row, torch.arange(len(order), device=order.device) - (number.cumsum(0) - number)[row]] = order
    return table


def score_voting_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, *, iou_threshold: float, sigma: float, most: int
) -> tuple[Tensor, Tensor]:
    """Cluster-NMS by DIoU within each class, then voting on the boxes that are kept.

    Cluster-NMS (arXiv 2005.03572, section 3.3) lets every kept box suppress the worse ones that it overlaps by more
    than the threshold, for all boxes at once, and repeats this until nothing changes: what is then kept is what greedy
    NMS keeps. The overlap is IoU less the DIoU's distance of centres. Each kept box then becomes the mean of the boxes
    of its class, weighted by score * exp(-(1 - IoU)^2 / sigma) where their IoU is larger than 0.01 (score voting, PAA,
    arXiv 2007.08103, eq. 7); scores stay.

    Args:
        boxes: ``(K, 4)`` xyxy px of one image.
        scores: ``(K,)``.
        labels: ``(K,)`` int64.
        iou_threshold: Boxes whose DIoU with a better kept box of their class is larger are dropped.
        sigma: Of the votes.
        most: Keep at most this many, the best ones.

    Returns:
        Indices of the kept boxes, best score first, and ``(kept, 4)`` boxes.
    """
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), boxes
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    better, worse = _suppressing(boxes[order], labels[order], iou_threshold)
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:
        again = torch.ones_like(kept)
        again[worse[kept[better]]] = False
        if torch.equal(again, kept):
            break
        kept = again
    index = order[kept]
    index = index[scores[index].argsort(descending=True, stable=True)][:most]
    return index, _vote(boxes, scores, labels, index, sigma)


def _suppressing(boxes: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs (better, worse) of a class with a DIoU above the threshold; rows are sorted by class, then score."""
    parts = [(labels[:0], labels[:0])]
    for better, worse in _pairs_of_class(labels):
        close = overlap(boxes[better], boxes[worse], "diou") > threshold
        parts.append((better[close], worse[close]))
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)


def _pairs_of_class(labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs (row, later row) of equal labels, which are sorted; about `CHUNK` of them at a time."""
    _, row, number = labels.unique_consecutive(return_inverse=True, return_counts=True)
    rows = torch.arange(len(labels), device=labels.device)
    later = number.cumsum(0)[row] - rows - 1  # rows of the class after each one
    part = later.cumsum(0) // CHUNK
    for size in part.unique_consecutive(return_counts=True)[1].tolist():
        here, rows = rows[:size], rows[size:]
        first = here.repeat_interleave(later[here])
        start = later[here].cumsum(0) - later[here]
        place = torch.arange(len(first), device=first.device) - start.repeat_interleave(later[here])
        yield first, first + 1 + place


def _vote(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, sigma: float) -> Tensor:
    """Mean boxes ``(kept, 4)`` of what overlaps each kept box."""
    many, number = len(kept), len(boxes)
    first = boxes[kept][:, None].expand(-1, number, -1).reshape(-1, 4)
    iou = overlap(first, boxes.expand(many, -1, -1).reshape(-1, 4)).view(many, number)
    iou = iou.masked_fill(labels[kept][:, None] != labels, 0.0)
    own = torch.arange(many, device=kept.device), kept
    weight = torch.where(iou > VOTERS, scores * torch.exp(-(1 - iou).square() / sigma), 0.0).double()
    weight[own] = weight[own].clamp(min=torch.finfo(weight.dtype).tiny)  # no area, score 0: no 0 / 0
    mean = weight @ boxes.double() / weight.sum(dim=1, keepdim=True)  # float64: autocast leaves it alone
    return mean.to(boxes.dtype)
