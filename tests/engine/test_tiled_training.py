"""Training on tiles: pixels and boxes of a tile are those of the image there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ld_hub.data import load_coco, train_loader
from ld_hub.data.tile_set import cut_into_tiles
from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.preprocessing import TrainTransform
from ld_hub.tiling import Tiling
from tests.engine.runs import IDS, NAMES, QUICK, detector, distance, distil, records, sets

TILING = Tiling(64, 0.25)


@pytest.fixture(scope="module")
def aerial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black images with a white rectangle per box."""
    root, random = tmp_path_factory.mktemp("aerial"), np.random.default_rng(0)
    for split in ("train", "val"):
        (root / split).mkdir()
        images, boxes = [], []
        for number, (width, height) in enumerate([(150, 100), (64, 64), (64, 130)], start=1):
            pixels = np.zeros((height, width, 3), dtype=np.uint8)
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
            for _ in range(3):
                x, y = int(random.integers(0, width - 24)), int(random.integers(0, height - 24))
                w, h = (int(each) for each in random.integers(10, 24, 2))
                pixels[y : y + h, x : x + w] = 255
                box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "category_id": IDS[len(boxes) % 3]}
                boxes.append({**box, "id": len(boxes) + 1, "image_id": number})
            Image.fromarray(pixels).save(root / split / f"{number}.png")
        categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)]
        (root / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": boxes, "categories": categories}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def test_a_tile_shows_what_its_image_has_there(aerial):
    whole = load_coco(aerial, "train")
    tiles, before = cut_into_tiles(whole, TILING).records, whole.records
    places = [(image, tile) for image, (height, width) in enumerate(before.sizes.tolist())
              for tile in TILING.tiles(width, height)]  # fmt: skip
    assert len(places) == len(tiles.image_ids) == 6 + 1 + 3
    for row, (image, (x1, y1, x2, y2)) in enumerate(places):
        pixels = np.asarray(before.load(image))[y1:y2, x1:x2]
        assert np.array_equal(np.asarray(tiles.load(row)), pixels)
        assert tiles.sizes[row].tolist() == [y2 - y1, x2 - x1] and tiles.image_ids[row] == before.image_ids[image]
        expected = []
        for k in range(before.offsets[image], before.offsets[image + 1]):
            bx1, by1, bx2, by2 = before.boxes[k].tolist()
            inside = [max(bx1, x1), max(by1, y1), min(bx2, x2), min(by2, y2)]
            wide, high = max(inside[2] - inside[0], 0), max(inside[3] - inside[1], 0)
            if wide * high >= 0.3 * (bx2 - bx1) * (by2 - by1):
                moved = [inside[0] - x1, inside[1] - y1, inside[2] - x1, inside[3] - y1]
                expected.append((moved, int(before.labels[k])))
        mine = slice(tiles.offsets[row], tiles.offsets[row + 1])
        assert list(zip(tiles.boxes[mine].tolist(), tiles.labels[mine].tolist(), strict=True)) == expected
        for (left, top, right, bottom), _ in expected:
            assert (pixels[int(top) : int(bottom), int(left) : int(right)] == 255).all()
    assert sum(np.diff(tiles.offsets) > 0) > 5


def test_every_tile_has_a_hash_of_its_own_and_empty_ones_may_be_left_out(aerial):
    cut = cut_into_tiles(load_coco(aerial, "train"), TILING)
    hashes = {cut.records.find_file_hash(index) for index in range(len(cut))}
    assert len(hashes) == len(cut) == 10
    counts = np.diff(cut.records.offsets)
    assert len(cut.without_empty()) == int((counts > 0).sum())
    assert cut.without_empty().records.crops is not None


def test_batches_of_tiles(aerial):
    model, cut = detector(), cut_into_tiles(load_coco(aerial, "train"), TILING)
    for workers in (0, 1):
        batch = next(iter(train_loader(cut, TrainTransform(model.data_config, flip=0.0), 4, workers=workers)))
        assert batch.images.shape == (4, 3, 64, 64) and batch.image_sizes.unique().tolist() == [64]
        for image, boxes, valid in zip(batch.images, batch.targets.boxes, batch.targets.valid, strict=True):
            for x1, y1, x2, y2 in boxes[valid].round().int().tolist():
                assert (image[0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] > 0).all()


def test_a_run_on_tiles_is_evaluated_on_whole_images_and_resumed(aerial, tmp_path, capsys):
    training, evaluation = sets(aerial)

    def run(name: str, **changes: object) -> DetectionTrainer:
        settings = {**QUICK, "steps": 4, "save_every": 2, "tile": 64, "overlap": 0.25, **changes}
        config = TrainConfig(output_dir=str(tmp_path / name), **settings)
        trainer = DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config)
        result = trainer.train()
        assert result.metrics is not None and result.metrics.images == 3
        return trainer

    one = run("run")
    assert "data       10 tiles of 64 px of 3 classes, 3 images to evaluate" in capsys.readouterr().out
    assert records(tmp_path / "run")[-1]["epoch"] == pytest.approx(1.6)
    again = run("other", resume=str(tmp_path / "run/checkpoints/step_00000002"))
    assert distance(dict(again.model.state_dict()), dict(one.model.state_dict())) == 0
    with pytest.raises(ConfigError, match=r"overlap: 0\.25 there, 0\.5 now"):
        run("third", overlap=0.5, resume=str(tmp_path / "run/checkpoints/step_00000002"))
    with pytest.raises(ConfigError, match="side is 8 px"):
        TrainConfig(tile=8)


def test_a_teacher_that_is_asked_once_is_asked_about_tiles(aerial, tmp_path):
    changes = {"recipe": "ld", "tile": 64, "flip": 0.0, "steps": 3}
    plain, _ = distil(aerial, tmp_path / "plain", **changes)
    cached, _ = distil(aerial, tmp_path / "cached", cache_teacher=str(tmp_path / "answers"), cache_bits=32, **changes)
    assert distance(dict(plain.state_dict()), dict(cached.state_dict())) < 1e-5
