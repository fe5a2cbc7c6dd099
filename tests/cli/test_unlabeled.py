"""`ld_hub.distill --unlabeled`: from words to a run, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model
from tests.cli.test_train import data, offline, run_distill  # noqa: F401  # fixtures
from tests.engine.runs import detector, records


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """An untrained teacher whose low scores count."""
    model = detector(seed=1)
    model.postprocess_config = replace(model.postprocess_config, score_threshold=0.005)
    return save_pretrained(model, tmp_path / "teacher")


@pytest.fixture
def pool(data: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A directory of images."""
    shutil.copytree(data / "train", tmp_path / "pool/a")
    return tmp_path / "pool"


SCORES = ("--unlabeled_threshold", "0.0105", "--unlabeled_unsure", "0.01")


def test_a_run_with_images_without_labels(data, tmp_path, teacher, pool, capsys):  # noqa: F811
    flags = ["--teacher", teacher, "--unlabeled", pool, "--unlabeled_batch", 3, "--unlabeled_ramp", 1, *SCORES]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    said = capsys.readouterr().out
    assert "12 images without labels. Boxes of 'gfocal_tiny' are targets from a score of 0.01" in said
    line = records(tmp_path / "run")[0]
    assert line["loss_cls"] > 0 and line["unlabeled_cls"] > 0 and line["unlabeled_ld_vlr"] > 0
    teaching = create_model(tmp_path / "run/model").teaching
    assert teaching is not None and teaching.unlabeled is not None
    assert (teaching.unlabeled.batch, teaching.unlabeled.ramp, teaching.unlabeled.threshold) == (3, 1.0, 0.0105)
    assert run_distill(data, tmp_path / "run", *flags, "--resume") == 0
    (pool / "a/0.png").rename(pool / "a/zero.png")  # other images: another run
    assert run_distill(data, tmp_path / "run", *flags, "--resume") == 2
    assert "unlabeled_sha256" in capsys.readouterr().err


def test_no_image_with_labels(data, tmp_path, teacher, pool):  # noqa: F811
    flags = ["--teacher", teacher, "--unlabeled", pool, "--train_labels", "false", *SCORES]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    (line, *_) = records(tmp_path / "run")
    assert line["unlabeled_cls"] > 0 and not any(name.startswith(("loss_", "distill_")) for name in line)
    assert records(tmp_path / "run", "eval/AP")  # evaluated on the data


def test_thresholds_are_found_on_the_labels(data, tmp_path, teacher, pool, capsys):  # noqa: F811
    assert run_distill(data, tmp_path / "run", "--teacher", teacher, "--unlabeled", pool) == 0
    assert "are targets from a score of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--unlabeled no/such/place", "--unlabeled: there is no directory, list or data set 'no/such/place'"),
        ("--train_labels false", "leaves nothing to train on: give images, --unlabeled DIR"),
        ("--unlabeled {data}/val", "are also evaluated on"),
        ("--unlabeled {empty}", "There are no images in"),
        ("--unlabeled {pool} --unlabeled_batch 0", "unlabeled_batch is 0; expected at least 1"),
        ("--unlabeled {pool} --unlabeled_threshold 2", "unlabeled_threshold is 2; expected a score"),
        ("--unlabeled {pool} --unlabeled_targets false --unlabeled_terms false", "would teach nothing"),
    ],
)
def test_what_is_refused_in_one_line(data, tmp_path, teacher, pool, capsys, flags, message):  # noqa: F811
    (tmp_path / "empty").mkdir()
    words = flags.format(data=data, pool=pool, empty=tmp_path / "empty").split()
    assert run_distill(data, tmp_path / "run", "--teacher", teacher, *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("ld_hub.distill: error: ") and said.count("\n") == 1
    assert not (tmp_path / "run/config.json").exists()


def test_a_broken_image_stops_or_is_skipped(data, tmp_path, teacher, pool, capsys):  # noqa: F811
    (pool / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    flags = ["--teacher", teacher, "--unlabeled", pool, *SCORES]
    assert run_distill(data, tmp_path / "run", *flags) == 2
    assert "broken.png" in capsys.readouterr().err
    assert run_distill(data, tmp_path / "run", *flags, "--skip_broken") == 0
    assert torch.isfinite(torch.tensor(records(tmp_path / "run")[0]["loss"]))
