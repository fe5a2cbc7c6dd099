"""A detector as a function of tensors: exported and compiled programs give what the model gives."""

from __future__ import annotations

import pytest
import torch

from ld_hub.export.wrapper import ExportWrapper
from ld_hub.models.factory import create_model


@pytest.mark.parametrize(("name", "batch"), [("gfocal_tiny", 2), ("gfocal_r18", 1)])
def test_exported_program_equals_the_model(name: str, batch: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, fpn_channels=32, head_width=32)
    wrapper = ExportWrapper(model)
    assert not model.training
    program = torch.export.export(wrapper, (torch.zeros(batch, 3, 64, 96),)).module()
    images = torch.randn(batch, 3, 64, 96)
    with torch.no_grad():
        output = model(images)
        cls_logits, boxes = program(images)
    assert cls_logits.shape == (batch, len(output.priors), 3) and boxes.shape == (batch, len(output.priors), 4)
    torch.testing.assert_close(cls_logits, output.cls_logits)
    torch.testing.assert_close(boxes, output.decode())


def test_whole_model_compiles_as_one_graph() -> None:
    wrapper = ExportWrapper(create_model("gfocal_tiny", num_classes=3, fpn_channels=32, head_width=32))
    images = torch.randn(1, 3, 70, 97)
    with torch.no_grad():
        expected = wrapper(images)
        found = torch.compile(wrapper, fullgraph=True, backend="eager")(images)
    torch.testing.assert_close(found, expected)


def test_bodies_that_need_padding_compile_for_any_size() -> None:
    small = {"num_classes": 2, "fpn_channels": 16, "head_width": 16, "head_depth": 1}
    wrapper = ExportWrapper(create_model("gfocal", backbone="test_convnext", **small))
    compiled = torch.compile(wrapper, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        for size in ((64, 64), (97, 70)):
            images = torch.randn(1, 3, *size)
            torch.testing.assert_close(compiled(images), wrapper(images))
