"""Every kind of teacher that only detects teaches a student; its scored targets are those of NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.data import load_coco, train_loader
from ld_hub.data.unlabeled import load_unlabeled
from ld_hub.engine import DistillationTrainer, TrainConfig, looking
from ld_hub.errors import CacheError, ConfigError, DataError
from ld_hub.hub import ShardStore
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import TrainTransform
from ld_hub.structures import Detections, Unlabeled
from ld_hub.teachers import BoxTeacher, load_teacher
from ld_hub.teachers.functions import FunctionTeacher
from ld_hub.teachers.photos import photos_of
from tests.engine.runs import NAMES, QUICK, detector, equal, records, weights
from tests.teachers.boxes import SIZES, Row, known, photos, write_predictions, write_results

SURE, UNSURE = 0.5, 0.25


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return photos(tmp_path / "pool")


def trainer(
    data: Path, out: Path, teacher: Any, pool: Path, labelled: bool = True, config: Any = None, **options: Any
) -> DistillationTrainer:
    unlabeled = Unlabeled(**{"threshold": SURE, "unsure": UNSURE, "batch": 3, **options.pop("unlabeled", {})})
    return DistillationTrainer(
        detector(),
        teacher,
        unlabeled=unlabeled,
        unlabeled_dataset=load_unlabeled(pool),
        train_dataset=load_coco(data, "train") if labelled else None,
        config=TrainConfig(output_dir=str(out), **{**QUICK, **(config or {})}),
        **options,
    )


def in_numpy(rows: list[Row], size: tuple[int, int], after: tuple[int, int], mirrored: bool) -> list[tuple[Any, ...]]:
    """Targets of one image: class, box in px of the batch's image, score, sure."""
    found = []
    for name, box, score in sorted(rows, key=lambda row: -row[2]):
        if score < UNSURE:
            continue
        x1, y1, x2, y2 = np.array(box, dtype=np.float64)
        x1, x2 = (min(max(x, 0), size[1]) * after[1] / size[1] for x in (x1, x2))
        y1, y2 = (min(max(y, 0), size[0]) * after[0] / size[0] for y in (y1, y2))
        if mirrored:
            x1, x2 = after[1] - x2, after[1] - x1
        found.append((NAMES.index(name), (x1, y1, x2, y2), score, score >= SURE))
    return found


