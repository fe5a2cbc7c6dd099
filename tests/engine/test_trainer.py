from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ld_hub.data import load_coco
from ld_hub.distillation import get_recipe, make_teaching
from ld_hub.engine import DetectionTrainer, DistillationTrainer, TrainConfig
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory
from ld_hub.errors import ConfigError, DataError, NonFiniteLossError
from ld_hub.models.factory import create_model
from tests.engine.runs import IDS, NAMES, QUICK, SMALL, detector, distance, distil, equal, records, sets, train, weights


def test_a_run_directory(data, tmp_path):
    training, evaluation = sets(data)
    config = TrainConfig(output_dir=str(tmp_path / "run"), **{**QUICK, "steps": 4, "log_every": 2})
    model = detector()
    trainer = DetectionTrainer(
        model, train_dataset=training, eval_dataset=evaluation, config=config, attachments={"note.txt": "hello"}
    )
    result = trainer.train()
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "best", "checkpoints", "config.json", "metrics.jsonl", "model", "note.txt", "result.json",
    ]  # fmt: skip
    assert json.loads((run / "config.json").read_text())["config"] == config.to_dict()
    assert [record["step"] for record in records(run)] == [1, 2, 4]
    assert set(records(run)[0]) >= {
        "epoch",
        "lr",
        "loss_cls",
        "loss_bbox",
        "loss_dfl",
        "grad_norm",
        "images_per_second",
    }
    assert records(run)[0]["loss"] == pytest.approx(sum(records(run)[0][f"loss_{k}"] for k in ("cls", "bbox", "dfl")))
    assert [record["step"] for record in records(run, "eval/AP")] == [4]
    assert (result.steps, result.best_step, result.model_dir) == (4, 4, run / "model")
    saved = create_model(run / "model")
    assert (saved.label_names, saved.category_ids) == (("red", "green", "blue"), (3, 5, 9))
    assert equal(dict(saved.state_dict()), dict(model.state_dict()))
    assert not model.training


