"""Assignment of points to the boxes around them (FCOS, arXiv 1904.01355, sec. 3.1), for a whole batch at once.

Shapes: N images, G ground truths, A points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.ops.boxes import area, chunks
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
        sizes = torch.where(targets.usable, area(boxes), torch.inf)  # (N, G)
        smallest = torch.full(valid.shape, torch.inf, dtype=boxes.dtype, device=boxes.device)
        gt_index = torch.full_like(valid, BACKGROUND, dtype=torch.int64)
        for part in chunks(boxes.shape[1], valid.numel()):
            wanted = self._wanted(priors, boxes[:, part]) & valid[:, None]
            size, index = torch.where(wanted, sizes[:, part, None], torch.inf).min(dim=1)
            gt_index = torch.where(size < smallest, index + part.start, gt_index)
            smallest = torch.minimum(smallest, size)
        return Assignment.from_owners(gt_index, targets, priors, valid, num_classes)

    def _wanted(self, priors: Priors, boxes: Tensor) -> Tensor:
        """``(N, G, A)``: whether a point lies in a box that suits its level."""
        left, top, right, bottom = _distances(priors, boxes)
        farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
        low, high = self._ranges(priors)
        return (farthest >= low) & (farthest <= high) & self._inside(priors, boxes)

    def _ranges(self, priors: Priors) -> tuple[Tensor, Tensor]:
        """Least and largest distance of each row's level to the farthest side, ``(A,)`` px; both ends included."""
        limits = [stride * self.range_scale for stride in priors.level_strides[:-1]]
        ends = priors.centers.new_tensor([-1.0, *limits, torch.inf])
        return ends[priors.levels], ends[priors.levels + 1]

    def _inside(self, priors: Priors, boxes: Tensor) -> Tensor:
        """``(N, G, A)``: whether a point lies strictly inside a box, or the part of it near the centre."""
        if not self.center_radius:
            return inside(priors, boxes)
        reach = self.center_radius * priors.strides  # (A,)
        within = []
        for axis in (0, 1):
            point, low, high = priors.centers[:, axis], boxes[..., axis, None], boxes[..., axis + 2, None]  # (N, G, 1)
            center = (low + high) / 2
            within.append((point > torch.maximum(center - reach, low)) & (point < torch.minimum(center + reach, high)))
        return within[0] & within[1]


def inside(priors: Priors, boxes: Tensor) -> Tensor:
    """Which centres of rows lie strictly inside which boxes.

    Args:
        priors: Grid of the A rows.
        boxes: ``(N, G, 4)`` xyxy px.

    Returns:
        ``(N, G, A)`` bool.
    """
    x, y = priors.centers.T.contiguous().unbind(0)  # (A,)
    x1, y1, x2, y2 = (side[..., None] for side in boxes.unbind(-1))  # (N, G, 1)
    return (x > x1) & (y > y1) & (x < x2) & (y < y2)


def _distances(priors: Priors, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From each centre to the left, top, right and bottom of each box: four times ``(N, G, A)`` px."""
    x, y = priors.centers.T.contiguous().unbind(0)  # (A,)
    x1, y1, x2, y2 = (side[..., None] for side in boxes.unbind(-1))  # (N, G, 1)
    return x - x1, y - y1, x2 - x, y2 - y
