from __future__ import annotations

import dataclasses
import json

import pytest

from ld_hub.engine.train_config import RESUMABLE_CHANGES, TrainConfig, changed_fields
from ld_hub.errors import ConfigError
from ld_hub.fields import field_texts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("batch_size", 0), ("accumulation", 0), ("epochs", 0.0), ("lr", -1.0), ("momentum", 1.5),
        ("weight_decay", -1.0), ("optimizer", "rmsprop"), ("schedule", "3x"), ("lr_schedule", "poly"),
        ("precision", "fp8"), ("milestones", (0.9, 0.5)), ("milestones", (8.0, 11.0)), ("lr_decay", 0.0),
        ("warmup_steps", -1), ("warmup_ratio", 2.0), ("clip_grad_norm", 0.0), ("ema_decay", 2.0), ("seed", -1),
        ("flip", 1.1), ("short_sides", (800, 480)), ("image_size", (0, 10)), ("workers", -1), ("eval_batch_size", 0),
        ("eval_every_steps", 0), ("eval_every_epochs", 0.0), ("save_every", 0), ("log_every", 0),
        ("bias_lr_factor", 0.0), ("bias_weight_decay", -1.0),
        ("layer_decay", 1.5), ("patience", 0), ("tile", 8), ("ema", "maybe"), ("time_budget", "soon"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    "both",
    [
        {"steps": 5, "time_budget": "1m"},
        {"steps": 5, "epochs": 1.0},
        {"steps": 5, "schedule": "1x"},
        {"eval_every_steps": 1, "eval_every_epochs": 1.0},
    ],
)
def test_contradictions_are_refused(both):
    with pytest.raises(ConfigError, match=f"{' and '.join(sorted(both, key=list(vars(TrainConfig())).index))} exclude"):
        TrainConfig(**both)


def test_json_and_back():
    config = TrainConfig(short_sides=(480, 800), tracker=("wandb",), resume="run")
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_every_field_is_documented():
    assert list(field_texts(TrainConfig)) == [field.name for field in dataclasses.fields(TrainConfig)]


def test_only_what_cannot_reach_the_weights_may_change_on_resume():
    old = TrainConfig(steps=5)
    assert changed_fields(old, TrainConfig(steps=5, workers=7, log_every=3, resume=True, output_dir="x")) == {}
    assert changed_fields(old, TrainConfig(steps=6, seed=1)) == {"steps": (5, 6), "seed": (0, 1)}
    assert {field.name for field in dataclasses.fields(TrainConfig)} >= RESUMABLE_CHANGES
