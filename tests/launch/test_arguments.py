from __future__ import annotations

import dataclasses

import pytest

from ld_hub.distillation import get_recipe
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError, UnknownNameError
from ld_hub.fields import field_texts
from ld_hub.launch.arguments import ModelArguments
from ld_hub.launch.commands import DISTILL, TRAIN
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.launch.flag_parser import make_parser, parse
from ld_hub.launch.recipe_files import recipe_flags
from ld_hub.preprocessing.augmentation import PRESETS
from tests.support.commands import distillation


def test_every_flag_of_every_group_is_explained(capsys):
    for command in (TRAIN, DISTILL):
        with pytest.raises(SystemExit) as stop:
            parse(command, ["--help"])
        assert stop.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for kind in command.groups:
            for name, meaning in field_texts(kind).items():
                assert f"--{name} " in text and meaning in text, name
        assert text.index("examples:") > text.index("--tracker TRACKER")  # they come last
    actions = make_parser(DISTILL, recipe_flags("vlr", "gfocal"))._actions
    assert all(action.help for action in actions)


def test_flags_become_dataclasses():
    words = "gfocal_r18 --data d --steps 5 --short_sides 480 800 --milestones .5 .9 --filter_empty --scale_lr false"
    parsed = parse(TRAIN, [*words.split(), "--resume", "--tracker", "a", "b", "--pretrained_backbone=false"])
    assert parsed.name == "gfocal_r18"
    assert parsed.of(TrainConfig) == TrainConfig(
        steps=5, short_sides=(480, 800), milestones=(0.5, 0.9), filter_empty=True, scale_lr=False, resume=True,
        tracker=("a", "b"),
    )  # fmt: skip
    assert parsed.of(DataArguments) == DataArguments(data="d")
    assert parsed.of(ModelArguments) == ModelArguments(pretrained_backbone=False)
    assert parse(TRAIN, ["x", "--resume", "runs/a"]).of(TrainConfig).resume == "runs/a"


def test_defaults_are_those_of_the_dataclasses():
    parsed = parse(DISTILL, ["x"], any_terms=True)
    for kind in DISTILL.groups:
        assert parsed.of(kind) == kind(), kind


def test_what_a_run_writes_is_a_configuration(tmp_path):
    """arguments.yaml gives the same run; flags win over the file."""
    words = [
        "gfocal_tiny_vlr_r10t",
        "--data",
        "d",
        "--steps",
        "7",
        "--image_size",
        "64",
        "96",
        "--terms.ld.weight",
        "3",
    ]
    first, recipe, _ = distillation([*words, "--individual_ld"])
    (tmp_path / "run.yaml").write_text(first.yaml)
    second, again, teacher = distillation(["--config", str(tmp_path / "run.yaml")])
    assert (second.name, second.values, again, teacher) == (first.name, first.values, recipe, "gfocal_r10t")
    third, changed, _ = distillation(["--config", str(tmp_path / "run.yaml"), "--steps", "8", "--terms.kd.weight", "1"])
    assert third.values == {**first.values, "steps": 8}
    assert (changed.terms["ld"].weight, changed.terms["kd"].weight) == (3.0, 1.0)


def test_augmentation_comes_from_flags_and_from_files(tmp_path):
    words = ["gfocal_tiny", "--data", "d", "--augment", "strong", "--mixup", "0", "--scale_jitter", "0.1", "2"]
    first = parse(TRAIN, words)
    (tmp_path / "run.yaml").write_text(first.yaml)
    second = parse(TRAIN, ["--config", str(tmp_path / "run.yaml"), "--close_mosaic", "20"]).of(TrainConfig)
    strong = PRESETS["strong"]
    assert second.augmentation == dataclasses.replace(strong, mixup=0.0, scale_jitter=(0.1, 2.0)) != strong
    assert second.describe_augmentation(100) == (
        "strong: flip 0.5, crop 0.25, scale_jitter 0.1 2, color 0.8, mosaic 0.5; mosaic and mixup until step 80"
    )
    assert TrainConfig().describe_augmentation(100) == "flip: flip 0.5"


def test_the_name_says_recipe_and_teacher_and_flags_win():
    _, recipe, teacher = distillation(["gfocal_r18_vlr_r101"])
    assert (recipe, teacher) == (get_recipe("vlr"), "gfocal_r101")
    _, recipe, teacher = distillation(["gfocal_r18_vlr_r101", "--recipe", "ld", "--teacher", "gfocal_r50"])
    assert (recipe, teacher) == (get_recipe("ld"), "gfocal_r50")
    _, recipe, teacher = distillation(["gfocal_r18", "--teacher", "gfocal_r50"])
    assert (recipe, teacher) == (get_recipe("auto"), "gfocal_r50")
    with pytest.raises(ConfigError, match=r"no distilled name: say who.*--teacher"):
        distillation(["gfocal_r18", "--recipe", "vlr"])


