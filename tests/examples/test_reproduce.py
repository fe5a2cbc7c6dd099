"""The configurations of published rows: in step with their table, of the published settings, and they train."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from examples.reproduce import make
from examples.reproduce.rows import ROWS, Row
from ld_hub import distill
from ld_hub.engine.schedule import Plan
from ld_hub.engine.train_config import TrainConfig
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model
from ld_hub.models.names import get_pretrained_cfg
from ld_hub.registry import MODELS
from ld_hub.structures.class_names import VOC_LABELS
from tests.engine.runs import IDS, NAMES, records, write_data
from tests.support.commands import distillation
from tests.support.directories import voc_devkit

BY_FILE = {row.file: row for row in ROWS}
IMAGES = {"coco": 117_266, "voc": 16_551}  # with objects: train2017; VOC07 and VOC12 trainval
# reference SPEC 7: learning rate of all images of a step, epochs of the decays, epochs
RATES = {
    **dict.fromkeys(["gfocal_r18_ld_r101", "gfocal_r34_vlr_r101", "gfocal_r101_ld_r101_dcn"], 0.00375),
    **dict.fromkeys(["gfocal_r50_vlr_r101", "gfocal_r50_gi_r101", "retinanet_r50_vlr_r101"], 0.0025),
    **dict.fromkeys(["atss_r50_vlr_r101", "fcos_r50_vlr_r101", "gfocal_r50_bckd_r101", "gfocal_r18_ld_r34_voc"], 0.01),
}
# SPEC 8, as weights of our terms: a VLR weight of w/16 there is w/4 here, since every box term is divided by 4
WEIGHTS = {
    "gfocal_r18_ld_r101": {"ld": (0.25, 10)},
    "gfocal_r34_vlr_r101": {"kd": (10, 2), "ld": (0.25, 10), "ld_vlr": (0.25 / 4, 10)},
    "gfocal_r50_vlr_fine_grained_r101": {
        "kd": (10, 2), "ld": (0.25, 10), "ld_vlr": (0.25 / 4, 10), "feature": (2, None),
    },
    "atss_r50_vlr_r101": {"kd": (10, 2), "ld": (0.25, 10), "ld_vlr": (0.15 * 0.25, 10)},
    "fcos_r50_vlr_r101": {"kd": (10, 2), "ld": (0.25, 10), "ld_vlr": (0.25 * 0.25, 10)},
    "retinanet_r50_vlr_r101": {"kd": (10, 8), "ld": (5, 10), "ld_vlr": (0.03 * 5, 10)},
    "gfocal_mobilenetv2_leaky_bckd_r101": {"bckd_cls": (1, None), "bckd_box": (4, None)},
    "fcos_r50_crosskd_r101": {"cross_cls": (0.4, None), "cross_box": (0.75, None)},
}  # fmt: skip
OF_A_TABLE_ALONE = {  # the AP of a table where a list of files has another, or none
    "gfocal_r34_ld_r101": 39.8, "gfocal_r50_ld_r101": 41.1, "gfocal_r101_ld_r101_dcn": 45.4,
    "gfocal_r18_ld_r101_individual": 36.4, "gfocal_r34_ld_r101_dcn_voc": 56.7,
}  # fmt: skip


def config_flag(row: Row) -> list[str]:
    return ["--config", str(make.HERE / f"{row.file}.yaml")]


def test_what_is_written_is_what_the_table_says() -> None:
    written = make.files()
    assert len(ROWS) == len(BY_FILE)
    assert {path.name for path in make.HERE.glob("*.yaml")} | {"README.md"} == written.keys()
    for name, text in written.items():
        assert (make.HERE / name).read_text() == text, f"{name}: run python -m examples.reproduce.make"
        assert name == "README.md" or max(map(len, text.splitlines())) <= 120, name


def test_figures_are_those_of_the_published_weights() -> None:
    for row in ROWS:
        known = {cfg.ap for cfg in MODELS[row.model.partition(".")[0]].pretrained.values()}
        assert row.ap in ({OF_A_TABLE_ALONE[row.file]} if row.file in OF_A_TABLE_ALONE else {*known, None}), row.file


@pytest.mark.parametrize("file", BY_FILE)
def test_length_and_learning_rate_are_the_published_ones(file: str) -> None:
    row = BY_FILE[file]
    parsed, recipe, teacher = distillation(config_flag(row))
    config = parsed.of(TrainConfig).for_family(MODELS[row.model.partition(".")[0]].family)
    plan = Plan.make(config, IMAGES["voc" if row.voc else "coco"], row.processes)
    epochs, decays = (24, (16, 22)) if row.changes.get("schedule") == "2x" else (12, (9,) if row.voc else (8, 11))
    assert plan.peak_lr == pytest.approx(0.01 * row.images_per_step / 16)
    assert plan.peak_lr == pytest.approx(RATES.get(file, plan.peak_lr))
    assert plan.epoch(plan.steps) == pytest.approx(epochs, abs=0.01)
    assert [plan.epoch(step) for step in plan.decays] == pytest.approx(decays, abs=0.01)
    ratio = 1 / 3 if row.model.startswith("fcos") else 0.001
    assert plan.lr(0) == pytest.approx(ratio * plan.peak_lr) and math.isclose(plan.lr(500), plan.peak_lr)
    assert config.image_size == (800, 1333) and config.filter_empty
    assert parsed.values["reference"] == recipe.reference == row.reference
    assert (recipe.name, teacher.partition(".")[0]) == (row.recipe, row.names()[1])
    if "." in teacher:
        assert get_pretrained_cfg(teacher).url
    else:
        assert parsed.values["train_teacher"] or "then --teacher" in make.configuration(row)


@pytest.mark.parametrize("file", WEIGHTS)
def test_the_terms_are_weighted_as_published(file: str) -> None:
    terms = distillation(config_flag(BY_FILE[file]))[1].terms
    found = {name: (term.weight, getattr(term, "temperature", None)) for name, term in terms.items()}
    assert found == {name: pytest.approx(expected) for name, expected in WEIGHTS[file].items()}


SHAPE = "--fpn_channels 16 --head_width 16 --head_depth 2 --image_size 64 64 --pretrained_backbone false".split()
SHORT = "--schedule null --epochs null --steps 2 --warmup_steps 0 --log_every 1 --eval_every_epochs null".split()
HERE = "--workers 0 --batch_size 2 --backbone test_resnet --train_teacher false".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of images to train on, with none to evaluate on."""
    place = write_data(tmp_path_factory.mktemp("coco") / "data")
    return f"--train_images {place}/train --train_annotations {place}/annotations/instances_train.json".split()


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A very small detector for each of the rows' teachers, of the structure of its name."""
    place = tmp_path_factory.mktemp("teachers")
    shape = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 2}
    return {
        name: save_pretrained(create_model(name, label_names=NAMES, category_ids=IDS, **shape), place / name)
        for name in sorted({row.names()[1] for row in ROWS})
    }


