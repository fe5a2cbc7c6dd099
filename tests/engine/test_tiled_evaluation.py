"""Evaluation in tiles scores the detections of whole images, on any number of workers."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.cli.main import main
from ld_hub.data import load_data
from ld_hub.data.loader import read_ahead
from ld_hub.engine.evaluate import evaluate
from ld_hub.errors import DataError, EvaluationError, LdHubError
from ld_hub.tiling import Tiling
from tests.support.judged import lively

NAMES = ("red", "green")


@pytest.fixture(scope="module")
def aerial(tmp_path_factory) -> Path:
    """Three images, larger than a tile, as large, and smaller."""
    root, random = tmp_path_factory.mktemp("aerial"), np.random.default_rng(0)
    (root / "val").mkdir()
    (root / "annotations").mkdir()
    images, boxes = [], []
    for number, (width, height) in enumerate([(150, 100), (64, 64), (40, 50)], start=1):
        pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"val/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        box = {"bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0, "category_id": 3}
        boxes.append({**box, "id": number, "image_id": number})
    categories = [{"id": 3 + k, "name": name} for k, name in enumerate(NAMES)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (root / "annotations/instances_val.json").write_text(json.dumps(content))
    return root


def test_an_evaluation_in_tiles_scores_what_predict_finds(aerial):
    model, dataset, tiling = lively(NAMES), load_data(aerial, "val"), Tiling(64, 0.25)
    metrics, evaluator = evaluate(model, dataset, workers=0, batch_size=3, tiling=tiling)
    rows = evaluator.results()
    for number in (1, 2, 3):
        found = model.predict(aerial / f"val/{number}.png", tile=64, overlap=0.25, batch_size=3)
        expected = [row["bbox"] for row in found.to_coco(number)]
        mine = [row["bbox"] for row in rows if row["image_id"] == number]
        assert len(mine) == len(expected) > 5
        assert np.allclose(mine, expected, atol=1e-3)
    assert metrics.images == 3 and metrics.detections == len(rows)
    again, _ = evaluate(model, dataset, workers=1, batch_size=3, tiling=tiling)
    assert again == metrics
    plain, _ = evaluate(model, dataset, workers=0)
    assert plain.detections != metrics.detections


def test_scores_that_are_no_numbers_are_refused_in_tiles_too(aerial):
    model, dataset = lively(NAMES), load_data(aerial, "val")
    with torch.no_grad():
        model.head.cls.bias[1] = float("nan")
    expected = r"^Image id 1: An image of 64 x 64 px: the model's scores are not numbers \(NaN\)"
    for workers in (0, 2):
        with pytest.raises(EvaluationError, match=expected):
            evaluate(model, dataset, workers=workers, tiling=Tiling(64, 0.25))


def test_images_are_read_ahead_in_order_and_no_further_than_there_are_workers():
    begun, lock = [], threading.Lock()

    def read(row: int) -> int:
        with lock:
            begun.append(row)
        return row * row

    for workers in (0, 1, 3):
        begun.clear()
        found = read_ahead(read, range(20), workers)
        for row in range(20):
            assert next(found) == row * row
            assert len(begun) <= row + 1 + workers
        assert next(found, None) is None and sorted(begun) == list(range(20))


def test_lvis_gets_its_detections_in_tiles_too(aerial, tmp_path):
    """300 of an image, whatever the model's own number is: on images of one tile as without tiles."""
    content = json.loads((aerial / "annotations/instances_val.json").read_text())
    for image in content["images"]:
        image |= {"neg_category_ids": [4], "not_exhaustive_category_ids": []}
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    model, dataset = lively(NAMES), load_data(images=aerial / "val", annotations=tmp_path / "lvis.json", split="val")
    model.postprocess_config = replace(model.postprocess_config, max_detections=3)
    _, whole = evaluate(model, dataset, workers=0, protocol="lvis")
    _, tiled = evaluate(model, dataset, workers=0, protocol="lvis", tiling=Tiling(64, 0.25))
    for number in (2, 3):
        one, other = ([row["bbox"] for row in each.results() if row["image_id"] == number] for each in (whole, tiled))
        assert len(one) == len(other) > 3
        assert np.allclose(one, other, atol=1e-3)


def test_a_damaged_file_is_named(aerial, tmp_path):
    shutil.copytree(aerial, tmp_path / "data")
    (tmp_path / "data/val/2.png").write_bytes(b"no picture")
    for workers in (0, 1, 2):
        with pytest.raises(LdHubError, match=r"2\.png") as caught:
            evaluate(lively(NAMES), load_data(tmp_path / "data", "val"), workers=workers, tiling=Tiling(64))
        assert isinstance(caught.value, DataError)


def test_the_commands_and_what_is_verified(aerial, tmp_path, capsys):
    place = lively(NAMES).save_pretrained(tmp_path / "model")
    words = ["--data", str(aerial), "--workers", "0", "--tile", "64", "--overlap", "0.25"]
    assert main(["eval", str(place), *words, "--out", str(place / "eval")]) == 0
    written = json.loads((place / "eval/metrics.json").read_text())
    assert (written["tile"], written["overlap"]) == (64, 0.25) and "--tile 64" in written["command"]
    assert main(["verify", str(place), "--data", str(aerial), "--workers", "0"]) in (0, 1)
    assert "AP recomputed" in (said := capsys.readouterr().out)
    assert not [line for line in said.splitlines() if "recomputed" in line and "FAIL" in line.upper()]
    picture = str(aerial / "val/1.png")
    assert main(["predict", picture, "--model", str(place), "--out", str(tmp_path / "p"), "--tile", "64"]) == 0
    assert main(["eval", str(place), "--data", str(aerial), "--tile", "8"]) == 2
    assert "tile's side is 8 px; expected at least 32" in capsys.readouterr().err
