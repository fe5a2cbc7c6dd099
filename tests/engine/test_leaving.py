"""A run that is asked to end finishes its step, saves, says what continues it, and loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ld_hub.cli.main import guarded
from ld_hub.data import load_coco
from ld_hub.engine import DetectionTrainer, TrainConfig, loop
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.leaving import LeftEarly, Limits, Wishes, agreed, continued_by
from ld_hub.errors import ConfigError
from tests.engine.runs import QUICK, detector, equal, records, train, weights
from tests.engine.test_distributed import launch

SETTINGS = {**QUICK, "steps": 4, "eval_every_steps": 2, "eval_batch_size": 1, "lr": 1e-3}


def whole_run(data, out, **changes):
    config = TrainConfig(output_dir=str(out), **{**SETTINGS, **changes})
    sets = {"train_dataset": load_coco(data, "train"), "eval_dataset": load_coco(data, "val")}
    return DetectionTrainer(detector(), **sets, config=config).train()


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    whole_run(data, out)
    return out


@pytest.fixture(autouse=True)
def heard():
    """As in a terminal: who runs the tests may ignore some signals."""
    before = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send_at(monkeypatch, method, call, name="SIGTERM", times=1):
    """The process sends itself a signal in a call of a method of the loop."""
    calls, original = [0], getattr(loop.Loop, method)

    def wrapped(self, *arguments, **options):
        calls[0] += 1
        if calls[0] == call:
            for _ in range(times):
                os.kill(os.getpid(), getattr(signal, name))
        return original(self, *arguments, **options)

    monkeypatch.setattr(loop.Loop, method, wrapped)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 0), ("SIGHUP", 0)])
def test_a_signal_in_a_step(data, undisturbed, tmp_path, monkeypatch, capsys, name, code):
    handler = signal.getsignal(getattr(signal, name))
    send_at(monkeypatch, "_train_step", 3, name)
    assert guarded(lambda: whole_run(data, tmp_path / "run")) == code
    assert signal.getsignal(getattr(signal, name)) is handler
    said = capsys.readouterr().out
    assert f"{name}: the step is finished and saved" in said and f"{name} after step 3." in said
    assert [path.name for path in RunDirectory(tmp_path / "run").checkpoints()][-1] == "step_00000003"
    monkeypatch.undo()
    whole_run(data, tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "run/model"), weights(undisturbed / "model"))
    assert [each["step"] for each in records(tmp_path / "run", "eval/AP")] == [2, 4]


@pytest.mark.parametrize(("method", "call", "step"), [("save", 2, 3), ("_agree", 1, 3)])
def test_a_signal_while_it_saves(data, undisturbed, tmp_path, monkeypatch, method, call, step):
    send_at(monkeypatch, method, call)
    with pytest.raises(LeftEarly) as left:
        whole_run(data, tmp_path / "run")
    assert left.value.code == 143
    assert RunDirectory(tmp_path / "run").checkpoints()[-1].name == f"step_0000000{step if method == 'save' else 2}"
    monkeypatch.undo()
    whole_run(data, tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "run/model"), weights(undisturbed / "model"))


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(data, undisturbed, tmp_path, monkeypatch, capsys):
    original, images = loop.evaluate, []

    def evaluate(model, dataset, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        images.append(len(dataset))
        return original(model, dataset, **options)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    with pytest.raises(LeftEarly):
        whole_run(data, tmp_path / "run")
    assert images == [] and "SIGTERM after step 2." in capsys.readouterr().out
    monkeypatch.undo()
    whole_run(data, tmp_path / "run", resume=True)
    assert equal(weights(tmp_path / "run/model"), weights(undisturbed / "model"))
    assert [each["step"] for each in records(tmp_path / "run", "eval/AP")] == [2, 4]


def _one_rank_is_told(data: Path, out: Path) -> None:
    """A run that leaves, its continuation, and one that nobody disturbs, by the same two processes."""
    rank = int(os.environ["RANK"])
    original, calls = loop.Loop._train_step, [0]

    def step(self, *arguments):
        calls[0] += 1
        if rank == 1 and calls[0] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    loop.Loop._train_step = step
    options = {"batch_size": 2, "steps": 5}
    try:
        train(data, out / "run", detector(norm_eval=True), **options)
    except LeftEarly as left:
        found = [path.name for path in RunDirectory(out / "run").checkpoints()]
        (out / f"left{rank}").write_text(f"{left} {left.code} {found}")
    train(data, out / "run", detector(norm_eval=True), resume=True, **options)
    train(data, out / "whole", detector(norm_eval=True), **options)


def test_all_ranks_leave_after_the_same_step(data, tmp_path):
    launch(_one_rank_is_told, data, tmp_path)
    assert [(tmp_path / f"left{rank}").read_text() for rank in (0, 1)] == ["SIGTERM 143 ['step_00000002']"] * 2
    assert equal(weights(tmp_path / "run/model"), weights(tmp_path / "whole/model"))


def test_a_second_signal_ends_at_once(tmp_path):
    """In a process of its own: nothing is left to be caught."""
    code = """
