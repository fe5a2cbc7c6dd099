"""Assignment of points to the boxes around them (FCOS, arXiv 1904.01355, sec. 3.1), for a whole batch at once.

Shapes: N images, G ground truths, A points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.ops.boxes import area
from ld_hub.structures import Assignment, Priors, Targets
from ld_hub.structures.targets import BACKGROUND


@dataclass(frozen=True)
class FCOSAssigner:
    """A point belongs to the smallest box around it whose size suits the point's level.

    Attributes:
        center_radius: Centre sampling: a positive lies within this many strides of the box's centre along both axes.
            0 takes the whole box.
        range_scale: A level answers for boxes whose farthest side is at most this many strides away, and farther than
            the previous level's limit; the last level has none. 8 gives the published 64, 128, 256 and 512 px.
    """

    center_radius: float = 1.5
    range_scale: float = 8.0

    def __call__(self, priors: Priors, targets: Targets, num_classes: int) -> Assignment:
        """Assign every row of a batch; independent of predictions.

        A point wanted by several boxes goes to the smallest (the first on a tie). Crowds and padding are never
        assigned, rows outside the image have weight 0.

        Args:
            priors: Grid of points.
            targets: Ground truths, px of the same images.
            num_classes: C, the label of background.
        """
        valid = priors.valid(targets.image_sizes)
        boxes = targets.boxes.to(priors.centers.dtype)
        left, top, right, bottom = _distances(priors, boxes)
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
        low, high = self._ranges(priors)
        wanted = (farthest >= low) & (farthest <= high)
        wanted &= self._inside(priors, boxes) & targets.usable[..., None] & valid[:, None]
        smallest, gt_index = torch.where(wanted, area(boxes)[..., None], torch.inf).min(dim=1)
        gt_index = torch.where(smallest < torch.inf, gt_index, BACKGROUND)
        return Assignment.from_owners(gt_index, targets, priors, valid, num_classes)

    def _ranges(self, priors: Priors) -> tuple[Tensor, Tensor]:
        """Least and largest distance of each row's level to the farthest side, ``(A,)`` px; both ends included."""
        limits = [stride * self.range_scale for stride in priors.level_strides[:-1]]
        ends = priors.centers.new_tensor([-1.0, *limits, torch.inf])
        return ends[priors.levels], ends[priors.levels + 1]

    def _inside(self, priors: Priors, boxes: Tensor) -> Tensor:
        """``(N, G, A)``: whether a point lies strictly inside a box, or the part of it near the centre."""
        if not self.center_radius:
            return inside(priors, boxes)
        centers = ((boxes[..., :2] + boxes[..., 2:]) / 2)[:, :, None]  # (N, G, 1, 2)
        reach = (self.center_radius * priors.strides)[:, None]  # (A, 1)
        low = torch.maximum(centers - reach, boxes[:, :, None, :2])  # (N, G, A, 2)
        high = torch.minimum(centers + reach, boxes[:, :, None, 2:])
        return ((priors.centers > low) & (priors.centers < high)).all(dim=-1)


def inside(priors: Priors, boxes: Tensor) -> Tensor:
    """Which centres of rows lie strictly inside which boxes.

    Args:
        priors: Grid of the A rows.
        boxes: ``(N, G, 4)`` xyxy px.

    Returns:
        ``(N, G, A)`` bool.
    """
    left, top, right, bottom = _distances(priors, boxes)
    return (left > 0) & (top > 0) & (right > 0) & (bottom > 0)


def _distances(priors: Priors, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From each centre to the left, top, right and bottom of each box: four times ``(N, G, A)`` px."""
    x, y = priors.centers.T.contiguous().unbind(0)  # (A,)
    x1, y1, x2, y2 = (side[..., None] for side in boxes.unbind(-1))  # (N, G, 1)
    return x - x1, y - y1, x2 - x, y2 - y
