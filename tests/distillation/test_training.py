"""Teachers of one family train students of another on the demo data. One pair by default, all with -m slow."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ld_hub
from ld_hub.data import DetectionSet, load_coco, train_loader
from ld_hub.demo import make_demo_dataset
from ld_hub.distillation import Distiller
from ld_hub.engine import DetectionTrainer, DistillationTrainer, TrainConfig
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.evaluate import evaluate
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import TrainTransform

STEPS = {"optimizer": "adamw", "lr": 2e-3, "scale_lr": False, "lr_schedule": "cosine", "warmup_steps": 5}
STUDENTS: dict[str, dict[str, Any]] = {
    "atss": {}, "atss bins": {"boxes": "bins"},
    "fcos": {}, "fcos bins": {"boxes": "bins"},
    "retinanet": {"anchor_scale": 2.0}, "retinanet bins": {"boxes": "bins", "box_loss": "giou", "anchor_scale": 2.0},
    "gfocal": {},
}  # fmt: skip
EVERY_RUN = "fcos"  # points without bins: the farthest from its teacher


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_demo_dataset(tmp_path_factory.mktemp("demo") / "data", train_images=96, val_images=32, image_size=64)


def detector(kind: str, seed: int, training: DetectionSet) -> DenseDetector:
    torch.manual_seed(seed)
    sizes = {"fpn_channels": 32, "head_width": 32, "head_depth": 2}
    labels = {"label_names": training.label_names, "category_ids": training.category_ids}
    options = {"num_classes": len(training.label_names), **sizes, **labels, **STUDENTS[kind]}
    family = kind.removesuffix(" bins")
    if family in {"gfocal", "atss"}:
        options["anchor_scale"] = 4.0
    model = ld_hub.create_model(family, backbone="test_resnet", **options)
    model.data_config = type(model.data_config)(image_size=(64, 64))
    return model


def config(out: Path, steps: int) -> TrainConfig:
    return TrainConfig(str(out), steps=steps, batch_size=8, workers=0, log_every=1, clip_grad_norm=10.0, **STEPS)


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DenseDetector]:
    @functools.cache
    def trained(kind: str) -> DenseDetector:
        training = load_coco(data, "train")
        model, out = detector(kind, 1, training), tmp_path_factory.mktemp("teacher")
        DetectionTrainer(model, train_dataset=training, config=config(out, 80)).train()
        return model

    return trained


def unlike(student: DenseDetector, teacher: DenseDetector, data: Path) -> float:
    """The distillation loss of the images that nobody was trained on."""
    task = DistillationTask(student, teacher, Distiller("bckd")).eval()
    loader = train_loader(load_coco(data, "val"), TrainTransform(student.data_config, flip=0), 32, workers=0)
    with torch.no_grad():
        return sum(value.item() for name, value in task(next(iter(loader))).items() if name.startswith("distill_"))


@pytest.mark.parametrize("kind", [k if k == EVERY_RUN else pytest.param(k, marks=pytest.mark.slow) for k in STUDENTS])
def test_a_student_of_another_family_learns(
    kind: str, data: Path, teacher: Callable[[str], DenseDetector], tmp_path: Path
) -> None:
    training, validation = load_coco(data, "train"), load_coco(data, "val")
    teaches, student = teacher("retinanet" if kind == "gfocal" else "gfocal"), detector(kind, 2, training)
    before, chance = unlike(student, teaches, data), evaluate(student, validation, workers=0)[0].stats["AP50"]
    trainer = DistillationTrainer(
        student, teaches, recipe="bckd", train_dataset=training, config=config(tmp_path / "run", 40)
    )
    trainer.train()
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 40 and all(loss < float("inf") for loss in losses)
    assert unlike(student, teaches, data) < before / 2
    assert evaluate(student, validation, workers=0)[0].stats["AP50"] > chance
