"""The whole story: a student of the demo is published, comes back in a new process, and its card can be trusted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load, save

from ld_hub.cli.main import main
from ld_hub.models.factory import create_model
from tests.support.hub_client import connected, environment

hub = pytest.fixture(connected)
REPO = "org/demo-student"

# The child ends without the interpreter's own end, at which pyarrow's threads may abort it.
_CHILD = """
import os, sys
import torch, ld_hub
torch.set_num_threads(1)
name, images, out = sys.argv[1:]
found = ld_hub.create_model(f"hf-hub:{name}", pretrained=True).predict(images)
torch.save([(each.boxes, each.scores, each.labels) for each in found], out)
os._exit(0)
"""


@pytest.fixture
def student(demo, tmp_path, capsys):
    """The distilled student of a demo run, evaluated."""
    shutil.copytree(demo / "student_vlr", tmp_path / "student")
    words = ["--out", str(tmp_path / "student/eval"), "--workers", "0", "--device", "cpu"]
    assert main(["eval", str(tmp_path / "student"), "--data", str(demo / "data"), *words]) == 0
    return tmp_path / "student"


def in_a_new_process(hub, images, folder):
    words = [sys.executable, "-c", _CHILD, REPO, str(images), str(folder / "found.pt")]
    done = subprocess.run(words, env=environment(hub, folder / "home"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "found.pt", weights_only=True)


def ap_of_the_card(files):
    """Another AP in the metadata, which the Hub's page shows."""
    text, count = re.subn(r"(type: map\n\s+value: )[\d.]+", r"\g<1>0.987", files["README.md"].decode(), count=1)
    assert count == 1, text
    return {"README.md": text.encode()}


def one_detection(files):
    """A box of the recorded detections, moved by a tenth of a pixel."""
    rows = json.loads(files["eval/detections.json"])
    rows[len(rows) // 2]["bbox"][0] += 0.1
    return {"eval/detections.json": json.dumps(rows).encode()}


def one_weight(files):
    state = load(files["model.safetensors"])
    state["head.box.bias"][0] += 1e-5
    return {"model.safetensors": save(state, metadata={"format": "pt"})}


LIES = {  # what was tampered with -> the comparison that fails, and what it says
    ap_of_the_card: ("README.md: AP of the metadata", r"the card has 0\.987, the artefact \d"),
    one_detection: ("eval/metrics.json: detections file", r"detections\.json is another file: sha256 \w{16}\.\.\."),
    one_weight: ("eval/metrics.json: weights", r"model\.safetensors is another file: sha256 \w{16}\.\.\."),
}


def test_from_the_demo_to_a_card_that_tells_the_truth(demo, student, hub, tmp_path, capsys):
    assert main(["push", str(student), REPO, "--license", "apache-2.0"]) == 0
    published = hub.files(REPO)
    assert published["model.safetensors"] == (student / "model.safetensors").read_bytes()

    here = create_model(student).predict(demo / "data/val")
    there = in_a_new_process(hub, demo / "data/val", tmp_path)
    assert len(here) == len(there) == 12 and all(len(each.scores) for each in here)
    for mine, parts in zip(here, there, strict=True):
        assert all(map(torch.equal, (mine.boxes, mine.scores, mine.labels), parts))

    def verify():
        capsys.readouterr()
        code = main(["verify", REPO, "--data", str(demo / "data"), "--workers", "0", "--device", "cpu"])
        out = capsys.readouterr().out
        return code, [line[8:] for line in out.splitlines() if line.startswith("FAILED")], out

    assert verify()[:2] == (0, [])
    for tamper, (name, says) in LIES.items():
        lie = tamper(published)
        hub.commit(REPO, lie)
        code, failed, out = verify()
        assert code == 1 and failed[0] == name and re.search(says, out), out
        assert not ({other for other, _ in LIES.values()} - {name}) & set(failed), out  # each has its own message
        hub.commit(REPO, {path: published[path] for path in lie})
    assert verify()[:2] == (0, [])
