"""Boxes that a teacher found beforehand go where labels go, whatever training does to the images."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ld_hub.data import DetectionSet, load_coco, train_loader
from ld_hub.data.detection_set import build_rows
from ld_hub.data.unlabeled import load_unlabeled, without_annotations
from ld_hub.distillation.scored_targets import Thresholds
from ld_hub.engine import DetectionTrainer, DistillationTrainer, TrainConfig
from ld_hub.engine.box_table import BoxTable
from ld_hub.preprocessing import DataConfig, train_transform
from ld_hub.preprocessing.augmentation import PRESETS, Augmentation
from ld_hub.structures import Detections, ScoredTargets, Unlabeled
from ld_hub.teachers import load_teacher
from tests.engine.runs import QUICK, detector, distance, equal, records, stop_before_step, weights
from tests.teachers.boxes import photos, write_results

SIZES = ((60, 80), (90, 50), (64, 64), (40, 100))  # height, width in px
MOST = 3  # boxes of an image
SURE, UNSURE = 0.5, 0.25
PARTS = {
    "sizes": Augmentation(short_sides=(40, 90)),
    "crop": Augmentation(crop=1.0),
    "zoom_out": Augmentation(zoom_out=1.0),
    "jitter": Augmentation(scale_jitter=(0.3, 2.0)),
    "color": Augmentation(color=1.0),
    "mosaic": Augmentation(mosaic=1.0),
    "mixup": Augmentation(mixup=1.0),
    **{name: PRESETS[name] for name in ("none", "standard", "strong")},
}

rects = st.tuples(*[st.floats(0, 1)] * 4, st.sampled_from([0.1, 0.3, 0.6, 0.9]))
findings = st.lists(st.lists(rects, max_size=MOST), min_size=len(SIZES), max_size=len(SIZES))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for k, (height, width) in enumerate(SIZES):
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(place / f"{k}.png")
    return [str(place / f"{k}.png") for k in range(len(SIZES))]


def in_px(shares: list[tuple[float, ...]], size: tuple[int, int]) -> tuple[list[list[float]], list[float]]:
    """Boxes with an area, and their scores."""
    boxes, scores = [], []
    for a, b, c, d, score in shares:
        (x1, x2), (y1, y2) = sorted((a * size[1], b * size[1])), sorted((c * size[0], d * size[0]))
        if x2 - x1 > 0.5 and y2 - y1 > 0.5:
            boxes.append([x1, y1, x2, y2])
            scores.append(score)
    return boxes, scores


@pytest.mark.parametrize("part", sorted(PARTS))
@settings(max_examples=25, deadline=None, derandomize=True)
@given(shares=findings, seed=st.integers(0, 10**6))
def test_a_teacher_that_knows_the_labels_has_the_targets_of_the_labels(part, shares, seed, files):
    """Each box is of a class of its own, which says what score it has to have wherever it comes to lie."""
    found, scores, owner, truth, labels = [], [0.0] * (MOST * len(SIZES)), [], [], []
    for image, (each, size) in enumerate(zip(shares, SIZES, strict=True)):
        boxes, own = in_px(each, size)
        classes = [MOST * image + k for k in range(len(boxes))]
        found.append(
            Detections(
                torch.tensor(boxes).reshape(-1, 4), torch.tensor(own), torch.tensor(classes, dtype=torch.int64), ()
            )
        )
        for box, score, label in zip(boxes, own, classes, strict=True):
            scores[label] = score
            if score >= UNSURE:
                owner.append(image)
                truth.append(box)
                labels.append(label)
    columns = np.array(owner, dtype=np.int64), np.array(truth).reshape(-1, 4), np.array(labels, dtype=np.int64)
    rows = build_rows(np.arange(len(files)), files, np.array(SIZES), *columns, np.zeros(len(owner), dtype=bool))
    labelled = DetectionSet(rows, tuple(map(str, range(len(scores)))), tuple(range(len(scores))), "")
    thresholds = Thresholds((SURE,) * len(scores), (UNSURE,) * len(scores))
    table = BoxTable(found, torch.arange(len(scores)), thresholds, torch.device("cpu"))
    marked = table.on(without_annotations(labelled))
    transform = train_transform(DataConfig(image_size=(64, 96)), PARTS[part], seed)
    pairs = zip(*(train_loader(each, transform, 2, seed=seed, workers=0) for each in (labelled, marked)), strict=True)
    score = torch.tensor(scores)
    for mine, theirs in itertools.islice(pairs, 4):
        truth_of, said = mine.targets, table.targets(theirs)
        assert torch.equal(mine.images, theirs.images)
        for name in ("boxes", "labels", "valid", "crowd", "image_sizes"):
            assert torch.equal(getattr(said, name), getattr(truth_of, name)), name
        wanted = score[truth_of.labels] * truth_of.valid
        assert torch.equal(said.scores, wanted) and torch.equal(said.sure, wanted >= SURE)


def one_box_each(files: list[str]) -> tuple[BoxTable, DetectionSet]:
    """A sure box on almost the whole of each image, of a class of its own."""
    found = [Detections(torch.tensor([[5.0, 5, w - 5, h - 5]]), torch.tensor([0.9]), torch.tensor([k]), ())
             for k, (h, w) in enumerate(SIZES)]  # fmt: skip
    none = np.zeros(0, dtype=np.int64)
    rows = build_rows(np.arange(len(SIZES)), files, np.array(SIZES), none, np.zeros((0, 4)), none, none.astype(bool))
    table = BoxTable(found, torch.arange(len(SIZES)), Thresholds.same(0.5, len(SIZES)), torch.device("cpu"))
    return table, table.on(DetectionSet(rows, (), (), ""))


def test_boxes_of_all_images_of_a_mosaic_and_of_a_blend_are_there(files):
    """The law above would also hold for a transform that leaves other images' boxes out."""
    table, marked = one_box_each(files)
    for part, most in (("mosaic", 4), ("mixup", 2), ("none", 1)):
        loader = train_loader(marked, train_transform(DataConfig(image_size=(64, 96)), PARTS[part]), 4, workers=0)
        counts = torch.cat([table.targets(batch).valid.sum(dim=1) for batch in itertools.islice(loader, 5)])
        assert counts.max() == most and counts.float().mean() > most / 2


