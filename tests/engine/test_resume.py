"""A continued run is the uninterrupted one, and never another one."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal

import pytest
import torch
from torch import Tensor, nn

from ld_hub.data import load_coco
from ld_hub.distillation import get_recipe
from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub.manifest import write_manifest
from tests.engine.runs import QUICK, detector, distil, equal, records, sets, stop_before_step, train, weights


@pytest.mark.parametrize(
    "options",
    [
        {"bias_lr_factor": 2.0},
        {
            **{"optimizer": "adamw", "accumulation": 2, "batch_size": 2, "bias_weight_decay": 0.5},
            **{"ema": "on", "ema_decay": 0.9, "layer_decay": 0.5, "grad_checkpointing": True},
        },
    ],
)
def test_resume_equals_the_uninterrupted_run(data, tmp_path, options, monkeypatch):
    settings = {
        "steps": 7,
        "save_every": 2,
        "log_every": 3,
        "lr_schedule": "cosine",
        "short_sides": (48, 64),
        **options,
    }
    distil(data, tmp_path / "whole", student=_dropout(detector()), **settings)
    stop_before_step(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        distil(data, tmp_path / "broken", student=_dropout(detector()), **settings)
    monkeypatch.undo()
    student, _ = distil(data, tmp_path / "broken", student=_dropout(detector(seed=7)), resume=True, **settings)
    whole, broken = (RunDirectory(tmp_path / name).find(True) for name in ("whole", "broken"))
    assert whole is not None and broken is not None
    one, other = Checkpoint.load(whole), Checkpoint.load(broken)
    assert equal(one.model, other.model) and equal(one.ema or {}, other.ema or {})
    assert one.state["random"] == other.state["random"]
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "broken/model"))
    assert equal(weights(tmp_path / "whole/model"), dict(student.state_dict()))
    same = [
        [{k: v for k, v in r.items() if "second" not in k} for r in records(tmp_path / n)] for n in ("whole", "broken")
    ]
    assert same[0] == same[1]


def _dropout(model):
    """A backbone that draws random numbers while training, as stochastic depth does."""
    model.neck = nn.Sequential(model.neck, _Noise())
    return model


class _Noise(nn.Module):
    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(nn.functional.dropout(m, 0.2, self.training) for m in maps)


def _die_while_saving(data, out, settings) -> None:
    """Dies at once, as by SIGKILL, while it writes the weights of step 4."""
    import ld_hub.hub as room

    save = room.save_safetensors

    def dying(state, path):
        if "step_00000004" in str(path):
            path.write_bytes(b"half")
            os._exit(9)
        return save(state, path)

    room.save_safetensors = dying
    torch.set_num_threads(1)
    train(data, out, **settings)


def test_resume_after_a_kill_in_the_middle_of_saving(data, tmp_path, monkeypatch):
    settings = {"steps": 4, "save_every": 2}
    train(data, tmp_path / "whole", **settings)
    child = multiprocessing.get_context("spawn").Process(
        target=_die_while_saving, args=(data, tmp_path / "killed", settings)
    )
    child.start()
    child.join()
    assert child.exitcode == 9
    assert not (tmp_path / "killed/result.json").exists()
    train(data, tmp_path / "killed", detector(seed=3), resume=True, **settings)
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "killed/model"))
    assert [path.name for path in (tmp_path / "killed/checkpoints").iterdir()].count("step_00000004") == 1
    assert len(list((tmp_path / "killed/checkpoints").iterdir())) == 2


def _train_and_evaluate(data, out, seed=0, resume=False):
    training, evaluation = sets(data)
    model = detector(seed=seed)
    if not resume:
        torch.nn.init.constant_(model.head.cls.bias, 0.0)  # finds something from the start
    settings = {**QUICK, "steps": 4, "eval_every_steps": 2, "eval_batch_size": 1, "lr": 1e-3}
    config = TrainConfig(output_dir=str(out), **settings, resume=resume)
    return DetectionTrainer(model, train_dataset=training, eval_dataset=evaluation, config=config).train()


def _die_in_an_evaluation(data, out, place, call) -> None:
    """Killed by the system when a method is called for the n-th time."""
    from ld_hub.engine.loop import Loop
    from ld_hub.evaluation import DetectionEvaluator

    kind, name = {"update": (DetectionEvaluator, "update"), "save": (Loop, "save")}[place]
    method, calls = getattr(kind, name), []

    def deadly(self, *arguments):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *arguments)

    setattr(kind, name, deadly)
    torch.set_num_threads(1)
    _train_and_evaluate(data, out)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, _train_and_evaluate(data, out)


@pytest.mark.parametrize(
    ("place", "call", "step"),
    [("update", 3, 2), ("save", 4, 4)],
    ids=["among the images", "between the scores and their checkpoint"],
)
def test_resume_after_a_kill_in_the_middle_of_an_evaluation(
    data, tmp_path, monkeypatch, undisturbed, place, call, step
):
    whole, expected = undisturbed
    child = multiprocessing.get_context("spawn").Process(
        target=_die_in_an_evaluation, args=(data, tmp_path / "killed", place, call)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    trained = _count_steps(monkeypatch)
    result = _train_and_evaluate(data, tmp_path / "killed", seed=3, resume=True)
    assert trained == list(range(step, 4))  # no step is done again
    assert result.metrics == expected.metrics and result.metrics.detections > 0
    assert (result.best_ap, result.best_step) == (expected.best_ap, expected.best_step)
    for name in ("model", "best", "checkpoints/step_00000004"):
        assert equal(weights(whole / name), weights(tmp_path / "killed" / name))
    for key in ("eval/AP", "loss"):
        lines = [
            [{k: v for k, v in r.items() if "second" not in k} for r in records(out, key)]
            for out in (whole, tmp_path / "killed")
        ]
        assert lines[0] == lines[1] and [line["step"] for line in lines[0]][-1] == 4


@pytest.fixture
def stopped(data, tmp_path, monkeypatch):
    """A run that was interrupted in its first evaluation, after step 2 of 4."""

    def stop(self, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ld_hub.evaluation.DetectionEvaluator.update", stop)
        _train_and_evaluate(data, tmp_path / "stopped")
    return tmp_path / "stopped"


def _unscored(run):
    return {path.name[-1]: Checkpoint.load(path).state["unscored"] for path in (run / "checkpoints").iterdir()}


def test_a_run_may_be_continued_without_what_it_was_stopped_in(data, stopped):
    assert _unscored(stopped) == {"2": True}
    config = TrainConfig(output_dir=str(stopped), **{**QUICK, "steps": 4, "eval_every_steps": 2, "eval_batch_size": 1,
                                                     "lr": 1e-3}, resume=True)  # fmt: skip
    result = DetectionTrainer(detector(), train_dataset=load_coco(data, "train"), config=config).train()
    assert _unscored(stopped) == {"2": False, "4": False} and result.metrics is None


def test_checkpoints_from_before_the_mark_are_continued_after_their_evaluation(data, stopped):
    file = stopped / "checkpoints/step_00000002/state.json"
    state = json.loads(file.read_text())
    del state["unscored"]
    file.write_text(json.dumps(state))
    write_manifest(file.parent, [each.name for each in file.parent.glob("[mos]*.*") if each.stem != "manifest"])
    _train_and_evaluate(data, stopped, resume=True)
    assert [line["step"] for line in records(stopped, "eval/AP")] == [4]


def test_one_progress_bar_at_a_time(data, stopped, monkeypatch):
    """rich used to refuse a second one, and two flicker."""
    from ld_hub.engine import reporter as report

    class Bar(report.Progress):
        shown = 0

        def start(self):
            Bar.shown += 1
            assert Bar.shown == 1
            super().start()

        def stop(self):
            Bar.shown -= 1
            super().stop()

    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes it a terminal
    monkeypatch.setattr(report, "Progress", Bar)
    monkeypatch.setattr(Bar, "shown", 0)
    result = _train_and_evaluate(data, stopped, resume=True)
    assert result.steps == 4 and Bar.shown == 0


def _count_steps(monkeypatch):
    from ld_hub.engine.loop import Loop

    step, done = Loop._train_step, []

    def counting(self, *streams):
        done.append(self.step)
        return step(self, *streams)

    monkeypatch.setattr(Loop, "_train_step", counting)
    return done


def test_resume_before_the_first_checkpoint_and_after_the_end(data, tmp_path):
    train(data, tmp_path / "whole", steps=3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("{}")  # killed right after the start
    train(data, tmp_path / "empty", steps=3, resume=True)
    model, result = train(data, tmp_path / "whole", detector(seed=5), steps=3, resume=True)
    assert result.steps == 3
    for name in ("whole", "empty"):
        assert equal(weights(tmp_path / name / "model"), dict(model.state_dict()))


def test_resume_from_a_named_checkpoint_into_another_directory(data, tmp_path):
    train(data, tmp_path / "whole", steps=4, save_every=2)
    start = tmp_path / "whole/checkpoints/step_00000002"
    train(data, tmp_path / "other", detector(seed=5), steps=4, save_every=2, resume=str(start))
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "other/model"))
    assert [record["step"] for record in records(tmp_path / "other")] == [3, 4]


def test_resume_refuses_another_run(data, tmp_path):
    train(data, tmp_path / "run", steps=3, save_every=1)
    with pytest.raises(ConfigError, match=r"other settings \(steps: 3 there, 5 now; seed: 0 there, 1 now\)"):
        train(data, tmp_path / "run", steps=5, seed=1, resume=True)
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["steps"] == 3  # nothing was written over
    with pytest.raises(ConfigError, match=r"images per optimizer step, micro-steps: \[4, 1\] there, \[3, 1\] now"):
        train(data, tmp_path / "run", steps=3, batch_size=3, resume=True)
    with pytest.raises(ConfigError, match=r"\(model_config.fpn_channels: 16 there, 8 now\)"):
        train(data, tmp_path / "run", detector(fpn_channels=8), steps=3, resume=True)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        train(data, tmp_path / "run", _dropout(detector()), steps=3, resume=True)


def _heavier(recipe):
    return get_recipe(recipe).with_terms(ld={"weight": 2.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "ld"}, r"recipe.name: vlr there, ld now.*recipe.terms.kd: .* there, None now"),
        ({"recipe": _heavier("vlr")}, r"\(recipe.terms.ld.weight: 0.25 there, 2.0 now\)"),
        ({"individual_ld": True}, r"\(recipe.individual_ld: False there, True now\)"),
        ({"reference": "ld"}, r"recipe.reference: None there, ld now"),
        ({"teacher": {"seed": 2}}, r"\(teacher_weights_sha256: \w{16} there, \w{16} now\)"),
        ({"teacher": {"seed": 1, "head_depth": 2}}, r"teacher_config.head_depth: 1 there, 2 now"),
    ],
    ids=["recipe", "weight", "individual", "reference", "weights", "structure"],
)
def test_resume_refuses_another_distillation(data, tmp_path, changes, message):
    distil(data, tmp_path / "run", steps=2, save_every=1)
    if "teacher" in changes:
        changes = {"teacher": detector(**changes["teacher"])}
    kept = weights(tmp_path / "run/model")
    for resume in (True, str(tmp_path / "run/checkpoints/step_00000001")):
        with pytest.raises(ConfigError, match=message):
            distil(data, tmp_path / "run", steps=2, save_every=1, resume=resume, **changes)
    assert equal(weights(tmp_path / "run/model"), kept)
    distil(data, tmp_path / "run", steps=2, save_every=1, resume=True)
    assert equal(weights(tmp_path / "run/model"), kept)


def test_resume_refuses_other_data(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    train(tmp_path / "data", tmp_path / "run", steps=2)
    file = tmp_path / "data/annotations/instances_train.json"
    text = file.read_text()
    content = json.loads(text)
    content["annotations"][0]["bbox"][0] += 1
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"\(train_annotations_sha256: \w{16} there, \w{16} now\)"):
        train(tmp_path / "data", tmp_path / "run", steps=2, resume=True)
    file.write_text(text.replace('"blue"', '"azure"'))
    with pytest.raises(ConfigError, match=r"label_names\[2\]: blue there, azure now"):
        train(tmp_path / "data", tmp_path / "run", steps=2, resume=True)
    file.write_text(text)
    some = load_coco(tmp_path / "data", "train").select(range(8))
    config = TrainConfig(output_dir=str(tmp_path / "run"), **QUICK, resume=True)
    with pytest.raises(ConfigError, match=r"\(train_images: 12 there, 8 now\)"):
        DetectionTrainer(detector(), train_dataset=some, config=config).train()
    train(tmp_path / "data", tmp_path / "run", steps=2, resume=True)


def test_a_checkpoint_of_elsewhere_does_not_replace_a_run(data, tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        train(data, tmp_path / name, detector(seed=seed), steps=4, save_every=2)
    kept = weights(tmp_path / "two/model")
    start = str(tmp_path / "one/checkpoints/step_00000002")
    with pytest.raises(ConfigError, match="two' already holds a run"):
        train(data, tmp_path / "two", steps=4, save_every=2, resume=start)
    assert equal(weights(tmp_path / "two/model"), kept) and (tmp_path / "two/result.json").is_file()
    own = tmp_path / "two/../two/checkpoints/step_00000002"  # its own may be gone back to
    train(data, tmp_path / "two", detector(seed=7), steps=4, save_every=2, resume=str(own))
    assert equal(weights(tmp_path / "two/model"), kept)
