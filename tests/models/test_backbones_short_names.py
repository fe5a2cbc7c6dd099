"""Backbones that are timm models with a change: deformable ResNets, MobileNetV2."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import Bottleneck
from torch import nn

from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.export.program import DetectorRows
from ld_hub.hub import save_safetensors
from ld_hub.layers.deformable import DeformableConv2d
from ld_hub.models import short_names
from ld_hub.models.backbones import Backbone
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.short_names import SHORT_NAMES, ShortName
from ld_hub.structures import Targets

SMALL = {"num_classes": 3, "fpn_channels": 32, "head_width": 32, "head_depth": 1}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`small_dcn`, `small_dcnv2`: a ResNet-14 with deformable stages, as the papers' deeper ones."""
    for ending, modulated in (("_dcn", False), ("_dcnv2", True)):
        adapt = partial(short_names.to_deformable, stages=("layer2", "layer4"), modulated=modulated)
        monkeypatch.setitem(SHORT_NAMES, f"small{ending}", ShortName("resnet14t", adapt=adapt))


def moving(model: nn.Module) -> nn.Module:
    """With offsets that are no longer zero."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, DeformableConv2d):
            nn.init.normal_(module.conv_offset.weight, std=0.05)
            nn.init.normal_(module.conv_offset.bias)
    return model


def detector(backbone: str, **options: Any) -> DenseDetector:
    return create_model("gfocal", backbone=backbone, **SMALL, **options)


@pytest.mark.parametrize(
    ("name", "stages", "number"), [("r101_dcn", "234", 30), ("x101_32x4d_dcn", "34", 26), ("r101_dcnv2", "234", 30)]
)
def test_which_convolutions_are_deformable(name: str, stages: str, number: int) -> None:
    """c3-c5 of R-101 (4 + 23 + 3 blocks), c4-c5 of X-101 (23 + 3), by the published configurations' names."""
    with torch.device("meta"):
        backbone = Backbone(name)
    found = {n: m for n, m in backbone.body.named_modules() if isinstance(m, DeformableConv2d)}
    assert len(found) == number
    assert {n[:6] for n in found} == {f"layer{s}" for s in stages} and {n.split(".")[2] for n in found} == {"conv2"}
    assert {m.groups for m in found.values()} == {32 if name.startswith("x101") else 1}
    assert backbone.offset_channels == (27 if name.endswith("v2") else 18)
    assert backbone.timm_name == SHORT_NAMES[name.rpartition("_")[0]].timm


