"""Assignment by fixed overlap thresholds (RetinaNet, arXiv 1708.02002, sec. 4), for a whole batch at once.

Shapes: N images, G ground truths, A anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.assigners.overlaps import usable_overlaps
from ld_hub.ops.boxes import chunks
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
        valid = priors.valid(targets.image_sizes)
        overlaps = usable_overlaps(priors, targets, valid)
        best, gt_index = overlaps.max(dim=1)  # (N, A)
        gt_index = torch.where(best >= self.positive, gt_index, IGNORED)
        gt_index = torch.where(best < self.negative, BACKGROUND, gt_index)
        if self.low_quality:
            wanted = _last_wanting_most(overlaps)
            gt_index = torch.where(wanted >= 0, wanted, gt_index)
        return Assignment.from_owners(gt_index, targets, priors, valid, num_classes, overlaps=overlaps)


def _last_wanting_most(overlaps: Tensor) -> Tensor:
    """The last ground truth of which an anchor has the largest overlap, or -1: ``(N, G, A)`` to ``(N, A)``."""
    most = overlaps.amax(dim=2, keepdim=True)  # (N, G, 1)
    most = torch.where(most > 0, most, torch.inf)  # a box that overlaps nothing wants nothing
    number = torch.arange(1, overlaps.shape[1] + 1, device=overlaps.device, dtype=torch.int16)[:, None]
    parts = [
        ((overlaps[:, part] == most[:, part]) * number[part]).amax(dim=1)
        for part in chunks(overlaps.shape[1], overlaps[:, 0].numel())
    ]
    return torch.stack(parts).amax(dim=0).long() - 1
