"""A detector as a function of tensors: traced and compiled programs give what the model gives."""

from __future__ import annotations

import pytest
import torch

from ld_hub.export.program import DetectorRows
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model


def inputs(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 3, height, width), torch.tensor([[height, width]] * batch)


def assert_rows(found: tuple[torch.Tensor, ...], model: DenseDetector, images: torch.Tensor) -> None:
    """The rows of the model itself, its boxes clipped to the image."""
    with torch.no_grad():
        output = model(images)
    height, width = images.shape[2:]
    limit = torch.tensor([width, height, width, height])
    boxes, scores, quality, level_sizes = found
    assert scores.shape == output.cls_logits.shape and boxes.shape == (*scores.shape[:2], 4)
    torch.testing.assert_close(scores, output.cls_logits.sigmoid())
    torch.testing.assert_close(boxes, output.decode().clamp(min=0).minimum(limit))
    expected = torch.ones_like(quality) if output.quality is None else output.quality.sigmoid()
    torch.testing.assert_close(quality, expected)
    assert tuple(level_sizes.tolist()) == output.priors.level_sizes


@pytest.mark.parametrize(("name", "batch"), [("gfocal_tiny", 2), ("gfocal_r18", 1)])
def test_exported_program_equals_the_model(name: str, batch: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, fpn_channels=32, head_width=32)
    rows = DetectorRows(model)
    assert not model.training
    program = torch.export.export(rows, inputs(batch, 64, 96)).module()
    images, sizes = inputs(batch, 64, 96)
    with torch.no_grad():
        assert_rows(program(images, sizes), model, images)


def test_whole_model_compiles_as_one_graph() -> None:
    rows = DetectorRows(create_model("gfocal_tiny", num_classes=3, fpn_channels=32, head_width=32))
    given = inputs(1, 70, 97)
    with torch.no_grad():
        expected = rows(*given)
        found = torch.compile(rows, fullgraph=True, backend="eager")(*given)
    torch.testing.assert_close(found, expected)


def test_bodies_that_need_padding_compile_for_any_size() -> None:
    small = {"num_classes": 2, "fpn_channels": 16, "head_width": 16, "head_depth": 1}
    rows = DetectorRows(create_model("gfocal", backbone="test_convnext", **small))
    compiled = torch.compile(rows, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        for height, width in ((64, 64), (97, 70)):
            given = inputs(1, height, width)
            torch.testing.assert_close(compiled(*given), rows(*given))


def test_rows_on_the_padding_of_a_batch_have_the_score_zero() -> None:
    model = create_model("fcos", backbone="test_resnet", num_classes=2, fpn_channels=16, head_width=16, head_depth=1)
    rows = DetectorRows(model)
    images = torch.randn(2, 3, 128, 160)
    sizes = torch.tensor([[128, 160], [60, 100]])
    with torch.no_grad():
        _, scores, _, _ = rows(images, sizes)
        valid = model(images).priors.valid(sizes)
    assert valid[0].all() and 0 < int(valid[1].sum()) < valid.shape[1]
    assert torch.equal((scores > 0).all(dim=2), valid)
