"""`push_to_hub`: what of a model, its run and its evaluations is published, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
import torch

import ld_hub
from ld_hub.cli.main import main
from ld_hub.engine import TrainConfig
from ld_hub.engine.identity import Identity
from ld_hub.engine.records import RunSettings
from ld_hub.errors import CheckpointError, ConfigError, EvaluationError, HubError, MissingFileError
from ld_hub.hub.card_file import BEGIN, END
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import DataConfig, create_transform
from ld_hub.preprocessing.processor_file import preprocessor_settings
from ld_hub.publishing.push import push_to_hf_hub
from ld_hub.structures import Teaching
from tests.hub_server import WRITER
from tests.support.hub_client import connected

hub = pytest.fixture(connected)
REPO = "org/small"
TINY = {"fpn_channels": 16, "head_width": 16, "head_depth": 1}
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model and the directory of its run, as the trainer and `ld-hub eval` leave it."""
    torch.manual_seed(0)
    model = create_model("gfocal_tiny", label_names=["cat", "dog"], **TINY).eval()
    run = tmp_path_factory.mktemp("runs") / "student"
    place = model.save_pretrained(run / "model")
    identity = Identity(model.name, {}, model.data_config, model.label_names, model.category_ids, None, 4)
    settings = RunSettings(TrainConfig(output_dir=str(run)), identity, 6, 2, 0.01, "instances_train.json")
    (run / "config.json").write_text(json.dumps(settings.to_dict()))
    (run / "arguments.yaml").write_text("steps: 6\n")
    (run / "metrics.jsonl").write_text("{}\n")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "big.bin").write_bytes(b"never published")
    (run / "model" / "eval").mkdir()
    (run / "model" / "eval" / "detections.json").write_text("[]")
    (run / "model" / "eval" / "metrics.json").write_text(json.dumps(evaluation(place / "model.safetensors")))
    return model, run


def evaluation(weights, ap=0.321):
    zeros = "0" * 64
    return {
        "format": "ld_hub.evaluation",
        "format_version": 1,
        "date": "2024-01-01T00:00:00+00:00",
        "command": "ld-hub eval runs/student/model --data shapes",
        "model": {"name": "runs/student/model", "architecture": "gfocal_tiny", "family": "gfocal", "config": {}},
        "weights": {
            "file": "model.safetensors",
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "tensors": "0" * 16,
        },
        "data": {"name": "shapes", "split": "val", "annotations": "instances_val.json", "sha256": zeros},
        "detections_file": {"file": "detections.json", "sha256": hashlib.sha256(b"[]").hexdigest()},
        "protocol": "coco",
        "not_counted": 0,
        "stats": {**dict.fromkeys(STATS, 0.25), "AP": ap},
        "per_class": {"cat": 0.3, "dog": 0.2},
        "boxes": {"cat": 3, "dog": 4},
        "images": 5,
        "detections": 0,
        "backend": "pycocotools",
        "device": "CPU",
        "precision": "float32",
        "batch_size": 8,
        "versions": {"ld_hub": "0.1.0"},
    }


def picture():
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


def test_one_commit_with_everything(hub, trained, monkeypatch):
    model, run = trained
    monkeypatch.setenv("HOME", str(run.parent))
    monkeypatch.setattr("ld_hub.publishing.push.PICTURE_THRESHOLD", 0.0)  # an untrained model's scores are low
    commit = model.push_to_hub(REPO, run=run, license="apache-2.0", image=picture())
    files = hub.files(REPO)
    assert sorted(files) == [
        ".gitattributes", "README.md", "config.json", "detections.jpg", "eval/detections.json", "eval/metrics.json",
        "model.safetensors", "preprocessor_config.json", "training/arguments.yaml", "training/config.json",
    ]  # fmt: skip
    assert [c.message for c in hub.repos["models", REPO].commits.values()] == ["initial commit", "Publish gfocal_tiny"]
    assert hub.repos["models", REPO].find("main").oid == commit.oid
    for name in ("model.safetensors", "config.json"):
        assert files[name] == (run / "model" / name).read_bytes()
    weights = files["model.safetensors"]
    metadata = json.loads(weights[8 : 8 + struct.unpack("<Q", weights[:8])[0]])["__metadata__"]
    assert metadata["format"] == "pt" and set(metadata) == {"format", "ld_hub.sha256"}
    for name in ("metrics.json", "detections.json"):
        assert files[f"eval/{name}"] == (run / "model" / "eval" / name).read_bytes()
    assert json.loads(files["training/config.json"])["config"]["output_dir"] == "~/student"  # no name of a home
    assert files["detections.jpg"].startswith(b"\xff\xd8")
    card = files["README.md"].decode()
    assert "library_name: ld_hub" in card and "license: apache-2.0" in card and "32.1" in card
    assert not any(WRITER.encode() in content or str(run.parent).encode() in content for content in files.values())


