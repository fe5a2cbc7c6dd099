"""Parameters and multiply-adds of a model, counted as OpenMMLab's counter does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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


def multiply_adds(model: nn.Module, size: tuple[int, int] = (800, 1280)) -> dict[str, int]:
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
