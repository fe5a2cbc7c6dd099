"""GFocal's structures, once and whole: each builds, learns, saves, comes back bit for bit (others: `test_families`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ld_hub
from ld_hub.structures import Targets

STRUCTURES = ["gfocal_tiny", "gfocal_r10t", "gfocal_r18", "gfocal_r50"]
LARGE = ["gfocal_r34", "gfocal_r101", "gfocal_x101_32x4d"]  # the same blocks again, or minutes of CPU


@pytest.mark.parametrize("name", [*STRUCTURES, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGE)])
def test_forward_backward_save_reload(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ld_hub.create_model(name, num_classes=3, label_names=("cat", "dog", "cow"), category_ids=(7, 9, 11)).train()
    for module in model.modules():  # timm starts the last norm of a residual block at 0, which hides its block
        if getattr(module, "weight", None) is not None and module.weight.dim() == 1:
            torch.nn.init.ones_(module.weight)
    images = torch.randn(2, 3, 96, 96)
    boxes = [torch.tensor([[8.0, 8, 40, 60]]), torch.zeros(0, 4)]
    truth = Targets.pad(boxes, [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)], torch.tensor([[96, 96]] * 2))
    output = model(images)
    sum(model.loss(output, truth).values()).backward(retain_graph=True)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and ".scales." not in key:  # levels without positives teach their scale nothing
            assert parameter.grad is not None and parameter.grad.any(), key
    output.box.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None and bool(parameter.grad.any())), key

    model.eval()
    again = ld_hub.create_model(model.save_pretrained(tmp_path / name))
    assert (again.name, again.config, again.label_names) == (model.name, model.config, model.label_names)
    assert (again.category_ids, again.data_config) == (model.category_ids, model.data_config)
    mine, theirs = model.state_dict(), again.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    with torch.no_grad():
        assert torch.equal(model(images).cls_logits, again(images).cls_logits)
