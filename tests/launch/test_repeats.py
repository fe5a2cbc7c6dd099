"""Comparisons from Python, on several ranks, and files that are none."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from ld_hub.analysis.comparison import Comparison, Trained
from ld_hub.engine import DetectionTrainer, DistillationTrainer, TrainConfig
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.launch import repeats
from ld_hub.launch.repeats import Repeats
from ld_hub.ops.dist import from_first_rank, rank
from tests.engine.runs import QUICK, detector, equal, sets, train, weights
from tests.engine.test_distributed import launch


def compare(data: Path, out: Path, seeds: int = 1, evaluated: bool = True, **changes) -> Comparison:
    training, evaluation = sets(data)
    teacher, given = detector(seed=9), {"train_dataset": training, "eval_dataset": evaluation if evaluated else None}
    return Repeats(
        lambda config: DistillationTrainer(detector(seed=config.seed), teacher, "ld", config=config, **given),
        lambda config: DetectionTrainer(detector(seed=config.seed), config=config, **given),
        seeds=seeds,
        say=lambda text: None,
    ).train(TrainConfig(output_dir=str(out), **{**QUICK, **changes}))


def test_from_python(data, tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "steps_in", lambda seconds, alone: 1)
    found = compare(data, tmp_path / "run", seed=3)
    assert Comparison.read(tmp_path / "run/comparison.json") == found and found.seeds == (3,)
    assert [run.steps for row in found.rows.values() for run in row.runs] == [2, 2, 1]
    train(data, tmp_path / "plain", detector(seed=3), seed=3)
    assert equal(weights(tmp_path / "plain/model"), weights(tmp_path / "run/comparison/alone-3/model"))
    with pytest.raises(ConfigError, match="already holds a run"):
        compare(data, tmp_path / "run", seed=3)


def test_there_must_be_images_to_evaluate_on(data, tmp_path):
    with pytest.raises(ConfigError, match="no images to evaluate on"):
        compare(data, tmp_path / "run", evaluated=False)
    assert not (tmp_path / "run").exists()


def _of_one_rank(data: Path, out: Path) -> None:
    repeats.steps_in = lambda seconds, alone: 2 + 2 * rank()  # as if each had measured other seconds
    found = compare(data, out, batch_size=2, steps=1)
    agreed = from_first_rank({"rank": rank(), "steps": found.rows["alone_seconds"].runs[0].steps})
    (out / f"rank{rank()}.json").write_text(json.dumps(agreed))


@pytest.mark.slow  # tests/engine/test_distributed.py has the agreement alone
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_ranks_agree_on_the_steps_of_equal_seconds(data, tmp_path):
    launch(_of_one_rank, data, tmp_path / "run")
    for number in (0, 1):
        assert json.loads((tmp_path / f"run/rank{number}.json").read_text()) == {"rank": 0, "steps": 2}
    assert json.loads((tmp_path / "run/comparison/alone_seconds-0/config.json").read_text())["steps"] == 2


def trained(seed: int, run: str, ap: float | None, steps: int = 10, seconds: float = 1.0) -> Trained:
    return Trained(seed, run, steps, seconds, ap, ap, ap, {})


def told(ap: dict[str, list[float | None]], **options) -> Comparison:
    runs = {
        kind: [trained(k, f"{kind}-{k}", value, **options) for k, value in enumerate(aps)] for kind, aps in ap.items()
    }
    return Comparison.of("student", runs)


def test_the_words_follow_the_interval():
    clear = told({"distilled": [0.30, 0.33, 0.31], "alone": [0.20, 0.22, 0.20]}).table()
    assert "At equal steps distillation is 10.7 AP above the student alone, which stands\nclear" in clear
    chance = told({"distilled": [0.30, 0.20, 0.31], "alone": [0.20, 0.32, 0.28]})
    assert "0.3 AP above the student alone, which is within\nthe spread" in chance.table()
    worse = told({"distilled": [0.20, 0.22], "alone": [0.30, 0.32]}).table()
    assert "10.0 AP below the student alone, which stands\nclear of the spread" in worse
    same = told({"distilled": [0.3], "alone": [0.2], "alone_seconds": [0.2]}).table()
    assert "Equal seconds are +0 steps here: as good as the same training" in same and "this may be chance" in same
    assert "Equal seconds are" not in clear
    assert "the machine's pace" not in same
    sizes = {"distilled": (10, 2.0), "alone": (10, 2.0), "alone_seconds": (15, 3.0)}
    slow = {kind: [trained(0, kind, 0.2, *size)] for kind, size in sizes.items()}
    said = " ".join(Comparison.of("student", slow).sentences())
    assert (
        "takes 1.00 x as long" in said and "What was to take 2 s took 3 s" in said and "Equal seconds are" not in said
    )
    wide = told({kind: [1.0, 0.0] for kind in ("distilled", "alone", "alone_seconds")}, steps=9999999, seconds=1e6)
    assert max(map(len, wide.table().splitlines())) <= 80


def test_runs_without_ap_have_no_gain():
    found = told({"distilled": [None, 0.3], "alone": [0.2, None]})
    assert found.rows["alone"].gain is None and found.rows["alone"].AP.number == 1
    assert "–" in told({"distilled": [None]}).table()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("rows"), "'rows' is missing"),
        (lambda c: c["rows"].pop("distilled"), "'rows' is"),
        (lambda c: c["rows"].update(other=c["rows"]["alone"]), "'rows' is"),
        (lambda c: c["rows"]["alone"]["runs"][0].update(AP=2.0), "AP that no run has"),
        (lambda c: c["rows"]["alone"]["runs"][0].update(run="../../x"), "is not below the run"),
        (lambda c: c["rows"]["alone"]["runs"][0].update(steps="many"), r"steps' is 'many'"),
        (lambda c: c["rows"]["alone"].update(runs=[]), "'rows' is"),
    ],
)
def test_what_is_no_comparison_is_named(tmp_path, change, message):
    content = json.loads(json.dumps(asdict(told({"distilled": [0.3], "alone": [0.2]}))))
    change(content)
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message) as caught:
        Comparison.read(tmp_path / "comparison.json")
    assert "comparison.json" in str(caught.value)


def test_numbers_that_do_not_follow_are_named():
    found = told({"distilled": [0.3, 0.4], "alone": [0.2, 0.1]})
    assert found.contradictions() == []
    gain = replace(found.rows["alone"].gain, mean=0.5)
    lie = replace(found, rows={**found.rows, "alone": replace(found.rows["alone"], gain=gain)})
    (line,) = lie.contradictions()
    assert line.startswith("rows.alone.gain.mean: the file has 0.5, its runs give 0.2")
