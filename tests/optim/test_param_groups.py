"""Which layer learns how fast, against layers written down by hand."""

from __future__ import annotations

import pytest
import torch

from ld_hub.engine.optimizer import make_optimizer, set_lr
from ld_hub.engine.train_config import TrainConfig
from ld_hub.models.backbones import Backbone
from ld_hub.optim.averaging import USUAL_DECAY, usual_decay
from ld_hub.optim.param_groups import layer_factors
from tests.engine.runs import detector

LAYERS = {  # of ResNet-18: the stem, then two blocks in each of four stages
    "conv1.weight": 0, "bn1.bias": 0, "layer1.0.conv2.weight": 1, "layer1.1.bn1.weight": 2,
    "layer2.0.downsample.0.weight": 3, "layer2.1.bn2.bias": 4, "layer3.1.conv1.weight": 6, "layer4.1.bn2.weight": 8,
}  # fmt: skip
SWIN = {  # patches, then blocks 2, 2, 6, 2
    "patch_embed.proj.weight": 0, "layers_0.blocks.1.attn.qkv.bias": 2, "layers_2.blocks.5.mlp.fc1.weight": 10,
    "layers_3.blocks.1.norm2.weight": 12,
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), [("r18", LAYERS), ("swin_t", SWIN)])
def test_layers_are_the_blocks_from_the_stem_up(name, expected):
    with torch.device("cpu"):
        found = Backbone(name).layers_of_parameters()
    assert {key: found[f"body.{key}"] for key in expected} == expected
    assert max(found.values()) == max(expected.values())


def test_offsets_that_timm_does_not_have_learn_with_their_block():
    found = Backbone("r101_dcn").layers_of_parameters()
    added = {name: layer for name, layer in found.items() if "conv_offset" in name}
    assert len(added) == 60
    assert all(layer == found[f"{name.split('.conv')[0]}.conv1.weight"] for name, layer in added.items())


def test_factors_fall_from_the_pyramid_down():
    assert layer_factors({"a": 0, "b": 1, "c": 1, "d": 2}, 0.5) == {"a": 0.125, "b": 0.25, "c": 0.25, "d": 0.5}
    assert layer_factors({}, 0.5) == {}


def test_one_step_moves_each_layer_by_its_rate():
    """Plain gradient descent with a gradient of ones: a parameter moves by its learning rate."""
    model = detector()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    config = TrainConfig(layer_decay=0.5, momentum=0.0, weight_decay=0.0, bias_lr_factor=2.0)
    optimizer = make_optimizer(model, config)
    set_lr(optimizer, 0.1)
    optimizer.step()
    layers = model.backbone.layers_of_parameters()
    count = max(layers.values()) + 1
    biases = {n for n, m in model.named_modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}
    seen = set()
    for name, parameter in model.named_parameters():
        own, _, kind = name.rpartition(".")
        layer = layers.get(name.removeprefix("backbone."), count) if name.startswith("backbone.") else count
        rate = 0.1 * 0.5 ** (count - layer) * (2.0 if kind == "bias" and own in biases else 1.0)
        assert torch.allclose(before[name] - parameter, torch.full_like(parameter, rate), atol=1e-6), name
        seen.add(layer)
    assert seen == set(range(count + 1))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)


def test_an_average_is_kept_of_small_data_unless_something_published_is_asked_for():
    assert usual_decay(110, published=False) == usual_decay(9_999, published=False) == USUAL_DECAY == 0.9998
    assert usual_decay(10_000, published=False) is None
    assert usual_decay(110, published=True) is None
