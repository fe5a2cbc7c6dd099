"""Tiles: what they cover, and one set of detections from those of all tiles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ld_hub.data import load_data
from ld_hub.engine.evaluate import evaluate
from ld_hub.errors import ConfigError
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.inference import predict
from ld_hub.models.tiled import candidates, merge_views
from ld_hub.structures import Detections
from ld_hub.tiling import Tiling
from tests.engine.runs import detector, write_data

NAMES = ("a", "b")


def detections(rows: list[tuple[float, ...]]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long(), NAMES)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), size=st.integers(32, 1200), overlap=st.floats(0.0, 0.9),
)  # fmt: skip
def test_tiles_cover_the_image_and_hold_small_objects_whole(width, height, size, overlap):
    views = Tiling(size, overlap).views(width, height)
    assert views[-1] == (0, 0, width, height)
    assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in views)
    if width <= size and height <= size:
        assert len(views) == 1
        return
    tiles = views[:-1]
    assert all(x2 - x1 == min(size, width) and y2 - y1 == min(size, height) for x1, y1, x2, y2 in tiles)
    side = int(size * overlap)  # an object of this side lies whole in a tile, wherever it is
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(view[axis], view[axis + 2]) for view in tiles})
        for start in range(0, length - side + 1, max(1, length // 200)):
            assert any(low <= start and start + side <= high for low, high in spans)


def seen(objects: np.ndarray, view: tuple[int, int, int, int], random: np.random.Generator) -> Detections:
    """A perfect detector: the part of each object that is in the view, with a score that does not tell it."""
    rows = []
    for x1, y1, x2, y2, label in objects.tolist():
        part = [max(x1, view[0]), max(y1, view[1]), min(x2, view[2]), min(y2, view[3])]
        if part[0] < part[2] and part[1] < part[3]:
            corner = (view[0], view[1], view[0], view[1])
            rows.append((*(p - c for p, c in zip(part, corner, strict=True)), float(random.uniform(0.55, 1)), label))
    return detections(sorted(rows, key=lambda row: -row[4]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(60, 900), height=st.integers(60, 900))
def test_a_perfect_detector_stays_perfect(seed, width, height):
    """Objects far apart, no larger than the overlap: each comes back once and whole, in any order of scores."""
    random = np.random.default_rng(seed)
    tiling = Tiling(200, 0.3, whole=False)
    cells = [(x, y) for x in range(0, width - 59, 60) for y in range(0, height - 59, 60)]
    rows = []
    for x, y in cells:
        w, h = random.integers(8, 56, 2)
        x1, y1 = x + random.integers(0, 60 - w), y + random.integers(0, 60 - h)
        rows.append((x1, y1, x1 + w, y1 + h, random.integers(0, 2)))
    objects = np.array(rows)
    views = tiling.views(width, height)
    merged = merge_views([seen(objects, view, random) for view in views], views, PostprocessConfig())
    found = sorted(map(tuple, torch.cat([merged.boxes, merged.labels[:, None]], dim=1).int().tolist()))
    assert found == sorted(map(tuple, objects.tolist()))
    assert (merged.scores.diff() <= 0).all()


def test_a_part_gives_way_to_the_whole_of_its_class_only():
    views = Tiling(100, 0.4, whole=False).views(160, 100)
    assert views == [(0, 0, 100, 100), (60, 0, 160, 100)]
    left = detections([(70, 10, 100, 40, 0.9, 0), (10, 10, 40, 40, 0.8, 1)])  # cut at 100; whole
    right = detections([(10, 10, 50, 40, 0.5, 0), (12, 12, 40, 40, 0.7, 1)])  # whole, at x 70 to 110
    merged = merge_views([left, right], views, PostprocessConfig())
    assert merged.boxes.tolist() == [[10, 10, 40, 40], [72, 12, 100, 40], [70, 10, 110, 40]]
    assert merged.labels.tolist() == [1, 1, 0]
    doubtful = replace(right, scores=torch.tensor([0.4, 0.7]))  # less than half as sure as the part
    assert len(merge_views([left, doubtful], views, PostprocessConfig())) == 4 - 1
    at_image_border = detections([(0, 0, 100, 30, 0.5, 0)])  # ends at the left border of the image, and is cut at 100
    alone = merge_views([at_image_border, detections([])], views, PostprocessConfig())
    assert alone.boxes.tolist() == [[0, 0, 100, 30]]  # nothing else has seen it: a part is better than nothing


def model_of(size: int):
    model = detector(num_classes=3)
    torch.nn.init.constant_(model.head.cls.bias, -1.5)  # untrained, it would see nothing
    for weight in (model.head.cls.weight, model.head.box.weight):
        torch.nn.init.normal_(weight, std=0.2)
    model.data_config = replace(model.data_config, image_size=(size, size))
    model.postprocess_config = replace(model.postprocess_config, score_threshold=0.0, max_detections=20)
    return model


def test_predict_is_the_merging_of_what_each_crop_gives():
    pixels = np.random.default_rng(0).integers(0, 255, (100, 150, 3), dtype=np.uint8)
    image, model = Image.fromarray(pixels), model_of(64)
    tiling = Tiling(64, 0.25)
    views = tiling.views(150, 100)
    assert len(views) == 3 * 2 + 1
    settings = model.postprocess_config
    model.postprocess_config = candidates(settings)
    crops = [model.predict(Image.fromarray(pixels[y1:y2, x1:x2])) for x1, y1, x2, y2 in views]
    expected = merge_views(crops, views, settings)
    model.postprocess_config = settings
    for batch_size in (1, 8):
        found = model.predict(image, tile=64, overlap=0.25, batch_size=batch_size)
        assert torch.allclose(found.boxes, expected.boxes, atol=1e-3)
        assert torch.allclose(found.scores, expected.scores, atol=1e-5) and torch.equal(found.labels, expected.labels)
        assert found.image.size == (150, 100)
    plain = model.predict(image)
    assert len(expected) > len(plain) == 20  # the cap counts in each view
    large = predict(model, image, tiling=Tiling(150))
    assert torch.equal(large.boxes, plain.boxes) and torch.equal(large.scores, plain.scores)


def test_evaluation_in_tiles_scores_whole_images(tmp_path: Path):
    data = write_data(tmp_path / "data")
    images, model = load_data(data, "val"), model_of(32)
    _, evaluator = evaluate(model, images, workers=0, progress=False, tiling=Tiling(40, 0.2))
    file = evaluator.save_detections(tmp_path / "found.json")
    rows = json.loads(Path(file).read_text())
    paths = {int(i): path for i, path in zip(images.records.image_ids, images.records.paths.to_pylist(), strict=True)}
    for image_id, path in paths.items():
        expected = model.predict(path, tile=40, overlap=0.2)
        mine = [row for row in rows if row["image_id"] == image_id]
        assert len(mine) == len(expected) > 3
        boxes: Tensor = torch.tensor([row["bbox"] for row in mine])
        assert torch.allclose(boxes[:, :2], expected.boxes[:, :2], atol=1e-3)


@pytest.mark.parametrize(("size", "overlap"), [(31, 0.2), (64, -0.1), (64, 0.95)])
def test_tiles_that_cannot_be(size, overlap):
    with pytest.raises(ConfigError, match="tile"):
        Tiling(size, overlap)
