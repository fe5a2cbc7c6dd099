"""What the tests of the engine share: a handful of 64 x 64 images, very small detectors, and runs of a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.data import DetectionSet, load_coco
from ld_hub.engine import DetectionTrainer, DistillationTrainer, RunResult, TrainConfig
from ld_hub.hub import load_safetensors
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model

NAMES, IDS = ("red", "green", "blue"), (3, 5, 9)
SMALL: dict[str, Any] = {"fpn_channels": 16, "head_width": 16, "head_depth": 1, "reg_max": 8}
# without an average, so that the published weights are those that the last step made
QUICK: dict[str, Any] = {
    "workers": 0, "steps": 2, "batch_size": 4, "log_every": 1, "lr": 0.04, "warmup_steps": 0, "ema": "off",
}  # fmt: skip


def write_data(directory: Path) -> Path:
    """12 training images, one of them empty and one with a crowd only, and 4 to evaluate on."""
    random = np.random.default_rng(0)
    (directory / "annotations").mkdir(parents=True)
    for split, count in (("train", 12), ("val", 4)):
        (directory / split).mkdir()
        images, annotations = [], []
        for index in range(count):
            pixels = random.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            images.append({"id": 10 + index, "file_name": f"{index}.png", "width": 64, "height": 64})
            for _ in range(0 if index == 11 else 1 + index % 2):
                x, y = (int(v) for v in random.integers(0, 30, 2))
                w, h = (int(v) for v in random.integers(14, 30, 2))
                label = int(random.integers(0, 3))
                pixels[y : y + h, x : x + w, label] = 220
                box = {"bbox": [x, y, w, h], "area": w * h, "category_id": IDS[label], "iscrowd": int(index == 10)}
                annotations.append({**box, "id": len(annotations) + 1, "image_id": 10 + index})
            Image.fromarray(pixels).save(directory / split / f"{index}.png")
        categories = [{"id": i, "name": n} for i, n in zip(IDS, NAMES, strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (directory / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return directory


def detector(seed: int = 0, **options: Any) -> DenseDetector:
    """A detector of 60 thousand weights, the same for the same seed."""
    torch.manual_seed(seed)
    model = create_model("gfocal_tiny", label_names=NAMES, category_ids=IDS, **{**SMALL, **options})
    model.data_config = type(model.data_config)(image_size=(64, 64))
    return model


def train(data: Path, out: Path, model: DenseDetector | None = None, **changes: Any) -> tuple[DenseDetector, RunResult]:
    """A short run without evaluation."""
    model = model or detector()
    config = TrainConfig(output_dir=str(out), **{**QUICK, **changes})
    return model, DetectionTrainer(model, train_dataset=load_coco(data, "train"), config=config).train()


def distil(data: Path, out: Path, student: DenseDetector | None = None, **changes: Any) -> tuple[DenseDetector, Any]:
    """A short distillation without evaluation; returns student and trainer."""
    names = ("recipe", "reference", "individual_ld", "balance", "teacher_scale", "class_map", "teacher_weights")
    names += ("cache_teacher", "cache_bits", "unlabeled", "unlabeled_dataset")
    options = {key: changes.pop(key) for key in names if key in changes}
    teacher = changes.pop("teacher", None) or detector(seed=1)
    student = student or detector()
    config = TrainConfig(output_dir=str(out), **{**QUICK, **changes})
    trainer = DistillationTrainer(
        student, teacher, **{"recipe": "vlr", **options}, train_dataset=load_coco(data, "train"), config=config
    )
    trainer.train()
    return student, trainer


def sets(data: Path) -> tuple[DetectionSet, DetectionSet]:
    return load_coco(data, "train"), load_coco(data, "val")


def records(out: Path, key: str = "loss") -> list[dict[str, Any]]:
    """Lines of metrics.jsonl that have a key."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_safetensors(directory / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest relative difference of two state dicts, tensor by tensor."""
    floats = [name for name in one if one[name].is_floating_point()]
    return max(float((one[n] - other[n]).norm() / other[n].norm().clamp(min=1e-3)) for n in floats)


def stop_before_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C, or a machine that is taken away, in the middle of a step."""
    from ld_hub.engine.loop import Loop

    update = Loop._update

    def stopping(self):
        if self.step == step:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(Loop, "_update", stopping)
