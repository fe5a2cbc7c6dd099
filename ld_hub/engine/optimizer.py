"""Optimizer, its learning rate, norm of the gradient: what changes or watches the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ld_hub.engine.train_config import TrainConfig
from ld_hub.models.detector import DenseDetector
from ld_hub.optim.param_groups import layer_factors, param_groups


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that are trained, in groups as the settings say.

    The learning rate is set before each step by `set_lr`.
    """
    groups: Any = param_groups(
        module,
        weight_decay=config.weight_decay,
        bias_weight_decay=config.weight_decay if config.bias_weight_decay is None else config.bias_weight_decay,
        bias_lr_factor=1.0 if config.bias_lr_factor is None else config.bias_lr_factor,
        layer_factors=None if config.layer_decay is None else _layer_factors(module, config.layer_decay),
    )
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.momentum, 0.999))


def _layer_factors(module: nn.Module, decay: float) -> dict[str, float]:
    """Factors of the backbones of all detectors in a module."""
    factors: dict[str, float] = {}
    for name, part in module.named_modules():
        if isinstance(part, DenseDetector):
            start = f"{name}.backbone." if name else "backbone."
            found = layer_factors(part.backbone.layers_of_parameters(), decay)
            factors |= {f"{start}{parameter}": factor for parameter, factor in found.items()}
    return factors


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its learning rate: `rate`, of `Plan.lr`, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)  # groups of earlier checkpoints have none


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of the whole gradient, a scalar on the device."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
