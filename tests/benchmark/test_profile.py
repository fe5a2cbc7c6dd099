from __future__ import annotations

import pytest
import torch
from torch import nn

from ld_hub.benchmark.profile import multiply_adds, params
from ld_hub.models.factory import create_model


def test_rules_by_hand():
    """Each layer's cost written out: 4x6 maps of 3, then 8, then 10 channels."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 8 * 24 outputs of 3 * 9
        nn.BatchNorm2d(8),  # 2 * 8 * 24
        nn.ReLU(),  # 8 * 24
        nn.Conv2d(8, 10, 1, groups=2),  # 10 * 24 outputs of 4, and a bias each
        nn.GroupNorm(2, 10),  # nothing
        nn.AdaptiveAvgPool2d(1),  # 10 * 24
        nn.Flatten(),  # nothing
        nn.Linear(10, 5),  # 5 of 10, and a bias each
    )
    counted = multiply_adds(model, (4, 6))
    assert counted == {
        "0": 8 * 24 * 27,
        "1": 2 * 8 * 24,
        "2": 8 * 24,
        "3": 10 * 24 * 5,
        "5": 10 * 24,
        "7": 5 * 11,
    }
    assert params(model).total == 8 * 27 + 16 + 10 * 4 + 10 + 20 + 55


def test_shared_modules_count_each_time_and_hooks_are_removed():
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Conv2d(3, 1, 1), relu)
    model.train()
    assert multiply_adds(model, (2, 2)) == {"0": 3 * 4 + 4, "1": 4 * 4}
    assert not relu._forward_hooks and model.training


@pytest.mark.parametrize(
    ("name", "total", "trainable", "cost"),
    [("gfocal_r50", 32.44, 32.22, 208.31)],  # published table: LD paper, "effect on size, FLOPs, FPS"
)
def test_published_size(name, total, trainable, cost):
    with torch.device("meta"):
        model = create_model(name)
    assert round(params(model).total / 1e6, 2) == total
    assert round(params(model).trainable / 1e6, 2) == trainable
    assert round(sum(multiply_adds(model, (800, 1280)).values()) / 1e9, 2) == cost
