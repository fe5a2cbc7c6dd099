"""The scripts of examples/ run as a reader types them, on the demo's data, and do what they say."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ld_hub.distillation import RECIPES, TERMS
from ld_hub.hub import read_config
from ld_hub.models.factory import create_model
from tests.support.hub_client import connected

hub = pytest.fixture(connected)
EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(file.name for file in EXAMPLES.glob("*.py"))
SHORT = "--steps 2 --batch_size 2"


@pytest.fixture
def place(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands, beside what the demo made."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ld_hub_demo").symlink_to(demo)
    for registry in (RECIPES, TERMS):  # what scripts register stays here
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return tmp_path


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``python examples/LINE`` in this process."""
    name, *arguments = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def records(run_directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_directory / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_they_are_short_and_say_how_to_run_them(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert len(text.splitlines()) <= 60
    assert f"python examples/{name} " in text.split('"""')[1]


def test_those_of_the_map_exist() -> None:
    assert SCRIPTS == ["distil.py", "finetune.py", "own_method.py", "publish.py", "quickstart.py"]


def test_quickstart(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("quickstart.py ld_hub_demo/data/val --model ld_hub_demo/teacher --threshold 0.01", monkeypatch)
    shown = capsys.readouterr().out
    pictures = sorted((place / "found").glob("*.jpg"))
    assert len(pictures) == 8 == shown.count("Detections: ")
    assert "gfocal_r10t: 6 classes, disc, square" in shown
    first = Image.open(pictures[0]), Image.open(place / "ld_hub_demo/data/val" / pictures[0].name)
    assert first[0].convert("RGB").resize((64, 64)).tobytes() != first[1].convert("RGB").resize((64, 64)).tobytes()
    run("quickstart.py ld_hub_demo/data/val/000002.jpg --model ld_hub_demo/teacher --out one", monkeypatch)
    assert [file.name for file in (place / "one").iterdir()] == ["000002.jpg"]


def test_finetune_from_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(f"finetune.py ld_hub_demo/data --model ld_hub_demo/student_alone {SHORT}", monkeypatch)
    before, after = (create_model(place / name) for name in ("ld_hub_demo/student_alone", "runs/finetuned/model"))
    moved = [(one - other).abs().max() for one, other in zip(before.parameters(), after.parameters(), strict=True)]
    assert 0 < max(moved) < 0.01  # two steps from the weights that were there, the class predictor's among them
    assert after.label_names == before.label_names


def test_finetune_from_scratch(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(f"finetune.py ld_hub_demo/data --model gfocal_tiny --scratch --image_size 64 64 {SHORT} --out new", monkeypatch)
    model = create_model(place / "new/model")
    assert len(model.label_names) == 6 and model.data_config.image_size == (64, 64)


def test_distil(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"distil.py ld_hub_demo/data --teacher ld_hub_demo/teacher --student gfocal_tiny --scratch {SHORT} --seed 5"
    run(line, monkeypatch)
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-2:]] == [["alone", "AP"], ["vlr", "AP"]]
    alone, taught = (records(place / f"runs/distil/{name}-5")[0] for name in ("alone", "vlr"))
    assert alone["loss_cls"] == pytest.approx(taught["loss_cls"], rel=1e-5)  # the same start and the same images
    assert taught["distill_ld"] > 0 and "distill_ld" not in alone
    assert read_config(place / "runs/distil/vlr-5/model")["recipe"]["teacher"] == "gfocal_r10t"


def test_publish(place: Path, hub: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    create_model(place / "ld_hub_demo/student_vlr").save_pretrained(place / "student")
    with pytest.raises(SystemExit) as stop:
        run("publish.py student my-name/my-detector ld_hub_demo/data", monkeypatch)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "published: http" in shown and "FAILED" not in shown and "comparisons agree" in shown
    files = hub.files("my-name/my-detector")
    assert {"model.safetensors", "config.json", "eval/metrics.json", "eval/detections.json"} <= set(files)
    assert hub.repos["models", "my-name/my-detector"].private
    assert b"license: apache-2.0" in files["README.md"]


def test_own_method(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("own_method.py ld_hub_demo/data ld_hub_demo/teacher 2", monkeypatch)
    recipe = read_config(place / "runs/global_bins/model")["recipe"]
    assert recipe["terms"]["global_bins"]["kind"] == "global_bins"
    assert records(place / "runs/global_bins")[0]["distill_global_bins"] > 0
