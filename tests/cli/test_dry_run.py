"""`--dry_run`: everything but the training; a table, and nothing on the disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from ld_hub import distill, train
from ld_hub.models.checkpoints.pretrained import save_pretrained
from tests.engine.runs import SMALL, detector, write_data

SHAPE = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
FLAGS = [*SHAPE, *"--pretrained_backbone false --workers 0 --image_size 64 64 --batch_size 4 --dry_run".split()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_data(tmp_path_factory.mktemp("coco") / "data")


def test_a_training_is_told_and_not_made(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["gfocal_tiny", "--data", str(data), "--steps", "7", *FLAGS]) == 0
    out = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert max(map(len, out[out.index("train on") :].splitlines())) <= 80
    told = dict(re.findall(r"^(\S[\w ]*?)  +(.*)$", out, re.MULTILINE))
    (file,) = (data / "annotations").glob("*train*.json")
    images = len(json.loads(file.read_text())["images"])
    boxes = re.search(r"(\d+) images, (\d+) boxes: ([\d.]+) per image", told["train on"])
    assert int(boxes[1]) == images
    assert float(boxes[3]) == pytest.approx(int(boxes[2]) / images, abs=0.06)
    assert told["classes"] == "3: red, green, blue"
    assert told["batch"] == "4 images x 1 micro-steps x 1 processes"
    assert told["steps"].startswith("7 steps")
    assert re.search(r"s on 2 images; loss [\d.]+, loss_cls", told["one step"])
    assert "MiB" in told["memory"]


@pytest.mark.parametrize("teacher", ["saved", "trained"])
def test_a_distillation_knows_its_teachers_classes_and_terms(data, tmp_path, capsys, teacher):
    flags = ["--train_teacher"]
    if teacher == "saved":
        save_pretrained(detector(seed=1), tmp_path / "teacher")
        flags = ["--teacher", str(tmp_path / "teacher")]
    run = ["gfocal_tiny_vlr_r10t", "--data", str(data), "--steps", "5", "--output_dir", str(tmp_path / "run")]
    assert distill.main([*run, *flags, *FLAGS]) == 0
    out = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert max(map(len, out[out.index("train on") :].splitlines())) <= 80
    assert "knows 3 of the 3 classes" in " ".join(out.split())
    assert "recipe vlr" in out
    assert re.search(r"distill_ld [\d.e+-]+", out)
    assert "best: AP" not in out
