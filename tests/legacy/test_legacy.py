"""What the code before the rooms were put in order (0d64f49, version 0.1.0) has written is still read.

`model.zip` is a distilled student with its card and an evaluation, `run.zip` a distillation that was stopped after the
first of its two checkpoints, with its teacher and the metrics of the same run unbroken. Their data are
`tests.engine.runs.write_data`'s, whose annotations those files know by their hash.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ld_hub.cli.main import main
from ld_hub.engine import DistillationTrainer, TrainConfig
from ld_hub.models.factory import create_model
from tests.engine.runs import IDS, NAMES, records, sets, write_data

HERE = Path(__file__).parent
STUDENT = {
    "backbone": "test_efficientnet", "fpn_channels": 8, "head_width": 8, "head_depth": 1, "reg_max": 4,
    "frozen_stages": 4, "norm_eval": True, "label_names": NAMES, "category_ids": IDS,
}  # fmt: skip
SETTINGS = {"workers": 0, "steps": 4, "batch_size": 4, "log_every": 1, "lr": 0.04, "warmup_steps": 0, "save_every": 2}


def unpacked(name: str, place: Path) -> Path:
    with zipfile.ZipFile(HERE / f"{name}.zip") as archive:
        archive.extractall(place)
    return place


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("legacy") / "data")


def test_a_saved_model_loads_and_its_evaluation_verifies(data, tmp_path, capsys):
    place = unpacked("model", tmp_path) / "model"
    model = create_model(place)
    assert (model.name, model.label_names) == ("gfocal_tiny", NAMES)
    assert main(["verify", str(place), "--data", str(data), "--workers", "0"]) == 0
    assert len(json.loads((place / "eval/detections.json").read_text())) == 80  # there was something to verify

    detections = json.loads((place / "eval/detections.json").read_text())
    detections[0]["bbox"][0] += 20
    (place / "eval/detections.json").write_text(json.dumps(detections))
    assert main(["verify", str(place), "--data", str(data), "--workers", "0"]) == 1


def test_a_broken_run_goes_on_as_it_would_have(data, tmp_path):
    root = unpacked("run", tmp_path)
    torch.manual_seed(5)  # of weights that the checkpoint replaces
    student = create_model("gfocal_tiny", **STUDENT)
    student.data_config = type(student.data_config)(image_size=(64, 64))
    student.postprocess_config = replace(student.postprocess_config, score_threshold=0.001, max_detections=20)
    training, evaluation = sets(data)
    DistillationTrainer(
        student,
        create_model(root / "teacher"),
        recipe="vlr",
        balance="gradient",
        class_map={"red": "red"},
        train_dataset=training,
        eval_dataset=evaluation,
        config=TrainConfig(output_dir=str(root / "run"), resume=True, **SETTINGS),
    ).train()
    shutil.copy(root / "expected_metrics.jsonl", root / "teacher" / "metrics.jsonl")
    expected = {r["step"]: r for r in records(root / "teacher") if "loss" in r}
    found = {r["step"]: r for r in records(root / "run") if "loss" in r}
    assert sorted(found) == sorted(expected) == [1, 2, 3, 4]
    for step in (3, 4):  # made by this code, from the other's checkpoint
        names = [name for name in expected[step] if name.startswith(("loss", "distill_", "share/"))]
        assert len(names) == 10
        for name in names:
            assert found[step][name] == pytest.approx(expected[step][name], rel=1e-3, abs=1e-6), (step, name)
