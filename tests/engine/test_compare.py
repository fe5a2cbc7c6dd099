"""Side-by-side training is the same training, and pays its teacher once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.distillation import Distiller, get_recipe
from ld_hub.engine import TrainConfig
from ld_hub.engine.compare import train_together
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from tests.engine.runs import QUICK, detector, train, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_data(tmp_path_factory.mktemp("compare") / "data")


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{**QUICK, **changes})


def test_one_of_several_students_equals_the_trainers_run(data: Path, tmp_path: Path) -> None:
    alone, _ = train(data, tmp_path / "run", detector(), steps=3, clip_grad_norm=1.0)
    tasks = {
        "alone": DetectionTask(detector()),
        "ld": DistillationTask(detector(), detector(seed=1), Distiller("ld")),
    }
    steps: list[None] = []
    courses = train_together(
        tasks, load_coco(data, "train"), config(steps=3, clip_grad_norm=1.0), advance=lambda: steps.append(None)
    )
    for key, value in alone.state_dict().items():
        assert torch.equal(value, tasks["alone"].model.state_dict()[key]), key
    assert not torch.equal(tasks["ld"].model.head.box.weight, alone.head.box.weight)
    assert len(steps) == 6
    assert [record["step"] for record in courses["ld"].losses] == [1, 2, 3]
    assert courses["ld"].losses[0]["share/distill_ld"] > 0
    assert courses["ld"].seconds > 0
    assert not tasks["ld"].model.training


def test_a_shared_teacher_runs_once_per_batch_and_stays_as_it_is(data: Path) -> None:
    teacher = detector(seed=1)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    calls: list[int] = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    tasks = {name: DistillationTask(detector(), teacher, Distiller(name)) for name in ("kd", "ld", "vlr")}
    train_together(tasks, load_coco(data, "train"), config(precision="bf16", channels_last=True))
    assert len(calls) == 2
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in before.items())
    weights = [task.model.head.box.weight for task in tasks.values()]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_models_of_different_input_are_refused(data: Path) -> None:
    other = detector()
    other.data_config = type(other.data_config)(image_size=(32, 32))
    with pytest.raises(ConfigError, match="32, 32"):
        train_together({"a": DetectionTask(detector()), "b": DetectionTask(other)}, load_coco(data, "train"), config())


def test_terms_may_count_for_a_share_of_the_run(data: Path) -> None:
    recipe = get_recipe("ld").with_terms(ld={"first_step": 0.5})
    task = DistillationTask(detector(), detector(seed=1), Distiller(recipe))
    courses = train_together({"late": task}, load_coco(data, "train"), config(steps=2))
    assert [record["distill_ld"] > 0 for record in courses["late"].losses] == [False, True]
