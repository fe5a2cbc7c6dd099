"""Convolution towers and scales shared by the levels of a dense head."""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from torch import Tensor, nn


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
        self.act = nn.ReLU(inplace=True)
        nn.init.normal_(self.conv.weight, std=0.01)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)


def conv_tower(in_channels: int, width: int, depth: int, *, norm: bool = True, bias: bool = False) -> nn.Sequential:
    """`depth` times `ConvNormReLU`: ``(N, in_channels, H, W)`` to ``(N, width, H, W)``."""
    pairs = itertools.pairwise([in_channels, *[width] * depth])
    return nn.Sequential(*(ConvNormReLU(into, out, norm=norm, bias=bias) for into, out in pairs))


class Scale(nn.Module):
    """A learned scalar factor, one per pyramid level."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(init))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.scale


def predictor(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    """3x3 convolution with bias, initialised as RetinaNet's (normal, standard deviation 0.01)."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(cast(Tensor, conv.bias), bias)
    return conv


PRIOR_BIAS = -math.log(
    (1 - 0.01) / 0.01
)  # every class starts at a score of 0.01 (focal loss, arXiv 1708.02002, sec. 4.1)