@pytest.mark.parametrize("term", ["kd", "ld", "ld_vlr"])
def test_every_field_of_every_term_is_a_flag(term):
    config = get_recipe("vlr").terms[term]
    values = {"weight": 7.5, "region": "all", "gamma": 0.5, "criterion": "diou", "first_step": 3, "last_step": 9,
              "temperature": 1.5, "normalizer": "none", "counts": "local", "kl_divisor": 5, "joint": True,
              "nearly": 0.7, "min_score": 0.3, "exclude_positives": True, "levels": "with_positives",
              "rebin": True, "via": "cross_head", "share": 0.4, "decay": "cosine", "decay_from": 4}  # fmt: skip
    for field in dataclasses.fields(config):
        for words in ([f"--terms.{term}.{field.name}", str(values[field.name])],
                      [f"--terms.{term}.{field.name}={values[field.name]}"]):  # fmt: skip
            fading = {"decay": {"last_step": 9}, "decay_from": {"last_step": 9, "decay": "cosine"}}
            until = fading.get(field.name, {})  # a term fades out at its last step
            more = [f"--terms.{term}.{name}={value}" for name, value in until.items()]
            _, recipe, _ = distillation(["gfocal_r18_vlr_r101", *words, *more])
            changed = dataclasses.replace(config, **{field.name: values[field.name]}, **until)
            assert recipe == get_recipe("vlr").with_terms(**{term: vars(changed)})
            assert recipe != get_recipe("vlr")


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("0.7", 0.7), ("1.0", 1.0), ("1", 1)])
def test_steps_are_numbers_and_shares_floats(tmp_path, text, value):
    words = ["gfocal_tiny_vlr_r10t", "--data", "d", "--terms.ld.last_step", text]
    first, recipe, _ = distillation(words)
    found = recipe.terms["ld"].last_step
    assert (found, type(found)) == (value, type(value))
    (tmp_path / "run.yaml").write_text(first.yaml)
    _, again, _ = distillation(["--config", str(tmp_path / "run.yaml")])
    assert again == recipe and type(again.terms["ld"].last_step) is type(value)


def test_a_recipe_is_the_students_familys_and_flags_win():
    _, recipe, teacher = distillation(["retinanet_r50_vlr_r101", "--terms.kd.temperature", "3"])
    assert (recipe.family, teacher) == ("retinanet", "retinanet_r101_bins")
    assert recipe == get_recipe("vlr").for_family("retinanet").with_terms(kd={"temperature": 3.0})
    assert recipe.for_family("retinanet") == recipe  # as the distiller sees it
    _, recipe, _ = distillation(["retinanet_r50_vlr_r101", "--reference", "ld", "--terms.ld.joint", "false"])
    assert [recipe.terms[name].joint for name in ("ld", "ld_vlr")] == [False, True]


def test_reference_sets_the_published_fields():
    _, recipe, _ = distillation(["gfocal_r18_vlr_r101", "--reference", "ld"])
    assert recipe == get_recipe("vlr").published("ld") != get_recipe("vlr")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gfocal_r18_ld_r101 --stepz 3", r"Unknown flag or key --stepz\. Did you mean --steps"),
        ("gfocal_r18_ld_r101 --step 3", r"Unknown flag or key --step\."),  # no abbreviations
        ("gfocal_r18_ld_r101 --terms.ld.wait 3", r"--terms.ld.wait\. Did you mean --terms.ld.weight"),
        ("gfocal_r18_ld_r101 --terms.kd.weight 3", "Unknown flag or key --terms.kd.weight"),  # of another recipe
        ("gfocal_r18_ld_r101 --terms.ld.weight heavy", "--terms.ld.weight: Expected a float. Got value: heavy"),
        ("gfocal_r18_ld_r101 --terms.ld.weight -1", "weight is -1.0"),
        ("gfocal_r18_ld_r101 --steps many", "--steps: expected int, got 'many'"),
        ("gfocal_r18_ld_r101 --optimizer lion", "--optimizer: Expected a Literal"),
        ("gfocal_r18_ld_r101 --short_sides 3", "--short_sides: expected 2 arguments"),
        ("--steps 3", "required: name"),
        ("gfocal_r18_ld_r101 --config nowhere.yaml", r"--config: File does not exist"),
    ],
)
def test_errors_name_the_flag_on_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as caught:
        distillation(words.split())
    assert "\n" not in str(caught.value)


def test_unknown_names_are_answered_with_close_ones():
    with pytest.raises(UnknownNameError, match="gfocal_r18_ld_r101"):
        distillation(["gfocal_r18_ld_r10"])
    with pytest.raises(UnknownNameError, match=r"Unknown recipe 'vrl'.*vlr"):
        distillation(["gfocal_r18_ld_r101", "--recipe", "vrl"])


def test_help_shows_the_terms_of_the_recipe_that_is_meant(capsys):
    for words, shown, hidden in (
        ([], "--terms.cross_box.weight", "--terms.ld.weight"),
        (["gfocal_r18_vlr_r101"], "--terms.ld_vlr.gamma", "--terms.other"),
        (["gfocal_r18_vlr_r101", "--recipe", "kd"], "--terms.kd.weight", "--terms.ld.weight"),
        (["no_such_model"], "--terms.cross_box.weight", "--terms.ld.weight"),
        (["gfocal_tiny", "--feature_teacher", "test_vit"], "--terms.cosine.weight", "--terms.cross_box.weight"),
    ):
        with pytest.raises(SystemExit):
            distillation([*words, "--help"])
        flags = capsys.readouterr().out.split("examples:")[0]
        assert shown in flags and hidden not in flags