def test_scored_targets_are_those_of_numpy_whatever_was_done_to_the_images(data: Path, pool: Path, tmp_path: Path):
    made = trainer(data, tmp_path / "run", load_teacher(write_results(tmp_path / "boxes.json")), pool)
    images = made.unlabeled_dataset
    marked = made.task.prepare(images, None, TrainConfig(eval_batch_size=2, workers=0), torch.device("cpu"))
    names = ["/".join(Path(path).parts[-2:]) for path in images.records.paths.to_pylist()]
    transform = TrainTransform(made.model.data_config, 0.5, (40, 64), 0)
    seen = []
    for step, batch in enumerate(train_loader(marked, transform, 3, workers=0)):
        lesson = made.task.look(batch)
        targets = lesson.targets
        assert lesson.batch.targets is None  # numbers of detections are no labels
        for n, image_id in enumerate(batch.image_ids):
            after, mirrored = tuple(batch.image_sizes[n].tolist()), transform.draw((step // 2, image_id))[0]
            name = names[image_id]
            wanted = in_numpy(known()[name], SIZES[list(known()).index(name)], after, mirrored)
            assert int(targets.valid[n].sum()) == len(wanted) and targets.valid[n, : len(wanted)].all()
            for k, (label, box, score, sure) in enumerate(wanted):
                assert targets.boxes[n, k].tolist() == pytest.approx(box, abs=1e-3)
                assert (int(targets.labels[n, k]), bool(targets.sure[n, k])) == (label, sure)
                assert targets.scores[n, k].item() == pytest.approx(score)
            assert not targets.boxes[n, len(wanted) :].any() and not targets.sure[n, len(wanted) :].any()
            seen.append((mirrored, after == SIZES[list(known()).index(name)]))
        if step == 7:
            break
    assert {mirrored for mirrored, _ in seen} == {True, False} and not all(whole for _, whole in seen)


def as_detections(images: list[Image.Image]) -> list[Detections]:
    """One box in the middle of each."""
    found = []
    for image in images:
        box = torch.tensor([[0.2 * image.width, 0.2 * image.height, 0.8 * image.width, 0.8 * image.height]])
        found.append(Detections(box, torch.tensor([0.9]), torch.tensor([1]), ("cow", "green")))
    return found


def as_mappings(images: list[Image.Image]) -> list[dict[str, Any]]:
    """The same without names: the student's, in their order."""
    return [{"boxes": each.boxes.numpy(), "scores": [0.9], "labels": [1]} for each in as_detections(images)]


@pytest.mark.parametrize("teacher", [as_detections, as_mappings])
def test_a_function_teaches(data: Path, pool: Path, tmp_path: Path, teacher: Callable[..., Any]) -> None:
    made = trainer(data, tmp_path / "run", teacher, pool)
    made.train()
    table, objects = made.task.looker.table, made.unlabeled_dataset.records
    assert table.labels.tolist() == [0] + [1] * 6 and objects.labels.tolist() == [1, 2, 3, 4, 5, 6]
    assert objects.offsets.tolist() == list(range(7))
    assert objects.boxes[3].tolist() == pytest.approx([0.2 * 96, 0.2 * 64, 0.8 * 96, 0.8 * 64], rel=1e-6)
    line = records(tmp_path / "run")[0]
    assert {name for name in line if name.startswith(("distill_", "unlabeled_"))} == {
        f"unlabeled_{name}" for name in ("cls", "bbox", "dfl")
    }
    assert all(line[name] > 0 for name in line if name.startswith("unlabeled_"))
    saved = create_model(tmp_path / "run/model").teaching
    assert (saved.recipe, saved.teachers) == ("scored_targets", (teacher.__name__,))
    assert saved.kinds == {teacher.__name__: "function"}
    assert (saved.scored.images, saved.scored.sure, saved.scored.unsure) == (6, (SURE,) * 3, (UNSURE,) * 3)
    assert not saved.terms and not saved.origins


def test_files_teach_as_a_function_that_says_the_same(data: Path, pool: Path, tmp_path: Path) -> None:
    def function(images: list[Image.Image]) -> list[Detections]:
        said = []
        for image in images:
            rows = known()[list(known())[SIZES.index((image.height, image.width))]]
            boxes = torch.tensor([box for _, box, _ in rows]).reshape(-1, 4)
            labels = torch.tensor([NAMES.index(name) for name, _, _ in rows], dtype=torch.int64)
            said.append(Detections(boxes, torch.tensor([score for _, _, score in rows]), labels, NAMES))
        return said

    results = load_teacher(write_results(tmp_path / "boxes.json"))
    predictions = load_teacher(write_predictions(tmp_path / "predict"))
    for name, one in (("coco", results), ("yolo", predictions), ("function", function)):
        trainer(data, tmp_path / name, one, pool).train()
    found = {name: weights(tmp_path / name / "model") for name in ("coco", "yolo", "function")}
    start = detector().state_dict()
    for name, tensor in found["function"].items():
        assert all(torch.allclose(found[file][name].float(), tensor.float(), atol=1e-5) for file in ("coco", "yolo"))
    assert not equal(found["function"], dict(start))
    for name, teacher in (("coco", results), ("yolo", predictions)):
        saved = create_model(tmp_path / name / "model").teaching
        assert saved.origins == {teacher.name: f"sha256:{teacher.digest}"} and len(teacher.digest) == 64
        assert saved.kinds == {teacher.name: teacher.kind}


def test_without_labels_and_resumed(data: Path, pool: Path, tmp_path: Path) -> None:
    place = write_results(tmp_path / "boxes.json")
    whole = trainer(data, tmp_path / "run", load_teacher(place), pool, labelled=False, config={"save_every": 1})
    whole.train()
    settings = {"save_every": 1, "resume": True}
    trainer(data, tmp_path / "run", load_teacher(place), pool, labelled=False, config=settings).train()
    write_results(place, known(seed=6))
    with pytest.raises(ConfigError, match="teacher_weights_sha256"):
        trainer(data, tmp_path / "run", load_teacher(place), pool, labelled=False, config=settings).train()


class Guess(BoxTeacher):
    """Knows the labels of some images: its threshold of best F1 is known beforehand."""

    kind = "guess"

    def __init__(self, data: Path) -> None:
        super().__init__("guess", NAMES)
        self.truth = load_coco(data, "train")
        self.asked: list[str] = []

    def detect(self, photos: Any) -> list[Detections]:
        found = []
        records = self.truth.records
        paths = records.paths.to_pylist()
        for photo in photos:
            self.asked.append(photo.path)
            if photo.path not in paths:
                found.append(Detections.empty(NAMES))
                continue
            index = paths.index(photo.path)
            rows = slice(int(records.offsets[index]), int(records.offsets[index + 1]))
            boxes, labels = torch.from_numpy(records.boxes[rows].copy()), torch.from_numpy(records.labels[rows].copy())
            wrong = torch.tensor([[0.0, 0, 6, 6]])  # of a score below all that are right
            scores = torch.tensor([0.8] * len(labels) + [0.3])
            found.append(Detections(torch.cat([boxes, wrong]), scores, torch.cat([labels, labels.new_zeros(1)]), NAMES))
        return found


def test_thresholds_are_found_on_the_labels_and_each_image_is_asked_about_once(data: Path, pool: Path, tmp_path: Path):
    teacher = Guess(data)
    made = trainer(data, tmp_path / "run", teacher, pool, unlabeled={"threshold": None, "unsure": None})
    made.train()
    assert made.task.scored.sure == (0.8,) * 3 and made.task.scored.unsure == (0.4,) * 3
    assert len(teacher.asked) == len(set(teacher.asked)) == 6 + 12


def test_a_file_without_labelled_images_has_the_usual_threshold(data: Path, pool: Path, tmp_path: Path) -> None:
    teacher = load_teacher(write_results(tmp_path / "boxes.json"))
    made = trainer(data, tmp_path / "run", teacher, pool, unlabeled={"threshold": None, "unsure": None})
    made.train()
    assert made.task.scored.sure == (0.45,) * 3
    assert any("has no boxes of images with labels to find a threshold on: it is 0.45" in r for r in made.task.remarks)


def test_images_that_a_file_does_not_know_are_left_out_and_counted(data: Path, pool: Path, tmp_path: Path) -> None:
    some = dict(list(known().items())[1:])
    made = trainer(data, tmp_path / "run", load_teacher(write_results(tmp_path / "boxes.json", some)), pool)
    assert len(made.unlabeled_dataset) == 5
    assert "says nothing about 1 of the 6 images without labels, which are left out: " in made.task.remarks[0]
    made.train()
    assert made.task.scored.images == 5
    others = {f"other.{k}.png": rows for k, rows in enumerate(known().values())}
    with pytest.raises(DataError, match=r"knows none of the 6 images without labels in .*other\.0\.png.*called alike"):
        trainer(data, tmp_path / "no", load_teacher(write_results(tmp_path / "other.json", others)), pool)


def test_ids_of_a_data_set_given_as_images_without_labels(data: Path, tmp_path: Path) -> None:
    content = json.loads((data / "annotations/instances_train.json").read_text())
    box = {"category_id": 5, "bbox": [4, 5, 30, 20], "score": 0.7}
    rows = [{"image_id": image["id"], **box} for image in content["images"]]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    made = trainer(data, tmp_path / "run", load_teacher(tmp_path / "boxes.json"), data, labelled=False)
    made.train()
    assert made.task.scored.images == 12 and set(made.task.looker.table.labels[1:].tolist()) == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"recipe": "ld"},
            r"only detects.*the recipe 'ld' \(ld\) compares rows or maps.*Leave recipe",
        ),
        ({"balance": "gradient"}, r"balance \(--balance\) is about a recipe's terms"),
        ({"individual_ld": True}, "individual_ld .* is about a recipe's terms"),
        ({"teacher_scale": 2.0}, "teacher_scale .* is about a recipe's terms"),
        ({"unlabeled": {"targets": False}}, "would teach nothing"),
        ({"class_map": {"red": "cat"}}, "class_map names 'cat' as a class of teacher 'boxes.json'"),
    ],
)
def test_what_such_a_teacher_cannot_do(data: Path, pool: Path, tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(data, tmp_path / "run", load_teacher(write_results(tmp_path / "boxes.json")), pool, **options).train()


def test_other_refusals(data: Path, pool: Path, tmp_path: Path) -> None:
    labelled = load_coco(data, "train")
    with pytest.raises(ConfigError, match=r"teach on images without labels. Give some: --unlabeled DIR"):
        DistillationTrainer(detector(), as_detections, train_dataset=labelled)
    with pytest.raises(ConfigError, match="is a Linear, whose outputs are not known here"):
        DistillationTrainer(detector(), torch.nn.Linear(2, 2), train_dataset=labelled)
    names = [{"id": i, "name": n} for i, n in ((4, "dog"), (7, "cat"), (20, "cow"))]
    teacher = load_teacher(write_results(tmp_path / "boxes.json", categories=names))
    with pytest.raises(ConfigError, match=r"teacher 'boxes.json' \(dog, cat, cow\) and student .*\(red, green, blue\)"):
        trainer(data, tmp_path / "run", teacher, pool).train()
    made = trainer(data, tmp_path / "map", teacher, pool, class_map={"red": "cat"})
    made.train()
    assert set(made.task.looker.table.labels[1:].tolist()) == {0}
    assert "does not have 2 of the student's classes (green, blue): such objects are" in made.task.remarks[-1]
    outside = {name: [("red", [500.0, 500, 520, 520], 0.9)] * 3 for name in known()}
    with pytest.raises(DataError, match="18 boxes lie outside their images or have no area, more than the 0 others"):
        trainer(data, tmp_path / "out", load_teacher(write_results(tmp_path / "outside.json", outside)), pool).train()
    for function, message in (
        (lambda images: [], "gave 0 results for 6 images|gave 0 results for"),
        (lambda images: [7] * len(images), "gave int; expected Detections, or a mapping"),
        (lambda images: [{"boxes": [[1, 2, 9, 9]], "scores": [0.9], "labels": [5]}] * len(images), "gave the label 5"),
        (lambda images: [{"boxes": [[1, 2, 9, 9]], "scores": [90], "labels": [1]}] * len(images), "divided by 100"),
    ):
        with pytest.raises(DataError, match=message):
            trainer(data, tmp_path / "bad", function, pool).train()


def test_every_rank_gets_the_same_of_shares(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos_of(load_unlabeled(pool))
    whole = looking.look_at(FunctionTeacher(as_detections), images, 4).found
    shares: list[Any] = []
    monkeypatch.setattr(looking, "world_size", lambda: 4)
    monkeypatch.setattr(looking, "gathered", lambda part: shares.append(part) or [part])
    for rank in range(4):
        monkeypatch.setattr(looking, "rank", lambda rank=rank: rank)
        looking.look_at(FunctionTeacher(as_detections), images, 1)
    assert [len(share[0]) for share in shares] == [2, 2, 1, 1]
    monkeypatch.setattr(looking, "gathered", lambda part: shares)
    found = looking.look_at(FunctionTeacher(as_detections), images, 1).found
    assert all(torch.equal(one.boxes, other.boxes) for one, other in zip(whole, found, strict=True))


def test_what_was_found_is_kept_in_a_store_and_read_from_it(pool: Path, tmp_path: Path) -> None:
    images = photos_of(load_unlabeled(pool))
    asked: list[int] = []

    def function(photographs: list[Image.Image]) -> list[Detections]:
        asked.append(len(photographs))
        return as_detections(photographs)

    def look(number: int) -> list[Detections]:
        store = ShardStore(tmp_path / "kept", {"teacher": "x"})
        return looking.look_at(FunctionTeacher(function), images[:number], 3, store).found

    assert [len(look(4)), len(look(6))] == [4, 6] and asked == [3, 1, 2]
    again = look(6)
    assert asked == [3, 1, 2]
    for one, other in zip(again, looking.look_at(FunctionTeacher(function), images, 6).found, strict=True):
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.labels, other.labels)
        assert one.label_names == ("cow", "green")  # told by answers alone


def test_runs_share_a_cache_and_its_boxes_follow_every_augmentation(data: Path, pool: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def function(photographs: list[Image.Image]) -> list[Detections]:
        asked.append(len(photographs))
        return as_detections(photographs)

    place, config = str(tmp_path / "kept"), {"short_sides": (40, 64), "augment": "strong"}
    with pytest.raises(ConfigError, match="an attribute 'version'"):
        trainer(data, tmp_path / "no", function, pool, cache_teacher=place).train()
    function.version = "1"  # type: ignore[attr-defined]
    for name in ("first", "second"):
        trainer(data, tmp_path / name, function, pool, cache_teacher=place, config=config).train()
    assert sum(asked) == 6
    trainer(data, tmp_path / "live", function, pool, config=config).train()
    assert equal(weights(tmp_path / "second/model"), weights(tmp_path / "live/model"))
    function.version = "2"  # type: ignore[attr-defined]
    with pytest.raises(CacheError, match="weights: 1 there, 2 now"):
        trainer(data, tmp_path / "other", function, pool, cache_teacher=place).train()
