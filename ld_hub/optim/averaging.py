"""Averages of weights over steps and of statistics over ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from ld_hub.ops.dist import is_distributed, mean_over_ranks

SMALL_DATA = 10_000  # images: below, an average is kept unless something published is asked for
USUAL_DECAY = 0.9998


def usual_decay(images: int, *, published: bool) -> float | None:
    """The largest decay of the average where nobody asks for one or against it; None for no average.

    Few images make noisy gradients and evaluations, which an average calms; large data sets are trained by published
    schedules, whose decays of the learning rate do the same.

    Args:
        images: To train on.
        published: Whether a published schedule or computation is asked for, which has no average.
    """
    return USUAL_DECAY if images < SMALL_DATA and not published else None


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
