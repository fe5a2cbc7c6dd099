"""Box coders: the one place that knows what a head's box channels mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ld_hub.ops.distribution import distances_to_boxes, expectation
from ld_hub.structures import Priors


@dataclass(frozen=True)
class DistributionCoder:
    """Edge distances as distributions over ``reg_max + 1`` bins of one stride each (GFL, sec. 3.2).

    Attributes:
        reg_max: R; the largest distance is R strides.
    """

    reg_max: int = 16

    @property
    def channels(self) -> int:
        """Regression channels per prior."""
        return 4 * (self.reg_max + 1)

    def decode(self, box: Tensor, priors: Priors) -> Tensor:
        """``(N, A, 4, R+1)`` bin logits to ``(N, A, 4)`` xyxy px."""
        return distances_to_boxes(priors.centers, expectation(box) * priors.strides[:, None])

    def decode_rows(self, box: Tensor, priors: Priors, rows: Tensor) -> Tensor:
        """``(K, 4, R+1)`` bin logits of the priors `rows` ``(K,)`` to ``(K, 4)`` xyxy px."""
        return distances_to_boxes(priors.centers[rows], expectation(box) * priors.strides[rows][:, None])


@dataclass(frozen=True)
class DistanceCoder:
    """Edge distances as plain numbers (FCOS, arXiv 1904.01355, sec. 3.1).

    Attributes:
        kind: ``"relu"``: ``max(x, 0)`` strides (OpenMMLab's norm_on_bbox); ``"exp"``: ``exp(x)`` px, as in the paper.
    """

    kind: Literal["relu", "exp"] = "relu"
    reg_max: int | None = None
    channels: int = 4

    def decode(self, box: Tensor, priors: Priors) -> Tensor:
        """``(N, A, 4)`` outputs to ``(N, A, 4)`` xyxy px."""
        return distances_to_boxes(priors.centers, self.distances(box, priors.strides))

    def decode_rows(self, box: Tensor, priors: Priors, rows: Tensor) -> Tensor:
        """``(K, 4)`` outputs of the priors `rows` ``(K,)`` to ``(K, 4)`` xyxy px."""
        return distances_to_boxes(priors.centers[rows], self.distances(box, priors.strides[rows]))

    def distances(self, box: Tensor, strides: Tensor) -> Tensor:
        """``(..., A, 4)`` outputs of rows with these strides ``(A,)`` to ``(..., A, 4)`` px."""
        return box.clamp(min=0) * strides[:, None] if self.kind == "relu" else box.exp()


MAX_LOG_RATIO = math.log(1000 / 16)  # decoded sides are at most 62.5 times the anchor's, so that exp() cannot overflow


@dataclass(frozen=True)
class DeltaCoder:
    """Shifts of an anchor's centre in anchor sides, logarithms of side ratios (R-CNN, arXiv 1311.2524, app. C).

    Attributes:
        stds: What the network's outputs are multiplied by: x, y, log width, log height.
    """

    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    reg_max: int | None = None
    channels: int = 4

    def decode(self, box: Tensor, priors: Priors) -> Tensor:
        """``(N, A, 4)`` outputs to ``(N, A, 4)`` xyxy px."""
        return self._decode(box, _anchors(priors))

    def decode_rows(self, box: Tensor, priors: Priors, rows: Tensor) -> Tensor:
        """``(K, 4)`` outputs of the priors `rows` ``(K,)`` to ``(K, 4)`` xyxy px."""
        return self._decode(box, _anchors(priors)[rows])

    def encode_rows(self, boxes: Tensor, priors: Priors, rows: Tensor) -> Tensor:
        """The inverse of `decode_rows`; ``(K, 4)`` xyxy px, sides of at least 1e-3 px, to ``(K, 4)`` outputs."""
        center, side = _center_and_side(_anchors(priors)[rows])
        target, target_side = _center_and_side(boxes)
        deltas = torch.cat([(target - center) / side, (target_side.clamp(min=1e-3) / side).log()], dim=-1)
        return deltas / deltas.new_tensor(self.stds)

    def _decode(self, box: Tensor, anchors: Tensor) -> Tensor:
        center, side = _center_and_side(anchors)
        deltas = box * box.new_tensor(self.stds)
        center = center + side * deltas[..., :2]
        half = side * deltas[..., 2:].clamp(min=-MAX_LOG_RATIO, max=MAX_LOG_RATIO).exp() / 2
        return torch.cat([center - half, center + half], dim=-1)


def _anchors(priors: Priors) -> Tensor:
    if priors.anchors is None:
        raise AssertionError("box deltas refer to anchors, and these priors have none")
    return priors.anchors


def _center_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
