"""Runs that end in time, on a clock whose seconds are steps."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.engine.loop import Loop
from ld_hub.engine.schedule import Plan
from ld_hub.errors import ConfigError
from ld_hub.evaluation import DetectionMetrics
from tests.engine.runs import QUICK, detector, equal, records, sets, train, weights


class FakeTime:
    """A clock that stands still between steps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def install(self, monkeypatch, step: float = 1.0, evaluation: float = 0.0) -> FakeTime:
        monkeypatch.setattr("ld_hub.engine.reporter.time", SimpleNamespace(perf_counter=lambda: self.now))
        make = Loop._train_step

        def slow(loop, *streams):
            self.now += step
            return make(loop, *streams)

        def evaluate(*_, **__):
            self.now += evaluation
            return DetectionMetrics(stats={"AP": 0.5}, per_class={}), None

        monkeypatch.setattr(Loop, "_train_step", slow)
        monkeypatch.setattr("ld_hub.engine.loop.evaluate", evaluate)
        return self


def test_a_run_ends_in_its_time(data, tmp_path, monkeypatch, capsys):
    clock = FakeTime().install(monkeypatch)
    options = {"steps": None, "time_budget": "20s", "lr_schedule": "cosine", "log_every": 4, "batch_size": 2}
    _, result = train(data, tmp_path / "run", **options)
    assert result.steps == 20 and clock.now == 1020.0
    text = capsys.readouterr().out
    assert "schedule   as many steps x 2 images as 20s allow, sgd lr" in text and "step 1/?" in text
    assert "time budget 20s: 20 steps x 2 images (3.33 epochs)" in text and "step 20/20" in text
    whole = Plan.make(TrainConfig(**{**QUICK, "steps": 20, "lr_schedule": "cosine", "batch_size": 2}), 12)
    lines = records(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 4, 8, 12, 16, 20]
    assert [line["lr"] for line in lines[1:]] == pytest.approx([whole.lr(line["step"] - 1) for line in lines[1:]])
    assert json.loads((tmp_path / "run/config.json").read_text())["steps"] == 20


def test_evaluations_take_their_time(data, tmp_path, monkeypatch):
    clock = FakeTime().install(monkeypatch, evaluation=4.0)
    training, evaluation = sets(data)
    settings = {**QUICK, "steps": None, "time_budget": "24s", "batch_size": 2}
    config = TrainConfig(output_dir=str(tmp_path / "run"), **settings, eval_every_steps=5)
    result = DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config).train()
    # 5 steps and 4 s, 5 steps and 4 s, then one step is left: 11 + 12 s
    assert result.steps == 11 and clock.now == 1023.0
    assert [line["step"] for line in records(tmp_path / "run", "eval/AP")] == [5, 10, 11]


def test_a_continued_run_is_the_uninterrupted_one(data, tmp_path, monkeypatch):
    options = {"steps": None, "time_budget": "14s", "batch_size": 2, "save_every": 4, "lr_schedule": "cosine"}
    FakeTime().install(monkeypatch)
    whole, _ = train(data, tmp_path / "whole", **options)
    update = Loop._update

    def stopping(self):
        if self.step == 6:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(Loop, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "broken", **options)
    monkeypatch.setattr(Loop, "_update", update)
    state = json.loads((tmp_path / "broken/checkpoints/step_00000004/state.json").read_text())
    assert state["fitted_steps"] == 14
    model, result = train(data, tmp_path / "broken", detector(seed=4), resume=True, **options)
    assert result.steps == 14 and equal(dict(model.state_dict()), dict(whole.state_dict()))
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "broken/model"))
    assert [line["lr"] for line in records(tmp_path / "whole")] == [line["lr"] for line in records(tmp_path / "broken")]


def test_one_length_at_a_time():
    for other in ({"steps": 5}, {"epochs": 1.0}, {"schedule": "1x"}):
        with pytest.raises(ConfigError, match="time_budget exclude each other"):
            TrainConfig(time_budget="1m", **other)
    with pytest.raises(ConfigError, match="time_budget is 'soon'"):
        TrainConfig(time_budget="soon")
