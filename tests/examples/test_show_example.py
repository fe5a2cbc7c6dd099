"""The command beside the picture of the ideas is one, and the picture is what such a command writes."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from ld_hub.cli import verb_demo
from ld_hub.cli.main import main
from ld_hub.demo import make_demo_dataset
from ld_hub.demo.scene import CLASSES
from tests.analysis.conftest import untrained

PLACE = Path(__file__).parents[2] / "examples/show"


def test_the_command_runs_and_the_picture_has_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PLACE / "README.md").read_text()
    (demo, show) = re.findall(r"^ld-hub (.+)$", text.replace("\\\n", ""), re.MULTILINE)
    frame = argparse.ArgumentParser()
    verb_demo.add_parser(frame.add_subparsers())
    assert frame.parse_args(shlex.split(demo)).seed == 1
    data = tmp_path / "ld_hub_demo/data"
    make_demo_dataset(data, train_images=1, val_images=60, image_size=128, seed=1)
    for seed, name in enumerate(("student_vlr", "teacher")):
        model = untrained(seed=seed, size=128)
        model.set_labels(CLASSES, range(1, 7))
        model.save_pretrained(tmp_path / "ld_hub_demo" / name)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(show)) == 0
    (picture,) = re.findall(r"\(([\w.]+)\)\n", text)
    assert (PLACE / picture).stat().st_size <= 300_000
    with Image.open(tmp_path / "examples/show" / picture) as made, Image.open(PLACE / picture) as kept:
        assert made.width == kept.width and abs(made.height - kept.height) < 200  # the cut-out of edges differs