def test_weights_of_a_classifier_load_and_change_nothing_yet(small: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = timm.create_model("resnet14t")
    file = save_safetensors(classifier.state_dict(), tmp_path / "classifier.safetensors")
    plain, first = (Backbone(name, checkpoint=file).eval() for name in ("resnet14t", "small_dcn"))
    images = torch.randn(1, 3, 70, 97)
    with torch.no_grad():
        for mine, theirs in zip(first(images), plain(images), strict=True):
            torch.testing.assert_close(mine, theirs)
    assert first.initialized_from == str(file)
    name = "layer2.0.conv2.weight"
    assert torch.equal(Backbone("small_dcnv2", checkpoint=file).body.state_dict()[name], classifier.state_dict()[name])


def test_wrong_offsets_in_backbone_weights_are_told(small: None, tmp_path: Path) -> None:
    state = Backbone("small_dcnv2").body.state_dict()
    file = save_safetensors(state, tmp_path / "second.safetensors")
    with pytest.raises(CheckpointError, match=r"0 tensors missing.*4 of another shape.*layer2\.0\.conv2\.conv_offset"):
        Backbone("small_dcn", checkpoint=file)
    del state["layer4.0.conv2.conv_offset.bias"]
    file = save_safetensors(state, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors missing \(first: \['layer4\.0\.conv2\.conv_offset\.bias'\]"):
        Backbone("small_dcnv2", checkpoint=file)


def test_what_is_frozen(small: None) -> None:
    for stages, deformable_frozen in ((1, False), (2, True)):
        backbone = Backbone("small_dcn", frozen_stages=stages, norm_eval=True).train()
        parameters = dict(backbone.body.named_parameters())
        assert not parameters["layer1.0.conv2.weight"].requires_grad
        assert parameters["layer2.0.conv2.conv_offset.weight"].requires_grad is not deformable_frozen
        assert parameters["layer4.0.conv2.conv_offset.bias"].requires_grad
        assert not any(m.training for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
        backbone.use_offsets(27)
        again = dict(backbone.body.named_parameters())
        assert {n: p.requires_grad for n, p in again.items()} == {n: p.requires_grad for n, p in parameters.items()}


def test_changing_the_version(small: None) -> None:
    backbone = Backbone("small_dcn")
    assert backbone.use_offsets(18) == "small_dcn" and backbone.offset_channels == 18
    assert backbone.use_offsets(27) == backbone.name == "small_dcnv2" and backbone.offset_channels == 27
    fresh = Backbone("small_dcnv2")
    shapes = {n: t.shape for n, t in backbone.state_dict().items()}
    assert shapes == {n: t.shape for n, t in fresh.state_dict().items()}
    assert backbone.use_offsets(18) == "small_dcn"
    for name, channels in (("small_dcn", 54), ("resnet14t", 27)):
        with pytest.raises(ConfigError, match=f"'{name}' cannot have {channels} offset channels"):
            Backbone(name).use_offsets(channels)


@pytest.mark.parametrize("name", ["small_dcn", "small_dcnv2"])
def test_a_deformable_detector_trains(small: None, name: str) -> None:
    """Gradients reach every offset, from zero on, also under autocast."""
    torch.manual_seed(0)
    model = detector(name, frozen_stages=1, norm_eval=True, anchor_scale=4.0)
    for block in model.modules():
        if isinstance(block, Bottleneck):  # fresh ones close the branch of the deformable convolution
            nn.init.ones_(block.bn3.weight)
    images = torch.randn(2, 3, 64, 96)
    truth = Targets.pad(
        [torch.tensor([[5.0, 5, 60, 50]]), torch.zeros(0, 4)],
        [torch.tensor([1]), torch.zeros(0, dtype=torch.long)],
        torch.tensor([[64, 96]] * 2),
    )
    for context in (torch.autocast("cpu", enabled=False), torch.autocast("cpu", dtype=torch.bfloat16)):
        model.zero_grad()
        with context:
            output = model(images)
        loss = torch.stack(list(model.loss(output, truth).values())).sum()
        loss.backward()
        layers = [m.conv_offset for m in model.modules() if isinstance(m, DeformableConv2d)]
        assert len(layers) == 2
        for layer in layers:
            for parameter in layer.parameters():
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["small_dcn", "small_dcnv2"])
def test_a_deformable_detector_is_exported(small: None, name: str) -> None:
    rows = DetectorRows(moving(detector(name)))  # type: ignore[arg-type]
    sizes = torch.tensor([[64, 96]] * 2)
    program = torch.export.export(rows, (torch.zeros(2, 3, 64, 96), sizes)).module()
    assert "deform_conv2d" in str(program.graph)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(program(images, sizes), rows(images, sizes), strict=True):
            torch.testing.assert_close(found, expected)
        compiled = torch.compile(rows, fullgraph=True, backend="aot_eager")
        for found, expected in zip(compiled(images, sizes), rows(images, sizes), strict=True):
            torch.testing.assert_close(found, expected)


def test_a_saved_detector_keeps_its_version(small: None, tmp_path: Path) -> None:
    model = moving(detector("small_dcnv2")).eval()
    assert isinstance(model, DenseDetector)
    model.save_pretrained(tmp_path / "saved")
    again = create_model(tmp_path / "saved")
    assert again.config == model.config and again.backbone.offset_channels == 27
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images).box, model(images).box)


@pytest.mark.parametrize("name", [name for name, style in SHORT_NAMES.items() if style.adapt is not None])
def test_models_of_changed_backbones_can_be_pickled(name: str) -> None:
    """For torch.save(model) and for processes that are handed one."""
    again = pickle.loads(pickle.dumps(SHORT_NAMES[name]))
    bodies = []
    for style in (SHORT_NAMES[name], again):
        with torch.device("meta"):
            bodies.append(timm.create_model(style.timm, features_only=True, **style.options))
        style.adapt(bodies[-1])
    assert again.timm == SHORT_NAMES[name].timm and str(bodies[0]) == str(bodies[1])
    assert str(bodies[0]) != str(timm.create_model(again.timm, features_only=True, **again.options))


def test_deformable_needs_bottlenecks() -> None:
    for style in (short_names.to_caffe_style, partial(short_names.to_deformable, stages=("layer2",), modulated=False)):
        with pytest.raises(ConfigError, match="bottleneck blocks"):
            style(timm.create_model("resnet18"))


def test_activations_of_mobilenetv2() -> None:
    plain, leaky = (Backbone(name).body for name in ("mobilenetv2", "mobilenetv2_leaky"))
    activations = {n: type(m) for n, m in plain.named_modules() if isinstance(m, nn.ReLU6)}
    assert len(activations) == 1 + 1 + 2 * 16  # stem, first block, two in each of the 16 others
    found = {n: m for n, m in leaky.named_modules() if isinstance(m, (nn.ReLU6, nn.LeakyReLU))}
    assert found.keys() == activations.keys()
    assert all(isinstance(m, nn.LeakyReLU) and m.negative_slope == 0.1 for m in found.values())
    assert plain.state_dict().keys() == leaky.state_dict().keys()


def test_names_of_flattened_bodies(tmp_path: Path) -> None:
    """timm calls a classifier's stage ``stages.0`` and the extractor's ``stages_0``; files have the former."""
    torch.manual_seed(0)
    classifier = timm.create_model("test_convnext").eval()
    assert "stages.0.blocks.0.conv_dw.weight" in classifier.state_dict()
    file = save_safetensors(classifier.state_dict(), tmp_path / "classifier.safetensors")
    backbone = Backbone("test_convnext", checkpoint=file).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = classifier.forward_intermediates(images, indices=(1, 2, 3), intermediates_only=True)
        for mine, theirs in zip(backbone(images), expected, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfocal_r101_dcn", "gfocal_x101_32x4d_dcn", "gfocal_swin_t"])
def test_the_papers_models_are_exported(name: str) -> None:
    rows = DetectorRows(moving(create_model(name)))  # type: ignore[arg-type]
    sizes = torch.tensor([[96, 128]])
    program = torch.export.export(rows, (torch.zeros(1, 3, 96, 128), sizes)).module()
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        for found, expected in zip(program(images, sizes), rows(images, sizes), strict=True):
            torch.testing.assert_close(found, expected)
