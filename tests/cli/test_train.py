"""The commands from their words to the run directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ld_hub import distill, train
from ld_hub.cli.main import main as ld_hub_command
from ld_hub.hub import save_safetensors
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model
from tests.engine.runs import SMALL, detector, equal, records, weights, write_data

QUICK = "--workers 0 --image_size 64 64 --batch_size 4 --steps 2 --log_every 1 --lr 0.04 --ema off".split()
SHAPE = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
SCRATCH = ["--pretrained_backbone", "false"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("coco") / "data")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    torch.set_num_threads(1)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher of the data's classes, saved."""
    return save_pretrained(detector(seed=1), tmp_path / "teacher")


def run_train(data: Path, out: Path, *words: object, name: str = "gfocal_tiny") -> int:
    return train.main([name, "--data", str(data), "--output_dir", str(out), *QUICK, *SHAPE, *map(str, words)])


def run_distill(data: Path, out: Path, *words: object, name: str = "gfocal_tiny_vlr_r10t") -> int:
    start = [name, "--data", str(data), "--output_dir", str(out)]
    return distill.main([*start, *QUICK, *SHAPE, *SCRATCH, *map(str, words)])


def test_train_makes_a_model_and_resumes(data, tmp_path, capsys):
    assert run_train(data, tmp_path / "run", *SCRATCH, "--save_every", 1) == 0
    out = capsys.readouterr().out
    assert "the backbone starts from random numbers" in out and "COCO box metrics" in out
    model = create_model(tmp_path / "run/model")
    assert (model.name, model.label_names, model.category_ids) == ("gfocal_tiny", ("red", "green", "blue"), (3, 5, 9))
    assert model.data_config.image_size == (64, 64)
    assert "name: gfocal_tiny" in (tmp_path / "run/arguments.yaml").read_text()

    assert run_train(data, tmp_path / "run", *SCRATCH, "--save_every", 1) == 2
    assert capsys.readouterr().err.startswith("ld_hub.train: error: ")
    whole = weights(tmp_path / "run/model")
    for path in ((tmp_path / "run/checkpoints/step_00000002/state.json"), tmp_path / "run/result.json"):
        path.unlink()  # as if killed after step 1
    # without --pretrained_backbone false: a continued run needs no backbone weights, and fetches none
    assert run_train(data, tmp_path / "run", "--save_every", 1, "--resume") == 0
    assert "continuing from" in capsys.readouterr().out
    assert equal(weights(tmp_path / "run/model"), whole)
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2]


