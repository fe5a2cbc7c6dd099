"""Assignment by fixed overlap thresholds (RetinaNet, arXiv 1708.02002, sec. 4), for a whole batch at once.

Shapes: N images, G ground truths, A anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ld_hub.ops.boxes import pairwise_iou
from ld_hub.structures import Assignment, Priors, Targets
from ld_hub.structures.targets import BACKGROUND, IGNORED


@dataclass(frozen=True)
class MaxIoUAssigner:
    """Positives overlap a box enough, or overlap it as much as any anchor does.

    Attributes:
        positive: Anchors of at least this IoU belong to the box they overlap most.
        negative: Anchors of less are background; those between the two are ignored.
        low_quality: Every box also gets the anchors that overlap it most, whatever else they overlap (a later box
            before an earlier one, as published).
    """

    positive: float = 0.5
    negative: float = 0.4
    low_quality: bool = True

    def __call__(self, priors: Priors, targets: Targets, num_classes: int) -> Assignment:
        """Assign every row of a batch; independent of predictions.

        Crowds and padding are never assigned, rows outside the image have weight 0. A box that overlaps no anchor at
        all gets none; the published code would then give it every anchor.

        Args:
            priors: Grid with anchors.
            targets: Ground truths, px of the same images.
            num_classes: C, the label of background.
        """
        if priors.anchors is None:
            raise AssertionError("overlaps are taken with anchors, and these priors have none")
        valid = priors.valid(targets.image_sizes)
        overlaps = pairwise_iou(targets.boxes.to(priors.centers.dtype), priors.anchors)
        overlaps *= (targets.usable[:, :, None] & valid[:, None, :]).to(overlaps.dtype)
        best, gt_index = overlaps.max(dim=1)  # (N, A)
        gt_index = torch.where(best >= self.positive, gt_index, IGNORED)
        gt_index = torch.where(best < self.negative, BACKGROUND, gt_index)
        if self.low_quality:
            most = overlaps.amax(dim=2, keepdim=True)  # (N, G, 1)
            number = torch.arange(1, overlaps.shape[1] + 1, device=overlaps.device, dtype=torch.int16)[:, None]
            wanted = (((overlaps == most) & (most > 0)) * number).amax(dim=1).long() - 1  # (N, A); -1: by none
            gt_index = torch.where(wanted >= 0, wanted, gt_index)
        return Assignment.from_owners(gt_index, targets, priors, valid, num_classes, overlaps=overlaps)
