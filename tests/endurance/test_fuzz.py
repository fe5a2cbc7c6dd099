"""A fast part of the programme of fuzz.py, and what it has found before."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ld_hub.data import load_data
from ld_hub.errors import ConfigError, DataError
from ld_hub.models.factory import create_model
from tests.endurance.fuzz import READERS, fuzz
from tests.support.judged import lively

CASES = {"config": 25, "weights": 40, "coco": 150, "yolo": 80, "voc": 120}


@pytest.mark.parametrize("name", READERS)
def test_a_file_is_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    outcome = fuzz(name, tmp_path, CASES.get(name, 200), seed=0)
    assert outcome.escaped == {}
    assert outcome.read > 0 and outcome.refused > 0


def test_numbers_that_are_lists_among_numbers(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "train/a.png")
    (tmp_path / "annotations").mkdir()
    boxes = [{"id": k, "image_id": 1, "category_id": [1] if k == 7 else 1, "bbox": [1, 1, 5, 5]} for k in (6, 7)]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"'category_id' of annotation id 7 is \[1\], expected an integer"):
        load_data(tmp_path)


def test_names_that_the_system_finds_too_long(tmp_path):
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "labels/train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images/train/a.png")
    (tmp_path / "data.yaml").write_text(f"train: {'9' * 400}\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"cannot be read: File name too long"):
        load_data(tmp_path)


def test_a_backbone_that_is_a_number(tmp_path):
    lively().save_pretrained(tmp_path / "model")
    file = tmp_path / "model/config.json"
    content = json.loads(file.read_text())
    content["config"]["backbone"] = 18
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="backbone is 18; expected a name"):
        create_model(tmp_path / "model")
