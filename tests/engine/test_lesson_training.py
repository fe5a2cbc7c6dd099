"""A training on 8 images with labels and 24 without, against a loop that makes the scored targets in NumPy."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.data.unlabeled import without_annotations
from ld_hub.demo import make_demo_dataset
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.structures import ImageBatch, Unlabeled
from tests.engine.runs import SMALL, records
from tests.engine.test_lessons import SURE, UNSURE, in_loops

Seen = tuple[DistillationTask, ImageBatch, ImageBatch]  # of one step: with the weights it was made with


def new_detector(seed: int, names: tuple[str, ...], ids: tuple[int, ...]) -> DenseDetector:
    torch.manual_seed(seed)
    model = create_model("gfocal_tiny", label_names=names, category_ids=ids, norm_eval=True, **SMALL)
    model.data_config = replace(model.data_config, image_size=(64, 64))
    model.postprocess_config = replace(model.postprocess_config, score_threshold=0.005)
    return model


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """Three steps of SGD; what each was made of, recorded where the loop hands it to the task."""
    directory = tmp_path / "data"
    make_demo_dataset(directory, train_images=32, val_images=2, image_size=64, seed=0)
    images = load_coco(directory, "train")
    labelled, others = images.select(range(8)), without_annotations(images.select(range(8, 32)))
    found: list[Seen] = []
    forward = DistillationTask.forward

    def record(self: DistillationTask, batch: ImageBatch, *args: object, **kwargs: object) -> object:
        found.append((copy.deepcopy(self), batch, kwargs["lesson"].batch))  # type: ignore[attr-defined]
        return forward(self, batch, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(DistillationTask, "forward", record)
    settings = {"steps": 3, "batch_size": 4, "lr": 0.02, "warmup_steps": 0, "scale_lr": False, "weight_decay": 0.0}
    trainer = DistillationTrainer(
        new_detector(0, images.label_names, images.category_ids),
        new_detector(1, images.label_names, images.category_ids),
        "vlr",
        train_dataset=labelled,
        unlabeled_dataset=others,
        unlabeled=Unlabeled(threshold=SURE, unsure=UNSURE, batch=12, labeled_terms=False, terms=False),
        config=TrainConfig(output_dir=str(tmp_path / "run"), momentum=0.0, workers=0, log_every=1, **settings),
    )
    trainer.train()
    return found


def test_a_training_is_that_of_a_hand_written_loop(steps: list[Seen], tmp_path: Path) -> None:
    lines = records(tmp_path / "run")
    assert len(lines) == len(steps) == 3
    seen = np.concatenate([batch.image_ids for _, _, batch in steps])
    assert len(set(seen[:24].tolist())) == 24  # the first two batches are all 24 images without labels
    assert len({i for _, batch, _ in steps[:2] for i in batch.image_ids}) == 8
    for line, (task, labelled, others) in zip(lines, steps, strict=True):
        plain = task.model.loss(task.model(labelled.images), labelled.targets)
        wanted = {name: value.item() for name, value in plain.items()} | in_loops(task, others)
        assert {name for name in line if name.startswith(("loss_", "unlabeled_"))} == wanted.keys()
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, rel=5e-5), name
        assert wanted["unlabeled_bbox"] > 0  # some of the teacher's boxes count
        assert line["loss"] == pytest.approx(sum(wanted.values()), rel=5e-5)