def test_two_ranks_have_the_targets_of_one(files):
    table, marked = one_box_each(files)
    transform = train_transform(DataConfig(image_size=(64, 96)), PARTS["strong"])
    one = train_loader(marked, transform, 4, workers=0)
    ranks = [train_loader(marked, transform, 2, rank=rank, world=2, workers=0) for rank in range(2)]
    for whole, *parts in itertools.islice(zip(one, *ranks, strict=True), 4):
        kept = dict(zip(whole.image_ids, rows_of(table.targets(whole)), strict=True))
        for part in parts:
            shared = dict(zip(part.image_ids, rows_of(table.targets(part)), strict=True))
            assert shared == {image_id: kept.pop(image_id) for image_id in part.image_ids}
        assert not kept


def rows_of(targets: ScoredTargets) -> list[list[tuple[object, ...]]]:
    """Boxes, classes and scores of each image."""
    columns = zip(targets.boxes, targets.labels, targets.scores, targets.valid, strict=True)
    return [
        [
            (*box, int(label), float(score))
            for box, label, score in zip(boxes[v].tolist(), labels[v], scores[v], strict=True)
        ]
        for boxes, labels, scores, v in columns
    ]


def settings_of(out: Path, **changes: object) -> TrainConfig:
    return TrainConfig(output_dir=str(out), **{**QUICK, "augment": "strong", "steps": 4, **changes})


def test_a_file_of_the_labels_trains_as_the_labels_do(data: Path, tmp_path: Path) -> None:
    """With scores of 1 the weights of a training without labels are those of plain training, to rounding."""
    images = load_coco(data, "train").select(range(10))  # neither crowds nor empty ones
    numbered = images.rows.remove_columns("image_id").add_column("image_id", list(range(10)))
    labelled = DetectionSet(numbered, images.label_names, images.category_ids, images.annotation_file)
    content = json.loads((data / "annotations/instances_train.json").read_text())
    kept = {f"{k}.png" for k in range(10)}
    content["images"] = [image for image in content["images"] if image["file_name"] in kept]
    ids = {image["id"] for image in content["images"]}
    rows = [{**row, "score": 1.0} for row in content["annotations"] if row["image_id"] in ids]
    (tmp_path / "boxes.json").write_text(json.dumps({**content, "annotations": rows}))
    DetectionTrainer(detector(), train_dataset=labelled, config=settings_of(tmp_path / "plain")).train()
    DistillationTrainer(
        detector(),
        load_teacher(tmp_path / "boxes.json"),
        unlabeled=Unlabeled(threshold=SURE, unsure=UNSURE, batch=QUICK["batch_size"]),
        unlabeled_dataset=labelled,
        config=settings_of(tmp_path / "taught"),
    ).train()
    plain, taught = weights(tmp_path / "plain/model"), weights(tmp_path / "taught/model")
    assert distance(taught, plain) < 1e-6 and distance(dict(detector().state_dict()), plain) > 1e-3
    for mine, theirs in zip(records(tmp_path / "taught"), records(tmp_path / "plain"), strict=True):
        for name in ("cls", "bbox", "dfl"):
            assert mine[f"unlabeled_{name}"] == pytest.approx(theirs[f"loss_{name}"], rel=1e-5)


def teach(data: Path, pool: Path, boxes: Path, out: Path, batch: int = 4, **changes: object) -> None:
    """Labels and a file of boxes, all images strongly augmented."""
    DistillationTrainer(
        detector(norm_eval=True),
        load_teacher(boxes),
        unlabeled=Unlabeled(threshold=SURE, unsure=UNSURE, batch=batch),
        unlabeled_dataset=load_unlabeled(pool),
        train_dataset=load_coco(data, "train"),
        config=settings_of(out, **{"batch_size": batch, "mosaic": 0.7, "mixup": 0.4, "close_mosaic": 1, **changes}),
    ).train()


def test_a_broken_run_goes_on_to_the_same_weights(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, boxes = photos(tmp_path / "pool"), write_results(tmp_path / "boxes.json")
    teach(data, pool, boxes, tmp_path / "whole", save_every=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_before_step(patch, 3)
        teach(data, pool, boxes, tmp_path / "broken", save_every=2)
    teach(data, pool, boxes, tmp_path / "broken", save_every=2, resume=True)
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "broken/model"))
    teach(data, pool, boxes, tmp_path / "plain", mosaic=0.0, mixup=0.0)
    assert not equal(weights(tmp_path / "whole/model"), weights(tmp_path / "plain/model"))
