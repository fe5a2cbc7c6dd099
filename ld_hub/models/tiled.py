"""One set of detections out of those of an image's tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ld_hub.layers.postprocess import PostprocessConfig, RawDetections, suppress
from ld_hub.ops.boxes import CHUNK
from ld_hub.structures import Detections
from ld_hub.tiling import View

EDGE = 0.01  # of a tile's side: how near to its border a box has to end to count as cut by it
COVERED = 0.7  # share of a part that a whole box has to cover to be taken for the same object
SURE = 0.5  # least score of the whole box, as a share of the part's
MOST = 10_000  # candidates of a view


def candidates(config: PostprocessConfig) -> PostprocessConfig:
    """Settings that keep all that the suppression of a whole image is to choose from.

    Args:
        config: Settings of the image.
    """
    return replace(config, nms="hard", nms_iou=1.0, max_detections=MOST)


def merge_views(found: Sequence[Detections], views: Sequence[View], config: PostprocessConfig) -> Detections:
    """The detections of one image: one suppression over the candidates of all views.

    An object on a tile's border is seen in parts. Such a part, a box that ends at a border which is not the image's,
    gives way to a box of its class that another view has whole, that covers it, goes on beyond that border and is not
    much less sure. What is whole in no view stays in parts.

    Args:
        found: Of each view, by `candidates`, boxes in px from the view's corner.
        views: Of `Tiling.views`.
        config: Settings of the image; the most detections are those of as many images as there are views.

    Returns:
        What is left, best score first, in px of the image.
    """
    corners = torch.tensor([view[:2] for view in views]).repeat(1, 2)
    boxes = torch.cat([each.boxes + corner for each, corner in zip(found, corners, strict=True)])
    scores, labels = (torch.cat([getattr(each, name) for each in found]) for name in ("scores", "labels"))
    owner = torch.arange(len(views)).repeat_interleave(torch.tensor([len(each) for each in found]))
    own = torch.tensor(views)[owner]
    kept = ~_parts_of_whole(boxes, scores, labels, own, _cut(boxes, own, views))
    settings = replace(config, max_detections=config.max_detections * len(views))
    raw = suppress(RawDetections(boxes[kept], scores[kept], labels[kept]), settings)
    return Detections(raw.boxes, raw.scores, raw.labels, found[0].label_names, found[0].category_ids)


def _cut(boxes: Tensor, own: Tensor, views: Sequence[View]) -> Tensor:
    """``(K, 4)``: which sides of boxes ``(K, 4)`` end at a border of their view ``(K, 4)`` that is not the image's."""
    image = torch.tensor([0, 0, max(view[2] for view in views), max(view[3] for view in views)])
    near = EDGE * (own[:, 2:] - own[:, :2]).repeat(1, 2)
    return ((boxes - own).abs() <= near) & (own != image)


def _parts_of_whole(boxes: Tensor, scores: Tensor, labels: Tensor, own: Tensor, cut: Tensor) -> Tensor:
    """``(K,)``: which boxes are a part of one that another view has whole."""
    parts, whole = cut.any(dim=1).nonzero().flatten(), (~cut.any(dim=1)).nonzero().flatten()
    dropped = torch.zeros(len(boxes), dtype=torch.bool)
    outwards = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    for some in parts.split(max(1, CHUNK // max(1, len(whole)))):
        one, other = boxes[some][:, None], boxes[whole][None]  # (P, 1, 4), (1, W, 4)
        sides = torch.minimum(one, other)[..., 2:] - torch.maximum(one, other)[..., :2]
        area = (one[..., 2:] - one[..., :2]).prod(dim=-1).clamp(min=1e-6)
        covered = sides.clamp(min=0).prod(dim=-1) >= COVERED * area
        beyond = ((outwards * (other - own[some][:, None]) > 0) & cut[some][:, None]).any(dim=-1)
        sure = scores[whole] >= SURE * scores[some][:, None]
        dropped[some] = (covered & beyond & sure & (labels[some][:, None] == labels[whole])).any(dim=1)
    return dropped
