"""Folded batch norms give the same detections."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ld_hub.errors import CheckpointError
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model

SMALL = {"num_classes": 3, "fpn_channels": 16, "head_width": 16, "head_depth": 1}


def lived_in(name: str, backbone: str) -> DenseDetector:
    """A detector whose norms have seen something and whose deformable convolutions move."""
    torch.manual_seed(0)
    model = create_model(name, backbone=backbone, **SMALL).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0)):
                values.uniform_(low, high)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        if hasattr(module, "conv_offset"):
            nn.init.normal_(module.conv_offset.weight, std=0.05)
    nn.init.constant_(model.head.cls.bias, 0.0)  # else nothing is detected
    return model


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "backbone", "left"),
    [
        ("gfocal", "test_resnet", 0),
        ("fcos", "test_efficientnet", 0),
        ("retinanet", "mobilenetv2_leaky", 0),
        ("atss", "r101_dcnv2", 0),
        ("gfocal", "test_convnext", 0),  # has none
    ],
)
def test_the_copy_detects_the_same_without_norms(name: str, backbone: str, left: int) -> None:
    model = lived_in(name, backbone).double()  # random networks this deep amplify float32's rounding
    before = {key: value.clone() for key, value in model.state_dict().items()}
    norms = count(model, nn.BatchNorm2d)
    fused = model.fuse()
    assert count(fused, nn.BatchNorm2d) == left
    assert count(model, nn.BatchNorm2d) == norms
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    images = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        expected, found = model(images), fused(images)
    torch.testing.assert_close(found.cls_logits, expected.cls_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.decode(), expected.decode(), rtol=1e-5, atol=1e-5)  # px
    sizes = torch.tensor([[96, 128], [90, 120]])
    for mine, theirs in zip(fused.postprocess(found, sizes), model.postprocess(expected, sizes), strict=True):
        assert len(mine) == len(theirs) > 0
        torch.testing.assert_close(mine.boxes, theirs.boxes, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine.scores, theirs.scores, rtol=1e-5, atol=1e-5)


def test_norms_that_do_not_follow_a_convolution_stay() -> None:
    """DenseNet normalises what was put side by side."""
    model = lived_in("gfocal", "densenet121")
    fused = model.fuse()
    assert 0 < count(fused, nn.BatchNorm2d) < count(model, nn.BatchNorm2d)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fused(images).cls_logits, model(images).cls_logits, rtol=1e-5, atol=1e-5)


def test_a_fused_copy_is_not_saved(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.fuse\(\) made.*model\.export"):
        lived_in("gfocal", "test_resnet").fuse().save_pretrained(tmp_path)
