"""Any teacher, and several of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.distillation import Committee, Distiller
from ld_hub.engine import TrainConfig
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError, HubError
from ld_hub.launch.arguments import DistillArguments, ModelArguments, TeacherArguments
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.launch.teachers import TeacherWanted, _teacher_model, train_teacher
from ld_hub.models.factory import create_model
from tests.engine.runs import IDS, QUICK, SMALL, detector, distance, distil, records
from tests.engine.test_tasks import batch


def test_one_teacher_twice_at_half_weight_is_one_teacher(data: Path, tmp_path: Path) -> None:
    one, _ = distil(data, tmp_path / "one", recipe="crosskd_pkd")
    twice = {"a": detector(seed=1), "b": detector(seed=1)}
    halves = {"a": 0.5, "b": 0.5}
    two, _ = distil(data, tmp_path / "two", recipe="crosskd_pkd", teacher=twice, teacher_weights=halves)
    assert distance(dict(two.state_dict()), dict(one.state_dict())) < 1e-5
    other, _ = distil(data, tmp_path / "other", recipe="crosskd_pkd", teacher=twice)
    assert distance(dict(other.state_dict()), dict(one.state_dict())) > 1e-4
    line, whole = records(tmp_path / "two")[0], records(tmp_path / "one")[0]
    for term in ("cross_cls", "cross_box", "cross_pkd"):
        assert line[f"distill_{term}@a"] == pytest.approx(whole[f"distill_{term}"] / 2, rel=1e-5)
        assert line[f"share/distill_{term}@b"] == pytest.approx(whole[f"share/distill_{term}"] / 2, rel=1e-4)


def test_several_teachers_are_kept_with_the_run(data: Path, tmp_path: Path) -> None:
    small = create_model("gfocal_tiny", label_names=("rot", "green", "blue"), category_ids=IDS, **SMALL)
    teachers = {"first": detector(seed=1), "second": small}
    options = {"teacher": teachers, "teacher_weights": {"second": 0.5}, "class_map": {"red": "rot"}}
    settings = {"steps": 2, "save_every": 1, "balance": "gradient", **options}
    _, trainer = distil(data, tmp_path / "run", **settings)
    saved = create_model(tmp_path / "run/model").teaching
    assert saved is not None
    assert (saved.recipe, saved.teachers, saved.balance) == ("vlr", ("gfocal_tiny",) * 2, "gradient")
    assert saved.teacher_weights == {"first": 1.0, "second": 0.5} and saved.class_map == {"red": "rot"}
    maps = [each.class_map for each in trainer.task.distillers.values()]
    assert maps == [{}, {"red": "rot"}]  # the first has no such class
    assert not any("only these are compared" in remark for remark in trainer.task.remarks)
    content = json.loads((tmp_path / "run/config.json").read_text())
    assert len(content["teacher_weights_sha256"]) == len(set(content["teacher_weights_sha256"])) == 2
    said = trainer.describe(_plan(trainer))
    assert said.count("frozen") == 2 and "distill_ld@first 0.3" in said and "distill_ld@second 0.15" in said
    for changes, message in (
        ({"teacher_weights": {}}, r"recipe.teacher_weights.second: 0.5 there, 1.0 now"),
        ({"teacher": {**teachers, "first": detector(seed=4)}}, r"teacher_weights_sha256\[0\]"),
        ({"teacher": detector(seed=1), "teacher_weights": None, "class_map": None}, r"teacher: \['gfocal_tiny', "),
    ):
        with pytest.raises(ConfigError, match=message):
            distil(data, tmp_path / "run", resume=True, **{**settings, **changes})
    distil(data, tmp_path / "run", detector(seed=3), resume=True, **settings)


def test_a_teacher_may_start_from_random_numbers_although_its_weights_are_published() -> None:
    def start(**training: object) -> ModelArguments:
        flags = TeacherArguments(**training)  # type: ignore[arg-type]
        wanted = TeacherWanted("gfocal_r18", "gfocal_r101", DistillArguments(), flags, DataArguments())
        return _teacher_model(wanted, ModelArguments())

    assert start().checkpoint == "gfocal_r101"
    scratch = start(teacher_pretrained_backbone=False)
    assert scratch.checkpoint is None and not scratch.pretrained_backbone
    assert start(teacher_backbone="r50").checkpoint is None


def test_the_way_out_is_told_where_published_weights_of_a_teacher_cannot_be_had(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    wanted = TeacherWanted("gfocal_r18", "gfocal_r50", DistillArguments(), TeacherArguments(), DataArguments())
    config = TrainConfig(output_dir=str(tmp_path / "run"), **QUICK)
    with pytest.raises(HubError, match="--teacher_pretrained_backbone false"):
        train_teacher(wanted, ModelArguments(), load_coco(data, "train"), None, config, print, lambda: None)


def _plan(trainer):
    from ld_hub.engine.schedule import Plan

    return Plan.make(trainer.config, len(trainer.train_dataset))


@pytest.mark.parametrize(("recipe", "scale"), [("bckd", 2.0), ("bckd_box", 1.25)])
def test_a_teacher_that_sees_larger_images(data: Path, tmp_path: Path, recipe: str, scale: float) -> None:
    seen: list[tuple[int, ...]] = []
    teacher = detector(seed=1)
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    _, trainer = distil(data, tmp_path / "run", teacher=teacher, teacher_scale=scale, recipe=recipe)
    side = int(64 * scale)
    assert set(seen) == {(4, 3, side, side)}
    assert trainer.model.teaching.teacher_scale == scale
    assert records(tmp_path / "run")[0]["distill_bckd_box"] > 0


def test_each_teacher_gets_its_own_input_and_its_own_maps() -> None:
    teachers = {"a": detector(seed=1), "b": detector(seed=2)}
    teachers["b"].data_config = type(teachers["b"].data_config)(mean=(0.0, 0.0, 0.0), image_size=(64, 64))
    distillers = {"a": Distiller("ld"), "b": Distiller("fine_grained", teacher_scale=2)}
    task = DistillationTask(detector(), dict(reversed(teachers.items())), Committee(distillers))
    taught = task.teach(batch())
    assert taught["a"].features is None and taught["b"].features is not None
    assert taught["b"].features[0].shape[-1] == 2 * taught["a"].priors.level_shapes[0][1]
    losses = task(batch())
    assert list(losses)[3:] == ["distill_ld@a", "distill_feature@b"]
    assert task.outside == tuple(teachers.values())
    assert torch.isfinite(torch.stack(list(losses.values()))).all()


def test_teachers_and_distillers_must_belong_together(data: Path, tmp_path: Path) -> None:
    one, two = detector(seed=1), detector(seed=2)
    with pytest.raises(ConfigError, match=r"teachers are a, b; there are distillers for teacher"):
        DistillationTask(detector(), {"a": one, "b": two}, Distiller("ld"))
    with pytest.raises(ConfigError, match=r"teachers are teacher; there are distillers for a"):
        DistillationTask(detector(), one, Committee({"a": Distiller("ld")}))
    student = detector()
    with pytest.raises(ConfigError, match="same object"):
        DistillationTask(student, {"a": one, "b": student}, Committee({n: Distiller("ld") for n in "ab"}))
    with pytest.raises(ConfigError, match="teacher_weights are for several teachers"):
        distil(data, tmp_path, teacher=one, teacher_weights={"a": 1.0})
    with pytest.raises(ConfigError, match=r"weights has 'c'"):
        distil(data, tmp_path, teacher={"a": one, "b": two}, teacher_weights={"c": 1.0})
    with pytest.raises(ConfigError, match=r"class_map names 'rouge' as a class of teacher 'gfocal_tiny'"):
        distil(data, tmp_path, teacher={"a": one, "b": two}, class_map={"red": "rouge"})


def test_where_a_teacher_came_from_is_recorded_and_does_not_stop_a_resume(data: Path, tmp_path: Path) -> None:
    teacher = detector(seed=1)
    teacher.origin = "org/teacher@0123abc"
    _, trainer = distil(data, tmp_path / "run", teacher=teacher)
    assert trainer.model.teaching.origins == {teacher.name: "org/teacher@0123abc"}
    saved = create_model(tmp_path / "run" / "model")
    assert saved.teaching == trainer.model.teaching
    teacher.origin = "org/teacher@another"
    distil(data, tmp_path / "run", teacher=teacher, resume=True)
