"""The graphs around the network, alone: they do what this library does with torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.errors import ConfigError
from ld_hub.export.choice_graph import choice_graph
from ld_hub.export.pixel_graph import pixel_graph
from ld_hub.layers.postprocess import PostprocessConfig, postprocess
from ld_hub.preprocessing import DataConfig, Preprocessor, collate
from ld_hub.runtime.choosing import choose
from ld_hub.runtime.exported_files import Choice, ExportedError, Preparation
from ld_hub.runtime.pixels import prepare
from ld_hub.structures import DenseOutput
from tests.support.build import output

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra `export`)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `export`)")


def session(text: str):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


def rows_of(dense: DenseOutput, sizes: torch.Tensor) -> dict[str, np.ndarray]:
    height, width = sizes.float().unbind(1)
    limit = torch.stack([width, height, width, height], dim=1)[:, None]
    boxes = dense.decode().float().clamp(min=0).minimum(limit)
    scores = dense.cls_logits.sigmoid() * dense.priors.valid(sizes)[:, :, None]
    quality = torch.ones_like(scores[:, :, 0]) if dense.quality is None else dense.quality.sigmoid()
    values = {"row_boxes": boxes, "row_scores": scores, "row_quality": quality}
    return {name: value.detach().numpy() for name, value in values.items()} | {
        "level_sizes": np.array(dense.priors.level_sizes, np.int64)
    }


@pytest.mark.parametrize("prefilter", ["location", "pair"])
@pytest.mark.parametrize(("family", "plain"), [("gfocal", False), ("fcos", True), ("retinanet", True)])
@pytest.mark.parametrize(("nms_pre", "most"), [(20, 15), (1000, 100)])
def test_choices_are_those_of_postprocess(prefilter: str, family: str, plain: bool, nms_pre: int, most: int) -> None:
    config = PostprocessConfig(nms_pre=nms_pre, max_detections=most, prefilter=prefilter, score_threshold=0.3)
    dense = output(3, seed=1, dtype=torch.float32, family=family, plain=plain)
    sizes = torch.tensor([[96, 128], [60, 128], [96, 33]])
    expected = postprocess(dense, sizes, None, config)
    rows = rows_of(dense, sizes)
    boxes, scores, labels = session(choice_graph(config, 5)).run(None, rows)
    choice = Choice(0.3, config.nms_iou, nms_pre, most, prefilter)
    for n, theirs in enumerate(expected):
        assert len(theirs.scores) > 0
        graph = [each[n][: len(theirs.scores)] for each in (boxes, scores, labels)]
        assert (scores[n][len(theirs.scores) :] == 0).all() and (labels[n][len(theirs.scores) :] == -1).all()
        plain_numpy = choose(*(rows[name][n] for name in list(rows)[:3]), rows["level_sizes"], choice)
        for mine in (graph, plain_numpy):
            np.testing.assert_allclose(mine[1], theirs.scores.detach(), rtol=0, atol=1e-6)
            np.testing.assert_allclose(mine[0], theirs.boxes.detach(), rtol=1e-5, atol=1e-4)
            np.testing.assert_array_equal(mine[2], theirs.labels)


def test_other_kinds_of_nms_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"soft_linear.*expected 'hard'.*--no_nms"):
        choice_graph(PostprocessConfig(nms="soft_linear"), 5)
    empty = np.zeros((1, 4), np.float32)
    with pytest.raises(ExportedError, match="soft_linear"):
        choose(empty, empty, empty[:, 0], np.array([1]), Choice(0.1, 0.5, 9, 9, nms="soft_linear"))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_pixels_are_prepared_to_the_last_grey_level(order: str) -> None:
    """Shrunk, enlarged, left alone; by the graph, by NumPy and by torch."""
    config = DataConfig(image_size=(64, 96), channel_order=order, std=(58.395, 57.12, 57.375))
    preparation = Preparation(config.mean, config.std, order, config.image_size, config.size_divisor)
    run = session(pixel_graph(config, None))
    random = np.random.default_rng(0)
    for height, width in ((64, 96), (150, 200), (31, 77), (200, 40), (5, 7), (1, 90)):
        pixels = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        preprocess = Preprocessor(config)
        expected = collate([preprocess(Image.fromarray(each)) for each in pixels])
        images, sizes, factors = run.run(None, {"pixels": pixels})
        batch = prepare(list(pixels), preparation, None)
        for mine in (images, batch.images):
            # a grey level is 0.017
            np.testing.assert_allclose(mine, expected.images, rtol=0, atol=1e-6)
        for mine in (sizes, batch.image_sizes):
            np.testing.assert_array_equal(mine, expected.image_sizes)
        np.testing.assert_allclose(factors, expected.scale_factors.repeat(1, 2)[0], rtol=1e-6)
        np.testing.assert_allclose(batch.factors, expected.scale_factors.repeat(1, 2), rtol=1e-6)


def test_a_fixed_size_holds_every_image() -> None:
    config = replace(DataConfig(), image_size=(64, 96))
    preparation = Preparation(config.mean, config.std, "rgb", config.image_size, config.size_divisor)
    run = session(pixel_graph(config, (64, 96)))
    for height, width in ((64, 96), (300, 100), (20, 30)):
        pixels = np.full((1, height, width, 3), 200, np.uint8)
        images, sizes, factors = run.run(None, {"pixels": pixels})
        batch = prepare(list(pixels), preparation, (64, 96))
        assert images.shape == batch.images.shape == (1, 3, 64, 96)
        np.testing.assert_array_equal(sizes, batch.image_sizes)
        np.testing.assert_allclose(factors, batch.factors[0])
        assert (sizes[0] <= (64, 96)).all() and (
            sizes[0] / (height, width) == pytest.approx(factors[:2][::-1], rel=1e-6)
        )
