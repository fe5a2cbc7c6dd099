"""From raw predictions to the numbers of the report; whole batches at a time, nothing is drawn here.

Shapes: N images, A rows, C classes, G padded ground truths, R+1 bins, K chosen rows, (h, w) cells of a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.ops.boxes import pairwise_iou
from ld_hub.ops.distribution import boxes_to_distances
from ld_hub.structures import DenseOutput, DetectorSpec, Priors, Targets

MAP_SIDE = 64  # cells of a mean map along either side of the normalised image


def why_not_comparable(one: DetectorSpec, other: DetectorSpec) -> str:
    """Why rows of two detectors do not correspond one to one; the empty string where they do."""
    if one.strides != other.strides:
        return f"their levels have the strides {_list(one.strides)} and {_list(other.strides)} px"
    if one.anchors_per_cell != other.anchors_per_cell:
        return f"they have {one.anchors_per_cell} and {other.anchors_per_cell} anchors per cell"
    return ""


def score_errors(student: DenseOutput, teacher: DenseOutput) -> list[Tensor]:
    """L1 error of class scores at each cell, mean over classes and anchors (BCKD, arXiv 2308.14286, Fig. 3).

    Args:
        student: Class logits ``(N, A, C)``.
        teacher: Of the same rows and classes.

    Returns:
        One map ``(N, h, w)`` in 0..1 for each level.
    """
    error = (student.cls_logits.sigmoid() - teacher.cls_logits.sigmoid()).abs().mean(dim=2)
    parts = error.split(student.priors.level_sizes, dim=1)
    shapes = student.priors.level_shapes
    return [part.unflatten(1, (*shape, -1)).mean(dim=3) for part, shape in zip(parts, shapes, strict=True)]


def on_image(level: Tensor, stride: int, image_sizes: Tensor) -> Tensor:
    """``(N, h, w)`` bool: cells whose top left corner lies on the image, not on padding.

    Args:
        level: A map ``(N, h, w)``.
        stride: px per cell.
        image_sizes: ``(N, 2)`` height, width in px before padding.
    """
    down = torch.arange(level.shape[1], device=level.device) * stride < image_sizes[:, :1]
    right = torch.arange(level.shape[2], device=level.device) * stride < image_sizes[:, 1:]
    return down[:, :, None] & right[:, None, :]


def normalised(level: Tensor, stride: int, image_sizes: Tensor, side: int = MAP_SIDE) -> Tensor:
    """Look a map up at the same relative places of each image, whatever its size.

    Args:
        level: ``(N, h, w)``; a cell covers `stride` x `stride` px from its top left corner.
        stride: px per cell.
        image_sizes: ``(N, 2)`` height, width in px before padding.
        side: Places along either side.

    Returns:
        ``(N, side, side)``.
    """
    places = (torch.arange(side, device=level.device) + 0.5) / side
    down, right = ((places * size[:, None] / stride).long() for size in image_sizes.to(places.dtype).unbind(1))
    image = torch.arange(len(level), device=level.device)[:, None, None]
    return level[image, down[:, :, None], right[:, None, :]]


def edge_entropy(box: Tensor) -> Tensor:
    """Mean entropy of the four edge distributions: bin logits ``(..., 4, R+1)`` to ``(...)`` nats in [0, ln(R+1)]."""
    log_p = box.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1).mean(dim=-1)


def truth_bins(distance: Tensor, bins: int) -> Tensor:
    """A true distance as a distribution: its two neighbouring bins share the mass (GFL, arXiv 2006.04388, eq. 6).

    Args:
        distance: ``(...)`` stride units; what lies outside [0, R] goes to the first or the last bin.
        bins: R+1.

    Returns:
        ``(..., R+1)``, adds up to 1.
    """
    place = torch.arange(bins, dtype=distance.dtype, device=distance.device)
    return (1 - (distance.clamp(0, bins - 1)[..., None] - place).abs()).clamp(min=0)


def class_overlaps(boxes: Tensor, labels: Tensor, targets: Targets) -> Tensor:
    """IoU of each box with the best ground truth of its class; crowds do not count.

    Args:
        boxes: ``(N, K, 4)`` xyxy px.
        labels: ``(N, K)``.
        targets: Of the N images, in the same px.

    Returns:
        ``(N, K)``, 0 where there is none.
    """
    pairs = zip(targets.boxes.to(boxes.dtype), boxes, strict=True)
    overlap = torch.stack([pairwise_iou(truth[None], own)[0].T for truth, own in pairs])
    same = (labels[:, :, None] == targets.labels[:, None, :]) & targets.usable[:, None, :]  # (N, K, G)
    return (overlap * same).amax(dim=2)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The best-scored rows of each image before NMS, those that lie near an object of their class.

    Attributes:
        entropy: ``(K,)`` mean edge entropy, nats.
        iou: ``(K,)`` IoU of the row's box with the best ground truth of its class.
        score: ``(K,)`` its class score.
    """

    entropy: Tensor
    iou: Tensor
    score: Tensor


