"""Images without labels in a training step: losses against a loop in NumPy, and what must not reach them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.data.unlabeled import load_unlabeled
from ld_hub.distillation import Distiller
from ld_hub.distillation.scored_targets import Thresholds
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.engine.detection_task import step_counts
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.lessons import DenseLooker, choose_thresholds, describe_parts
from ld_hub.errors import ConfigError, DataError
from ld_hub.structures import ImageBatch, Unlabeled
from tests.engine.runs import NAMES, QUICK, detector, equal, records, weights
from tests.engine.test_tasks import batch

SURE, UNSURE = 0.0105, 0.01  # scores of an untrained teacher lie about 0.01


def task(recipe: str = "vlr", **options: object) -> DistillationTask:
    unlabeled = Unlabeled(**{"threshold": SURE, "unsure": UNSURE, **options})  # type: ignore[arg-type]
    made = DistillationTask(detector(), detector(seed=1), Distiller(recipe), unlabeled=unlabeled)
    made.teacher.postprocess_config = replace(made.teacher.postprocess_config, score_threshold=0.005)
    thresholds = Thresholds((SURE,) * 3, (UNSURE,) * 3)
    made.looker = DenseLooker(made.teacher, made.student, thresholds)
    return made.train()


def images(number: int = 3, seed: int = 5) -> ImageBatch:
    return replace(batch(number, seed), targets=None)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def iou_and_giou(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return inter / union, inter / union - (hull - union) / hull


def in_loops(made: DistillationTask, data: ImageBatch) -> dict[str, float]:
    """GFocal's losses (GFL, eq. 8) against the teacher's detections, one row after the other."""
    teacher, student = made.teacher, made.student
    with torch.no_grad():
        said = teacher(data.images)
        found = teacher.postprocess(said, data.image_sizes)
        out = student(data.images)
    priors = out.priors
    centers, strides = priors.centers.numpy().astype(float), priors.strides.numpy().astype(float)
    logits, bins = out.cls_logits.numpy().astype(float), out.box.numpy().astype(float)
    valid = priors.valid(data.image_sizes).numpy()
    rows = []  # image, row, class, target box in px, score
    ignored, samples = set(), 0
    for n, each in enumerate(found):
        kept = [k for k in range(len(each)) if each.scores[k] >= UNSURE]
        boxes, scores = each.boxes[kept].numpy().astype(float), each.scores[kept].numpy().astype(float)
        owner = student.assigner(priors, _targets(each, kept, data, n), len(NAMES))
        positives = 0
        for a, g in enumerate(owner.gt_index[0].tolist()):
            if g >= 0 and scores[g] >= SURE:
                rows.append((n, a, int(each.labels[kept[g]]), boxes[g], scores[g]))
                positives += 1
            elif g >= 0:
                ignored.add((n, a))
        samples += max(positives, 1)
    loss_cls, box_sum, dfl_sum, pulled, weight_sum = 0.0, 0.0, 0.0, 0.0, 0.0
    for n in range(len(logits)):
        for a in range(logits.shape[1]):
            if valid[n, a] and (n, a) not in ignored and (n, a) not in {(r[0], r[1]) for r in rows}:
                p = sigmoid(logits[n, a])
                loss_cls += float((p**2 * -np.log(1 - p)).sum())
    steps = np.arange(bins.shape[-1])
    for n, a, label, target, score in rows:
        odds = np.exp(bins[n, a] - bins[n, a].max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        side = (odds * steps).sum(axis=1)
        mine = np.concatenate([centers[a] / strides[a] - side[:2], centers[a] / strides[a] + side[2:]])
        theirs = target / strides[a]
        iou, giou = iou_and_giou(mine, theirs)
        p = sigmoid(logits[n, a])
        entropy = -(iou * np.log(p[label]) + (1 - iou) * np.log(1 - p[label]))
        others = np.delete(p, label)
        loss_cls += score * ((iou - p[label]) ** 2 * entropy + float((others**2 * -np.log(1 - others)).sum()))
        distance = np.concatenate([centers[a] / strides[a] - theirs[:2], theirs[2:] - centers[a] / strides[a]])
        distance = distance.clip(0, len(steps) - 1 - 0.1)
        left = distance.astype(int)
        dfl = sum(
            -(left[e] + 1 - distance[e]) * np.log(odds[e, left[e]])
            - (distance[e] - left[e]) * np.log(odds[e, left[e] + 1])
            for e in range(4)
        )
        best = p.max()
        box_sum, dfl_sum = box_sum + best * score * (1 - giou), dfl_sum + best * score * dfl
        pulled, weight_sum = pulled + best * score, weight_sum + score
    whole = pulled / weight_sum * len(rows)
    return {
        "unlabeled_cls": loss_cls / samples,
        "unlabeled_bbox": 2 * box_sum / whole,
        "unlabeled_dfl": 0.25 * dfl_sum / 4 / whole,
    }


def _targets(each: object, kept: list[int], data: ImageBatch, n: int):
    from ld_hub.structures import Targets

    return Targets.pad([each.boxes[kept]], [each.labels[kept]], data.image_sizes[n : n + 1])  # type: ignore[attr-defined]


def test_losses_are_those_of_a_loop_over_scored_boxes():
    made, data = task(terms=False), images()
    lesson = made.look(data)
    assert lesson.targets.sure.any() and (lesson.targets.valid & ~lesson.targets.sure).any()  # both kinds are there
    assert (lesson.assignment.gt_index == -2).any()
    losses = made(None, lesson=lesson)
    wanted = in_loops(made, data)
    assert losses.keys() == wanted.keys()
    for name, value in wanted.items():
        assert losses[name].item() == pytest.approx(value, rel=2e-5), name


def test_a_score_weighs_a_box_and_an_unsure_one_is_no_background():
    made = task()
    lesson = made.look(images())
    plain = made.student.assign(lesson.assignment.priors, lesson.targets)
    owner = plain.gt_index.clamp(min=0)
    sure = lesson.targets.sure.gather(1, owner) & plain.positive
    unsure = plain.positive & ~sure
    assert torch.equal(lesson.assignment.positive, sure)
    assert torch.equal(lesson.assignment.weights[unsure], torch.zeros(int(unsure.sum())))
    assert torch.equal(lesson.assignment.weights[sure], lesson.targets.scores.gather(1, owner)[sure])
    elsewhere = ~plain.positive
    assert torch.equal(lesson.assignment.weights[elsewhere], plain.weights[elsewhere])


def test_labelled_losses_do_not_change_and_all_unlabelled_ones_have_names_of_their_own():
    made, data = task(), batch()
    alone = made(data)
    both = made(data, lesson=made.look(images()))
    assert all(torch.equal(alone[name], both[name]) for name in alone)
    assert {name for name in both if name not in alone} == {
        f"unlabeled_{name}" for name in ("cls", "bbox", "dfl", "kd", "ld", "ld_vlr")
    }
    assert all(value > 0 for value in both.values())


@pytest.mark.parametrize(
    ("switch", "names"),
    [({"terms": False}, {"cls", "bbox", "dfl"}), ({"targets": False}, {"kd", "ld", "ld_vlr"})],
)
def test_targets_and_terms_can_be_left_out(switch, names):
    made = task(**switch)
    losses = made(None, lesson=made.look(images()))
    assert losses.keys() == {f"unlabeled_{name}" for name in names}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)


def test_the_teacher_may_teach_by_its_detections_alone():
    made, data = task(terms=False, labeled_terms=False), batch()
    losses = made(data, lesson=made.look(images()))
    assert losses.keys() == {f"{part}_{name}" for part, names in (("loss", ("cls", "bbox", "dfl")),
                             ("unlabeled", ("cls", "bbox", "dfl"))) for name in names}  # fmt: skip
    with_terms = task()(data)
    assert all(torch.equal(losses[name], with_terms[name]) for name in losses if name.startswith("loss_"))


def test_what_is_left_out_is_told():
    assert describe_parts(Unlabeled()) == ""
    alone = describe_parts(Unlabeled(terms=False, labeled_terms=False))
    assert alone == "The recipe's terms are not applied to images with labels and images without."
    assert describe_parts(Unlabeled(targets=False)) == "The teacher's boxes are no targets."


def test_confident_cells_replace_regions_around_targets():
    around, confident = task(targets=False), task(targets=False, regions="confident")
    lesson = around.look(images())
    one, other = (made(None, lesson=lesson) for made in (around, confident))
    assert one["unlabeled_ld"] > 0
    # an untrained teacher is confident nowhere
    assert other["unlabeled_ld"].item() == 0.0 == other["unlabeled_ld_vlr"].item()
    assert around(batch())["distill_ld"] == confident(batch())["distill_ld"]  # labelled images keep their regions


def test_the_factor_rises():
    wanted = Unlabeled(weight=2.0, ramp=0.5)
    assert [wanted.factor(step, 8) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert Unlabeled(weight=0.3).factor(0, 10) == 0.3
    made, lesson = task(), None
    lesson = made.look(images())
    whole, half = made(None, lesson=lesson), made(None, lesson=replace(lesson, factor=0.5))
    assert all(half[name].item() == pytest.approx(whole[name].item() / 2) for name in whole)


def test_splitting_a_step_does_not_change_its_losses():
    made, data = task().eval(), images(4)  # batch norms that train would see other batches
    whole = made(None, lesson=made.look(data))
    halves = [
        replace(data, **{name: getattr(data, name)[part] for name in
                         ("images", "image_sizes", "scale_factors", "original_sizes")})
        for part in (slice(0, 2), slice(2, 4))
    ]  # fmt: skip
    lessons = [made.look(half) for half in halves]
    counts = step_counts([lesson.assignment for lesson in lessons])
    parts = [made(None, lesson=replace(lesson, counts=counts)) for lesson in lessons]
    for name in whole:
        if name in {"unlabeled_bbox", "unlabeled_dfl"}:
            continue  # divided by the scores of the micro-step, as those of labelled images
        mean = sum(part[name].item() for part in parts) / 2
        assert mean == pytest.approx(whole[name].item(), rel=1e-5), name


def run(data: Path, out: Path, unlabeled: object, labelled: bool = True, **options: object) -> DistillationTrainer:
    teacher = detector(seed=1)
    teacher.postprocess_config = replace(teacher.postprocess_config, score_threshold=0.005)
    wanted = Unlabeled(**{"threshold": SURE, "unsure": UNSURE, "batch": 3, **options})  # type: ignore[arg-type]
    trainer = DistillationTrainer(
        detector(),
        teacher,
        "vlr",
        unlabeled=wanted,
        unlabeled_dataset=unlabeled,  # type: ignore[arg-type]
        train_dataset=load_coco(data, "train") if labelled else None,
        config=TrainConfig(output_dir=str(out), **QUICK),
    )
    trainer.train()
    return trainer


@pytest.fixture
def pool(data: Path, tmp_path: Path) -> Path:
    """Another copy of the training images, with their annotations."""
    shutil.copytree(data, tmp_path / "pool")
    return tmp_path / "pool"


def test_annotations_of_unlabelled_images_never_enter(data, pool, tmp_path):
    run(data, tmp_path / "a", load_unlabeled(pool))
    file = pool / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for row in content["annotations"]:
        row["bbox"], row["category_id"] = [1, 1, 9, 9], 3
    file.write_text(json.dumps(content))
    run(data, tmp_path / "b", load_unlabeled(pool))
    run(data, tmp_path / "c", load_coco(pool, "train"))  # a data set: its boxes are taken off
    shutil.rmtree(pool / "annotations")
    shutil.rmtree(pool / "val")
    run(data, tmp_path / "d", load_unlabeled(pool))
    first = weights(tmp_path / "a/model")
    assert equal(first, weights(tmp_path / "b/model"))
    assert equal(first, weights(tmp_path / "d/model"))
    order = [Path(path).name for path in load_unlabeled(pool).records.paths.to_pylist()]
    assert order == sorted(order)
    assert all("unlabeled_cls" in line for line in records(tmp_path / "c"))


def test_training_without_any_label(data, pool, tmp_path):
    trainer = run(data, tmp_path / "run", load_unlabeled(pool), labelled=False)
    (line, *_) = records(tmp_path / "run")
    losses = {name for name in line if name.startswith(("loss_", "distill_", "unlabeled_"))}
    assert losses and all(name.startswith("unlabeled_") for name in losses)
    assert trainer.model.teaching.unlabeled.batch == 3


def test_resuming_gives_the_same_weights(data, pool, tmp_path):
    images, quick = load_unlabeled(pool), {"save_every": 1}

    def trainer(out: Path, steps: int, resume: bool = False) -> DistillationTrainer:
        teacher = detector(seed=1)
        teacher.postprocess_config = replace(teacher.postprocess_config, score_threshold=0.005)
        return DistillationTrainer(
            detector(), teacher, "vlr",
            unlabeled=Unlabeled(threshold=SURE, unsure=UNSURE, batch=3, ramp=0.9), unlabeled_dataset=images,
            train_dataset=load_coco(data, "train"),
            config=TrainConfig(output_dir=str(out), resume=resume, **{**QUICK, **quick, "steps": steps}),
        )  # fmt: skip

    trainer(tmp_path / "whole", 3).train()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (last,) = (tmp_path / "cut/checkpoints").glob("step_*3")
    shutil.rmtree(last)
    (tmp_path / "cut/result.json").unlink()
    trainer(tmp_path / "cut", 3, resume=True).train()
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "cut/model"))


def test_images_that_are_evaluated_on_are_refused(data, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(data / "val/1.png", tmp_path / "photos/holiday.png")
    with pytest.raises(DataError, match=r"1 of the 1 images without labels.*holiday\.png is .*val/1\.png"):
        DistillationTrainer(
            detector(), detector(seed=1), "ld", unlabeled_dataset=load_unlabeled(tmp_path / "photos"),
            train_dataset=load_coco(data, "train"), eval_dataset=load_coco(data, "val"),
        )  # fmt: skip


def test_a_teacher_of_other_classes_is_refused_with_the_way_out():
    teacher = detector(seed=1)
    teacher.set_labels(("cat", "dog", "cow"), (1, 2, 3))
    with pytest.raises(ConfigError, match="class_map"):
        DenseLooker(teacher, detector(), Thresholds.same(0.5, 3))
    looker = DenseLooker(teacher, detector(), Thresholds.same(0.5, 3), class_map={NAMES[1]: "cow"})
    assert looker.labels.tolist() == [-1, -1, 1]


def test_thresholds_asked_for_and_found(data):
    made = task()
    config = TrainConfig(eval_batch_size=4, workers=0)
    given = choose_thresholds(made.looker, None, Unlabeled(threshold=0.6), config)
    assert given == Thresholds((0.6,) * 3, (0.3,) * 3)
    assert choose_thresholds(made.looker, None, Unlabeled(), config).sure == (0.45,) * 3
    found = choose_thresholds(
        made.looker, load_coco(data, "train"), Unlabeled(), TrainConfig(eval_batch_size=4, workers=0)
    )
    assert len(set(found.sure)) == 1 and 0 < found.sure[0] <= 1
    with pytest.raises(ConfigError, match="above unlabeled_threshold"):
        Unlabeled(threshold=0.3, unsure=0.4)
    with pytest.raises(ConfigError, match="teach nothing"):
        Unlabeled(targets=False, terms=False)
