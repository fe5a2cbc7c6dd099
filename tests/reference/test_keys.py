"""Published key lists against our models: names, shapes and frozen parameters, one to one, on the meta device."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from ld_hub.models.checkpoints.convert import translate_openmmlab
from ld_hub.models.factory import create_model
from ld_hub.models.names import is_model
from tests.support import golden
from tests.support.names import name_of

PROJECT = "bbox_head.integral.project"
CLASSIFIER = "backbone.conv2."  # MobileNetV2's last convolution, in the file though no map comes from it
CASES = golden.find("keys_*")


def _model(stem: str, info: dict[str, Any]) -> nn.Module:
    name = name_of(stem)
    assert is_model(name), f"{stem} is a published structure without a name here"
    classes = next(v["shape"][0] for k, v in info["keys"].items() if re.fullmatch(r"bbox_head\.\w+_cls\.bias", k))
    with torch.device("meta"):
        return create_model(name, num_classes=classes // (9 if name.startswith("retinanet") else 1))


def _tensors(info: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The list as tensors of no content; the bins' buffer is checked by value and so gets its published one."""
    tensors = {
        name: torch.empty(item["shape"], dtype=getattr(torch, item["dtype"]), device="meta")
        for name, item in info["keys"].items()
    }
    if PROJECT in tensors:
        tensors[PROJECT] = torch.linspace(0, 16, 17)
    return tensors


def test_there_are_key_lists():
    assert len(CASES) >= 14
    dcn = [stem for stem in CASES if "dcn" in stem]
    assert len(dcn) == 2
    for stem in dcn:  # version 1
        keys = golden.load(stem)[0]["keys"]
        assert {item["shape"][0] for name, item in keys.items() if "conv_offset" in name} == {18}


@pytest.mark.parametrize("stem", CASES)
def test_names_and_shapes_map_one_to_one(stem):
    info, _ = golden.load(stem)
    model = _model(stem, info)
    renamed, report = translate_openmmlab(model, _tensors(info), source=stem)
    assert report.ok, report.table()
    bins = [PROJECT] if PROJECT in info["keys"] else []
    unused = [name for name in info["keys"] if name.startswith(CLASSIFIER)]
    assert len(unused) == (6 if "mobilenet" in stem else 0)
    assert len(report.matched) == info["num_keys"] - len(bins) - len(unused)
    assert sorted(name for name, _ in report.dropped) == sorted(bins + unused)
    own = model.state_dict()
    assert {name: tensor.dtype for name, tensor in renamed.items()} == {n: own[n].dtype for n in renamed}
    assert own.keys() == renamed.keys()


@pytest.mark.parametrize("stem", CASES)
def test_parameters_and_what_is_frozen(stem):
    info, _ = golden.load(stem)
    model = _model(stem, info)
    parameters = dict(model.named_parameters())
    unused = 320 * 1280 + 2 * 1280 if "mobilenet" in stem else 0  # its weight and norm
    assert sum(p.numel() for p in parameters.values()) == info["num_params"] - unused
    assert sum(p.numel() for p in parameters.values() if p.requires_grad) == info["num_trainable"] - unused
    frozen = {n: torch.empty(info["keys"][n]["shape"], device="meta") for n in info["frozen_parameters"]}
    renamed, _ = translate_openmmlab(model, frozen)
    assert len(renamed) == len(frozen)
    assert set(renamed) == {name for name, parameter in parameters.items() if not parameter.requires_grad}
