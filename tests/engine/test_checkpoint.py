from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ld_hub.checked import Source, read_fields
from ld_hub.engine.checkpoint import Checkpoint, RandomState, RunDirectory, random_state, set_random_state
from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub.manifest import write_manifest

CPU = torch.device("cpu")


def trained(kind: type[torch.optim.Optimizer], **options: float) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = kind(model.parameters(), lr=0.1, **options)
    for _ in range(3):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


def checkpoint(step: int) -> Checkpoint:
    model, optimizer = trained(torch.optim.SGD, momentum=0.9)
    return Checkpoint(step, model.state_dict(), optimizer.state_dict(), None, {"best": {"AP": 0.5}})


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.SGD, {}), (torch.optim.AdamW, {})]
)
def test_an_optimizer_goes_on_bit_for_bit(tmp_path, kind, options):
    model, optimizer = trained(kind, **options)
    Checkpoint(3, model.state_dict(), optimizer.state_dict(), None).save(tmp_path / "step_3")
    loaded = Checkpoint.load(tmp_path / "step_3")
    other, fresh = trained(kind, **options)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(loaded.model)
    fresh.load_state_dict(loaded.optimizer)
    for one in (model, other):
        one.zero_grad()
        one(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    fresh.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_files_are_safetensors_and_json_only(tmp_path):
    run = RunDirectory(tmp_path)
    path = run.save(checkpoint(1))
    files = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert sorted(file.name for file in path.iterdir()) == files
    loaded = Checkpoint.load(path)
    assert (loaded.step, loaded.ema, loaded.state["best"]) == (1, None, {"AP": 0.5})


def test_the_last_two_are_kept(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (5, 10, 100):
        run.save(checkpoint(step))
    assert [path.name for path in run.checkpoints()] == ["step_00000010", "step_00000100"]
    assert run.find(True) == run.checkpoints()[-1]
    assert run.find(str(tmp_path)) == run.checkpoints()[-1]
    assert run.find(str(run.checkpoints()[0])) == run.checkpoints()[0]


@pytest.mark.parametrize("moment", ["save_safetensors", "atomic_write", "_move_into_place"])
def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch, moment):
    """The killed process leaves its half-written directory behind; a KeyboardInterrupt in mid-write stands for it."""
    run = RunDirectory(tmp_path)
    run.save(checkpoint(1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    places = {"save_safetensors": "ld_hub.hub", "atomic_write": "ld_hub.engine.checkpoint"}
    place = places.get(moment, "ld_hub.hub.files")
    with monkeypatch.context() as patch:
        patch.setattr("ld_hub.hub.files.shutil.rmtree", lambda *_, **__: None)  # no cleaning up after SIGKILL
        patch.setattr(f"{place}.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            run.save(checkpoint(2))
    leftovers = list(tmp_path.glob("checkpoints/.*"))
    assert len(leftovers) == 1
    assert [path.name for path in run.checkpoints()] == ["step_00000001"]
    assert Checkpoint.load(run.find(True) or Path()).step == 1
    run.save(checkpoint(2))
    assert not leftovers[0].exists()


def test_a_half_removed_checkpoint_does_not_count(tmp_path):
    run = RunDirectory(tmp_path)
    run.save(checkpoint(1))
    run.save(checkpoint(2))
    (run.checkpoints()[1] / "manifest.json").unlink()
    assert [path.name for path in run.checkpoints()] == ["step_00000001"]
    run.clean()
    assert sorted(path.name for path in tmp_path.glob("checkpoints/*")) == ["step_00000001"]


def test_continuing_forgets_what_came_later(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (5, 10):
        run.save(checkpoint(step))
    run.metrics_file.write_text('{"step": 5, "a": 1}\n{"step": 6}\n{"step": 10}\n{"step": 1')
    run.result_file.write_text("{}")
    run.forget_after(5)
    assert [path.name for path in run.checkpoints()] == ["step_00000005"]
    assert run.metrics_file.read_text() == '{"step": 5, "a": 1}\n'
    assert not run.result_file.exists()


def test_a_directory_with_a_run_is_not_written_over(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.require_new()
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    run.require_new()  # a teacher's run inside is not this run
    run.metrics_file.write_text("")
    with pytest.raises(ConfigError, match="already holds a run: pass --resume"):
        run.require_new()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunDirectory(tmp_path / "file").require_new()


def test_what_is_no_checkpoint_is_said(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.find(True) is None
    with pytest.raises(MissingFileError, match="neither a checkpoint"):
        run.find(str(tmp_path / "nowhere"))
    path = run.save(checkpoint(1))
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    write_manifest(path, ["state.json"])
    with pytest.raises(CheckpointError, match="format 99"):
        Checkpoint.load(path)
    (path / "state.json").write_text("{")
    write_manifest(path, ["state.json"])
    with pytest.raises(CheckpointError, match="not readable JSON"):
        Checkpoint.load(path)
    with pytest.raises(MissingFileError, match=r"no manifest\.json"):
        Checkpoint.load(tmp_path)


def test_weights_that_diverged_are_not_saved(tmp_path):
    bad = checkpoint(1)
    bad.model = {**bad.model, "0.bias": torch.full((4,), float("nan"))}
    with pytest.raises(CheckpointError, match=r"0\.bias"):
        RunDirectory(tmp_path).save(bad)
    assert RunDirectory(tmp_path).checkpoints() == []


def test_random_numbers_go_on():
    state = read_fields(RandomState, json.loads(json.dumps(asdict(random_state(CPU)))), Source("state.json"))

    def draw() -> tuple[float, float, list[float]]:
        return random.random(), float(np.random.rand()), torch.randn(3).tolist()

    expected = draw()
    draw()
    set_random_state(state, CPU)
    assert draw() == expected


def test_later_checkpoints_and_lines_are_forgotten(tmp_path):
    run = RunDirectory(tmp_path)
    for step in (2, 3):
        run.save(checkpoint(step))
    lines = [{"step": 2, "loss": 1.0}, {"step": 2, "eval/AP": 0.5}, {"step": 3, "loss": 0.5}]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "los')
    run.forget_after(2)
    assert [path.name for path in run.checkpoints()] == ["step_00000002"]
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == lines[:2]
    run.forget_after(2, unscored=True)
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == lines[:1]