def test_training_learns(data, tmp_path):
    """The loss of the same images falls; with learning rate 0 nothing moves."""
    train(data, tmp_path / "run", steps=30, batch_size=12, flip=0.0, optimizer="adamw", lr=0.01)
    losses = [record["loss"] for record in records(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]


def test_a_run_is_not_written_over_and_classes_must_fit(data, tmp_path):
    train(data, tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run"):
        train(data, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"has 5 classes.*has 3 \(red, green, blue\).*num_classes=3"):
        train(data, tmp_path / "other", create_model("gfocal_tiny", num_classes=5))
    assert not (tmp_path / "other").exists()


def test_the_average_is_what_is_evaluated_and_published(data, tmp_path, monkeypatch):
    seen = []
    import ld_hub.engine.loop as room

    def spy(model, dataset, **options):
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return evaluate(model, dataset, **options)

    evaluate = room.evaluate
    monkeypatch.setattr(room, "evaluate", spy)
    training, evaluation = sets(data)
    model = detector()
    config = TrainConfig(output_dir=str(tmp_path / "run"), **{**QUICK, "steps": 5, "ema": "on"}, ema_decay=0.9)
    DetectionTrainer(model, train_dataset=training, eval_dataset=evaluation, config=config).train()
    last = Checkpoint.load(RunDirectory(tmp_path / "run").find(True) or tmp_path)
    raw = {name.removeprefix("model."): tensor for name, tensor in last.model.items()}
    assert last.ema is not None and distance(raw, last.ema) > 1e-4
    assert equal(seen[0], last.ema)
    assert equal(weights(tmp_path / "run/model"), last.ema) and equal(weights(tmp_path / "run/best"), last.ema)
    assert equal(dict(model.state_dict()), last.ema)


def test_the_average_in_closed_form(data, tmp_path):
    """timm's warm-up: decay of step t is min(decay, 1 - t^(-2/3)), and the first step is copied."""
    names = [f"w{step}" for step in (1, 2, 3)]
    for name, steps in zip(names, (1, 2, 3), strict=True):
        train(data, tmp_path / name, steps=steps, lr_schedule="constant")
    train(data, tmp_path / "ema", steps=3, lr_schedule="constant", ema="on", ema_decay=0.45)
    w1, w2, w3 = (weights(tmp_path / name / "model")["head.cls.weight"] for name in names)
    decays = (1 - 2 ** (-2 / 3), 0.45)  # steps 2 and 3; 1 - 3^(-2/3) is above 0.45
    second = decays[0] * w1 + (1 - decays[0]) * w2
    expected = decays[1] * second + (1 - decays[1]) * w3
    assert torch.allclose(weights(tmp_path / "ema/model")["head.cls.weight"], expected, atol=1e-6)


def test_clipping_limits_the_step(data, tmp_path):
    options = {"steps": 1, "lr": 1.0, "scale_lr": False, "momentum": 0.0, "weight_decay": 0.0}
    free, _ = train(data, tmp_path / "free", **options)
    clipped, _ = train(data, tmp_path / "clipped", clip_grad_norm=0.01, **options)
    start = detector()

    def moved(model: nn.Module) -> float:
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return torch.stack([(a - b).norm() for a, b in pairs]).norm().item()

    norm = records(tmp_path / "free")[0]["grad_norm"]
    assert moved(free) == pytest.approx(norm, rel=1e-4) and norm > 0.1
    assert moved(clipped) == pytest.approx(0.01, rel=1e-3)
    assert records(tmp_path / "clipped")[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)  # before clipping


@pytest.mark.parametrize(
    "change",
    [
        {"momentum": 0.0}, {"weight_decay": 0.5}, {"optimizer": "adamw"}, {"lr": 0.01}, {"scale_lr": False},
        {"warmup_steps": 2}, {"seed": 1}, {"flip": 1.0}, {"short_sides": (32, 48)},
        {"lr_schedule": "cosine"}, {"lr_schedule": "constant"}, {"milestones": (0.4, 0.9)}, {"lr_decay": 0.5},
        {"batch_size": 2}, {"image_size": (96, 96)}, {"filter_empty": True},
        {"bias_lr_factor": 2.0}, {"bias_weight_decay": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_every_flag_reaches_the_weights(data, tmp_path, change, plain_run):
    model, _ = train(data, tmp_path / "run", steps=3, **change)
    assert not equal(dict(model.state_dict()), plain_run)


@pytest.fixture(scope="module")
def plain_run(data, tmp_path_factory):
    torch.set_num_threads(1)
    return dict(train(data, tmp_path_factory.mktemp("plain") / "run", steps=3)[0].state_dict())


def test_what_must_not_reach_the_weights_does_not(data, tmp_path, plain_run):
    training, evaluation = sets(data)
    model = detector()
    config = TrainConfig(
        output_dir=str(tmp_path / "run"), **{**QUICK, "steps": 3, "workers": 1, "log_every": 2},
        eval_every_steps=1, eval_batch_size=3, save_every=1,
    )  # fmt: skip
    DetectionTrainer(model, train_dataset=training, eval_dataset=evaluation, config=config).train()
    assert equal(dict(model.state_dict()), plain_run)
    assert [record["step"] for record in records(tmp_path / "run", "eval/AP")] == [1, 2, 3]


def test_channels_last_changes_the_layout_only(data, tmp_path, plain_run):
    model, _ = train(data, tmp_path / "run", steps=3, channels_last=True)
    assert model.neck.state_dict() and any(
        parameter.is_contiguous(memory_format=torch.channels_last) and not parameter.is_contiguous()
        for parameter in model.parameters()
        if parameter.dim() == 4
    )
    assert distance(dict(model.state_dict()), plain_run) < 1e-3


def test_learning_rate_and_epochs_in_the_log(data, tmp_path):
    train(data, tmp_path / "run", steps=None, epochs=2, lr=0.8, warmup_steps=2, warmup_ratio=0.5, milestones=(0.5,))
    lines = records(tmp_path / "run")
    assert len(lines) == 6  # 12 images, 4 per step
    assert [line["lr"] for line in lines] == pytest.approx([0.1, 0.15, 0.2, 0.02, 0.02, 0.02])  # 0.8 * 4 / 16
    assert [line["epoch"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2], abs=1e-3)


def test_a_family_trains_with_its_published_settings(data, tmp_path):
    """FCOS: biases at twice the rate and without decay, warm-up from a third; what the user says wins."""
    settings = {"steps": 3, "warmup_steps": 2, "lr": 0.8, "batch_size": 4}
    for name, given, ratio in (("published", {}, 1 / 3), ("given", {"warmup_ratio": 0.5, "bias_lr_factor": 1.0}, 0.5)):
        model = create_model("fcos", backbone="test_resnet", label_names=NAMES, category_ids=IDS, **SMALL)
        model.data_config = detector().data_config
        train(data, tmp_path / name, model, **settings, **given)
        written = json.loads((tmp_path / name / "config.json").read_text())["config"]
        expected = {"bias_lr_factor": 2.0, "bias_weight_decay": 0.0, "warmup_ratio": ratio, **given}
        assert {key: written[key] for key in expected} == expected
        assert [line["lr"] for line in records(tmp_path / name)] == pytest.approx(
            [0.2 * ratio, 0.2 * (1 + ratio) / 2, 0.02]
        )


def test_a_preset_is_a_length_with_decays(data, tmp_path):
    train(data, tmp_path / "run", steps=None, schedule="1x", batch_size=12, lr=1e-3, scale_lr=False)
    rates = [line["lr"] for line in records(tmp_path / "run")]
    assert rates == pytest.approx([1e-3] * 8 + [1e-4] * 3 + [1e-5])


def test_bf16_networks_have_float32_losses(data, tmp_path, monkeypatch):
    student = detector()
    seen: set[torch.dtype] = set()
    inside: set[torch.dtype] = set()
    student.head.cls.register_forward_hook(lambda _, __, out: inside.add(out.dtype))
    criterion = student.criterion

    def spy(output, assignment, counts):
        losses = criterion(output, assignment, counts)
        seen.update(value.dtype for value in (output.cls_logits, output.box, *losses.values()))
        return losses

    student.criterion = spy
    # 128 px: at 64 px, torch's CPU kernel of the weight gradient of the last level (3 x 3, stride 2, on one cell)
    # reads memory that nobody wrote, in bf16 only
    options = {"image_size": (128, 128), "steps": 1}
    _, trainer = distil(data, tmp_path / "bf16", student, precision="bf16", **options)
    assert (inside, seen) == ({torch.bfloat16}, {torch.float32})
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    exact, _ = distil(data, tmp_path / "exact", **options)  # the same process goes back to float32
    assert not equal(dict(exact.state_dict()), dict(student.state_dict()))
    assert records(tmp_path / "bf16")[0]["loss"] == pytest.approx(records(tmp_path / "exact")[0]["loss"], rel=0.02)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # accelerate launch --mixed_precision bf16
    launched, _ = distil(data, tmp_path / "launched", **options)
    assert equal(dict(launched.state_dict()), dict(student.state_dict()))


def test_fp16_needs_a_gpu(data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        train(data, tmp_path / "run", precision="fp16")
    train(data, tmp_path / "run", precision="no")


def test_a_non_finite_loss_stops_before_the_optimizer_step(data, tmp_path):
    good, _ = train(data, tmp_path / "good", steps=2, lr_schedule="constant")
    model = detector()
    criterion, calls = model.criterion, []

    def breaking(output, assignment, counts):
        calls.append(1)
        losses = criterion(output, assignment, counts)
        return {**losses, "loss_dfl": losses["loss_dfl"] * (float("nan") if len(calls) == 3 else 1)}

    model.criterion = breaking
    with pytest.raises(NonFiniteLossError, match=r"^loss_dfl became NaN at step 3") as caught:
        train(data, tmp_path / "bad", model, steps=6, lr_schedule="constant", save_every=1)
    with safe_open(tmp_path / "bad/nonfinite/step_00000003_rank0.safetensors", framework="pt") as kept:
        ids = kept.get_tensor("0.image_ids").tolist()
        assert kept.get_tensor("0.images").shape == (4, 3, 64, 64) and kept.get_tensor("0.boxes").shape[0] == 4
    message = str(caught.value)
    assert f"with the ids {', '.join(map(str, ids))}, kept in" in message and "step_00000002'" in message
    pairs = zip(model.named_parameters(), good.named_parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in pairs)
    assert RunDirectory(tmp_path / "bad").checkpoints()[-1].name == "step_00000002"
    assert [record["step"] for record in records(tmp_path / "bad")] == [1, 2]


def test_steps_whose_loss_is_no_number_may_be_left_out(data, tmp_path, capsys, monkeypatch):
    """As if the optimizer had not been asked in that step; running statistics, which the batch spoils, included."""

    def run(name, *bad, **options):
        model = detector()
        wanted, calls = model.forward_head, []

        def breaking(pyramid, **maps):
            calls.append(1)
            broken = float("nan") if len(calls) in bad else 1.0
            model.backbone.body.bn1.running_mean.data *= broken
            return wanted([level * broken for level in pyramid], **maps)

        model.forward_head = breaking
        return train(data, tmp_path / name, model, **{"steps": 4, "lr_schedule": "constant", **options})[0]

    run("skips", 3, skip_nonfinite=1)
    said = capsys.readouterr().out
    assert "step 3 is left out, 1 of 1: loss_" in said and "kept in" in said
    assert Checkpoint.load(RunDirectory(tmp_path / "skips").checkpoints()[-1]).state["skipped"] == 1
    with pytest.raises(NonFiniteLossError, match=r"at step 2 .*images with the ids"):
        run("stops", 2)
    with pytest.raises(NonFiniteLossError, match=r"at step 3 .* 1 such steps were left out before \(skip_nonfinite\)"):
        run("again", 2, 3, skip_nonfinite=1)
    original, calls = torch.optim.SGD.step, []

    def only_others(self, closure=None):
        calls.append(1)
        return None if len(calls) == 3 else original(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", only_others)
    run("without")
    one, other = weights(tmp_path / "skips/model"), weights(tmp_path / "without/model")
    trained = [name for name in one if "running" not in name and "num_batches" not in name]
    assert trained and all(torch.equal(one[name], other[name]) for name in trained)
    assert all(torch.isfinite(value).all() for value in one.values())


def test_the_teacher_leaves_no_trace_in_a_run(data, tmp_path):
    teacher = detector(seed=1)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student, _ = distil(data, tmp_path / "run", teacher=teacher)
    assert equal(dict(teacher.state_dict()), before)
    last = Checkpoint.load(RunDirectory(tmp_path / "run").find(True) or tmp_path)
    assert {name.split(".")[0] for name in last.model} == {"model"}
    trained = sum(parameter.requires_grad for parameter in student.parameters())
    assert len(last.optimizer["param_groups"][0]["params"]) == trained
    saved = create_model(tmp_path / "run/model")
    assert saved.teaching.recipe == "vlr" and saved.teaching.teachers == ("gfocal_tiny",)
    assert list(records(tmp_path / "run")[0])[-6:-3] == [f"share/distill_{term}" for term in ("kd", "ld", "ld_vlr")]


@pytest.mark.parametrize(
    "options", [{"recipe": "ld"}, {"individual_ld": True}, {"reference": "ld"}, {"teacher": 2}], ids=str
)
def test_every_distillation_option_reaches_the_weights(data, tmp_path, options):
    plain, _ = distil(data, tmp_path / "plain")
    if "teacher" in options:
        options = {"teacher": detector(seed=2)}
    other, trainer = distil(data, tmp_path / "other", **options)
    assert not equal(dict(plain.state_dict()), dict(other.state_dict()))
    if "individual_ld" in options:
        assert "loss_bbox" not in records(tmp_path / "other")[0]
    if "reference" in options:
        assert trainer.task.distiller.recipe.terms["ld"].normalizer == "none"
        assert trainer.model.criterion.reference == "ld"


@pytest.mark.parametrize(
    "given", [{"reference": "ld"}, {"recipe": get_recipe("vlr").published("ld")}], ids=["flag", "recipe"]
)
def test_a_published_recipe_means_the_published_criterion_too(data, tmp_path, given):
    student, trainer = distil(data, tmp_path / "run", **given)
    assert student.criterion.reference == "ld"
    expected = detector().criterion.published(student.coder, "ld", distilling=True)
    assert student.criterion == expected
    assert create_model(tmp_path / "run/model").teaching.reference == "ld"
    assert trainer.task.distiller.recipe == get_recipe("vlr").published("ld")


def test_image_size_becomes_part_of_the_model(data, tmp_path):
    train(data, tmp_path / "run", image_size=(96, 128))
    assert create_model(tmp_path / "run/model").data_config.image_size == (96, 128)


def test_filter_empty_leaves_out_images_without_objects(data, tmp_path):
    training = load_coco(data, "train")
    kept = DetectionTrainer(detector(), train_dataset=training, config=TrainConfig(filter_empty=True)).train_dataset
    assert kept.records.image_ids.tolist() == list(range(10, 20))  # 20 has a crowd only, 21 nothing
    empty = training.select([11])
    DetectionTrainer(detector(), train_dataset=empty, config=TrainConfig())
    with pytest.raises(DataError, match="filter_empty left the others out"):
        DetectionTrainer(detector(), train_dataset=empty, config=TrainConfig(filter_empty=True))


def test_evaluation_data_must_have_the_same_classes(data):
    from dataclasses import replace

    training, evaluation = sets(data)
    other = replace(evaluation, label_names=("red", "blue", "green"))
    with pytest.raises(DataError, match="must agree"):
        DetectionTrainer(detector(), train_dataset=training, eval_dataset=other)


def test_tracker(data, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="'tensorbored': accelerate knows aim,"):
        train(data, tmp_path / "run", tracker=("tensorbored",))
    monkeypatch.setattr("ld_hub.engine.devices.get_available_trackers", list)
    with pytest.raises(ConfigError, match="'wandb': its package is not installed"):
        train(data, tmp_path / "run", tracker=("wandb",))
    assert not (tmp_path / "run").exists()


def test_a_tracker_by_name_and_one_of_the_users_get_every_record(data, tmp_path, monkeypatch):
    from accelerate import tracking
    from accelerate.utils import LoggerType

    class Listening(tracking.GeneralTracker):
        name, requires_logging_directory = "listening", False

        def __init__(self, run_name: str = "", **_: object) -> None:
            super().__init__()
            self.told: list[object] = []
            made.append(self)

        @property
        def tracker(self) -> object:
            return self

        def store_init_configuration(self, values: dict[str, object]) -> None:
            self.told.append(values["steps"])

        def log(self, values: dict[str, object], step: int | None = None, **_: object) -> None:
            self.told.append((step, values["loss_cls"]))

        def finish(self) -> None:
            self.told.append("finished")

    made: list[Listening] = []
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "comet_ml", Listening)
    for place in ("accelerate.tracking", "ld_hub.engine.devices"):
        monkeypatch.setattr(f"{place}.get_available_trackers", lambda: [LoggerType.COMETML])
    config = TrainConfig(output_dir=str(tmp_path / "run"), **QUICK, tracker=("comet_ml",))
    training = load_coco(data, "train")
    DetectionTrainer(detector(), train_dataset=training, config=config, trackers=[Listening()]).train()
    losses = [(record["step"], record["loss_cls"]) for record in records(tmp_path / "run")]
    assert len(made) == 2
    for tracker in made:
        assert tracker.told == [2, *losses, "finished"]


def test_the_best_model_is_kept(data, tmp_path, monkeypatch):
    from ld_hub.evaluation import DetectionMetrics

    scores = iter([0.1, 0.4, 0.4, 0.2])
    monkeypatch.setattr(
        "ld_hub.engine.loop.evaluate",
        lambda *_, **__: (DetectionMetrics(stats={"AP": next(scores)}, per_class={}), None),
    )
    training, evaluation = sets(data)
    config = TrainConfig(output_dir=str(tmp_path / "run"), **{**QUICK, "steps": 4}, eval_every_epochs=1 / 3)
    result = DetectionTrainer(detector(), train_dataset=training, eval_dataset=evaluation, config=config).train()
    assert (result.best_ap, result.best_step) == (0.4, 2)
    train(data, tmp_path / "two", steps=4, save_every=2)
    second = Checkpoint.load(tmp_path / "run/checkpoints/step_00000004")
    assert second.state["best"] == {"AP": 0.4, "step": 2}
    assert not equal(weights(tmp_path / "run/best"), weights(tmp_path / "run/model"))
    assert json.loads((tmp_path / "run/best/metrics.json").read_text())["step"] == 2


def test_it_says_what_it_is_doing(data, tmp_path, capsys):
    distil(data, tmp_path / "run", individual_ld=True)
    text = capsys.readouterr().out
    for part in ("student    gfocal_tiny", "teacher    gfocal_tiny", "2 steps x 4 images", "recipe vlr",
                 "Individual LD", "step 1/2", "distill_ld_vlr", "share/distill_ld", "img/s", "ETA"):  # fmt: skip
        assert part in text


def test_a_trainer_of_a_pair_that_does_not_fit_stops_at_once(data):
    with pytest.raises(ConfigError, match="reg_max"):
        DistillationTrainer(detector(), detector(reg_max=4), "ld", train_dataset=load_coco(data, "train"))


def test_a_teaching_says_all_that_the_keywords_say(data, tmp_path):
    options = {"reference": "ld", "individual_ld": True, "balance": "gradient", "class_map": {"red": "red"}}
    training, _ = sets(data)
    made = {
        name: DistillationTrainer(
            detector(), detector(seed=1), train_dataset=training, config=TrainConfig(output_dir=str(tmp_path)), **said
        )
        for name, said in {
            "keywords": {"recipe": "vlr", **options},
            "teaching": {"teaching": make_teaching("vlr", **options)},
        }.items()
    }
    one, other = made["keywords"], made["teaching"]
    assert one.model.teaching == other.model.teaching == one.task.teaching
    assert one.identity().to_dict() == other.identity().to_dict()
    assert one.task.recipe == other.task.recipe == get_recipe("vlr").published("ld")
    again = DistillationTrainer(detector(), detector(seed=1), train_dataset=training, teaching=one.model.teaching)
    assert again.model.teaching == one.model.teaching  # a student's own, to teach another the same way
    with pytest.raises(ConfigError, match="teaching says everything"):
        DistillationTrainer(detector(), detector(seed=1), "kd", teaching=make_teaching("ld"), train_dataset=training)


def test_shares_of_the_run_are_steps_of_it_and_stay_shares_in_the_files(data, tmp_path):
    """The run with shares is the run with the steps that they are, also when it is continued."""
    found, changes = {}, {"shares": {"last_step": 0.5}, "steps": {"last_step": 1}}
    for name, terms in changes.items():
        recipe = get_recipe("ld").with_terms(ld=terms)
        found[name], _ = distil(data, tmp_path / name, recipe=recipe, steps=4, save_every=2)
        assert [line["distill_ld"] > 0 for line in records(tmp_path / name)] == [True, True, False, False]
        written = json.loads((tmp_path / name / "model/config.json").read_text())["recipe"]["terms"]["ld"]
        assert written["last_step"] == terms["last_step"]
    assert equal(dict(found["shares"].state_dict()), dict(found["steps"].state_dict()))
    other, _ = distil(
        data, tmp_path / "shares", recipe=get_recipe("ld").with_terms(ld={"last_step": 0.5}), steps=4, save_every=2,
        resume=str(sorted((tmp_path / "shares/checkpoints").iterdir())[0]),
    )  # fmt: skip
    assert equal(dict(other.state_dict()), dict(found["steps"].state_dict()))
