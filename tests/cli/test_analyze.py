"""The verb analyze, from arguments to files and messages."""

from __future__ import annotations

import json
import shutil

import pytest

from ld_hub.cli.main import main
from tests.engine.runs import IDS, detector, write_data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, and the run directories of a teacher and two students."""
    root = tmp_path_factory.mktemp("analyze")
    write_data(root / "data")
    for seed, name in enumerate(("alone", "vlr", "big")):
        detector(seed=seed).save_pretrained(root / "runs" / name / "model")
    return root


def run(capsys, *arguments):
    code = main(["analyze", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_report_of_two_students_and_their_teacher(place, tmp_path, capsys):
    models = [place / "runs" / name / "model" for name in ("alone", "vlr", "big")]
    options = ["--data", place / "data", "--out", tmp_path / "r", "--workers", 0, "--device", "cpu", "--limit", 3]
    code, out, err = run(capsys, *models[:2], "--teacher", models[2], *options)
    assert code == 0, err
    content = json.loads((tmp_path / "r" / "analysis.json").read_text())
    assert list(content["models"]) == ["alone", "vlr", "big"] and content["teacher"] == "big"
    assert content["data"]["name"] == "data, val" and content["data"]["images"] == 3
    assert sorted(content["score_errors"]) == ["alone", "vlr"]
    assert content["models"]["vlr"]["source"] == str(models[1])
    assert "report.html and analysis.json are in" in out and "drawing" in out
    assert all(
        any(line.startswith(f"{name} ") and " AP " in line for line in out.splitlines()) for name in content["models"]
    )
    names = ["--names", "one", "two"]
    code, _, err = run(capsys, *models[:2], "--teacher", models[0], *options, *names)
    assert code == 0, err
    content = json.loads((tmp_path / "r" / "analysis.json").read_text())
    assert list(content["models"]) == ["one", "two"] and content["teacher"] == "one"


def test_a_first_model_called_teacher_is_one(place, tmp_path, capsys):
    shutil.copytree(place / "runs" / "big", tmp_path / "teacher")
    options = ["--data", place / "data", "--out", tmp_path / "r", "--workers", 0, "--device", "cpu", "--limit", 1]
    code, _, err = run(capsys, tmp_path / "teacher" / "model", place / "runs" / "vlr" / "model", *options)
    assert code == 0, err
    assert json.loads((tmp_path / "r" / "analysis.json").read_text())["teacher"] == "teacher"


@pytest.mark.parametrize(
    "options, said",
    [
        (["--limit", 0], "--limit 0: at least 1"),
        (["--batch_size", 0], "--batch_size 0: at least 1"),
        (["--score", 1], "--score 1: expected"),
        (["--split", "nowhere"], "nowhere"),
        (["--names", "a", "b"], "--names gives 2 names (a, b) for 1 model"),
        (["--device", "tpu9"], "Device 'tpu9'"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(place, tmp_path, capsys, options, said):
    model = place / "runs" / "alone" / "model"
    code, _, err = run(capsys, model, "--data", place / "data", "--out", tmp_path / "r", "--workers", 0, *options)
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_models_that_do_not_fit_are_refused_before_the_pass(place, tmp_path, capsys):
    model, options = place / "runs" / "alone" / "model", ["--data", place / "data", "--workers", 0]
    other = detector()
    other.set_labels(("green", "red", "blue"), IDS)
    other.save_pretrained(tmp_path / "other")
    code, _, err = run(capsys, model, tmp_path / "other", *options, "--out", tmp_path / "r")
    assert code == 2 and "3 classes (green, red, blue)" in err and "another order" in err
    code, _, err = run(capsys, model, f"{model}/../model", *options, "--out", tmp_path / "r")
    assert code == 2 and "are the same model" in err
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, model, *options, "--out", tmp_path / "file")
    assert code == 2 and "is a file" in err
    assert not (tmp_path / "r").exists()
