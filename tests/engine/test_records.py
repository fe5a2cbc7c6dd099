"""The JSON files of a run: read back as they were written, and refused by the field's name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ld_hub.engine.checkpoint import random_state
from ld_hub.engine.identity import Identity, TeacherIdentity
from ld_hub.engine.records import Best, RunSettings, RunState, Times
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import CheckpointError
from ld_hub.evaluation import DetectionMetrics
from ld_hub.preprocessing import DataConfig
from ld_hub.structures import Teaching

ONE = TeacherIdentity("gfocal_r50", {"backbone": "r50", "reg_max": 16}, "0123")
IDENTITY = Identity(
    model="gfocal_tiny",
    model_config={"backbone": "r18", "num_classes": 2, "norm_eval": True, "anchor_scale": 4.0},
    data_config=DataConfig(image_size=(64, 96)),
    label_names=("a", "b"),
    category_ids=(3, 7),
    train_annotations_sha256="4567",
    train_images=12,
)
TAUGHT = replace(IDENTITY, teachers=(ONE,), teaching=Teaching("ld", teachers=("gfocal_r50",)))
COMMITTEE = replace(TAUGHT, teachers=(ONE, replace(ONE, name="gfocal_r101")))
SETTINGS = RunSettings(TrainConfig(steps=5, short_sides=(48, 64)), TAUGHT, 5, 4, 0.0025, "train.json", "val.json")


def through_json(content):
    return json.loads(json.dumps(content, allow_nan=False))


@pytest.mark.parametrize("identity", [IDENTITY, TAUGHT, COMMITTEE], ids=["plain", "taught", "committee"])
def test_an_identity_is_read_as_it_was_written(identity):
    content = through_json(identity.to_dict())
    assert Identity.from_dict(content, "x") == identity
    assert (
        content.get("teacher") == {0: None, 1: "gfocal_r50", 2: ["gfocal_r50", "gfocal_r101"]}[len(identity.teachers)]
    )


def test_settings_stand_flat_beside_the_identity():
    content = through_json(SETTINGS.to_dict())
    assert RunSettings.from_dict(content, "x") == SETTINGS
    assert content["model"] == "gfocal_tiny" and content["recipe"]["name"] == "ld" and content["config"]["steps"] == 5


def test_a_state_is_read_as_it_was_written():
    state = RunState(
        config=TrainConfig(steps=5),
        identity=COMMITTEE,
        batch=(8, 2),
        random=(random_state(torch.device("cpu")),),
        scaler={"scale": 65536.0, "growth_interval": 2000},
        best=Best(0.25, 3),
        metrics=DetectionMetrics({"AP": 0.25, "APs": None}, {"a": 0.5, "b": None}, {"a": 3, "b": 0}, 4, 9, 1, "voc07"),
        window={"loss_cls": (1.5, 2)},
        clock=Times(1.0, 0.5, 0.25),
        unscored=True,
    )
    assert RunState.from_dict(through_json(state.to_dict()), "x") == state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"steps": "5"}}, "'config.steps' is '5'; expected a whole number or null"),
        ({"config": {"steps": 5, "epochs": 1.0}}, "steps exclude|exclude each other"),
        ({"peak_lr": None}, "'peak_lr' is None; expected a number"),
        ({"label_names": ["a", 1]}, r"'label_names\[1\]' is 1; expected a text"),
        ({"data_config": {"image_size": [64]}}, r"'data_config.image_size' is \[64\]; expected a list of 2"),
        ({"teacher": None}, r"'teachers\[0\].name' is None; expected a text"),
        ({"recipe": 3}, "'recipe' is 3; expected an object"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    with pytest.raises(CheckpointError, match=rf"^'config\.json': .*({message})"):
        RunSettings.from_dict({**through_json(SETTINGS.to_dict()), **changes}, "'config.json'")


def test_what_is_missing_is_named():
    content = through_json(SETTINGS.to_dict())
    del content["images_per_step"]
    with pytest.raises(CheckpointError, match="'images_per_step' is missing; expected a whole number"):
        RunSettings.from_dict(content, "'config.json'")
    with pytest.raises(CheckpointError, match="'identity' is missing; expected an object"):
        RunState.from_dict({"config": {}, "batch": [1, 1]}, "'state.json'")
