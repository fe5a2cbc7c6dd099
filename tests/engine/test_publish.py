"""Runs on the Hub: flags of the commands, and which directory is meant."""

from __future__ import annotations

import json

import pytest
import torch

from ld_hub import train
from ld_hub.engine.publish import draw_curves, locate
from ld_hub.errors import MissingFileError
from ld_hub.models.factory import create_model
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
    assert f"published: {hub.endpoint}/org/run (commit " in capsys.readouterr().out
    files = hub.files("org/run")
    assert {"training/config.json", "training/arguments.yaml", "training/result.json"} <= set(files)
    assert files["model.safetensors"] == (tmp_path / "run/model/model.safetensors").read_bytes()
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
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "eval/AP": 0.1}))
    draw_curves(tmp_path)
    assert not (tmp_path / "curves.png").exists()  # there is nothing to draw
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 3, "lo']))
    draw_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
