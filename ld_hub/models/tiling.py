"""Large images in tiles that overlap: where they lie, and one set of detections out of those of all tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ld_hub.errors import ConfigError
from ld_hub.ops.nms import class_aware_nms
from ld_hub.structures import Detections

View: TypeAlias = "tuple[int, int, int, int]"  # x1, y1, x2, y2 in px of the image

EDGE = 0.01  # of a tile's side: how near to its border a box has to end to count as cut by it


@dataclass(frozen=True)
class Tiling:
    """How large images are looked at: tile by tile, and once as a whole for what is larger than a tile.

    Attributes:
        size: Side of a tile in px of the original image. Each tile is scaled as any image is (`DataConfig`).
        overlap: Share of a tile's side that neighbours have in common at least, 0..0.9. What is no larger than that
            lies whole in a tile.
        whole: Also look at the whole image, scaled down.

    Raises:
        ConfigError: If a field has a value that cannot work.
    """

    size: int
    overlap: float = 0.2
    whole: bool = True

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ConfigError(f"A tile's side is {self.size} px; expected at least 32, such as 1024.")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(
                f"The overlap of tiles is {self.overlap!r}; expected a share of their side from 0 to 0.9."
            )

    def views(self, width: int, height: int) -> list[View]:
        """What is looked at of an image of width x height px, the whole image last; only that where it is no larger."""
        columns, rows = self._starts(width), self._starts(height)
        whole: View = (0, 0, width, height)
        if len(columns) == len(rows) == 1:
            return [whole]
        tiles = [(x, y, min(x + self.size, width), min(y + self.size, height)) for y in rows for x in columns]
        return [*tiles, whole] if self.whole else tiles

    def _starts(self, side: int) -> list[int]:
        """Where tiles begin along a side of the image, evenly spread, so that the last ends where the image does."""
        if side <= self.size:
            return [0]
        room = side - self.size
        steps = math.ceil(room / max(1, math.floor(self.size * (1 - self.overlap))))
        return [k * room // steps for k in range(steps + 1)]


def merge_views(found: Sequence[Detections], views: Sequence[View], iou_threshold: float) -> Detections:
    """The detections of one image from those of its views.

    An object on a tile's border is seen in parts. Such a part, a box that ends at a border which is not the image's,
    gives way to a box of its class that lies whole in another view and covers it; its score does not matter. What is
    still seen twice is left to NMS.

    Args:
        found: Of each view, boxes in px from the view's corner.
        views: Of `Tiling.views`.
        iou_threshold: Of the NMS, and of the share of a part that a whole box has to cover.

    Returns:
        All that is left, best score first, in px of the image.
    """
    if len(views) == 1:
        return found[0]
    corners = torch.tensor([view[:2] for view in views]).repeat(1, 2)
    boxes = torch.cat([each.boxes + corner for each, corner in zip(found, corners, strict=True)])
    scores, labels = (torch.cat([getattr(each, name) for each in found]) for name in ("scores", "labels"))
    owner = torch.arange(len(views)).repeat_interleave(torch.tensor([len(each) for each in found]))
    keep = (
        (~_given_up(boxes, labels, _cut(boxes, torch.tensor(views)[owner], views), iou_threshold)).nonzero().flatten()
    )
    keep = keep[class_aware_nms(boxes[keep], scores[keep], labels[keep], iou_threshold, len(keep))]
    first = found[0]
    return Detections(boxes[keep], scores[keep], labels[keep], first.label_names, first.category_ids)


def _cut(boxes: Tensor, views: Tensor, all_views: Sequence[View]) -> Tensor:
    """``(K,)``: which boxes ``(K, 4)`` end at a border of their view ``(K, 4)`` that is not the image's."""
    image = torch.tensor([0, 0, max(view[2] for view in all_views), max(view[3] for view in all_views)])
    near = EDGE * (views[:, 2:] - views[:, :2]).repeat(1, 2)
    return (((boxes - views).abs() <= near) & (views != image)).any(dim=1)


def _given_up(boxes: Tensor, labels: Tensor, cut: Tensor, share: float) -> Tensor:
    """``(K,)``: which parts a whole box of their class covers."""
    part, whole = boxes[cut][:, None], boxes[~cut]
    sides = (torch.minimum(part[..., 2:], whole[:, 2:]) - torch.maximum(part[..., :2], whole[:, :2])).clamp(min=0)
    area = (part[..., 2:] - part[..., :2]).prod(dim=-1).clamp(min=1e-6)
    covered = (sides.prod(dim=-1) > share * area) & (labels[cut][:, None] == labels[~cut])
    given_up = torch.zeros_like(cut)
    given_up[cut] = covered.any(dim=1)
    return given_up
