"""`ld-hub verify RUN`: every file of a run is what was written, or is named."""

from __future__ import annotations

import shutil

import pytest

from ld_hub.cli.main import main
from tests.engine.runs import train, write_data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = write_data(tmp_path_factory.mktemp("coco") / "data")
    out = tmp_path_factory.mktemp("runs") / "run"
    train(data, out, steps=2, save_every=1)
    return out


def test_a_run_that_is_whole(run, capsys):
    assert main(["verify", str(run)]) == 0
    said = capsys.readouterr().out
    assert "ok      checkpoints/step_00000002" in said and "6 of 6 parts of the run are what was written." in said


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("checkpoints/step_00000001/model.safetensors", "model.safetensors was changed: its sha256 is another one"),
        ("checkpoints/step_00000002/state.json", "state.json was changed"),
        ("checkpoints/step_00000002/manifest.json", "manifest.json was changed"),
        ("model/model.safetensors", "is damaged: its tensors are not those that were written"),
        ("model/config.json", "config.json"),
        ("metrics.jsonl", "line 2 cannot be read"),
        ("config.json", "config.json"),
        ("result.json", "result.json cannot be read"),
    ],
)
def test_what_was_changed_is_named(run, tmp_path, capsys, file, words):
    place = shutil.copytree(run, tmp_path / "run")
    content = bytearray((place / file).read_bytes())
    if file.endswith((".safetensors", "state.json", "manifest.json")):
        where = len(content) - 40 if file.endswith("safetensors") else content.index(b"0")
        content[where] ^= 1
        (place / file).write_bytes(content)
    else:
        (place / file).write_bytes(content[:-4])
    assert main(["verify", str(place)]) == 1
    said = capsys.readouterr().out
    assert words in said and "5 of 6 parts" in said and said.count("FAILED") == 1