@pytest.mark.parametrize("file", BY_FILE)
def test_two_steps(file: str, data: list[str], teachers: dict[str, Path], tmp_path: Path) -> None:
    row = BY_FILE[file]
    torch.set_num_threads(1)
    scales = ["--short_sides", "48", "64"] if "short_sides" in row.changes else []
    teacher = ["--teacher", str(teachers[row.names()[1]]), "--output_dir", str(tmp_path / "run")]
    assert distill.main([*config_flag(row), *data, *SHAPE, *SHORT, *HERE, *scales, *teacher]) == 0
    steps = records(tmp_path / "run")
    assert [step["step"] for step in steps] == [1, 2]
    terms = distillation(config_flag(row))[1].terms
    for step in steps:
        assert all(math.isfinite(step[f"distill_{term}"]) for term in terms)
        assert ("loss_bbox" in step) == (file != "gfocal_r18_ld_r101_individual")
    assert any(step[f"distill_{term}"] > 0 for step in steps for term in terms)
    saved = create_model(tmp_path / "run/model")
    assert saved.name == row.model.partition(".")[0]
    assert saved.teaching.recipe == row.recipe and saved.teaching.reference == row.reference
    assert getattr(saved.config, "box_loss", None) != "giou" or not row.voc


def test_a_teacher_is_trained_first_where_there_is_none(data: list[str], tmp_path: Path) -> None:
    row = BY_FILE["gfocal_r18_ld_r34_voc"]
    assert distillation(config_flag(row))[0].values["teacher_epochs"] == 12
    first = "--train_teacher true --teacher_epochs null --teacher_steps 1 --teacher_backbone test_resnet"
    words = [*first.split(), "--teacher_pretrained_backbone", "false", "--output_dir", str(tmp_path / "run")]
    assert distill.main([*config_flag(row), *data, *SHAPE, *SHORT, *HERE, *words]) == 0
    teacher, student = create_model(tmp_path / "run/teacher/model"), create_model(tmp_path / "run/model")
    assert (teacher.name, teacher.config.box_loss) == ("gfocal_r34", "giou")  # as the released teacher's
    assert (student.name, student.config.box_loss) == ("gfocal_r18_ld_r34", "ciou")
    assert student.teaching.teachers == ("gfocal_r34",)


def test_a_row_of_voc_runs_from_a_devkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    place = voc_devkit(tmp_path / "VOCdevkit")
    first = "--train_teacher true --teacher_epochs null --teacher_steps 1 --teacher_backbone test_resnet"
    words = [*first.split(), "--teacher_pretrained_backbone", "false", "--output_dir", str(tmp_path / "run")]
    config = config_flag(BY_FILE["gfocal_r18_ld_r34_voc"])
    assert distill.main([*config, "--data", str(place), *SHAPE, *SHORT, *HERE, *words]) == 0
    assert "VOC 2007" in capsys.readouterr().out  # the protocol of the published figure
    assert create_model(tmp_path / "run/model").label_names == VOC_LABELS
