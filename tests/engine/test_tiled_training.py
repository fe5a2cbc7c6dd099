"""Training on tiles: pixels and boxes of a tile are those of the image there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ld_hub.data import load_coco, train_loader
from ld_hub.data.tile_set import cut_into_tiles, numbered
from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.engine.lesson_task import LessonTask
from ld_hub.engine.lessons import Lesson
from ld_hub.errors import ConfigError
from ld_hub.preprocessing import TrainTransform
from ld_hub.structures import Unlabeled
from ld_hub.teachers.functions import FunctionTeacher
from ld_hub.tiling import Tiling
from tests.engine.runs import IDS, NAMES, QUICK, detector, distance, distil, records, sets
from tests.support.judged import lively

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


def _everything(aerial: Path, *, junk: bool) -> FunctionTeacher:
    """Knows where all white rectangles are, by whole images, and may see as many where nothing is, less surely."""
    whole, asked = load_coco(aerial, "train").records, []

    def look(images: list[Image.Image]) -> list[dict[str, object]]:
        found = []
        for image in images:
            asked.append(image.size)
            index = [tuple(size) for size in whole.sizes.tolist()].index(image.size[::-1])
            rows = slice(whole.offsets[index], whole.offsets[index + 1])
            boxes, labels = whole.boxes[rows], whole.labels[rows]
            wrong = np.tile([[2.0, 2.0, 5.0, 5.0]], (3 * junk, 1))
            found.append({
                "boxes": np.concatenate([boxes, wrong]), "labels": np.concatenate([labels, np.zeros(len(wrong), int)]),
                "scores": [0.905] * len(boxes) + [0.3] * len(wrong),
            })  # fmt: skip
        return found

    teacher = FunctionTeacher(look)
    teacher.asked = asked
    return teacher


def test_boxes_that_a_teacher_has_found_on_whole_images_are_cut_like_labels(aerial, tmp_path, monkeypatch):
    lessons: list[Lesson] = []
    look = LessonTask.look
    monkeypatch.setattr(LessonTask, "look", lambda *args: lessons.append(look(*args)) or lessons[-1])
    labelled, teacher = load_coco(aerial, "train"), _everything(aerial, junk=True)
    _, trainer = distil(
        aerial, tmp_path / "run", teacher=teacher, recipe=None, tile=64, overlap=0.25, flip=0.0, steps=1,
        unlabeled_dataset=labelled, unlabeled=Unlabeled(batch=10),
    )  # fmt: skip
    assert sorted(teacher.asked) == sorted([(150, 100), (64, 64), (64, 130)] * 2)  # for targets, and for the threshold
    assert trainer.task.scored.images == 3 and trainer.task.scored.sure == (0.9, 0.9, 0.9)
    (lesson,) = lessons  # of the ten tiles: all of them
    found = []
    for image, boxes, labels, valid in zip(
        lesson.batch.images, lesson.targets.boxes, lesson.targets.labels, lesson.targets.valid & lesson.targets.sure,
        strict=True,
    ):  # fmt: skip
        found += [(label, *box) for label, box in zip(labels[valid].tolist(), boxes[valid].tolist(), strict=True)]
        for x1, y1, x2, y2 in boxes[valid].round().int().tolist():
            assert (image[0, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] > 0).all()
    cut = cut_into_tiles(labelled, TILING).records
    expected = [(label, *box) for label, box in zip(cut.labels.tolist(), cut.boxes.tolist(), strict=True)]
    assert np.allclose(sorted(found), sorted(expected), atol=1e-3) and len(found) > 8


def _written(aerial: Path, root: Path) -> Path:
    """The tiles of the training images as files of their own."""
    whole, boxes, images = load_coco(aerial, "train"), [], []
    tiles = cut_into_tiles(whole, TILING).records
    (root / "train").mkdir(parents=True)
    for row, (height, width) in enumerate(tiles.sizes.tolist()):
        tiles.load(row).save(root / f"train/{row}.png")
        images.append({"id": row + 1, "file_name": f"{row}.png", "width": width, "height": height})
        for k in range(tiles.offsets[row], tiles.offsets[row + 1]):
            x1, y1, x2, y2 = tiles.boxes[k].tolist()
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            boxes.append({**box, "category_id": IDS[tiles.labels[k]], "id": len(boxes) + 1, "image_id": row + 1})
    categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": boxes, "categories": categories}
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return root


def test_a_teacher_sees_tiles_without_labels_as_it_would_see_them_in_files(aerial, tmp_path):
    """Detections, losses and terms of tiles are those of the same tiles as images of their own."""
    files, lines, scored, found = _written(aerial, tmp_path / "files"), [], [], []
    teacher = lively(NAMES)
    teacher.category_ids = IDS
    for place, changes in ((aerial, {"tile": 64, "overlap": 0.25}), (files, {})):
        given = load_coco(place, "train")
        _, trainer = distil(
            place, tmp_path / f"run{len(lines)}", teacher=teacher, recipe="ld", flip=0.0, steps=1, batch_size=10,
            unlabeled_dataset=given, unlabeled=Unlabeled(batch=10, threshold=0.3), **changes,
        )  # fmt: skip
        lines.append(records(tmp_path / f"run{len(lines)}")[0])
        scored.append(trainer.task.scored)
        part = trainer.train_dataset if scored[1:] else numbered(trainer.train_dataset)
        found.append([each for _, each in sorted(trainer.task.looker.found_on(part, 4, 0), key=lambda pair: pair[0])])
    assert (scored[0].images, scored[1].images) == (3, 10) and len(found[0]) == 10
    for tile, file in zip(*found, strict=True):  # what thresholds are looked for in
        assert len(tile) == len(file) > 0 and np.allclose(tile.boxes, file.boxes, atol=1e-3)
    names = [name for name in lines[0] if name.startswith(("loss", "unlabeled", "distill"))]
    assert {"unlabeled_cls", "unlabeled_ld", "distill_ld"} <= set(names)
    assert lines[0]["unlabeled_bbox"] > 0
    for name in names:
        assert lines[0][name] == pytest.approx(lines[1][name], rel=1e-4), name


def test_a_teacher_that_is_asked_once_is_asked_about_tiles(aerial, tmp_path):
    changes = {"recipe": "ld", "tile": 64, "flip": 0.0, "steps": 3}
    plain, _ = distil(aerial, tmp_path / "plain", **changes)
    cached, _ = distil(aerial, tmp_path / "cached", cache_teacher=str(tmp_path / "answers"), cache_bits=32, **changes)
    assert distance(dict(plain.state_dict()), dict(cached.state_dict())) < 1e-5
