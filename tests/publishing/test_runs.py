"""Runs on the Hub: flags of the commands, and which directory is meant."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil

import pytest
import torch
from PIL import Image

from ld_hub import train
from ld_hub.cli.main import main
from ld_hub.errors import MissingFileError
from ld_hub.models.factory import create_model
from ld_hub.publishing.runs import draw_curves, example_image, locate
from tests.engine.runs import write_data
from tests.support.hub_client import connected

hub = pytest.fixture(connected)
RUN = (
    "--steps 2 --batch_size 2 --workers 0 --log_every 1 --image_size 64 64 --pretrained_backbone false "
    "--fpn_channels 16 --head_width 16 --head_depth 1 --reg_max 8"
).split()


def run_train(tmp_path, *words):
    data = write_data(tmp_path / "data")
    start = ["gfocal_tiny", "--data", str(data), "--output_dir", str(tmp_path / "run"), *RUN]
    return train.main([*start, *words])


def test_a_run_is_published_when_it_has_ended(hub, tmp_path, capsys):
    words = ["--push_to_hub", "--hub_model_id", "org/run", "--hub_license", "mit", "--hub_private", "true"]
    assert run_train(tmp_path, *words) == 0
    out, place = capsys.readouterr().out, tmp_path / "run/model"
    assert f"published: {hub.endpoint}/org/run (commit " in out
    assert f"no AP in the card: `ld-hub eval {place} --data DIR --out {place / 'eval'}` measures it." in out
    files = hub.files("org/run")
    assert {"training/config.json", "training/arguments.yaml", "training/result.json"} <= set(files)
    assert files["model.safetensors"] == (tmp_path / "run/model/model.safetensors").read_bytes()
    assert b"Average precision" not in files["README.md"]
    assert b"license: mit" in files["README.md"] and hub.repos["models", "org/run"].private
    loaded = create_model("hf-hub:org/run", pretrained=True).state_dict()
    trained = create_model(tmp_path / "run/model").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in trained.items())


def test_a_hub_that_refuses_costs_no_model(hub, tmp_path, capsys):
    hub.fault("POST", "/api/repos/create", status=403)
    assert run_train(tmp_path, "--push_to_hub", "--hub_model_id", "org/run") == 2
    error = capsys.readouterr().err
    assert "answered 403" in error and f"`ld-hub push {tmp_path / 'run'} org/run` publishes it later" in error
    assert create_model(tmp_path / "run/model").num_classes > 0


@pytest.mark.parametrize(
    ("words", "variable", "message"),
    [
        (["--push_to_hub"], "", "belong together"),
        (["--hub_model_id", "org/run"], "", "belong together"),
        (["--push_to_hub", "--hub_model_id", "org/run"], "HF_HUB_OFFLINE", "HF_HUB_OFFLINE forbids"),
    ],
)
def test_what_could_not_be_published_is_refused_before_training(
    tmp_path, capsys, monkeypatch, words, variable, message
):
    if variable:
        monkeypatch.setenv(variable, "1")
    assert run_train(tmp_path, *words) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_which_model_is_meant(tmp_path):
    run = tmp_path / "run"
    for name in ("model", "best"):
        create_model("gfocal_tiny", num_classes=1).save_pretrained(run / name)
    assert locate(run / "model") == (run / "model", None)  # nothing says yet that this is a run
    for name in ("config.json", "metrics.jsonl"):
        (run / name).write_text("{}")
    assert locate(run) == (run / "model", run)
    assert locate(run / "best") == (run / "best", run)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(MissingFileError):
            locate(wrong)


def test_curves(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [json.dumps({"step": step, "loss_cls": 1.0 / step}) for step in (1, 2)]
    said = []

    def draw(text):
        (tmp_path / "metrics.jsonl").write_text(text)
        said.clear()
        draw_curves(tmp_path, tmp_path / "curves.png", said.append)
        return said

    assert draw(json.dumps({"step": 1, "epoch": 0.1})) == ["no training curves: the run has logged no losses."]
    assert "metrics.jsonl', line 1" in draw("{\n" + lines[0])[0] and not (tmp_path / "curves.png").exists()
    assert draw("\n".join([*lines, '{"step": 3, "lo'])) == []
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run, and its data."""
    root = tmp_path_factory.mktemp("finished")
    assert run_train(root) == 0
    return root


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A copy of the run; its untrained model finds something."""
    for module in ("ld_hub.publishing.runs", "ld_hub.publishing.push"):
        monkeypatch.setattr(f"{module}.PICTURE_THRESHOLD", 0.0)
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_published_with_pictures(hub, copied, capsys):
    pytest.importorskip("matplotlib")
    assert main(["push", str(copied), "org/run"]) == 0
    files, out = hub.files("org/run"), capsys.readouterr().out
    assert files["detections.jpg"].startswith(b"\xff\xd8") and files["curves.png"].startswith(b"\x89PNG")
    assert b"(detections.jpg)" in files["README.md"] and b"(curves.png)" in files["README.md"]
    assert re.search(r"picture of detections: on '.*data/val/0\.png'", out), out
    assert main(["push", str(copied), "org/run", "--no_pictures"]) == 0
    assert not {"detections.jpg", "curves.png"} & set(hub.files("org/run"))
    image = copied.parent / "mine.png"
    Image.new("RGB", (64, 64), "red").save(image)
    assert main(["push", str(copied), "org/run", "--no_pictures", "--image", str(image)]) == 0
    assert "curves.png" not in hub.files("org/run") and "detections.jpg" in hub.files("org/run")


def test_pictures_that_cannot_be_made_are_left_out_with_a_line(hub, copied, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = copied / "arguments.yaml"
    settings.write_text(re.sub(r"(?m)^data: .*$", "data: /nowhere", settings.read_text()))
    assert main(["push", str(copied), "org/run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "no training curves: matplotlib is not installed" in line]) == 1
    assert len([line for line in lines if "no picture of detections: " in line and "/nowhere" in line]) == 1
    assert not {"detections.jpg", "curves.png"} & set(hub.files("org/run"))
    reasons = {
        "no arguments.yaml": settings.unlink,
        "no images to evaluate on": lambda: settings.write_text("train_images: a\ntrain_annotations: b\n"),
        "its lines are not YAML": lambda: settings.write_text("a: ["),
    }
    for reason, change in reasons.items():
        change()
        said = []
        assert example_image(create_model(copied / "model"), copied, said.append) is None
        assert len(said) == 1 and reason in said[0], said


def test_images_are_read_as_the_run_read_them(copied, monkeypatch):
    given = {}

    def load(*places, **options):
        given.update(options)
        raise MissingFileError("enough")

    monkeypatch.setattr("ld_hub.publishing.runs.load_data", load)
    settings = copied / "arguments.yaml"
    wanted = {"strict": True, "val_fraction": 0.25, "columns": "bbox=b", "merge_categories": True}
    kept = [line for line in settings.read_text().splitlines() if line.partition(":")[0] not in wanted]
    settings.write_text("\n".join([*kept, *(f"{name}: {json.dumps(value)}" for name, value in wanted.items())]))
    assert example_image(create_model(copied / "model"), copied, lambda said: None) is None
    assert wanted.items() <= given.items()


def test_nothing_found_is_no_picture(finished):
    said = []
    assert example_image(create_model(finished / "run/model"), finished / "run", said.append) is None
    assert "on 4 images nothing is found with a score above 0.3" in said[0]


def test_a_card_of_a_run_has_pictures_too(copied, capsys):
    pytest.importorskip("matplotlib")
    assert main(["card", str(copied), "--no_pictures"]) == 0
    assert not (copied / "model/curves.png").exists() and not (copied / "model/detections.jpg").exists()
    assert main(["card", str(copied)]) == 0
    card = (copied / "model/README.md").read_text()
    assert "(detections.jpg)" in card and "(curves.png)" in card
    (copied / "model/detections.jpg").write_bytes(b"chosen")
    assert main(["card", str(copied)]) == 0
    assert (copied / "model/detections.jpg").read_bytes() == b"chosen"


def test_the_flag_of_training(hub, tmp_path, capsys):
    words = ["--push_to_hub", "--hub_model_id", "org/run", "--hub_pictures", "false"]
    assert run_train(tmp_path, *words) == 0
    assert "curves.png" not in hub.files("org/run") and "picture" not in capsys.readouterr().out
