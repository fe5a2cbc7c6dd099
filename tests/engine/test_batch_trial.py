"""The batch that fits is found without a trace of the search."""

from __future__ import annotations

import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.data.unlabeled import without_annotations
from ld_hub.engine import DistillationTrainer, batch_trial
from ld_hub.engine.batch_trial import _Trial, find_batch
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.devices import make_accelerator
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.structures import Unlabeled
from ld_hub.teachers.functions import FunctionTeacher
from tests.engine.runs import QUICK, detector, distil, equal, records, train


@pytest.fixture
def room_for(data, tmp_path, monkeypatch):
    """Let so many images fit."""
    monkeypatch.setattr(batch_trial, "STEPS_PER_PASS", 1)

    def limit(images: float) -> _Trial:
        config = TrainConfig(**QUICK)
        accelerator = make_accelerator(config, tmp_path)
        trial = _Trial(DetectionTask(detector()), load_coco(data, "train"), config, accelerator)
        free = images * trial._count() / batch_trial.PART
        monkeypatch.setattr(batch_trial, "free_memory", lambda: free)
        return trial

    return limit


def test_a_run_with_the_batch_that_was_found_is_the_run_with_that_batch(data, tmp_path, room_for, capsys):
    room_for(4.5)
    one, _ = train(data, tmp_path / "auto", steps=4, save_every=2, auto_batch=True, batch_size=1, momentum=0.5)
    assert "auto_batch: 4 images fit (tried 1, 2, 4, 8, 6, 5)." in capsys.readouterr().out
    other, _ = train(data, tmp_path / "given", steps=4, batch_size=4, momentum=0.5)
    assert equal(dict(one.state_dict()), dict(other.state_dict()))
    room_for(9.0)  # a run that is continued keeps its batch
    start = str(tmp_path / "auto/checkpoints/step_00000002")
    again, _ = train(data, tmp_path / "auto", detector(seed=3), steps=4, save_every=2, auto_batch=True, resume=start,
                     momentum=0.5)  # fmt: skip
    assert equal(dict(again.state_dict()), dict(other.state_dict()))


def test_a_teacher_is_counted_and_asked(data, tmp_path, room_for):
    room_for(3.2)
    distil(data, tmp_path / "run", auto_batch=True)
    assert records(tmp_path / "run")[0]["epoch"] == pytest.approx(3 / 12, abs=1e-3)


def _boxes_everywhere(images):
    return [{"boxes": [[5, 5, 40, 40]], "scores": [0.9], "labels": [0]} for _ in images]


@pytest.mark.parametrize("teacher", ["detector", "boxes alone"])
def test_images_without_labels_have_their_place_in_each_step(data, tmp_path, monkeypatch, capsys, teacher):
    """What a step of both needs is what its two batches need alone; what is left is for images with labels."""
    monkeypatch.setattr(batch_trial, "STEPS_PER_PASS", 1)
    others = without_annotations(load_coco(data, "train"))
    options = {"teacher": detector(seed=1)}
    if teacher == "boxes alone":
        options = {"teacher": FunctionTeacher(_boxes_everywhere), "recipe": None}
    config = TrainConfig(output_dir=str(tmp_path), **QUICK)
    trainer = DistillationTrainer(
        detector(), options["teacher"], options.get("recipe", "vlr"), train_dataset=load_coco(data, "train"),
        unlabeled_dataset=others, unlabeled=Unlabeled(threshold=0.5, batch=5), config=config,
    )  # fmt: skip
    accelerator = make_accelerator(config, tmp_path)
    trial = _Trial(trainer.task, trainer.train_dataset, config, accelerator, trainer.unlabeled_dataset)
    each, fixed = trial._count(1, 0), trial._count(0, 5)
    assert 3.5 * each < fixed < 20 * each
    assert trial._count(3, 5) == pytest.approx(3 * each + fixed, rel=0.1)
    for free, expected in ((3.2 * each + fixed, 3), (2.9 * each + fixed, 2)):
        monkeypatch.setattr(batch_trial, "free_memory", lambda free=free: free / batch_trial.PART)
        run = tmp_path / str(expected)
        distil(data, run, auto_batch=True, unlabeled_dataset=others,
               unlabeled=Unlabeled(threshold=0.5, batch=5), **options)  # fmt: skip
        assert f"auto_batch: {expected} images fit beside the 5 without labels" in capsys.readouterr().out
        assert records(run)[0]["epoch"] == pytest.approx(expected / 12, abs=1e-3)
        assert any(name.startswith("unlabeled_") for name in records(run)[0])
    monkeypatch.setattr(batch_trial, "free_memory", lambda: fixed / batch_trial.PART)
    with pytest.raises(ConfigError, match=r"beside the 5 without labels: .* a smaller --unlabeled_batch"):
        find_batch(trainer.task, trainer.train_dataset, config, accelerator, others)


def test_without_any_labels_there_is_no_batch_to_find(data, tmp_path):
    config = TrainConfig(output_dir=str(tmp_path / "run"), **QUICK, auto_batch=True)
    others = without_annotations(load_coco(data, "train"))
    trainer = DistillationTrainer(
        detector(), detector(seed=1), train_dataset=None, unlabeled_dataset=others, config=config
    )
    with pytest.raises(ConfigError, match="auto_batch is about images with labels, and there are none"):
        trainer.train()


def test_no_image_fits(data, tmp_path, room_for):
    room_for(0.5)
    with pytest.raises(ConfigError, match="not even one image of 64 x 64 px fits into the memory of 'cpu'"):
        train(data, tmp_path / "run", auto_batch=True)


def test_a_pass_keeps_its_steps(data, tmp_path):
    config = TrainConfig(**QUICK)
    accelerator = make_accelerator(config, tmp_path)
    dataset = load_coco(data, "train").select(list(range(12)) * 2)  # 24 images: an eighth are 3
    found, said = find_batch(DetectionTask(detector()), dataset, config, accelerator)
    assert found == 3 and "3 is an eighth of a pass" in said


def test_a_device_that_says_no(room_for, monkeypatch):
    """Out of memory is an answer; any other error is an error."""
    trial = room_for(100)
    monkeypatch.setattr(trial, "_reserved", lambda: 0)

    def step(images, without):
        if images > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        trial.task.model.head.cls.bias.grad = torch.ones(3)

    monkeypatch.setattr(trial, "_step", step)
    assert [trial._goes(images) for images in (1, 5, 6)] == [True, True, False]
    assert trial.task.model.head.cls.bias.grad is None
    assert batch_trial.largest_batch(trial._goes, 64) == 5
    monkeypatch.setattr(trial, "_step", lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        trial._goes(1)


def test_what_an_image_needs_grows_with_it(room_for):
    trial = room_for(1)
    small = trial._count()
    trial.size = (128, 128)
    assert 3.2 < trial._count() / small < 4.2  # four times the pixels; what does not depend on them is little
