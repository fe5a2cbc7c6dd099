"""`ld-hub curves`: a picture, a CSV and a table of runs; without matplotlib the numbers alone."""

from __future__ import annotations

import csv
import importlib.util

import pytest

from ld_hub.cli.main import main
from ld_hub.engine import DetectionTrainer, TrainConfig
from tests.engine.runs import detector, distil, records, sets, write_data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of plain training, with AP, and one distillation."""
    root = tmp_path_factory.mktemp("curves")
    data = write_data(root / "data")
    training, evaluation = sets(data)
    for seed in (0, 1):
        config = TrainConfig(
            output_dir=str(root / f"alone-{seed}"), workers=0, steps=2, batch_size=2, log_every=1, lr=0.01, seed=seed
        )
        DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config).train()
    distil(data, root / "vlr-0", steps=2, batch_size=2)
    return root


def test_picture_numbers_and_table(runs, tmp_path, capsys):
    words = [str(runs / name) for name in ("alone-0", "alone-1", "vlr-0")]
    assert main(["curves", *words, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:4] == ["no", "distillation", "2", "2"] and out[2].split() == ["vlr", "1", *"––––"]
    assert max(map(len, out[:3])) <= 80
    with open(tmp_path / "curves.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["quantity"], row["group"], row["step"]): float(row["mean"]) for row in rows}
    both = [records(runs / f"alone-{seed}")[1]["loss_cls"] for seed in (0, 1)]
    assert found["loss_cls", "no distillation", "2"] == pytest.approx(sum(both) / 2)
    assert found["share/distill_ld", "vlr", "1"] == records(runs / "vlr-0")[0]["share/distill_ld"]
    assert {row["quantity"] for row in rows} >= {"eval/AP", "lr", "grad_norm", "distill_kd", "loss"}
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["curves", "--group", f"mine={runs / 'alone-0'},{runs / 'vlr-0'}", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "no picture: matplotlib is not installed (`pip install 'ld_hub[plot]'`)" in out and "\nmine " in out
    assert [file.name for file in tmp_path.iterdir()] == ["curves.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least one run"),
        (["{runs}"], "is not the directory of a training run"),
        (["--group", "{runs}/alone-0"], "expected NAME=DIR,DIR"),
        (["--group", "a="], "expected NAME=DIR,DIR"),
        (["--group", "a={runs}/alone-0", "--group", "a={runs}/alone-1"], "each name once"),
    ],
)
def test_wrong_calls(runs, tmp_path, capsys, words, message):
    assert main(["curves", *[word.format(runs=runs) for word in words], "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