def test_another_publication_replaces_what_is_ours_and_keeps_what_is_the_users(hub, trained):
    model, run = trained
    model.push_to_hub(REPO, run=run)
    card = hub.files(REPO)["README.md"].decode()
    begin, end = card.index(BEGIN), card.index(END)
    mine = f"{card[:begin]}My words before: é 🐕.\n\n{card[begin:end]}{card[end:]}\nMy words after.\n"
    hub.commit(REPO, {"README.md": mine.encode(), "notes.txt": b"mine"})
    model.push_to_hub(REPO, commit_message="Without evaluation")
    files = hub.files(REPO)
    again = files["README.md"].decode()
    assert "My words before: é 🐕." in again and again.endswith("My words after.\n") and "32.1" not in again
    assert sorted(files) == [
        ".gitattributes", "README.md", "config.json", "model.safetensors", "notes.txt", "preprocessor_config.json",
    ]  # fmt: skip


def test_no_picture_without_detections(hub, trained):
    model, _ = trained
    with pytest.warns(UserWarning, match=r"finds nothing with a score above 0\.3"):
        model.push_to_hub(REPO, image=picture())
    assert "detections.jpg" not in hub.files(REPO)


def test_timms_spelling(hub, trained):
    model, _ = trained
    assert ld_hub.push_to_hf_hub is push_to_hf_hub
    commit = ld_hub.push_to_hf_hub(model, REPO, "First", None, None, True, license="mit")
    repo = hub.repos["models", REPO]
    assert repo.private and repo.commits[commit.oid].message == "First"
    assert "license: mit" in hub.files(REPO)["README.md"].decode()


def test_evaluations_come_as_files_directories_or_contents(hub, trained):
    model, run = trained
    place, content = run / "model" / "eval", evaluation(run / "model" / "model.safetensors")
    other = {**content, "data": {**content["data"], "split": "a test/set"}}
    for results in (place, place / "metrics.json", str(place), content, [place, content]):
        model.push_to_hub(REPO, eval_results=results)
        assert json.loads(hub.files(REPO)["eval/metrics.json"]) == content
    model.push_to_hub(REPO, eval_results=[place, other])
    files = hub.files(REPO)
    assert json.loads(files["eval/2_gfocal_tiny_a_test_set/metrics.json"]) == other
    assert json.loads(files["eval/metrics.json"]) == content


def test_the_models_own_evaluation_comes_first(hub, trained):
    model, run = trained
    model.teaching = Teaching("ld", teachers=("gfocal_r10t",))
    own = evaluation(run / "model" / "model.safetensors")
    teacher = {**own, "weights": {**own["weights"], "sha256": "1" * 64}}
    teacher["model"] = {**own["model"], "architecture": "gfocal_r10t", "config": {"other": 1}}
    try:
        model.save_pretrained(run / "model")
        model.push_to_hub(REPO, eval_results=[teacher, own])
    finally:
        model.teaching = None
        model.save_pretrained(run / "model")
    files = hub.files(REPO)
    assert json.loads(files["eval/metrics.json"]) == own
    assert json.loads(files["eval/2_gfocal_r10t_val/metrics.json"]) == teacher


