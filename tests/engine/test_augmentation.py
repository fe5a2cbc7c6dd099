"""Augmentation in a run: the same for student and teacher, kept with the run, refused where something cannot follow."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from ld_hub.data import load_coco
from ld_hub.engine import DetectionTrainer, TrainConfig
from ld_hub.engine.train_config import changed_fields
from ld_hub.errors import ConfigError
from ld_hub.preprocessing.augmentation import PRESETS, Augmentation
from tests.engine.runs import QUICK, detector, distil, equal, train, weights

PASTED = {"copy_paste": 0.8}
STRONG = {"augment": "strong", "mosaic": 0.7, "mixup": 0.3, "close_mosaic": 3, "short_sides": (48, 64)}


def test_presets_and_parts():
    assert TrainConfig().augmentation == PRESETS["flip"] == Augmentation(flip=0.5)
    assert TrainConfig(augment="none").augmentation == Augmentation(flip=0.0)
    mixed = TrainConfig(augment="strong", mixup=0.0, scale_jitter=[0.5, 2.0], flip=0.1).augmentation
    assert (mixed.mixup, mixed.scale_jitter, mixed.flip) == (0.0, (0.5, 2.0), 0.1)
    assert mixed.mosaic == PRESETS["strong"].mosaic > 0
    assert TrainConfig(scale_jitter=(1, 1)).augmentation.parts == {"flip": 0.5}
    assert PRESETS["standard"].describe() == "flip 0.5, crop 0.5, zoom_out 0.25, color 0.5"
    assert PRESETS["none"].describe() == "none"


@pytest.mark.parametrize(
    ("given", "steps", "mixed"),
    [(0.1, 100, 90), (0, 100, 100), (30, 100, 70), (200, 100, 0), (0.5, 7, 3)],
)
def test_mixing_ends_before_the_run(given, steps, mixed):
    assert TrainConfig(close_mosaic=given).mixed_steps(steps) == mixed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("augment", "mega"), ("crop", 1.5), ("zoom_out", -0.1), ("color", 2.0), ("mosaic", 1.1), ("mixup", -1.0),
        ("scale_jitter", (2.0, 0.5)), ("scale_jitter", (0.0, 1.0)), ("close_mosaic", -1.0), ("copy_paste", 1.5),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        TrainConfig(**{field: value})


def test_runs_are_the_same_if_the_same_is_done():
    one = TrainConfig(augment="standard")
    parts = PRESETS["standard"].parts
    assert changed_fields(one, TrainConfig(augment="flip", **parts)) == {}
    assert changed_fields(one, TrainConfig(augment="standard", crop=0.1)) == {"crop": (0.5, 0.1)}
    assert changed_fields(TrainConfig(flip=0.5), TrainConfig()) == {}


@pytest.fixture(scope="module")
def outlined(data, tmp_path_factory):
    """The images with triangles as outlines of their objects."""
    root = tmp_path_factory.mktemp("outlined") / "data"
    shutil.copytree(data, root)
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x, y + h]]
    file.write_text(json.dumps(content))
    return root


def trained(root, out, **settings):
    dataset = load_coco(root, "train", outlines=settings.get("copy_paste", 0) > 0)
    config = TrainConfig(output_dir=str(out), **{**QUICK, **settings})
    return DetectionTrainer(detector(), train_dataset=dataset, config=config).train()


def test_copy_paste_needs_outlines(data, tmp_path):
    with pytest.raises(ConfigError, match=r"copy_paste .*load_data\(\.\.\., outlines=True\)"):
        train(data, tmp_path / "run", copy_paste=0.5)


def test_copy_paste_changes_what_is_learnt_and_is_said(outlined, tmp_path, capsys):
    trained(outlined, tmp_path / "pasted", **PASTED)
    assert "copy_paste 0.8; mosaic, mixup and copy-paste until step 2" in capsys.readouterr().out
    trained(outlined, tmp_path / "plain")
    assert not equal(weights(tmp_path / "pasted/model"), weights(tmp_path / "plain/model"))


def test_a_broken_run_goes_on_to_the_same_weights(outlined, tmp_path, monkeypatch):
    from ld_hub.engine.loop import Loop

    data, train, settings = outlined, trained, {**STRONG, **PASTED, "steps": 6, "save_every": 2}
    train(data, tmp_path / "whole", **settings)
    update = Loop._update

    def stopping(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return update(self)

    monkeypatch.setattr(Loop, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "broken", **settings)
    monkeypatch.undo()
    train(data, tmp_path / "broken", resume=True, **settings)
    assert equal(weights(tmp_path / "whole/model"), weights(tmp_path / "broken/model"))
    train(data, tmp_path / "plain", **{**settings, "mosaic": 0.0, "mixup": 0.0})
    assert not equal(weights(tmp_path / "whole/model"), weights(tmp_path / "plain/model"))
    written = json.loads((tmp_path / "whole/config.json").read_text())
    expected = {**PRESETS["strong"].parts, "mosaic": 0.7, "mixup": 0.3, "short_sides": [48, 64], "zoom_out": 0.0,
                "copy_paste": 0.8}  # fmt: skip
    assert written["augmentation"] == {**expected, "scale_jitter": [0.5, 1.5]}
    assert written["config"]["augment"] == "strong" and written["config"]["crop"] is None
    with pytest.raises(ConfigError, match=r"mosaic: 0\.7 there, 0\.5 now"):
        train(data, tmp_path / "broken", resume=True, **{**settings, "mosaic": None})


def test_teacher_and_student_see_the_same_pixels(data, tmp_path):
    student, teacher = detector(), detector(seed=1)
    seen = {"student": [], "teacher": []}
    for name, network in (("student", student), ("teacher", teacher)):
        network.backbone.register_forward_pre_hook(
            lambda _, inputs, name=name: seen[name].append(inputs[0].detach().clone())
        )
    distil(data, tmp_path / "run", student=student, teacher=teacher, **{**STRONG, "steps": 5, "close_mosaic": 1})
    assert len(seen["student"]) == len(seen["teacher"]) == 5
    for mine, theirs in zip(seen["student"], seen["teacher"], strict=True):
        assert torch.equal(mine, theirs)
    assert len({tuple(images.flatten()[:50].tolist()) for images in seen["student"]}) == 5


@pytest.mark.parametrize(
    ("part", "named"),
    [({"crop": 0.2}, r"crop 0\.2"), ({"color": 0.3}, r"color 0\.3"), ({"augment": "strong"}, r"crop .*mosaic 0\.5")],
)
def test_a_teacher_that_is_asked_once_takes_no_other_pixels(data, tmp_path, part, named):
    with pytest.raises(ConfigError, match=rf"cache_teacher .* do not hold for {named}.*--augment flip, or leave"):
        distil(data, tmp_path / "run", cache_teacher="auto", **part)