import os, signal, time
from ld_hub.engine.leaving import Limits, Wishes
with Wishes(Limits(), print).listening():
    os.kill(os.getpid(), signal.SIGTERM)
    print("heard", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM and "heard" in done.stdout and time.monotonic() - started < 25


def test_limits_of_time():
    now = [0.0]
    wishes = Wishes(Limits(save_every=2, most=5), lambda text: None, lambda: now[0])
    assert wishes.wish() == ""
    now[0] = 121
    assert wishes.wish() == "save_every_minutes"
    wishes.saved()
    assert wishes.wish() == ""
    now[0] = 300
    assert wishes.wish() == "max_minutes"
    assert agreed(["", "save_every_minutes", "max_minutes"]) == "max_minutes"
    assert agreed(["max_minutes", "SIGINT", "SIGTERM"]) == "SIGTERM" and agreed(["", ""]) == ""


def test_the_time_limit_saves_and_ends_well(data, undisturbed, tmp_path, capsys):
    assert guarded(lambda: whole_run(data, tmp_path / "run", max_minutes=1e-9)) == 0
    said = capsys.readouterr().out
    assert "the time is up (max_minutes) after step 1." in said and "resume=True) continues it" in said
    while not (tmp_path / "run/result.json").exists():
        guarded(lambda: whole_run(data, tmp_path / "run", max_minutes=1e-9, resume=True))
    assert equal(weights(tmp_path / "run/model"), weights(undisturbed / "model"))
    assert [each["step"] for each in records(tmp_path / "run", "eval/AP")] == [2, 4]


def test_saving_by_the_clock_changes_nothing_else(data, undisturbed, tmp_path):
    whole_run(data, tmp_path / "run", save_every_minutes=1e-9, keep_checkpoints=9)
    assert [path.name for path in RunDirectory(tmp_path / "run").checkpoints()] == [
        f"step_0000000{k}" for k in (1, 2, 3, 4)
    ]
    assert equal(weights(tmp_path / "run/model"), weights(undisturbed / "model"))
    with pytest.raises(ConfigError, match="max_minutes is 0; it must be above 0"):
        TrainConfig(max_minutes=0)


def test_the_command_that_continues(tmp_path):
    assert continued_by(tmp_path) == f"TrainConfig(output_dir={str(tmp_path)!r}, resume=True) continues it."
    (tmp_path / "command.txt").write_text("python -m ld_hub.train a\npython -m ld_hub.train a --resume\n")
    assert continued_by(tmp_path / "comparison/alone-1").endswith("\n  python -m ld_hub.train a --resume")
    (tmp_path / "command.txt").write_text("python -m ld_hub.train a\n")
    assert continued_by(tmp_path).endswith("\n  python -m ld_hub.train a --resume")
