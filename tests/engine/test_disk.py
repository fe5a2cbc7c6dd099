"""A directory that cannot be written costs no checkpoint that is there, and no run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import ld_hub.engine.disk
import ld_hub.hub.files
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.disk import describe_fault, require_room
from ld_hub.errors import CheckpointError
from ld_hub.hub.manifest import damages
from tests.engine.runs import equal, records, train, weights

STEPS = {"steps": 5, "save_every": 1, "lr_schedule": "constant"}
CALLS = [(ld_hub.hub.files, "_sync"), (ld_hub.hub.files, "_sync_directory"), (Path, "replace"), (Path, "rename"),
         (Path, "mkdir"), (Path, "write_bytes"), (Path, "chmod")]  # fmt: skip
ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EMFILE]


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(data, out, **STEPS)
    return out


def failing(monkeypatch, place, name, when, number):
    """The n-th call fails once; returns how often it was called."""
    original, calls = getattr(place, name), []

    def call(*arguments, **options):
        calls.append(1)
        if len(calls) == when:
            raise OSError(number, os.strerror(number), "a file")
        return original(*arguments, **options)

    monkeypatch.setattr(place, name, call)
    return calls


@pytest.mark.parametrize(("place", "name"), CALLS, ids=lambda value: str(getattr(value, "__name__", value)))
def test_each_call_of_a_save_may_fail_once(data, undisturbed, tmp_path, monkeypatch, capsys, place, name):
    """In the third step: which call of the run that is, a run that nobody disturbs tells."""
    saves, original = [], RunDirectory.save

    def save(self, checkpoint, **options):
        saves.append(len(calls))
        return original(self, checkpoint, **options)

    with monkeypatch.context() as patch:
        calls = failing(patch, place, name, 0, 0)
        patch.setattr(RunDirectory, "save", save)
        train(data, tmp_path / "counted", **STEPS)
    first, after = saves[2], saves[3]
    assert after > first, "a save does not call it"
    chosen = range(first + 1, after + 1)
    for turn, when in enumerate((chosen[0], chosen[len(chosen) // 2], chosen[-1])):
        out, number = tmp_path / str(turn), ERRORS[(turn + len(name)) % len(ERRORS)]
        with monkeypatch.context() as patch:
            failing(patch, place, name, when, number)
            train(data, out, **STEPS)
        said = capsys.readouterr().out
        assert "NOT SAVED at step 3" in said or "metrics.jsonl are kept" in said, (when, said)
        assert "cannot be written" in said
        run = RunDirectory(out)
        assert [path.name for path in run.checkpoints()] == ["step_00000004", "step_00000005"]
        assert all(damages(path) == [] for path in run.checkpoints())
        assert equal(weights(out / "model"), weights(undisturbed / "model"))
        assert [each["step"] for each in records(out)] == [1, 2, 3, 4, 5]
        assert not list(out.rglob("*.tmp*"))


def test_a_disk_that_stays_full_costs_no_run(data, undisturbed, tmp_path, monkeypatch, capsys):
    def full(place, size):
        raise OSError(errno.ENOSPC, "700 MB are needed and 3 MB are free")

    monkeypatch.setattr("ld_hub.engine.saving.require_room", full)
    with pytest.raises(CheckpointError, match=r"step 1 was not written\. .* the disk is full \(700 MB are needed"):
        train(data, tmp_path / "strict", **STEPS, strict_saves=True)
    train(data, tmp_path / "loose", **STEPS)
    said = capsys.readouterr().out
    assert said.count("NOT SAVED at step") == 5 and "--keep_checkpoints 1" in said
    assert RunDirectory(tmp_path / "loose").checkpoints() == []
    assert equal(weights(tmp_path / "loose/model"), weights(undisturbed / "model"))


def test_room_is_asked_for_before(tmp_path, monkeypatch):
    monkeypatch.setattr(ld_hub.engine.disk.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**9))
    require_room(tmp_path / "not/there/yet", 9 * 10**8)
    with pytest.raises(OSError, match="1,050 MB are needed and 1,000 MB are free") as caught:
        require_room(tmp_path, 10**9)
    said = describe_fault(caught.value, tmp_path)
    assert (
        said.startswith(f"'{tmp_path}' cannot be written: the disk is full (1,050 MB are needed")
        and "make room" in said
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "read-only; make it writable"), (errno.EMFILE, "ulimit -n"), (errno.EIO, "--output_dir NEW"),
     (errno.EDQUOT, "the disk is full; make room")],
)  # fmt: skip
def test_each_fault_has_a_way_out(number, words):
    assert words in describe_fault(OSError(number, os.strerror(number)), Path("run"))