def test_the_seed_decides_the_fresh_weights(data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_train(data, tmp_path / name, *SCRATCH, "--seed", seed) == 0
    a, b, c = (weights(tmp_path / name / "model") for name in "abc")
    assert equal(a, b) and not equal(a, c)


def test_the_default_run_directory_has_the_models_name(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["gfocal_tiny", "--data", str(data), *QUICK, *SHAPE, *SCRATCH]) == 0
    assert (tmp_path / "runs/gfocal_tiny/model/config.json").is_file()


def test_explicit_paths_and_no_evaluation(data, tmp_path):
    words = ["--train_images", data / "train", "--train_annotations", data / "annotations/instances_train.json"]
    start = ["gfocal_tiny", "--output_dir", str(tmp_path / "run"), *QUICK, *SHAPE, *SCRATCH]
    assert train.main([*start, *map(str, words)]) == 0
    assert records(tmp_path / "run", "eval/AP") == []
    more = ["--val_images", data / "val", "--val_annotations", data / "annotations/instances_val.json"]
    start[2] = str(tmp_path / "with")
    assert train.main([*start, *map(str, [*words, *more])]) == 0
    assert len(records(tmp_path / "with", "eval/AP")) == 1


def test_structure_flags(data, tmp_path):
    flags = "--backbone test_efficientnet --anchor_scale 3 --reg_max 4 --fpn_channels 8 --head_width 24 --head_depth 2"
    assert run_train(data, tmp_path / "run", *SCRATCH, *flags.split()) == 0
    config = create_model(tmp_path / "run/model").config
    assert (config.backbone, config.anchor_scale, config.reg_max) == ("test_efficientnet", 3, 4)
    assert (config.fpn_channels, config.head_width, config.head_depth) == (8, 24, 2)


def test_weights_of_the_backbone_from_a_file(data, tmp_path):
    body = detector(seed=4).backbone.body.state_dict()
    save_safetensors(body, tmp_path / "backbone.safetensors")
    flags = ["--backbone_checkpoint", tmp_path / "backbone.safetensors", "--lr", "1e-9"]
    assert run_train(data, tmp_path / "run", *flags) == 0
    trained = create_model(tmp_path / "run/model").backbone.body.state_dict()
    assert all(torch.allclose(trained[name], body[name], atol=1e-6) for name in body if name.endswith("weight"))


def test_no_backbone_weights_without_a_network(data, tmp_path, capsys):
    assert run_train(data, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "--pretrained_backbone false" in error and "--backbone_checkpoint FILE" in error
    assert not (tmp_path / "run").exists()


def test_scratch_means_everything_is_trained(data, tmp_path):
    """gfocal_r18 freezes a stage and its batch norms, which random weights must not be."""
    assert run_train(data, tmp_path / "run", *SCRATCH, "--backbone", "test_resnet", name="gfocal_r18") == 0
    config = create_model(tmp_path / "run/model").config
    assert (config.frozen_stages, config.norm_eval) == (0, False)


def test_fine_tuning_on_other_classes(data, tmp_path, capsys):
    torch.manual_seed(8)
    other = create_model("gfocal_tiny", label_names=("cat", "dog"), **SMALL)
    save_pretrained(other, tmp_path / "other")
    flags = ["--checkpoint", tmp_path / "other", "--lr", "1e-9"]
    assert run_train(data, tmp_path / "run", *flags) == 0
    assert (
        "starts from" in (said := capsys.readouterr().out)
        and "fresh for 3 classes: head.cls.bias, head.cls.weight" in said
    )
    tuned = create_model(tmp_path / "run/model")
    assert torch.allclose(tuned.head.box.weight, other.head.box.weight, atol=1e-6)
    assert tuned.head.cls.weight.shape[0] == 3
    weights_file = ["--checkpoint", tmp_path / "other/model.safetensors"]
    assert run_train(data, tmp_path / "file", *weights_file) == 0
    assert "fresh for 3 classes: head.cls.bias, head.cls.weight" in capsys.readouterr().out
    save_pretrained(create_model("gfocal_tiny", num_classes=80, **SMALL), tmp_path / "coco")
    assert run_train(data, tmp_path / "coco_run", "--checkpoint", tmp_path / "coco/model.safetensors") == 0
    capsys.readouterr()
    assert run_train(data, tmp_path / "wide", "--checkpoint", tmp_path / "other", "--head_width", 32) == 2
    error = capsys.readouterr().err
    assert "does not fit the model" in error and "--head_width" in error


def test_distill_from_a_directory(data, tmp_path, teacher, capsys):
    assert (
        run_distill(data, tmp_path / "run", "--teacher", teacher, "--terms.ld.weight", 2, "--terms.ld_vlr.gamma", 0.5)
        == 0
    )
    out = capsys.readouterr().out
    assert "box_bins_kl  2 " in out and "vlr(iof, 0.5)" in out
    saved = create_model(tmp_path / "run/model")
    assert saved.name == "gfocal_tiny_vlr_r10t"
    assert saved.teaching.terms["ld"]["weight"] == 2
    assert {"share/distill_kd", "share/distill_ld", "share/distill_ld_vlr"} < set(records(tmp_path / "run")[0])


@pytest.mark.parametrize(
    "flags", [["--recipe", "ld"], ["--individual_ld"], ["--reference", "ld"], ["--terms.ld.weight", "9"]]
)
def test_distillation_flags_reach_the_weights(data, tmp_path, teacher, flags):
    assert run_distill(data, tmp_path / "plain", "--teacher", teacher) == 0
    assert run_distill(data, tmp_path / "other", "--teacher", teacher, *flags) == 0
    assert not equal(weights(tmp_path / "plain/model"), weights(tmp_path / "other/model"))


def test_a_teacher_by_name_with_a_checkpoint(data, tmp_path, teacher):
    flags = ["--teacher", "gfocal_tiny", "--recipe", "vlr"]
    with_file = ["--teacher_checkpoint", teacher / "model.safetensors"]
    assert run_distill(data, tmp_path / "file", *flags, *with_file, name="gfocal_tiny") == 2  # of another structure
    torch.manual_seed(0)
    save_pretrained(create_model("gfocal_tiny", num_classes=3), tmp_path / "full")
    start = ["gfocal_tiny", "--data", str(data), *QUICK, *SCRATCH, *flags]
    file = str(tmp_path / "full/model.safetensors")
    assert distill.main([*start, "--output_dir", str(tmp_path / "run"), "--teacher_checkpoint", file]) == 0


def test_a_teacher_of_other_classes_is_refused_with_the_commands_that_do(data, tmp_path, capsys):
    assert run_distill(data, tmp_path / "run", name="gfocal_r18_vlr_r101") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "'gfocal_r101' detects 80 classes" in lines[0] and "3 classes (red, green, blue)" in lines[0]
    assert "have no class name in common" in lines[0] and "--class_map" in lines[0]
    start = f"accelerate launch -m ld_hub.distill gfocal_r18_vlr_r101 --data {data}"
    assert f"  {start} --teacher runs/gfocal_r101/model" in lines
    assert f"  {start} --train_teacher" in lines
    assert f"accelerate launch -m ld_hub.train gfocal_r101 --data {data} makes runs/gfocal_r101/model" in lines[0]
    save_pretrained(create_model("gfocal_tiny", label_names=("cat", "dog", "cow"), **SMALL), tmp_path / "zoo")
    assert run_distill(data, tmp_path / "run", "--teacher", tmp_path / "zoo") == 2
    assert "detects 3 classes (cat, dog, cow)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def saved(path: Path, seed: int, *names: str) -> Path:
    torch.manual_seed(seed)
    return save_pretrained(create_model("gfocal_tiny", label_names=names, **SMALL), path)


def test_several_teachers_of_some_of_the_classes(data, tmp_path, teacher, capsys):
    other = saved(tmp_path / "other", 2, "azure", "red", "cow")
    flags = ["--teacher", f"{teacher},{other}", "--teacher_weights", 1, 0.5, "--class_map", "blue=azure"]
    flags += ["--teacher_scale", 2, "--recipe", "bckd", "--balance", "gradient", "--terms.bckd_box.share", 0.1]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    out = capsys.readouterr().out
    assert "distill_bckd_cls@gfocal_tiny_1 0.3" in out and "distill_bckd_box@gfocal_tiny_2 0.05" in out
    assert "gfocal_tiny_2: 2 of the student's 3 classes" in out and "gfocal_tiny_1: 2 of" not in out
    teaching = create_model(tmp_path / "run/model").teaching
    assert teaching.teacher_weights == {"gfocal_tiny_1": 1.0, "gfocal_tiny_2": 0.5}
    assert (teaching.teacher_scale, teaching.class_map, teaching.balance) == (2.0, {"blue": "azure"}, "gradient")
    line = records(tmp_path / "run")[1]
    assert line["distill_bckd_cls@gfocal_tiny_2"] > 0 and line["scale/distill_bckd_box@gfocal_tiny_1"] > 0
    again = ["--config", str(tmp_path / "run/arguments.yaml"), "--output_dir", str(tmp_path / "again")]
    assert distill.main(again) == 0
    assert equal(weights(tmp_path / "run/model"), weights(tmp_path / "again/model"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher", "T,T", "--teacher_weights", "1"], "--teacher_weights has 1 numbers; there are 2 teachers"),
        (["--teacher", "T", "--teacher_weights", "1"], "teacher_weights are for several teachers"),
        (["--teacher", "T,T", "--train_teacher"], "--train_teacher is for a single teacher; --teacher names 2"),
        (["--teacher", "T", "--class_map", "red"], "--class_map is 'red'; expected MINE=THEIRS"),
        (["--teacher", "T", "--class_map", "red=rot"], "class_map names 'rot' as a class of teacher"),
        (["--teacher", "T", "--teacher_scale", "-2"], "teacher_scale is -2.0"),
        (["--teacher", "T", "--balance", "weights"], "--balance: Expected a Literal"),
        (["--teacher", "T", "--recipe", "mine.yaml"], "There is no recipe 'mine.yaml'"),
    ],
)
def test_what_teachers_cannot_be(data, tmp_path, teacher, capsys, flags, message):
    words = [word.replace("T", str(teacher)) for word in flags]
    assert run_distill(data, tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err


def test_classes_of_the_teacher_matter_where_they_are_compared(data, tmp_path, capsys):
    zoo = saved(tmp_path / "zoo", 3, "cat", "dog", "cow", "red ant")
    assert run_distill(data, tmp_path / "kd", "--teacher", zoo, "--recipe", "kd") == 2
    assert "have no class name in common" in capsys.readouterr().err
    assert run_distill(data, tmp_path / "kd", "--teacher", zoo, "--recipe", "kd", "--class_map", "red=red ant") == 0
    assert run_distill(data, tmp_path / "ld", "--teacher", zoo, "--recipe", "ld") == 0
    assert records(tmp_path / "ld")[0]["distill_ld"] > 0


def test_a_checkpoint_of_cocos_classes_teaches_others(data, tmp_path, capsys):
    torch.manual_seed(0)
    save_pretrained(create_model("gfocal_tiny"), tmp_path / "coco")
    file = ["--teacher", "gfocal_tiny", "--teacher_checkpoint", str(tmp_path / "coco/model.safetensors")]
    start = ["gfocal_tiny", "--data", str(data), *QUICK, *SCRATCH, *file]
    assert distill.main([*start, "--output_dir", str(tmp_path / "ld"), "--recipe", "ld"]) == 0
    capsys.readouterr()
    assert distill.main([*start, "--output_dir", str(tmp_path / "kd"), "--recipe", "kd"]) == 2
    assert "'gfocal_tiny' detects 80 classes" in capsys.readouterr().err


TEACHER = ["--train_teacher", "--teacher_backbone", "test_resnet", "--teacher_pretrained_backbone", "false"]


def test_train_teacher_is_one_resumable_run(data, tmp_path, monkeypatch, capsys):
    flags = [*TEACHER, "--teacher_steps", 3, "--teacher_lr", 0.01, "--save_every", 1]
    assert run_distill(data, tmp_path / "whole", *flags) == 0
    assert [record["step"] for record in records(tmp_path / "whole/teacher")] == [1, 2, 3]
    config = json.loads((tmp_path / "whole/teacher/config.json").read_text())
    assert (config["model"], config["config"]["lr"]) == ("gfocal_r10t", 0.01)
    assert create_model(tmp_path / "whole/teacher/model").config.reg_max == SMALL["reg_max"]

    from ld_hub.engine.loop import Loop

    step, made = Loop._train_step, []

    def broken(self, *streams):
        made.append(1)
        if len(made) in (3, 6):  # in the teacher's third step; on resume in the student's second
            raise KeyboardInterrupt
        return step(self, *streams)

    monkeypatch.setattr(Loop, "_train_step", broken)
    assert run_distill(data, tmp_path / "run", *flags) == 130
    assert run_distill(data, tmp_path / "run", *flags) == 2  # not without --resume
    assert run_distill(data, tmp_path / "run", *flags, "--resume") == 130
    assert run_distill(data, tmp_path / "run", *flags, "--resume") == 0
    assert len(made) == 7
    for part in ("model", "teacher/model"):
        assert equal(weights(tmp_path / "run" / part), weights(tmp_path / "whole" / part))
    capsys.readouterr()
    assert run_distill(data, tmp_path / "new", "--train_teacher", "--teacher", tmp_path / "run/teacher/model") == 2
    assert "trains a teacher given by name" in capsys.readouterr().err


def test_the_teacher_starts_from_what_it_is_told(data, tmp_path, capsys):
    torch.manual_seed(0)
    start = create_model(
        "gfocal_tiny", label_names=("cat", "dog"), **{**SMALL, "fpn_channels": 64, "head_width": 64, "head_depth": 2}
    )
    save_pretrained(start, tmp_path / "start")
    flags = ["--train_teacher", "--teacher", "gfocal_tiny", "--teacher_epochs", 0.4, "--teacher_lr", "1e-9"]
    assert run_distill(data, tmp_path / "run", *flags, "--teacher_checkpoint", tmp_path / "start") == 0
    assert "gfocal_tiny: starts from" in capsys.readouterr().out
    teacher = create_model(tmp_path / "run/teacher/model")
    assert torch.allclose(teacher.head.box.weight, start.head.box.weight, atol=1e-6)
    assert len(records(tmp_path / "run/teacher")) == 2  # 0.4 x 12 images, 4 per step


def test_the_teachers_backbone_starts_from_a_file(data, tmp_path):
    body = detector(seed=4).backbone.body.state_dict()
    save_safetensors(body, tmp_path / "backbone.safetensors")
    flags = [*TEACHER[:3], "--teacher_backbone_checkpoint", tmp_path / "backbone.safetensors", "--teacher_lr", "1e-9"]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    trained = create_model(tmp_path / "run/teacher/model").backbone.body.state_dict()
    kernels = [name for name in body if body[name].dim() == 4]
    assert len(kernels) > 5 and all(torch.allclose(trained[name], body[name], atol=1e-6) for name in kernels)
    student = create_model(tmp_path / "run/model").backbone.body.state_dict()  # the flag is the teacher's alone
    assert not any(torch.allclose(student[name], body[name], atol=1e-2) for name in kernels)


def test_a_finished_teacher_is_taken_only_for_the_one_asked_for(data, tmp_path, capsys):
    flags = [*TEACHER, "--teacher_steps", 1]
    assert run_distill(data, tmp_path / "run", *flags) == 0
    kept = weights(tmp_path / "run/teacher/model")
    for changes, message in (
        (["--teacher", "gfocal_tiny"], "model: gfocal_r10t there, gfocal_tiny now"),
        (["--reg_max", 6], "model_config.reg_max: 8 there, 6 now"),
        (["--teacher_steps", 2], "steps: 1 there, 2 now"),
        (["--teacher_lr", 0.5], "lr: 0.04 there, 0.5 now"),
        (["--train_annotations", data / "annotations/instances_val.json", "--train_images", data / "val"], "sha256"),
    ):
        capsys.readouterr()
        assert run_distill(data, tmp_path / "run", *flags, *changes, "--resume") == 2
        error = capsys.readouterr().err
        assert "run/teacher' belongs to a run with other settings" in error and message in error
    assert equal(weights(tmp_path / "run/teacher/model"), kept)
    shutil.rmtree(tmp_path / "run/teacher/checkpoints")  # not needed any more
    assert run_distill(data, tmp_path / "run", *flags, "--resume") == 0


def test_a_checkpoint_of_elsewhere_does_not_replace_a_run(data, tmp_path, capsys):
    for name, seed in (("one", 0), ("two", 1)):
        assert run_train(data, tmp_path / name, *SCRATCH, "--seed", seed) == 0
    kept = weights(tmp_path / "two/model")
    capsys.readouterr()
    assert run_train(data, tmp_path / "two", *SCRATCH, "--resume", tmp_path / "one") == 2
    assert "two' already holds a run" in capsys.readouterr().err
    assert equal(weights(tmp_path / "two/model"), kept)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        ([], "--data DIR"),
        (["--data", "DATA", "--steps", "0"], "steps is 0; it must be at least 1"),
        (["--data", "DATA", "--val_annotations", "nowhere.json"], "nowhere.json"),
        (["--data", "DATA", "--backbone", "resnet5000"], "Unknown backbone 'resnet5000'"),
        (["--data", "DATA", "--checkpoint", "x", "--backbone_checkpoint", "y"], "exclude each other"),
        (["--data", "DATA", "--tracker", "abacus"], "accelerate knows"),
    ],
)
def test_bad_input_is_one_line(data, tmp_path, capsys, words, message):
    words = [str(data) if word == "DATA" else word for word in words]
    assert train.main(["gfocal_tiny", "--output_dir", str(tmp_path / "run"), *SCRATCH, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ld_hub.train: error: ") and message in error
    assert "Traceback" not in error and error.count("\n") == 1


def test_a_diverging_run_says_so(data, tmp_path, capsys):
    assert run_train(data, tmp_path / "run", *SCRATCH, "--lr", "1e30", "--steps", 5, "--warmup_steps", 0) == 2
    error = capsys.readouterr().err
    assert "became" in error and "The optimizer step was not made" in error and "Traceback" not in error


def test_ld_hub_train_and_distill_are_the_same_commands(data, tmp_path, teacher, capsys):
    with pytest.raises(SystemExit) as stop:
        ld_hub_command(["distill", "--help"])
    assert stop.value.code == 0 and "--train_teacher" in capsys.readouterr().out
    words = ["--data", str(data), *QUICK, *SHAPE, *SCRATCH]
    assert ld_hub_command(["train", "gfocal_tiny", "--output_dir", str(tmp_path / "a"), *words]) == 0
    assert run_train(data, tmp_path / "b", *SCRATCH) == 0
    assert equal(weights(tmp_path / "a/model"), weights(tmp_path / "b/model"))


def test_help_is_quick_and_needs_no_accelerate():
    code = (
        "import sys\nfrom ld_hub.train import main\ntry:\n    main(['--help'])\nfinally:\n"
        "    heavy = {'accelerate', 'datasets', 'pycocotools', 'matplotlib'} & set(sys.modules)\n"
        "    sys.exit(','.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--output_dir" in done.stdout


def test_on_bad_box_decides_between_leaving_out_and_stopping(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    file = data / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [100, 100, 10, 10]  # outside its 64 x 64 image
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1"):
        assert run_train(data, tmp_path / "dropped", *SCRATCH) == 0
    assert run_train(data, tmp_path / "stopped", *SCRATCH, "--on_bad_box", "error") == 2
    error = capsys.readouterr().err
    assert "instances_train.json" in error and "outside" in error and "Traceback" not in error
    assert not (tmp_path / "stopped").exists()


def test_the_habits_of_those_who_train(data, tmp_path, capsys):
    """Flags from words to the run: what was kept by name, which stages are frozen, what may be typed next."""
    torch.manual_seed(8)
    other = create_model("gfocal_tiny", label_names=("blue", "dog"), **SMALL)
    save_pretrained(other, tmp_path / "other")
    flags = ["--finetune_from", tmp_path / "other", "--lr", "1e-9", "--frozen_stages", 2, "--class_weights", "red=2"]
    assert run_train(data, tmp_path / "run", *flags, "--layer_decay", 0.9) == 0
    said = capsys.readouterr().out
    assert "class rows kept by name: blue; new: red, green." in said
    assert "classes    red x 2 in the class loss" in said
    assert "(x 0.9 for each layer of the backbone downwards)" in said
    best = tmp_path / "run/best"
    typed = f"next: ld-hub predict PHOTO.jpg --model {best}\n      ld-hub eval {best} --data {data}"
    assert said.rstrip().endswith(typed)
    tuned = create_model(tmp_path / "run/model")
    assert tuned.config.frozen_stages == 2
    assert torch.allclose(tuned.head.cls.weight[2], other.head.cls.weight[0], atol=1e-6)
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["class_weights"] == {"red": 2.0}
    assert run_train(data, tmp_path / "run", *flags, "--layer_decay", 0.9, "--resume") == 0
