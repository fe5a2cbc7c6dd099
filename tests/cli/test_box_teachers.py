"""`ld_hub.distill` with a teacher that only detects: from words to a run, what is said of it, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ld_hub.cli.main import main
from ld_hub.models.factory import create_model
from ld_hub.publishing.facts import Run, read_run
from ld_hub.publishing.taught import taught_by, teacher_differences, unlabeled_section
from ld_hub.structures import Teaching
from tests.cli.test_train import data, offline, run_distill  # noqa: F401  # fixtures
from tests.cli.test_unlabeled import teacher  # noqa: F401  # fixture
from tests.engine.runs import records
from tests.teachers.boxes import known, photos, write_predictions, write_results


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return photos(tmp_path / "pool")


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write_results(tmp_path / "boxes.json")


def test_a_run_taught_by_a_file_and_all_that_is_said_of_it(data, tmp_path, pool, boxes, capsys):  # noqa: F811
    flags = ["--teacher", boxes, "--unlabeled", pool, "--unlabeled_batch", 3, "--cache_teacher", "auto"]
    flags += ["--augment", "strong"]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    said = capsys.readouterr().out
    assert "boxes.json: COCO results of 3 classes" in said
    assert "'boxes.json' has no boxes of images with labels to find a threshold on: it is 0.45." in said
    assert "6 images without labels. Boxes of 'boxes.json' are targets from a score of 0.45" in said
    line = records(tmp_path / "run")[0]
    assert line["unlabeled_cls"] > 0 and not any(name.startswith("distill_") for name in line)
    assert run_distill(data, tmp_path / "run", *flags, "--resume") == 0

    model = create_model(tmp_path / "run/model")
    content = json.loads((tmp_path / "run/model/config.json").read_text())["recipe"]
    assert content["scored"] == {"images": 6, "sure": [0.45] * 3, "unsure": [0.22] * 3}
    assert content["kinds"] == {"boxes.json": "COCO results"} and content["terms"] == {}
    digest = content["teacher_origin"]["boxes.json"].removeprefix("sha256:")
    capsys.readouterr()
    assert main(["info", str(tmp_path / "run/model")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"teacher boxes.json (COCO results, sha256:{digest})" in told
    assert (
        "no labels 6 images without labels took part, 3 a batch, with weight 1; boxes were targets from a score" in told
    )

    run = read_run(tmp_path / "run")
    assert f"Taught by the boxes of `boxes.json` (COCO results, sha256 `{digest}`)" in taught_by(model.teaching, run)
    assert main(["card", str(tmp_path / "run/model")]) == 0
    card = (tmp_path / "run/model/README.md").read_text()
    assert taught_by(model.teaching, run) in card and unlabeled_section(model.teaching) in card
    assert "from a score of 0.45 on, and from 0.22 on neither targets nor background" in card
    assert "teacher:boxes.json" in card

    then = run.settings.identity
    assert teacher_differences(model.teaching, then) == []
    write_results(boxes, known(seed=9))
    assert run_distill(data, tmp_path / "other", *flags) == 0
    other = read_run(tmp_path / "other").settings.identity
    (difference,) = teacher_differences(model.teaching, other)
    assert re.match(r"teacher 'boxes.json': the run has the sha256 \w{16}, the model " + digest[:16], difference)


def test_a_detector_of_ours_says_how_images_without_labels_took_part(data, tmp_path, teacher, pool, capsys):  # noqa: F811
    flags = ["--teacher", teacher, "--unlabeled", pool, "--unlabeled_threshold", 0.6, "--labeled_terms", "false"]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    teaching = create_model(tmp_path / "run/model").teaching
    section = unlabeled_section(teaching)
    assert "6 images without labels took part, 4 a batch" in section and "from a score of 0.6 on" in section
    assert "The boxes are those of `gfocal_tiny`." in section
    assert "The recipe's terms are not applied to images with labels." in section
    assert taught_by(teaching, Run()) == "Distilled from `gfocal_tiny` by the recipe `vlr`."
    assert unlabeled_section(Teaching()) == unlabeled_section(None) == ""


def test_predictions_without_any_label(data, tmp_path, pool):  # noqa: F811
    flags = ["--teacher", write_predictions(tmp_path / "predict"), "--unlabeled", pool, "--train_labels", "false"]
    assert run_distill(data, tmp_path / "run", *flags, name="gfocal_tiny") == 0  # no distilled name, and no recipe
    (line, *_) = records(tmp_path / "run")
    assert {name for name in line if name.startswith(("loss_", "distill_"))} == set() and line["unlabeled_bbox"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--teacher {boxes}", "which teach on images without labels: give some, --unlabeled DIR"),
        ("--teacher {boxes} --unlabeled {pool} --recipe ld", "Leave --recipe ld out"),
        ("--teacher {boxes} --unlabeled {pool} --train_teacher", "--train_teacher trains a detector of this library"),
        ("--teacher {boxes} --unlabeled {pool} --teacher_checkpoint {boxes}", "leave --teacher_checkpoint out"),
        ("--teacher {boxes} --unlabeled {pool} --reference ld", "--reference is about a recipe's terms"),
        ("--teacher {boxes} --unlabeled {pool} --balance gradient", "balance (--balance) is about a recipe's terms"),
        (
            "--teacher {boxes},gfocal_r50 --unlabeled {pool} --recipe ld",
            "such a teacher teaches alone: leave the others out",
        ),
        ("--teacher none.json --unlabeled {pool}", "--teacher: no results file 'none.json'"),
        ("--teacher torchvision:ssd --unlabeled {pool}", "Unknown detector of torchvision 'ssd'"),
        ("--teacher hf:detr --unlabeled {pool}", "expected hf:ORG/NAME or hf:ORG/NAME@REVISION"),
        ("--teacher {boxes} --unlabeled {data}/train", "knows none of the 12 images without labels"),
    ],
)
def test_what_is_refused_in_one_line(data, tmp_path, pool, boxes, capsys, flags, message):  # noqa: F811
    words = flags.format(data=data, pool=pool, boxes=boxes).split()
    assert run_distill(data, tmp_path / "run", *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("ld_hub.distill: error: ") and said.count("\n") == 1
    assert not (tmp_path / "run/config.json").exists()


def test_wrong_names_are_refused_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ld_hub.launch.commands import parse_distill\nfrom ld_hub.errors import LdHubError\n"
        "try:\n    parse_distill(sys.argv[1:]).require()\nexcept LdHubError as error:\n    print(error)\n"
        "print([name for name in ('torch', 'torchvision', 'transformers') if name in sys.modules])"
    )
    start = ["gfocal_r18", "--data", str(tmp_path), "--unlabeled", str(tmp_path), "--teacher"]
    said = {
        "torchvision:resnet": "Unknown detector of torchvision",
        "x/boxes.json": "no results file",
        "gfocal_r50 --cache_teacher auto --mosaic 0.5": "cache_teacher keeps a teacher's answers",
    }
    for name, words in said.items():
        done = subprocess.run(
            [sys.executable, "-c", code, *start, *name.split()], capture_output=True, text=True, check=True
        )
        assert words in done.stdout and done.stdout.endswith("[]\n"), done.stdout
