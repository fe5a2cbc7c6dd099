"""What a model is: parameters and multiply-adds, counted as OpenMMLab's counter does, and its settings in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ld_hub.catalog import ModelFacts, Part
from ld_hub.models.backbones import timm_name

SIZE = (800, 1280)  # height, width: the published tables' "1280x800"
PREFILTERS = {"location": "locations", "pair": "pairs of location and class"}
Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; buffers (running statistics) are none."""

    total: int
    trainable: int


def params(model: nn.Module) -> ParameterCount:
    """Count parameters, shared ones once."""
    every = list(model.parameters())
    return ParameterCount(sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad))


def multiply_adds(model: nn.Module, size: tuple[int, int] = SIZE) -> dict[str, int]:
    """Multiply-adds of one forward pass, by top-level part.

    The published tables ("FLOPs at 1280x800") come from OpenMMLab's counter, and so do these rules: a convolution or
    linear layer costs one per weight and output position, its bias one per output element; a batch norm two per
    element, without affine one; activations and pooling one per input element. Group and layer norms cost nothing (the
    published figures of GFocal and ATSS agree to all digits only so), nor does what is not a module: additions,
    interpolation, the matrix products of attention, decoding.

    Args:
        model: Best on the meta device, where nothing is computed.
        size: Height and width of the input in px.

    Returns:
        ``{"backbone": ..., "neck": ..., "head": ...}`` and whatever other children take part.
    """
    device = next(model.parameters()).device
    channels = int(getattr(getattr(model, "config", None), "in_chans", 3))
    totals: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        cost = _cost_of(module)
        if cost is not None:
            handles.append(module.register_forward_hook(_adder(totals, name.split(".")[0], cost)))
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, channels, *size, device=device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return totals


def _adder(totals: dict[str, int], part: str, cost: Callable[[nn.Module, Tensor, Tensor], int]) -> Hook:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        totals[part] = totals.get(part, 0) + cost(module, inputs[0], output)

    return hook


def _cost_of(module: nn.Module) -> Callable[[nn.Module, Tensor, Tensor], int] | None:
    """The rule for a module; None for containers and whatever costs nothing."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return _convolution
    if isinstance(module, nn.Linear):
        return _linear
    if isinstance(module, _NORMS):
        return _normalisation
    if isinstance(module, (*_ACTIVATIONS, *_POOLS)):
        return _elements
    return None


def _convolution(module: Any, inputs: Tensor, output: Tensor) -> int:
    per_output = math.prod(module.kernel_size) * module.in_channels // module.groups
    return int(output.numel() * (per_output + (module.bias is not None)))


def _linear(module: Any, inputs: Tensor, output: Tensor) -> int:
    return int(output.numel() * (module.in_features + (module.bias is not None)))


def _normalisation(module: Any, inputs: Tensor, output: Tensor) -> int:
    return inputs.numel() * (2 if module.affine else 1)


def _elements(module: Any, inputs: Tensor, output: Tensor) -> int:
    return inputs.numel()


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def facts_of(model: Any) -> ModelFacts:
    """What a detector is, as `ld-hub info` prints it.

    Args:
        model: A detector; best on the meta device, where it costs no memory.
    """
    count, cost = params(model), multiply_adds(model, SIZE)
    data, shown, config = model.data_config, model.postprocess_config, model.config
    names = model.label_names
    kind = "" if shown.nms == "hard" else f"{shown.nms} "
    return ModelFacts(
        name=model.name,
        family=model.family,
        backbone=f"{config.backbone} ({timm_name(config.backbone)})",
        classes=f"{len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})",
        parameters=count.total,
        trainable=count.trainable,
        multiply_adds=sum(cost.values()),
        size=SIZE,
        input=f"{data.channel_order}, mean {slashed(data.mean)}, std {slashed(data.std)}",
        resize=f"short side {data.image_size[0]}, long side at most {data.image_size[1]} px, "
        f"padded to a multiple of {data.size_divisor}",
        detections=f"score > {shown.score_threshold:g}, the best {shown.nms_pre} {PREFILTERS[shown.prefilter]} of each "
        f"level, {kind}NMS at IoU {shown.nms_iou:g}, at most {shown.max_detections} per image",
        parts=tuple(
            Part(name, type(child).__name__, params(child).total, cost.get(name, 0), _settings(model, name))
            for name, child in model.named_children()
        ),
    )


def slashed(values: Sequence[float]) -> str:
    """Numbers as text, e.g. ``123.675/116.28/103.53``."""
    return "/".join(f"{value:.10g}" for value in values)


def _settings(model: Any, part: str) -> str:
    config, spec = model.config, model.spec
    stages = f"{config.frozen_stages or 'no'} stage(s) frozen" + (" with the stem" if config.frozen_stages else "")
    boxes = "plain boxes" if spec.reg_max is None else f"{spec.reg_max + 1} bins per box side"
    return {
        "backbone": f"channels {', '.join(map(str, model.backbone.channels))} at strides 8, 16, 32; {stages}",
        "neck": f"{config.fpn_channels} channels, {len(spec.strides)} levels",
        "head": f"{config.head_depth} convolutions of {config.head_width} channels per tower; {boxes}",
    }.get(part, "")
