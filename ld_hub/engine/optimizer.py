"""Optimizer, norm of the gradient, averages over steps and ranks: what changes or watches the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from ld_hub.engine.train_config import TrainConfig
from ld_hub.ops.dist import is_distributed, mean_over_ranks


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that are trained; weight decay on all of them (reference SPEC 7).

    Biases of convolutions and linear layers are a group of their own where the settings treat them differently; those
    of norms go with the weights. The learning rate is set before each step by `set_lr`.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    factor = 1.0 if config.bias_lr_factor is None else config.bias_lr_factor
    decay = config.weight_decay if config.bias_weight_decay is None else config.bias_weight_decay
    groups = [{"params": trained, "lr_scale": 1.0}]
    if (factor, decay) != (1.0, config.weight_decay):
        layers = (m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
        biases = {id(layer.bias) for layer in layers}
        groups = [
            {"params": [p for p in trained if id(p) not in biases], "lr_scale": 1.0},
            {"params": [p for p in trained if id(p) in biases], "lr_scale": factor, "weight_decay": decay},
        ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.momentum, 0.999), weight_decay=config.weight_decay)


def set_lr(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its learning rate: `rate`, of `Plan.lr`, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)  # groups of earlier checkpoints have none


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of the whole gradient, a scalar on the device."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


@torch.no_grad()
def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Set floating-point buffers to their mean over the ranks, the same bits on each.

    A rank's batch norms have seen its own images only: DDP hands out those of rank 0 before a step, not after it.
    Buffers that agree already keep their bits.
    """
    if not is_distributed():
        return
    buffers = [buffer for module in modules for buffer in module.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    own = torch.cat([buffer.flatten().double() for buffer in buffers])
    first = own.clone()
    torch.distributed.broadcast(first, 0)
    mean = first + mean_over_ranks(own - first)
    for buffer, part in zip(buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


class Average:
    """Exponential moving average of a model's weights and buffers (timm's `ModelEmaV3`).

    The decay of step t is at most ``1 - (1 + t)^(-2/3)``, so that a short run is not averaged with its random start.

    Args:
        model: On its device already; it is copied.
        decay: Largest decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._ema: Any = ModelEmaV3(model, decay=decay, use_warmup=True)

    @property
    def module(self) -> Any:
        """The averaged model, of the same class."""
        return self._ema.module

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after the optimizer step of this 1-based number."""
        self._ema.update(model, step=step)
