"""Feature Pyramid Network (arXiv 1612.03144) with extra levels, as dense detectors use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """C3..C5 to P3..P7.

    1x1 laterals, nearest upsampling to the exact size and addition, 3x3 outputs; P6 and P7 are stride-2 3x3
    convolutions (reference SPEC 6). No norm, and no activation unless asked for.

    Args:
        in_channels: Channels of the backbone's levels, finest first.
        channels: F, channels of every pyramid level.
        num_levels: Levels to make, at least ``len(in_channels)``.
        extra_from: What P6 is made of: ``"output"`` P5 (GFL, ATSS, FCOS), ``"input"`` the backbone's C5 (RetinaNet).
        extra_relu: ReLU before P7 (FCOS).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        num_levels: int = 5,
        *,
        extra_from: Literal["output", "input"] = "output",
        extra_relu: bool = False,
    ) -> None:
        super().__init__()
        self.extra_from, self.extra_relu = extra_from, extra_relu
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for level in range(len(in_channels), num_levels):
            from_input = level == len(in_channels) and extra_from == "input"
            source = in_channels[-1] if from_input else channels
            self.fpn_convs.append(nn.Conv2d(source, channels, 3, stride=2, padding=1))
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Backbone maps ``(N, C_l, H_l, W_l)`` to `num_levels` maps ``(N, F, H_l, W_l)``."""
        merged = [conv(feature) for conv, feature in zip(self.lateral_convs, maps, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            size = merged[level - 1].shape[-2:]
            merged[level - 1] = merged[level - 1] + F.interpolate(merged[level], size=size, mode="nearest")
        pyramid = [conv(feature) for conv, feature in zip(self.fpn_convs, merged, strict=False)]
        source = maps[-1] if self.extra_from == "input" else pyramid[-1]
        for conv in list(self.fpn_convs)[len(merged) :]:
            pyramid.append(conv(source))
            source = F.relu(pyramid[-1]) if self.extra_relu else pyramid[-1]
        return tuple(pyramid)
