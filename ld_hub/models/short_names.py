"""The papers' backbones by short names: which model and weights of timm each is, and what is changed about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from ld_hub.layers.backbone_styles import to_caffe_style, to_deformable, to_detection_swin, to_leaky
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
