"""What people expect of a trainer: an average by itself, an early end, pictures, less memory, few weights to train."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory
from ld_hub.engine.evaluate import evaluator_of
from ld_hub.engine.schedule import Plan
from ld_hub.engine.showing import log_pictures
from ld_hub.errors import ConfigError
from ld_hub.evaluation import DetectionMetrics
from ld_hub.hub.manifest import write_manifest
from tests.engine.runs import QUICK, detector, distance, distil, equal, records, sets, train, weights


@pytest.mark.parametrize(
    ("settings", "images", "expected"),
    [
        ({}, 9_999, 0.9998), ({}, 10_000, None), ({"schedule": "1x"}, 110, None), ({"ema": "off"}, 110, None),
        ({"ema": "on"}, 118_000, 0.9998), ({"ema_decay": 0.99, "schedule": "2x"}, 118_000, 0.99),
        ({"ema": "on", "ema_decay": 0.9}, 110, 0.9), ({"steps": 100_000}, 110, 0.9998),
    ],
)  # fmt: skip
def test_when_an_average_is_kept(settings, images, expected):
    assert Plan.make(TrainConfig(**settings), images).ema_decay == expected


def test_an_average_by_itself_is_that_by_flag_and_said(data, tmp_path, capsys):
    one, _ = train(data, tmp_path / "auto", steps=3, ema="auto")
    assert "average    EMA, decay up to 0.9998 (--ema auto: 12 training images, less than 10000)" in (
        capsys.readouterr().out
    )
    other, _ = train(data, tmp_path / "on", steps=3, ema="on")
    off, _ = train(data, tmp_path / "off", steps=3)
    assert "average    none" in capsys.readouterr().out
    states = [dict(model.state_dict()) for model in (one, other, off)]
    assert equal(states[0], states[1]) and distance(states[0], states[2]) > 1e-4


def test_a_published_computation_has_no_average_unless_it_is_asked_for(data, tmp_path):
    both = {"reference": "ld", "ema_decay": 0.9}
    for name, options in {"ld": {"reference": "ld"}, "sound": {}, "both": both}.items():
        distil(data, tmp_path / name, ema="auto", **options)
    kept = {name: (tmp_path / name / "checkpoints/step_00000002/ema.safetensors").is_file() for name in ("ld", "sound")}
    assert kept == {"ld": False, "sound": True}
    assert (tmp_path / "both/checkpoints/step_00000002/ema.safetensors").is_file()


def test_a_run_that_was_begun_without_an_average_goes_on_without(data, tmp_path):
    train(data, tmp_path / "run", steps=4, save_every=2, ema="auto")
    (tmp_path / "run/checkpoints/step_00000002/ema.safetensors").unlink()
    names = ["state.json", "model.safetensors", "optimizer.safetensors"]
    write_manifest(tmp_path / "run/checkpoints/step_00000002", names)
    start = str(tmp_path / "run/checkpoints/step_00000002")
    model, _ = train(data, tmp_path / "run", detector(seed=3), steps=4, save_every=2, ema="auto", resume=start)
    last = Checkpoint.load(RunDirectory(tmp_path / "run").checkpoints()[-1])
    assert last.ema is None
    assert equal({name.removeprefix("model."): value for name, value in last.model.items()}, dict(model.state_dict()))


def _scored(data, out, monkeypatch, scores, **changes):
    given = iter(scores)
    monkeypatch.setattr(
        "ld_hub.engine.loop.evaluate",
        lambda *_, **__: (DetectionMetrics(stats={"AP": next(given)}, per_class={}), None),
    )
    training, evaluation = sets(data)
    config = TrainConfig(output_dir=str(out), **{**QUICK, "steps": 12, **changes})
    return DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config).train()


def test_a_run_ends_when_it_has_waited_long_enough(data, tmp_path, monkeypatch, capsys):
    scores = [0.1, 0.3, 0.2, 0.3, 0.4, 0.4]
    result = _scored(data, tmp_path / "run", monkeypatch, scores, eval_every_steps=1, patience=2)
    assert (result.steps, result.best_step, result.best_ap) == (4, 2, 0.3)  # as good is not better
    text = capsys.readouterr().out
    assert "stopped early, after step 4 of 12: 2 evaluations without a better AP than after step 2." in text
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 4
    again = _scored(data, tmp_path / "run", monkeypatch, [], eval_every_steps=1, patience=2, resume=True)
    assert (again.steps, again.best_step) == (4, 2)  # it does not begin again
    longer = _scored(data, tmp_path / "run", monkeypatch, scores[4:] * 4, eval_every_steps=1, patience=3, resume=True)
    assert (longer.steps, longer.best_step) == (8, 5)


def test_patience_evaluates_after_each_pass_where_nothing_else_is_said(data, tmp_path, monkeypatch):
    result = _scored(data, tmp_path / "run", monkeypatch, [0.2, 0.1, 0.1, 0.1], patience=2)
    assert [line["step"] for line in records(tmp_path / "run", "eval/AP")] == [3, 6, 9]  # 12 images, 4 a step
    assert (result.steps, result.best_step) == (9, 3)
    with pytest.raises(ConfigError, match="no images to evaluate on"):
        train(data, tmp_path / "other", patience=2)


def test_checkpointed_activations_give_the_same_gradients(data, tmp_path, monkeypatch):
    """Batch norms are frozen here: their statistics would take a batch in twice."""
    one, _ = train(data, tmp_path / "one", detector(norm_eval=True), steps=3)
    import timm.models._features as room

    again, calls = room.checkpoint, []
    monkeypatch.setattr(room, "checkpoint", lambda *a, **k: calls.append(1) or again(*a, **k))
    other, _ = train(data, tmp_path / "other", detector(norm_eval=True), steps=3, grad_checkpointing=True)
    assert len(calls) >= 3
    assert distance(dict(one.state_dict()), dict(other.state_dict())) < 1e-5


class _Album:
    """A tracker that takes pictures."""

    name = "album"

    def __init__(self) -> None:
        self.pages: list[tuple[int, list[np.ndarray]]] = []

    def log_images(self, values, step, **_):
        self.pages.append((step, values["detections"]))


def test_trackers_get_pictures_of_the_same_images_at_every_evaluation(data, tmp_path, monkeypatch):
    from accelerate import Accelerator

    album = _Album()
    monkeypatch.setattr(Accelerator, "log", lambda *_, **__: None)
    monkeypatch.setattr(Accelerator, "init_trackers", lambda self, *_, **__: setattr(self, "trackers", [album]))
    album.finish = lambda: None  # type: ignore[attr-defined]
    training, evaluation = sets(data)
    model = detector(norm_eval=True)
    torch.nn.init.constant_(model.head.cls.bias, 0.0)  # finds something from the start
    config = TrainConfig(output_dir=str(tmp_path / "run"), **{**QUICK, "lr": 1e-12}, eval_every_steps=1)
    DetectionTrainer(model, train_dataset=training, eval_dataset=evaluation, config=config).train()
    assert [step for step, _ in album.pages] == [1, 2]
    first, second = (np.stack(pictures) for _, pictures in album.pages)
    assert first.shape == (4, 640, 640, 3) and first.dtype == np.uint8
    plain = np.asarray(load_coco(data, "val").records.load(0).convert("RGB").resize((640, 640)))
    changed = (first[0] != plain).any(axis=-1)
    assert 0.001 < changed.mean() < 0.9  # the image, with boxes on it
    assert (first == second).mean() > 0.99


def test_trackio_gets_each_picture_under_a_key_of_its_own(data, monkeypatch):
    """Of a list it keeps nothing, seen with trackio 0.43."""
    trackio = SimpleNamespace(Image=lambda picture: ("picture", picture.shape))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    _, evaluation = sets(data)
    evaluator = evaluator_of(detector(), evaluation)
    seen: list[tuple[int, dict[str, Any]]] = []
    tracker = SimpleNamespace(name="trackio", log=lambda values, step: seen.append((step, values)))
    log_pictures([tracker], evaluation, evaluator, 7)
    assert seen == [(7, {f"detections/{k}": ("picture", (640, 640, 3)) for k in range(4)})]


def test_the_progress_line_has_steps_per_second(data, tmp_path, capsys):
    train(data, tmp_path / "run", steps=2)
    line = records(tmp_path / "run")[1]
    assert line["steps_per_second"] == pytest.approx(line["images_per_second"] / 4, rel=1e-2)
    assert f"{line['steps_per_second']:.3g} steps/s  ETA 0:00" in capsys.readouterr().out
    assert weights(tmp_path / "run/model")
