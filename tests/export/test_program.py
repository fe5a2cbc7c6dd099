"""A detector as a function of tensors: traced and compiled programs give what the model gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ld_hub.errors import ConfigError
from ld_hub.export.formats import ExportPlan
from ld_hub.export.program import DetectorRows, trace
from ld_hub.export.writing import _convert
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


class FixedSizes:
    """A format whose networks take one image size, as backbones that look at sizes have it."""

    def __init__(self, works: bool) -> None:
        self.works, self.asked = works, []

    def convert(self, rows: DetectorRows, size: tuple[int, int] | None) -> str:
        self.asked.append(size)
        if size is None or not self.works:
            raise ConfigError(f"cannot be exported for {size or 'any size'}")
        return "network"


def test_a_backbone_that_fixes_the_size_gets_a_square_that_holds_every_image() -> None:
    model = create_model("gfocal_tiny", num_classes=3)
    model.data_config = replace(model.data_config, image_size=(100, 170))
    rows = DetectorRows(model)
    network, plan, remark = _convert(FixedSizes(True), rows, ExportPlan())  # type: ignore[arg-type]
    assert (network, plan.size) == ("network", (192, 192)) and "192 x 192 px" in remark
    with pytest.raises(ConfigError, match="for any size"):
        _convert(FixedSizes(False), rows, ExportPlan())  # type: ignore[arg-type]
    given = FixedSizes(False)
    with pytest.raises(ConfigError, match=r"for \(64, 96\)"):
        _convert(given, rows, ExportPlan(size=(64, 96)))  # type: ignore[arg-type]
    assert given.asked == [(64, 96)]


def test_what_cannot_be_traced_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("gfocal_tiny", num_classes=3)
    monkeypatch.setattr(DetectorRows, "forward", lambda self, images, image_sizes: images[int(images.sum()) :])
    with pytest.raises(
        ConfigError, match=r"'gfocal_tiny' \(backbone 'test_resnet'\) cannot be exported for.*64 x 96 px"
    ):
        trace(DetectorRows(model), (64, 96))
