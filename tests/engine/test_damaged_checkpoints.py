"""A checkpoint that is not what was written is found, named, and the one before it taken."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch

import ld_hub
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub.manifest import damages
from tests.engine.runs import distil, equal, weights

FILES = ("manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    distil(data, out, steps=3, save_every=1, ema="on", ema_decay=0.9)
    return out


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def flipped(file, place, bit):
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


def test_a_flipped_bit_in_any_file_is_found(run, tmp_path):
    last = RunDirectory(run).checkpoints()[-1]
    assert sorted(file.name for file in last.iterdir()) == sorted(FILES) and damages(last) == []
    chosen, place = random.Random(0), shutil.copytree(last, tmp_path / "step")
    for name in FILES:
        whole = (last / name).read_bytes()
        for trial in range(200):
            flipped(place / name, chosen.randrange(len(whole)), chosen.randrange(8))
            found = damages(place)
            assert len(found) == 1 and found[0].startswith(name), (name, trial, found)
            (place / name).write_bytes(whole)
        flipped(place / name, len(whole) // 2, 0)
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            Checkpoint.load(place)
        (place / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_the_checkpoint_before_a_damaged_one_is_taken(data, run, copy, capsys, name):
    """The weights that come out are those of the run that nobody disturbed."""
    flipped(RunDirectory(copy).checkpoints()[-1] / name, 40, 3)
    distil(data, copy, steps=3, save_every=1, ema="on", ema_decay=0.9, resume=True)
    said = capsys.readouterr().out
    assert "step_00000003" in said and name in said and "an earlier checkpoint is taken" in said
    assert "continuing from" in said and "at step 2 of 3" in said
    assert equal(weights(run / "model"), weights(copy / "model"))
    assert [damages(each) for each in RunDirectory(copy).checkpoints()] == [[], []]


def test_what_is_missing_or_cut_short_is_named(run, tmp_path):
    last = RunDirectory(run).checkpoints()[-1]
    place = shutil.copytree(last, tmp_path / "step")
    (place / "model.safetensors").write_bytes((last / "model.safetensors").read_bytes()[:-5])
    (place / "ema.safetensors").unlink()
    found = " ".join(damages(place))
    assert "ema.safetensors is missing" in found and "not the" in found and "bytes" in found
    (place / "manifest.json").unlink()
    assert damages(place) == ["manifest.json is missing"]


def test_a_run_without_a_whole_checkpoint_does_not_begin_anew(data, copy):
    for path in RunDirectory(copy).checkpoints():
        flipped(path / "model.safetensors", 99, 1)
    before = sorted(file for file in copy.rglob("*"))
    with pytest.raises(CheckpointError, match=r"No checkpoint of the run is whole: .*step_00000002.*step_00000003"):
        distil(data, copy, steps=3, save_every=1, ema="on", ema_decay=0.9, resume=True)
    assert sorted(file for file in copy.rglob("*")) == before


def test_the_last_ones_and_the_best_are_kept(data, tmp_path):
    run = RunDirectory(tmp_path / "run")
    distil(data, run.path, steps=5, save_every=1, keep_checkpoints=1)
    assert [path.name for path in run.checkpoints()] == ["step_00000005"]
    checkpoint = Checkpoint.load(run.checkpoints()[-1])
    for step in (6, 7, 8):
        checkpoint.step = step
        run.save(checkpoint, keep=1, best=6)
    assert [path.name for path in run.checkpoints()] == ["step_00000006", "step_00000008"]
    with pytest.raises(ConfigError, match="keep_checkpoints is 0; it must be at least 1"):
        distil(data, tmp_path / "none", keep_checkpoints=0)


def test_the_manifest_says_of_what_run_and_version_it_is(run):
    last = RunDirectory(run).checkpoints()[-1]
    content, state = (json.loads((last / name).read_text()) for name in ("manifest.json", "state.json"))
    assert content["step"] == 3 and content["run"] == state["identity"]
    assert content["versions"] == {"ld_hub": ld_hub.__version__, "torch": torch.__version__}
