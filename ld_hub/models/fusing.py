"""Batch norms folded into the convolutions before them: the same detections, fewer passes over the maps."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any, TypeVar, cast

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ld_hub.layers.deformable import DeformableConv2d

Network = TypeVar("Network", bound=nn.Module)

# What computes ``weight * x + bias`` with the weight as it stands; others (standardised weights) do not fold.
LINEAR = (nn.Conv2d, Conv2dSame, DeformableConv2d)
SIDE = 128  # px of the image on which it is seen what follows what


def fused(network: Network, body: str, in_chans: int) -> Network:
    """A copy for inference in which every batch norm that directly follows a convolution is part of it.

    ``gamma (W x - mean) / sqrt(var + eps) + beta`` is a convolution with the weight ``W gamma / sqrt(var + eps)``.
    Which norm follows which convolution is seen on an image, not read from names, so it holds for any of timm's
    models; deformable convolutions are linear in their weight and fold as well. A norm that stands anywhere else
    (before a convolution, behind a sum) stays as it is.

    Args:
        network: Stays as it is.
        body: Name of the part of it that makes maps of an image and has the norms.
        in_chans: Channels of that part's images.

    Returns:
        The copy, in eval mode.
    """
    made = copy.deepcopy(network).eval()
    part = made.get_submodule(body)
    for conv, norm in _pairs(part, in_chans):
        _fold(part.get_submodule(conv), cast(_BatchNorm, part.get_submodule(norm)))
        part.set_submodule(norm, _rest_of(part.get_submodule(norm)))
    return made


def _pairs(part: nn.Module, in_chans: int) -> list[tuple[str, str]]:
    """Names (convolution, batch norm) where the norm alone gets what the convolution makes."""
    makers: dict[int, str] = {}  # by address
    maps: list[Tensor] = []  # kept, so that no address is used again
    readers: dict[str, list[str]] = {}
    calls: Counter[str] = Counter()

    def writes(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            maps.append(output)
            makers[id(output)] = name
            calls[name] += 1

        return hook

    def reads(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            for maker in (makers[id(each)] for each in inputs if id(each) in makers):
                readers.setdefault(maker, []).append(name)

        return hook

    handles = []
    for name, module in part.named_modules():
        if type(module) in LINEAR:
            handles.append(module.register_forward_hook(writes(name)))
        elif isinstance(module, _BatchNorm) or not any(True for _ in module.children()):
            handles.append(module.register_forward_pre_hook(reads(name)))
    weight = next(part.parameters())
    with torch.no_grad():
        part(torch.zeros(1, in_chans, SIDE, SIDE, dtype=weight.dtype, device=weight.device))
    for handle in handles:
        handle.remove()
    found = ((conv, names[0]) for conv, names in readers.items() if len(names) == calls[conv] == 1)
    return [(conv, norm) for conv, norm in found if _folds(part.get_submodule(norm))]


def _folds(module: nn.Module) -> bool:
    """Whether it is a batch norm with constant statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _fold(conv: nn.Module, norm: _BatchNorm) -> None:
    """Put a norm into the convolution before it, in place; computed in float64."""
    weight, bias = cast(Tensor, conv.weight).double(), cast("Tensor | None", conv.bias)
    mean, var = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    gamma = torch.ones_like(var) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    factor = gamma / (var + norm.eps).sqrt()
    shift = beta - (mean if bias is None else mean - bias.double()) * factor
    dtype = cast(Tensor, conv.weight).dtype
    conv.weight = nn.Parameter((weight * factor[:, None, None, None]).to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)


def _rest_of(norm: nn.Module) -> nn.Module:
    """What a norm does beside normalising: timm's carry their activation."""
    return cast(nn.Module, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
