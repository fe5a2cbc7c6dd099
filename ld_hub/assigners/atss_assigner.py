"""Adaptive Training Sample Selection (arXiv 1912.02424, Algorithm 1), for a whole batch at once.

Shapes: N images, G ground truths, A anchors, L levels, Q candidates per ground truth (at most topk per level).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.assigners.overlaps import usable_overlaps
from ld_hub.ops.boxes import chunks
from ld_hub.structures import Assignment, Priors, Targets
from ld_hub.structures.targets import BACKGROUND

INSIDE_MARGIN = 0.01  # px by which a positive anchor's centre must lie inside the box (reference SPEC 2)


@dataclass(frozen=True)
class _Candidates:
    """The anchors nearest to each ground truth on each level.

    Attributes:
        index: ``(N, G, Q)`` int64 into A.
        real: ``(N, G, Q)`` bool, False where a level has fewer valid anchors than asked for.
    """

    index: Tensor
    real: Tensor


def _nearest(priors: Priors, boxes: Tensor, valid: Tensor, topk: int) -> _Candidates:
    """The `topk` valid anchors per level whose centres are nearest to the centre of each box."""
    parts = [_nearest_of(priors, boxes[:, part], valid, topk) for part in chunks(boxes.shape[1], valid.numel())]
    return _Candidates(torch.cat([p.index for p in parts], dim=1), torch.cat([p.real for p in parts], dim=1))


def _nearest_of(priors: Priors, boxes: Tensor, valid: Tensor, topk: int) -> _Candidates:
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2  # (N, G, 2)
    index, real, start = [], [], 0
    for size in priors.level_sizes:
        x, y = priors.centers[start : start + size].T.contiguous().unbind(0)
        distance = (x - centers[..., :1]).square_().add_((y - centers[..., 1:]).square_())  # (N, G, A_l)
        distance.masked_fill_(~valid[:, None, start : start + size], torch.inf)
        nearest, where = distance.topk(min(topk, size), dim=2, largest=False, sorted=False)
        index.append(where + start)
        real.append(nearest.isfinite())
        start += size
    return _Candidates(torch.cat(index, dim=2), torch.cat(real, dim=2))


def _threshold(candidate_iou: Tensor, real: Tensor) -> Tensor:
    """Mean plus unbiased standard deviation of each ground truth's candidates: ``(N, G, Q)`` to ``(N, G)``."""
    count = real.sum(dim=2)
    iou = torch.where(real, candidate_iou, 0)
    mean = iou.sum(dim=2) / count
    deviation = torch.where(real, candidate_iou - mean[..., None], 0)
    return mean + (deviation.square().sum(dim=2) / (count - 1)).sqrt()


def atss_threshold(overlaps: Tensor, priors: Priors, boxes: Tensor, valid: Tensor, topk: int = 9) -> Tensor:
    """The adaptive IoU threshold of each ground truth; also the upper bound of its VLR, for every anchor family.

    Args:
        overlaps: ``(N, G, A)`` IoU.
        priors: The grid.
        boxes: ``(N, G, 4)`` xyxy px.
        valid: ``(N, A)`` bool, anchors on the image.
        topk: Candidates per level.

    Returns:
        ``(N, G)``; NaN where a ground truth has a single candidate, which then matches nothing.
    """
    candidates = _nearest(priors, boxes, valid, topk)
    return _threshold(overlaps.gather(2, candidates.index), candidates.real)


@dataclass(frozen=True)
class ATSSAssigner:
    """Positives are candidates above an adaptive IoU threshold whose centre lies inside the box.

    Attributes:
        topk: Candidates per ground truth and level.
    """

    topk: int = 9

    def __call__(self, priors: Priors, targets: Targets, num_classes: int) -> Assignment:
        """Assign every row of a batch; independent of predictions.

        An anchor wanted by several ground truths goes to the one it overlaps most (the first on a tie). Crowds and
        padding are never assigned, rows outside the image have weight 0.

        Args:
            priors: Grid with anchors.
            targets: Ground truths, px of the same images.
            num_classes: C, the label of background.
        """
        valid = priors.valid(targets.image_sizes)
        boxes = targets.boxes.to(priors.centers.dtype)
        overlaps = usable_overlaps(priors, targets, valid)
        candidates = _nearest(priors, boxes, valid, self.topk)
        iou = overlaps.gather(2, candidates.index)
        threshold = _threshold(iou, candidates.real)
        positive = self._is_positive(priors, boxes, candidates, iou, threshold) & targets.usable[..., None]
        return Assignment.from_owners(
            self._owners(candidates, iou, positive, len(priors)),
            targets,
            priors,
            valid,
            num_classes,
            overlaps=overlaps,
            thresholds=threshold,
            capacity=boxes.shape[0] * boxes.shape[1] * candidates.index.shape[2],
        )

    @staticmethod
    def _is_positive(priors: Priors, boxes: Tensor, candidates: _Candidates, iou: Tensor, threshold: Tensor) -> Tensor:
        center = priors.centers[candidates.index]  # (N, G, Q, 2)
        inside = torch.minimum(center - boxes[..., None, :2], boxes[..., None, 2:] - center).amin(dim=-1)
        return candidates.real & (iou >= threshold[..., None]) & (inside > INSIDE_MARGIN)

    @staticmethod
    def _owners(candidates: _Candidates, iou: Tensor, positive: Tensor, anchors: int) -> Tensor:
        """``(N, A)`` the ground truth that overlaps each anchor most of those that want it, or `BACKGROUND`."""
        number, truths, _ = iou.shape
        index, claim = candidates.index.flatten(1), torch.where(positive, iou, -1).flatten(1)  # (N, G * Q)
        best = claim.new_full((number, anchors), -1).scatter_reduce(1, index, claim, "amax")
        wins = positive.flatten(1) & (claim == best.gather(1, index))
        truth = torch.arange(truths, device=iou.device)[:, None].expand_as(iou).flatten(1)
        owner = index.new_full((number, anchors), truths)
        owner = owner.scatter_reduce(1, index, torch.where(wins, truth, truths), "amin")  # the first on a tie
        return torch.where(owner < truths, owner, BACKGROUND)
