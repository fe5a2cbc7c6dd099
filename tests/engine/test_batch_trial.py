"""The batch that fits is found without a trace of the search."""

from __future__ import annotations

import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.engine import batch_trial
from ld_hub.engine.batch_trial import _Trial, find_batch
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.devices import make_accelerator
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
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

    def step(images):
        if images > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        trial.task.model.head.cls.bias.grad = torch.ones(3)

    monkeypatch.setattr(trial, "_step", step)
    assert [trial._goes(images) for images in (1, 5, 6)] == [True, True, False]
    assert trial.task.model.head.cls.bias.grad is None
    assert batch_trial.largest_batch(trial._goes, 64) == 5
    monkeypatch.setattr(trial, "_step", lambda images: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        trial._goes(1)


def test_what_an_image_needs_grows_with_it(room_for):
    trial = room_for(1)
    small = trial._count()
    trial.size = (128, 128)
    assert 3.2 < trial._count() / small < 4.2  # four times the pixels; what does not depend on them is little
