"""The papers' backbones by short names: which model and weights of timm each is, and what is changed about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.models.resnet import Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ld_hub.errors import ConfigError
from ld_hub.layers.deformable import DeformableConv2d
from ld_hub.preprocessing import DataConfig

CAFFE_DATA = DataConfig(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), channel_order="bgr")
OFFSETS = {"_dcn": 18, "_dcnv2": 27}  # endings of deformable ResNets' names: channels of their offset convolutions


@dataclass(frozen=True)
class ShortName:
    """A backbone that timm has, or almost has.

    Attributes:
        timm: timm's name with the tag of the weights that the papers start from, which is not always timm's default.
        options: Further arguments for timm.
        adapt: Changes the model in place after timm's weights are in it.
        output_norms: Put a layer norm on each of its maps.
        data_config: How images become input; None: as timm's weights expect.
        constant_norms: Its batch norms are never trained, as Caffe's.
    """

    timm: str
    options: Mapping[str, Any] = field(default_factory=dict)
    adapt: Callable[[nn.Module], None] | None = None
    output_norms: bool = False
    data_config: DataConfig | None = None
    constant_norms: bool = False


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


class _PadThenShift(SwinTransformerBlock):  # type: ignore[misc]
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


def with_offsets(name: str, channels: int) -> str | None:
    """Short name of the same deformable ResNet with another version of deformable convolution.

    Args:
        name: Short name of a backbone.
        channels: What its offset convolutions shall predict, 18 or 27.

    Returns:
        The short name; None if there is none.
    """
    stem, _, version = name.rpartition("_")
    if f"_{version}" not in OFFSETS:
        return None
    return next((stem + ending for ending, number in OFFSETS.items() if number == channels), None)


def _bottlenecks(module: nn.Module) -> list[Any]:
    blocks = [block for block in module.modules() if isinstance(block, Bottleneck)]
    if not blocks:
        raise ConfigError("This style needs a ResNet of bottleneck blocks, e.g. resnet50, resnet101, resnext101_32x4d.")
    return blocks


def _caffe(timm_name: str) -> ShortName:
    return ShortName(timm_name, adapt=to_caffe_style, data_config=CAFFE_DATA, constant_norms=True)


def _deformable(name: str, timm_name: str, *stages: str) -> dict[str, ShortName]:
    newest = max(OFFSETS.values())
    return {  # partial, and no function made here: models with it can be pickled
        name + ending: ShortName(timm_name, adapt=partial(to_deformable, stages=stages, modulated=channels == newest))
        for ending, channels in OFFSETS.items()
    }


_R101, _X101 = "resnet101.tv_in1k", "resnext101_32x4d.gluon_in1k"
_MOBILENET = "mobilenetv2_100.ra_in1k"

SHORT_NAMES: dict[str, ShortName] = {
    "r18": ShortName("resnet18.tv_in1k"),
    "r34": ShortName("resnet34.tv_in1k"),
    "r50": ShortName("resnet50.tv_in1k"),
    "r101": ShortName(_R101),
    "x101_32x4d": ShortName(_X101),
    **_deformable("r101", _R101, "layer2", "layer3", "layer4"),
    **_deformable("x101_32x4d", _X101, "layer3", "layer4"),
    "r10t": ShortName("resnet10t.c3_in1k"),
    "r50_caffe": _caffe("resnet50"),  # of Caffe's weights timm has none
    "r101_caffe": _caffe("resnet101"),
    "mobilenetv2": ShortName(_MOBILENET),
    "mobilenetv2_leaky": ShortName(_MOBILENET, adapt=to_leaky),
    "swin_t": ShortName(
        "swin_tiny_patch4_window7_224.ms_in1k",
        options={"always_partition": True},  # windows and their shift as published, however small the map
        adapt=to_detection_swin,
        output_norms=True,
    ),
}
