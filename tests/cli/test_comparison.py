"""`ld_hub.distill --compare_alone --seeds N`: its runs, its numbers, its card, and what an interruption leaves."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from ld_hub import distill, train
from ld_hub.analysis.comparison import Comparison
from ld_hub.cli.main import main
from ld_hub.models.factory import create_model
from tests.cli.test_train import QUICK, SCRATCH, SHAPE, data, offline, run_distill  # noqa: F401  # fixtures
from tests.engine.runs import detector, equal, records, weights
from tests.support.hub_client import connected
from tests.support.judged import lively, write_data

hub = pytest.fixture(connected)
Whole = namedtuple("Whole", "run data words screen")
KINDS = ("distilled", "alone", "alone_seconds")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    """Two seeds from a checkpoint that finds something, so that AP is neither 0 nor 1."""
    root = tmp_path_factory.mktemp("whole")
    start, teacher = lively(("cat", "dog")), lively(("cat", "dog"), seed=1)
    pets = write_data(root / "pets", start, count=8)
    (pets / "train").symlink_to(pets / "val")
    shutil.copy(pets / "annotations/instances_val.json", pets / "annotations/instances_train.json")
    words = ["--data", pets, *QUICK, "--lr", "1e-4", *SHAPE, "--checkpoint", start.save_pretrained(root / "start")]
    taught = ["--teacher", teacher.save_pretrained(root / "teacher"), "--compare_alone", "--seeds", 2, "--seed", 5]
    screen = io.StringIO()
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(screen):
        assert distilled(root / "run", words, taught) == 0
    return Whole(root / "run", pets, words, screen.getvalue())


def distilled(out: Path, words, taught) -> int:
    return distill.main([str(word) for word in ("gfocal_tiny_vlr_r10t", *words, *taught, "--output_dir", out)])


def place(run: Path, kind: str, seed: int) -> Path:
    return run if (kind, seed) == ("distilled", 5) else run / f"comparison/{kind}-{seed}"


def outcome(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_alone_is_plain_training_bit_for_bit(whole, tmp_path):
    for seed in (5, 6):
        plain = ["gfocal_tiny", *whole.words, "--seed", seed, "--output_dir", tmp_path / str(seed)]
        assert train.main([str(word) for word in plain]) == 0
        alone = place(whole.run, "alone", seed)
        assert equal(weights(tmp_path / str(seed) / "model"), weights(alone / "model"))
        assert create_model(alone / "model").name == "gfocal_tiny"
        losses = [[line["loss"] for line in records(run)] for run in (tmp_path / str(seed), alone)]
        assert losses[0] == losses[1] and len(losses[0]) == 2
    assert not equal(weights(place(whole.run, "alone", 5) / "model"), weights(place(whole.run, "alone", 6) / "model"))


def test_each_run_can_be_made_by_its_own_flags(whole, tmp_path):
    for kind, module in (("distilled", distill), ("alone_seconds", train)):
        run = place(whole.run, kind, 6)
        flags = ["--config", str(run / "arguments.yaml"), "--output_dir", str(tmp_path / kind)]
        assert module.main(flags) == 0
        assert equal(weights(tmp_path / kind / "model"), weights(run / "model"))
        assert not (tmp_path / kind / "comparison").exists()


def test_the_file_holds_what_the_runs_hold(whole):
    """Every number of comparison.json from the runs' own files, by numpy."""
    told = json.loads((whole.run / "comparison.json").read_text())
    assert told["model"] == "gfocal_tiny_vlr_r10t" and list(told["rows"]) == list(KINDS)
    ap = {}
    for kind in KINDS:
        row = told["rows"][kind]
        ends = [outcome(place(whole.run, kind, seed)) for seed in (5, 6)]
        ap[kind] = np.array([end["metrics"]["stats"]["AP"] for end in ends])
        assert [run["seed"] for run in row["runs"]] == [5, 6]
        assert [run["AP"] for run in row["runs"]] == list(ap[kind])
        assert [run["steps"] for run in row["runs"]] == [end["steps"] for end in ends]
        for name, values in (("AP", ap[kind]), ("seconds", [end["seconds"] for end in ends])):
            assert (row[name]["mean"], row[name]["std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
        if kind != "distilled":
            gaps = ap["distilled"] - ap[kind]
            half = 12.7062 * gaps.std(ddof=1) / np.sqrt(2)
            gain = row["gain"]
            assert (gain["mean"], gain["std"]) == pytest.approx((gaps.mean(), gaps.std(ddof=1)))
            assert (gain["low"], gain["high"]) == pytest.approx((gaps.mean() - half, gaps.mean() + half), rel=1e-4)
            assert not row["shares"]
    assert 0 < ap["distilled"].min() and ap["distilled"].max() < 1
    lines = [records(place(whole.run, "distilled", seed)) for seed in (5, 6)]
    for term in ("kd", "ld", "ld_vlr"):
        mean = np.mean([[line[f"share/distill_{term}"] for line in run] for run in lines])
        assert told["rows"]["distilled"]["shares"][f"distill_{term}"] == pytest.approx(mean)


def test_equal_seconds_are_counted_in_steps(whole):
    for seed in (5, 6):
        taught, alone, longer = (outcome(place(whole.run, kind, seed)) for kind in KINDS)
        assert longer["steps"] == max(1, round(taught["seconds"] * alone["steps"] / alone["seconds"]))
        settings = json.loads((place(whole.run, "alone_seconds", seed) / "config.json").read_text())
        assert settings["steps"] == settings["config"]["steps"] == longer["steps"]  # by a schedule of its own length


def test_the_screen_has_80_columns_and_says_it_in_words(whole):
    table = whole.screen[whole.screen.index("AP x100 ") : whole.screen.index("\nnext: ")].splitlines()
    assert max(map(len, table[:-1])) <= 80  # the last one is a path
    assert [line[:21].strip() for line in table[1:4]] == ["distilled", "alone, equal steps", "alone, equal seconds"]
    ap = 100 * json.loads((whole.run / "comparison.json").read_text())["rows"]["distilled"]["AP"]["mean"]
    assert table[1].split()[2] == f"{ap:.1f}"
    words = " ".join(table)
    assert "95 % interval" in words and words.count("the student alone, which ") == 2
    assert "[6 of 6] alone, equal seconds, seed 6" in whole.screen


def test_curves_draw_the_comparison(whole, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr("ld_hub.analysis.curve_plots.plot_curves", lambda curves, path: drawn.append(curves) or True)
    assert main(["curves", str(whole.run), "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [line[:21].strip() for line in shown.splitlines()[1:4]][1:] == ["alone, equal steps", "alone, equal seconds"]
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    told = json.loads((whole.run / "comparison.json").read_text())["rows"]
    for kind, name in (("distilled", "distilled,2"), ("alone", '"alone, equal steps",2')):
        (line,) = [line for line in lines if line.startswith(f"eval/AP,{name},")]
        expected = [told[kind]["AP"][number] for number in ("mean", "std")]
        assert [float(word) for word in line.split(",")[-2:]] == pytest.approx(expected)
    assert list(drawn[0]["eval/AP"]) == ["distilled", "alone, equal steps", "alone, equal seconds"]
    (line,) = [line for line in lines if line.startswith('eval/AP,"alone, equal seconds",')]
    assert int(line.split(",")[-4]) == round(told["alone_seconds"]["steps"]["mean"])  # of whatever lengths
    assert float(line.split(",")[-2]) == pytest.approx(told["alone_seconds"]["AP"]["mean"])
    two = [str(whole.run), str(whole.run / "comparison/alone-5"), "--out", str(tmp_path)]
    assert main(["curves", *two]) == 0 and "run: distilled" in capsys.readouterr().out


@pytest.fixture
def judged(whole, tmp_path) -> Whole:
    """A copy with evaluation and card."""
    run = shutil.copytree(whole.run, tmp_path / "run")
    flags = ["--data", str(whole.data), "--out", str(run / "model/eval"), "--workers", "0", "--device", "cpu"]
    assert main(["eval", str(run / "model"), *flags]) == 0
    assert main(["card", str(run), "--no_pictures"]) == 0
    return whole._replace(run=run)


def verified(capsys, model, images) -> list[str]:
    """What fails."""
    capsys.readouterr()
    code = main(["verify", str(model), "--data", str(images), "--workers", "0", "--device", "cpu"])
    out = capsys.readouterr().out
    failed = [line[8:] for line in out.splitlines() if line.startswith("FAILED")]
    assert code == bool(failed) and "comparison.json" in out, out
    return failed


def test_card_and_verify(judged, capsys):
    run, model = judged.run, judged.run / "model"
    file, card = run / "comparison.json", model / "README.md"
    told = json.loads(file.read_text())
    (line,) = [line for line in card.read_text().splitlines() if line.startswith("| alone, equal steps")]
    gain = told["rows"]["alone"]["gain"]
    shown = f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
    assert shown in line and "| 5, 6 |" in line
    assert verified(capsys, model, judged.data) == []

    honest = card.read_text()
    card.write_text(honest.replace(shown, "+9.9 (+9.8 to +10.0)"))
    assert verified(capsys, model, judged.data) == ["README.md: table of comparison.json"]
    card.write_text(honest)

    lie = json.loads(file.read_text())
    lie["rows"]["alone"]["gain"]["low"] = 0.01
    file.write_text(json.dumps(lie))
    assert "comparison.json: its numbers follow from its runs" in verified(capsys, model, judged.data)

    better = Comparison.read(run / "comparison.json").rows["distilled"].runs[0]
    told["rows"]["distilled"]["runs"][0]["AP"] = better.AP + 0.1
    file.write_text(json.dumps(told))
    runs = {kind: row.runs for kind, row in Comparison.read(file).rows.items()}
    Comparison.of(told["model"], runs).write(run)
    assert main(["card", str(run), "--no_pictures"]) == 0
    assert verified(capsys, model, judged.data) == ["comparison.json: the runs say so"]
    shutil.rmtree(run / "comparison/alone-5")  # what is not there any more cannot contradict
    assert verified(capsys, model, judged.data) == ["comparison.json: the runs say so"]
    file.write_text(json.dumps({**told, "rows": {}}))
    assert "comparison.json can be read" in verified(capsys, model, judged.data)


def test_it_is_published_with_the_model(hub, judged, capsys):
    assert main(["push", str(judged.run), "org/run", "--no_pictures"]) == 0
    files = hub.files("org/run")
    assert files["training/comparison.json"] == (judged.run / "comparison.json").read_bytes()
    assert b"| alone, equal seconds |" in files["README.md"]
    assert verified(capsys, "org/run", judged.data) == []


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return detector(seed=1).save_pretrained(tmp_path / "teacher")


def stop(monkeypatch, method: str, call: int) -> None:
    """Ctrl-C when a method of the loop is called for the n-th time."""
    from ld_hub.engine.loop import Loop

    original, calls = getattr(Loop, method), []

    def stopping(self, *arguments):
        calls.append(method)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Loop, method, stopping)


def test_an_interrupted_comparison_goes_on(data, tmp_path, teacher, monkeypatch, capsys):  # noqa: F811
    flags = ["--teacher", teacher, "--compare_alone", "--save_every", 1]
    run = tmp_path / "run"
    stop(monkeypatch, "_train_step", 4)  # in the second step of the student alone
    assert run_distill(data, run, *flags) == 130
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = json.loads((run / "comparison.json").read_text())
    assert list(told["rows"]) == ["distilled"] and told["rows"]["distilled"]["runs"][0]["steps"] == 2
    assert run_distill(data, run, *flags) == 2  # not without --resume
    files = ("result.json", "config.json", "model/model.safetensors")
    first = [(run / name).stat().st_mtime_ns for name in files]

    stop(monkeypatch, "restore", 2)  # on resume: between student alone and the third run
    assert run_distill(data, run, *flags, "--resume") == 130
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert list(json.loads((run / "comparison.json").read_text())["rows"]) == ["distilled", "alone"]
    shutil.rmtree(run / "checkpoints")  # of what is complete, nothing is needed any more
    capsys.readouterr()
    assert run_distill(data, run, *flags, "--resume") == 0
    said = capsys.readouterr().out
    assert said.count("complete already") == 2 and "One seed, 0: nothing says how far AP spreads" in said
    assert [(run / name).stat().st_mtime_ns for name in files] == first
    assert list(json.loads((run / "comparison.json").read_text())["rows"]) == list(KINDS)

    plain = ["gfocal_tiny", "--data", data, "--output_dir", tmp_path / "plain", *QUICK, *SHAPE, *SCRATCH]
    assert train.main([str(word) for word in plain]) == 0
    assert equal(weights(tmp_path / "plain/model"), weights(run / "comparison/alone-0/model"))
    capsys.readouterr()
    assert run_distill(data, run, *flags, "--resume", "--terms.ld.weight", 3) == 2
    assert "belongs to a run with other settings (recipe.terms.ld.weight" in capsys.readouterr().err
    assert run_distill(data, run, *flags, "--resume", "--lr", 0.01) == 2


def test_seeds_without_the_student_alone(data, tmp_path, teacher, capsys):  # noqa: F811
    flags = ["--teacher", teacher, "--steps", 1]
    assert run_distill(data, tmp_path / "run", *flags, "--seeds", 2) == 0
    said = capsys.readouterr().out
    assert "alone" not in said[said.index("AP x100 ") :] and "Seeds 0, 1: mean ±" in said
    assert [path.name for path in (tmp_path / "run/comparison").iterdir()] == ["distilled-1"]
    assert run_distill(data, tmp_path / "one", *flags, "--seed", 1) == 0
    assert equal(weights(tmp_path / "one/model"), weights(tmp_path / "run/comparison/distilled-1/model"))
    assert not (tmp_path / "one/comparison.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--compare_alone --train_labels false --unlabeled {data}/train", "--train_labels false takes none"),
        ("--seeds 0", "--seeds is 0; it must be at least 1"),
        ("--seeds many", "--seeds"),
        ("{explicit} --compare_alone", "--compare_alone compares by AP, and there are no images to evaluate on"),
        ("{explicit} --seeds 2", "--seeds compares by AP"),
    ],
)
def test_what_is_refused_in_one_line(data, tmp_path, teacher, capsys, words, message):  # noqa: F811
    explicit = f"--train_images {data}/train --train_annotations {data}/annotations/instances_train.json --data null"
    words = words.format(data=data, explicit=explicit).split()
    assert run_distill(data, tmp_path / "run", "--teacher", teacher, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_images_without_labels_are_the_teachers_alone(data, tmp_path, teacher):  # noqa: F811
    """The student alone is trained on the labelled images only, for as many steps."""
    shutil.copytree(data / "train", tmp_path / "pool")
    scores = ["--unlabeled_threshold", "0.0105", "--unlabeled_unsure", "0.01", "--steps", 1]
    flags = ["--teacher", teacher, "--unlabeled", tmp_path / "pool", *scores, "--compare_alone"]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    plain = ["gfocal_tiny", "--data", data, "--output_dir", tmp_path / "plain", *QUICK, *SHAPE, *SCRATCH, "--steps", 1]
    assert train.main([str(word) for word in plain]) == 0
    assert equal(weights(tmp_path / "plain/model"), weights(tmp_path / "run/comparison/alone-0/model"))
