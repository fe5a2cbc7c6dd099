"""One optimizer step against the update written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ld_hub.engine.optimizer import make_optimizer, set_lr
from ld_hub.engine.train_config import TrainConfig


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 2))
    for parameter in model.parameters():
        parameter.data.uniform_(0.5, 1.5)
        parameter.grad = torch.rand_like(parameter)
    model[0].weight.requires_grad_(False)
    return model


def moved(config: TrainConfig, rate: float = 0.1) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Value before, gradient, and value after a step, of each parameter."""
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, config)
    set_lr(optimizer, rate)
    optimizer.step()
    return {name: (before[name], p.grad, p.detach()) for name, p in model.named_parameters()}  # type: ignore[misc]


BIASES = {"0.bias", "3.bias"}  # 1.bias is a norm's


@pytest.mark.parametrize(
    ("config", "factor", "decay"),
    [
        (TrainConfig(weight_decay=0.5), 1.0, 0.5),
        (TrainConfig(weight_decay=0.5, bias_lr_factor=3.0), 3.0, 0.5),
        (TrainConfig(weight_decay=0.5, bias_weight_decay=0.0), 1.0, 0.0),
        (TrainConfig(weight_decay=0.0, bias_weight_decay=0.25), 1.0, 0.25),
        (TrainConfig(weight_decay=0.5).for_family("fcos"), 2.0, 0.0),
        (TrainConfig(weight_decay=0.5, bias_lr_factor=1.0).for_family("fcos"), 1.0, 0.0),
        (TrainConfig(weight_decay=0.5).for_family("gfocal"), 1.0, 0.5),
    ],
)
def test_biases_have_their_own_rate_and_decay(config: TrainConfig, factor: float, decay: float) -> None:
    for name, (before, grad, after) in moved(config).items():
        rate, own = (0.1 * factor, decay) if name in BIASES else (0.1, config.weight_decay)
        expected = before if name == "0.weight" else before - rate * (grad + own * before)  # frozen; else sgd's first
        assert torch.allclose(after, expected, rtol=1e-6), name


def test_adamw_too() -> None:
    config = TrainConfig(optimizer="adamw", weight_decay=0.0, bias_lr_factor=2.0, bias_weight_decay=0.5)
    for name, (before, grad, after) in moved(config).items():
        if name != "0.weight":  # the first step of Adam has the length of the rate
            rate, decay = (0.2, 0.5) if name in BIASES else (0.1, 0.0)
            expected = before * (1 - rate * decay) - rate * grad.sign()
            assert torch.allclose(after, expected, rtol=1e-4), name


def test_frozen_biases_are_left_out() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    groups = make_optimizer(model, TrainConfig(bias_lr_factor=2.0)).param_groups
    assert [len(group["params"]) for group in groups] == [3, 1]
