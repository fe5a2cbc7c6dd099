"""What --teacher may name, and what is recognised without importing anything slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ld_hub.errors import ConfigError, LdHubError, MissingFileError, UnknownNameError
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.teachers import load_teacher
from ld_hub.teachers.kinds import KINDS, find_kind
from tests.engine.runs import detector
from tests.teachers.boxes import write_predictions


def kind(teacher: object) -> str | None:
    found = find_kind(str(teacher))
    return next((name for name in KINDS if KINDS[name] is found), None)


def test_each_kind_is_recognised_and_our_own_are_none(tmp_path: Path) -> None:
    assert kind("hf:PekingU/rtdetr_r50vd@main") == "transformers"
    assert kind("torchvision:retinanet_resnet50_fpn@COCO_V1") == kind("fasterrcnn_resnet50_fpn_v2") == "torchvision"
    assert kind("no/such/boxes.json") == kind("BOXES.JSON") == "coco"
    assert kind(write_predictions(tmp_path / "predict")) == kind(tmp_path / "predict/labels") == "yolo"
    for ours in (save_pretrained(detector(), tmp_path / "ours"), "gfocal_r50", "hf-hub:org/name", "", "nowhere/at/all"):
        assert kind(ours) is None
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read.txt").write_text("No predictions here.")
    assert kind(tmp_path / "notes") is None


@pytest.mark.parametrize(
    ("teacher", "error", "message"),
    [
        ("hf:rtdetr", ConfigError, "expected hf:ORG/NAME or hf:ORG/NAME@REVISION"),
        ("torchvision:fasterrcnn_resnet50", UnknownNameError, "Close matches: .*fasterrcnn_resnet50_fpn"),
        ("nowhere.json", MissingFileError, "no results file 'nowhere.json'"),
        ("gfocal_r50", ConfigError, "names no teacher that only detects. Known: FILE.json, a COCO results file; "),
    ],
)
def test_what_names_no_teacher(teacher: str, error: type[LdHubError], message: str) -> None:
    with pytest.raises(error, match=message):
        load_teacher(teacher)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ld_hub.teachers.transformers_models.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ld_hub\[transformers\]'"):
        load_teacher("hf:org/name")


def test_names_are_looked_at_without_torch() -> None:
    code = (
        "import sys\nfrom ld_hub.teachers.kinds import find_kind, known_kinds\n"
        "found = [find_kind(t) for t in ('hf:a/b', 'torchvision:x', 'b.json', 'gfocal_r50', 'ssd300_vgg16')]\n"
        "assert [each is None for each in found] == [False, False, False, True, False]\n"
        "known_kinds()\nprint([m for m in ('torch', 'numpy', 'transformers', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