def candidates(
    output: DenseOutput, targets: Targets, *, most: int = 100, threshold: float = 0.05, least_iou: float = 0.1
) -> Candidates:
    """Edge entropy and overlap of what a detector is most sure of.

    Args:
        output: With bins.
        targets: Ground truths in px of the batch.
        most: Rows per image.
        threshold: Least class score.
        least_iou: Rows that overlap no ground truth of their class by as much are background, and left out.
    """
    score, label = output.cls_logits.sigmoid().max(dim=2)  # (N, A)
    score = score.masked_fill(~output.priors.valid(targets.image_sizes), 0.0)
    score, row = score.topk(min(most, score.shape[1]), dim=1)  # (N, M)
    label = label.gather(1, row)
    image = torch.arange(len(row), device=row.device)[:, None].expand_as(row)
    box = output.box[image, row]  # (N, M, 4, R+1)
    flat = output.coder.decode_rows(box.flatten(0, 1), output.priors, row.flatten()).unflatten(0, row.shape)
    iou = class_overlaps(flat, label, targets)
    keep = (score > threshold) & (iou >= least_iou)
    return Candidates(edge_entropy(box[keep]), iou[keep], score[keep])


@dataclass(frozen=True, eq=False)
class EdgeTrace:
    """What one detector says of one ground truth at one row.

    Attributes:
        bins: ``(4, R+1)`` probabilities of left, top, right, bottom; bins are stride units.
        distance: ``(4,)`` their means.
        box: ``(4,)`` xyxy px of the batch image.
        iou: With the ground truth.
        score: Of the ground truth's class.
        entropy: Mean over the four edges, nats.
    """

    bins: Tensor
    distance: Tensor
    box: Tensor
    iou: float
    score: float
    entropy: float


def best_positive(output: DenseOutput, image: int, positive: Tensor, truth: Tensor) -> int | None:
    """Of the rows that are to detect a ground truth, the one whose predicted box fits best.

    Args:
        output: Predictions.
        image: Which of the batch.
        positive: ``(A,)`` bool, rows assigned to the ground truth.
        truth: ``(4,)`` xyxy px.

    Returns:
        The row, or None where none is assigned.
    """
    rows = positive.nonzero().squeeze(1)
    if not len(rows):
        return None
    boxes = output.coder.decode_rows(output.box[image, rows], output.priors, rows)
    return int(rows[pairwise_iou(truth[None, None], boxes)[0, 0].argmax()])


def trace_edges(output: DenseOutput, image: int, row: int, truth: Tensor, label: int) -> EdgeTrace:
    """Read the edge distributions of a row.

    Args:
        output: With bins.
        image: Which of the batch.
        row: Which of A.
        truth: ``(4,)`` xyxy px of the ground truth.
        label: Its class.
    """
    logits = output.box[image, row]
    rows = torch.tensor([row], device=logits.device)
    box = output.coder.decode_rows(logits[None], output.priors, rows)[0]
    probability = logits.softmax(dim=-1)
    bins = torch.arange(probability.shape[-1], dtype=probability.dtype, device=probability.device)
    return EdgeTrace(
        bins=probability.cpu(),
        distance=(probability * bins).sum(dim=-1).cpu(),
        box=box.cpu(),
        iou=float(pairwise_iou(truth[None, None], box[None])[0, 0, 0]),
        score=float(output.cls_logits[image, row, label].sigmoid()),
        entropy=float(edge_entropy(logits)),
    )


def true_distances(priors: Priors, row: int, truth: Tensor) -> Tensor:
    """``(4,)`` distances in stride units from a row's centre to the left, top, right and bottom of a box."""
    distances: Tensor = boxes_to_distances(priors.centers[row], truth) / priors.strides[row]
    return distances


def _list(strides: tuple[int, ...]) -> str:
    return ", ".join(str(stride) for stride in strides)
