"""What the papers change about timm's backbones, in place: strides, deformable convolutions, activations, padding."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models.resnet import Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ld_hub.errors import ConfigError
from ld_hub.layers.deformable import DeformableConv2d


def to_caffe_style(body: nn.Module) -> None:
    """Let the first 1x1 convolution of a bottleneck do the stride instead of the 3x3 one (reference SPEC 6).

    Raises:
        ConfigError: If the model has no bottleneck blocks.
    """
    for block in _bottlenecks(body):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def to_deformable(body: nn.Module, stages: tuple[str, ...], *, modulated: bool) -> None:
    """Make the 3x3 convolutions of some stages' bottlenecks deformable (arXiv 1703.06211, 1811.11168).

    Args:
        body: A ResNet or ResNeXt of timm; changed in place.
        stages: Its children ``layer1`` to ``layer4``.
        modulated: Version 2 of deformable convolution.

    Raises:
        ConfigError: If a stage has no bottleneck blocks.
    """
    for stage in stages:
        for block in _bottlenecks(body.get_submodule(stage)):
            block.conv2 = DeformableConv2d(block.conv2, modulated=modulated)


def to_leaky(body: nn.Module, slope: float = 0.1) -> None:
    """Replace every ReLU6 by a leaky ReLU of this slope, as BCKD's MobileNetV2 (reference SPEC 4)."""
    for module in list(body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.LeakyReLU(slope, inplace=True))


class _PadThenShift(SwinTransformerBlock):  # type: ignore[misc]  # timm is untyped
    """Pads the map to whole windows before it is shifted, as detectors do.

    timm shifts first. Then the padding lies between cells that the mask takes for neighbours, and the cells at the
    border see others than those that published detection weights were trained with.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        down, right = -height % self.window_size[0], -width % self.window_size[1]
        out: Tensor = super()._attn(F.pad(x, (0, 0, 0, right, 0, down)))
        return out[:, :height, :width]


def to_detection_swin(body: nn.Module) -> None:
    """Let a Swin Transformer treat the border of its maps as OpenMMLab's detectors do."""
    for module in body.modules():
        if isinstance(module, SwinTransformerBlock):
            module.__class__ = _PadThenShift  # the same weights and settings


def _bottlenecks(module: nn.Module) -> list[Any]:
    blocks = [block for block in module.modules() if isinstance(block, Bottleneck)]
    if not blocks:
        raise ConfigError("This style needs a ResNet of bottleneck blocks, e.g. resnet50, resnet101, resnext101_32x4d.")
    return blocks