def test_what_is_refused_before_anything_is_sent(hub, trained, tmp_path):
    model, run = trained
    broken = create_model(run / "model")
    with torch.no_grad():
        broken.head.cls.bias[0] = float("nan")
    with pytest.raises(
        CheckpointError,
        match=r"^'gfocal_tiny' was not published, and nothing was sent: 1 tensor\(s\) hold NaN.*head\.cls\.bias",
    ):
        broken.push_to_hub(REPO)
    changed = create_model(run / "model")
    with torch.no_grad():
        changed.head.cls.bias[0] += 1
    with pytest.raises(EvaluationError, match="is of other weights"):
        changed.push_to_hub(REPO, run=run)
    with pytest.raises(EvaluationError, match="is not an evaluation artefact"):
        model.push_to_hub(REPO, eval_results={"AP": 0.5})
    with pytest.raises(MissingFileError, match="No evaluation artefact"):
        model.push_to_hub(REPO, eval_results=tmp_path)
    with pytest.raises(MissingFileError, match="is not the directory of a training run"):
        model.push_to_hub(REPO, run=tmp_path)
    with pytest.raises(ConfigError, match="expected one image, got 2"):
        model.push_to_hub(REPO, image=[picture(), picture()])
    assert hub.seen == []


def test_a_token_in_the_settings_of_a_run_is_not_published(hub, trained, tmp_path):
    model, run = trained
    settings = json.loads((run / "config.json").read_text())
    settings["config"]["hub_token"] = WRITER
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(HubError, match=r"'training/config\.json' .* holds an access token") as caught:
        model.push_to_hub(REPO, run=tmp_path)
    assert WRITER not in str(caught.value) and hub.seen == []


def test_no_room_for_temporary_files(hub, trained, tmp_path):
    """A limit on the size of files stands for the full disk."""
    resource = pytest.importorskip("resource")
    model, _ = trained
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(HubError, match=r"Nothing was published: .*the disk is full.*TMPDIR=DIR"):
            model.push_to_hub(REPO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert hub.seen == []


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_preprocessor_settings_say_what_the_preprocessing_does(order):
    """A second implementation, in the words of the Hub's image processors, on an image that needs no resizing."""
    config = DataConfig(channel_order=order, image_size=(64, 96))
    words = preprocessor_settings(config)
    pixels = picture()[..., :: -1 if words["channel_order"] == "bgr" else 1]
    theirs = (pixels * words["rescale_factor"] - np.array(words["image_mean"])) / np.array(words["image_std"])
    from PIL import Image

    ours = create_transform(**config.to_dict())(Image.fromarray(picture()))
    np.testing.assert_allclose(np.moveaxis(np.asarray(ours), 0, -1), theirs, atol=1e-5)
    assert words["size"] == {"shortest_edge": 64, "longest_edge": 96}


def test_the_command(hub, trained, capsys, monkeypatch, tmp_path):
    _, run = trained
    assert main(["push", str(run), REPO, "--private", "--license", "mit", "--message", "From the shell"]) == 0
    out = capsys.readouterr().out
    oid = hub.repos["models", REPO].find("main").oid
    assert f"publishing '{run}' as {REPO}" in out and f"published: {hub.endpoint}/{REPO} (commit {oid[:12]})" in out
    assert {"eval/metrics.json", "training/config.json"} <= set(hub.files(REPO)) and hub.repos["models", REPO].private
    assert main(["push", str(run / "model"), REPO, "--create_pr"]) == 0
    assert f"pull request: {hub.endpoint}/{REPO}/discussions/1" in capsys.readouterr().out
    assert "training/config.json" in hub.files(REPO, "refs/pr/1")  # a run's model knows its run
    assert main(["push", str(tmp_path), REPO]) == 2
    assert "is not a model directory" in capsys.readouterr().err
    hub.fault("POST", "/commit/", status=403)
    assert main(["push", str(run), "org/other"]) == 2
    error = capsys.readouterr().err
    assert error.count("\nld-hub: error: ") + error.startswith("ld-hub: error: ") == 1 and "answered 403" in error
