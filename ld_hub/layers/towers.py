"""Convolution towers, scales and predictors shared by the levels of a dense head."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ld_hub.structures import HeadMaps, Towers


class ConvNormReLU(nn.Sequential):
    """3x3 convolution, GroupNorm, ReLU.

    32 groups from 256 channels on, as published; fewer below, so that a group keeps about 8 channels.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        norm: Without, no GroupNorm (RetinaNet).
        bias: Whether the convolution has a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        if norm:
            self.norm = nn.GroupNorm(math.gcd(32, max(1, out_channels // 8), out_channels), out_channels)
        self.act = nn.ReLU()  # not in place: CrossKD keeps what comes in
        nn.init.normal_(self.conv.weight, std=0.01)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def before_relu(self, x: Tensor) -> Tensor:
        """All but the ReLU."""
        x = self.conv(x)
        return self.norm(x) if hasattr(self, "norm") else x


class Tower(nn.Sequential):
    """`depth` times `ConvNormReLU`, which can be left and entered at its tap, before the ReLU of convolution `tap`.

    Args:
        in_channels: Channels that come in.
        width: Channels of all convolutions.
        depth: Number of convolutions.
        tap: Convolutions before the tap.
        norm: See `ConvNormReLU`.
        bias: See `ConvNormReLU`.
    """

    def __init__(
        self, in_channels: int, width: int, depth: int, tap: int, *, norm: bool = True, bias: bool = False
    ) -> None:
        pairs = itertools.pairwise([in_channels, *[width] * depth])
        super().__init__(*(ConvNormReLU(into, out, norm=norm, bias=bias) for into, out in pairs))
        self.tap = min(max(tap, 0), depth)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W)`` to ``(N, width, H, W)``."""
        return self.after(self.upto(x))

    def upto(self, x: Tensor) -> Tensor:
        """The map at the tap."""
        blocks = cast(list[ConvNormReLU], list(self))[: self.tap]
        for block in blocks[:-1]:
            x = block(x)
        return blocks[-1].before_relu(x) if blocks else x

    def after(self, tapped: Tensor) -> Tensor:
        """The rest of the way; the map at the tap stays as it is."""
        blocks = cast(list[ConvNormReLU], list(self))
        x = blocks[self.tap - 1].act(tapped) if self.tap else tapped
        for block in blocks[self.tap :]:
            x = block(x)
        return x


class TowerHead(nn.Module, ABC):
    """What all heads are: a class and a box tower, shared by all levels, and predictors on top of them.

    Args:
        in_channels: F of the pyramid.
        width: Channels of the towers.
        depth: Convolutions per tower; without any, the predictors stand on the pyramid.
        after_tap: Convolutions from the tap to the predictors; CrossKD's is 1, for FCOS 2 (arXiv 2306.11369).
        norm: See `ConvNormReLU`.
        bias: See `ConvNormReLU`.

    Attributes:
        width: Channels that the predictors get.
        tap_channels: Channels at the taps.
    """

    def __init__(
        self, in_channels: int, width: int, depth: int, *, after_tap: int = 1, norm: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        self.width = width if depth else in_channels
        tap = depth - after_tap
        self.cls_tower = Tower(in_channels, width, depth, tap, norm=norm, bias=bias)
        self.box_tower = Tower(in_channels, width, depth, tap, norm=norm, bias=bias)
        self.tap_channels = width if self.box_tower.tap else in_channels

    def forward(self, pyramid: Sequence[Tensor]) -> HeadMaps:
        """L maps ``(N, F, H, W)`` to predictions."""
        return self.resume(tuple((self.cls_tower.upto(level), self.box_tower.upto(level)) for level in pyramid))

    def resume(self, towers: Towers) -> HeadMaps:
        """Predictions from the class and box maps ``(N, width, H, W)`` at the towers' taps, one pair per level."""
        tops = [(self.cls_tower.after(cls_map), self.box_tower.after(box_map)) for cls_map, box_map in towers]
        return self.predict(tops)._replace(towers=towers)

    @abstractmethod
    def predict(self, tops: Sequence[tuple[Tensor, Tensor]]) -> HeadMaps:
        """Predictions from the class and box maps ``(N, width, H, W)`` that the towers end in."""


class Scale(nn.Module):
    """A learned scalar factor, one per pyramid level."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(init))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.scale


class DistributionQuality(nn.Module):
    """How well a box fits, told from the shape of its distributions (GFocalV2, arXiv 2011.12885, sec. 3.2).

    A sharp distribution has found its edge. Per side the `TOP` largest probabilities and their mean go through two 1x1
    convolutions. Gradient flows back into the distributions, as published.

    Args:
        width: Channels between the convolutions.
    """

    TOP = 4

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(4 * (self.TOP + 1), width, 1)
        self.out = nn.Conv2d(width, 1, 1)
        for conv in (self.hidden, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, conv.bias))

    def forward(self, box: Tensor) -> Tensor:
        """Bin logits ``(N, 4(R+1), H, W)`` to quality logits ``(N, 1, H, W)``."""
        top = box.unflatten(1, (4, -1)).softmax(dim=2).topk(self.TOP, dim=2).values
        shape = torch.cat([top, top.mean(dim=2, keepdim=True)], dim=2).flatten(1, 2)
        quality: Tensor = self.out(F.relu(self.hidden(shape)))
        return quality


def joint_logits(a: Tensor, b: Tensor) -> Tensor:
    """The logits of the product of two scores: ``sigmoid(joint_logits(a, b)) = sigmoid(a) * sigmoid(b)``.

    In at least float32, and without leaving the log scale: 1/p - 1 = e^-b + e^-(a + log sigmoid(b)).
    """
    dtype = torch.promote_types(a.dtype, torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    return -torch.logaddexp(-b, -(a + F.logsigmoid(b)))


def predictor(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    """3x3 convolution with bias, initialised as RetinaNet's (normal, standard deviation 0.01)."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(cast(Tensor, conv.bias), bias)
    return conv


PRIOR_BIAS = -math.log(
    (1 - 0.01) / 0.01
)  # every class starts at a score of 0.01 (focal loss, arXiv 1708.02002, sec. 4.1)
