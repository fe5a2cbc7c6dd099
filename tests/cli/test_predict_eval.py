"""The verbs predict and eval, from arguments to files."""

from __future__ import annotations

import hashlib
import json
import shlex
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ld_hub.cli.main import main
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.gfocal import GFocal, GFocalConfig
from ld_hub.models.inference import predict
from ld_hub.preprocessing import DataConfig

NAMES, IDS = ("cat", "dog"), (3, 8)
SIZES = [(96, 64), (64, 96), (100, 70), (128, 96), (96, 64)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory, and the model."""
    torch.manual_seed(0)
    config = GFocalConfig(
        backbone="test_resnet", num_classes=2, fpn_channels=64, head_width=64, head_depth=1, anchor_scale=4.0
    )
    made = GFocal(
        config, name="gfocal", label_names=NAMES, category_ids=IDS, data_config=DataConfig(image_size=(64, 96))
    )
    torch.nn.init.constant_(made.head.cls.bias, -1.0)
    for weight in (made.head.cls.weight, made.head.box.weight):
        torch.nn.init.normal_(weight, std=0.2)
    directory = tmp_path_factory.mktemp("model") / "saved"
    save_pretrained(made, directory)
    return directory, made.eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory, model):
    """A COCO directory whose boxes are some of the model's own, so that AP is neither 0 nor 1."""
    root = tmp_path_factory.mktemp("coco")
    (root / "val2017").mkdir()
    (root / "annotations").mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for k, (width, height) in enumerate(SIZES):
        pixels = random.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height))
        image.save(root / "val2017" / f"{k}.png")
        images.append({"id": 10 + k, "file_name": f"{k}.png", "width": width, "height": height})
        for row in predict(model[1], image).to_coco(10 + k)[k::5]:
            row.update(id=len(annotations) + 1, area=row["bbox"][2] * row["bbox"][3], iscrowd=0)
            annotations.append(row)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in zip(IDS, NAMES, strict=True)],
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_predict_writes_pictures_and_json(model, data, tmp_path, capsys):
    directory, detector = model
    images = data / "val2017"
    code, out, err = run(
        capsys, "predict", images, images / "0.png", "--model", directory, "--out", tmp_path / "o", "--threshold", "0.2"
    )
    assert code == 0, err
    content = json.loads((tmp_path / "o" / "detections.json").read_text())
    pictures = [image["picture"] for image in content["images"]]
    assert pictures == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "0_2.jpg"]
    assert {p.name for p in (tmp_path / "o").iterdir()} == {*pictures, "detections.json"}
    expected = predict(detector, images / "1.png", threshold=0.2)
    found = content["images"][1]
    assert (found["width"], found["height"], found["file_name"]) == (64, 96, str(images / "1.png"))
    assert [(d["label"], d["box"]) for d in found["detections"]] == [(d["label"], d["box"]) for d in expected.to_list()]
    rows = [row for row in content["annotations"] if row["image_id"] == found["id"]]
    assert [row["category_id"] for row in rows] == [row["category_id"] for row in expected.to_coco(0)]
    assert [row["id"] for row in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}]
    with Image.open(tmp_path / "o" / "1.jpg") as picture:
        assert picture.width % 64 == 0 and picture.width // 64 == picture.height // 96
    assert f"{len(content['annotations'])} objects on 6 images" in out
    assert str(expected).splitlines()[2] in out


@pytest.mark.parametrize("batch_size, workers", [(1, 0), (4, 0)])
def test_eval_agrees_with_pycocotools_on_the_saved_detections(model, data, tmp_path, capsys, batch_size, workers):
    options = ["--batch_size", batch_size, "--workers", workers, "--out", tmp_path / "o", "--device", "cpu"]
    code, out, err = run(capsys, "eval", model[0], "--data", data, *options)
    assert code == 0, err
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    truth = COCO(str(data / "annotations" / "instances_val2017.json"))
    scorer = COCOeval(truth, truth.loadRes(str(tmp_path / "o" / "detections.json")), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    assert 0 < metrics["stats"]["AP"] < 1
    assert metrics["stats"]["AP"] == scorer.stats[0]
    assert [value if value is not None else -1 for value in metrics["stats"].values()] == scorer.stats.tolist()
    assert metrics["images"] == 5 and set(metrics["per_class"]) == set(NAMES)
    assert f"{100 * metrics['stats']['AP']:.1f}" in out and "cat" in out
    assert max(len(line) for line in out.splitlines()[:-1]) <= 80


def figures(directory):
    """What an evaluation says about model and data, and not about how and when it was run."""
    content = json.loads((directory / "metrics.json").read_text())
    names = ("model", "weights", "stats", "per_class", "boxes", "images", "detections")
    return {**{name: content[name] for name in names}, "annotations": content["data"]["sha256"]}


def test_eval_writes_what_ties_its_numbers_to_files(model, data, tmp_path, capsys):
    code, _, err = run(capsys, "eval", model[0], "--data", data, "--workers", 0, "--out", tmp_path, "--device", "cpu")
    assert code == 0, err
    content = json.loads((tmp_path / "metrics.json").read_text())
    files = {
        "weights": model[0] / "model.safetensors",
        "data": data / "annotations" / "instances_val2017.json",
        "detections_file": tmp_path / "detections.json",
    }
    for part, file in files.items():
        assert content[part]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert shlex.split(content["command"]) == ["ld-hub", "eval", str(model[0]), "--data", str(data), "--workers", "0",
                                               "--device", "cpu", "--out", str(tmp_path)]  # fmt: skip
    assert (content["data"]["name"], content["data"]["split"], content["images"]) == (data.name, "val", 5)
    assert content["versions"]["torch"] == version("torch")
    assert content["device"].startswith("cpu (") and content["precision"] == "float32"
    assert content["detections"] == len(json.loads((tmp_path / "detections.json").read_text()))


def test_eval_does_not_depend_on_the_batch_size(model, data, tmp_path, capsys):
    paths = ["--images", data / "val2017", "--annotations", data / "annotations" / "instances_val2017.json"]
    results = []
    for batch_size, source in ((1, ["--data", data]), (3, paths), (16, paths)):
        options = ["--batch_size", batch_size, "--workers", 0, "--out", tmp_path / "o", "--device", "cpu"]
        code, _, err = run(capsys, "eval", model[0], *source, *options)
        assert code == 0, err
        results.append(figures(tmp_path / "o"))
    assert results[0] == results[1] == results[2]


def test_eval_with_the_fast_backend(model, data, tmp_path, capsys):
    pytest.importorskip("hotcoco")
    results = []
    for backend in ("pycocotools", "hotcoco"):
        options = ["--workers", 0, "--backend", backend, "--out", tmp_path / "o", "--device", "cpu"]
        code, _, err = run(capsys, "eval", model[0], "--data", data, *options)
        assert code == 0, err
        results.append(figures(tmp_path / "o"))
    assert results[0] == results[1]


def test_eval_by_the_rules_of_voc(model, data, tmp_path, capsys):
    options = ["--data", data, "--workers", 0, "--out", tmp_path / "o", "--device", "cpu", "--protocol", "voc12"]
    code, out, err = run(capsys, "eval", model[0], *options)
    assert code == 0, err
    assert "PASCAL VOC 2012" in out and "AP85" in out and max(map(len, out.splitlines()[:-1])) <= 80
    content = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert content["protocol"] == "voc12" and list(content["stats"])[:3] == ["AP", "AP50", "AP55"]


def assert_one_line(code, out, err, *words):
    """One error line that names things, exit code 2, no traceback."""
    lines = [line for line in err.splitlines() if line]
    assert code == 2 and len(lines) == 1, err
    assert lines[0].startswith("ld-hub: error: ")
    for word in words:
        assert str(word) in lines[0]


def test_bad_input_of_predict(model, data, tmp_path, capsys):
    directory, image = model[0], data / "val2017" / "0.png"
    out = ["--out", tmp_path / "o"]
    assert_one_line(*run(capsys, "predict", "nowhere.jpg", "--model", directory, *out), "nowhere.jpg")
    (tmp_path / "empty").mkdir()
    assert_one_line(*run(capsys, "predict", tmp_path / "empty", "--model", directory, *out), "No images in")
    cut = tmp_path / "cut.jpg"
    Image.open(image).save(cut)
    cut.write_bytes(cut.read_bytes()[:600])
    assert_one_line(*run(capsys, "predict", cut, "--model", directory, *out), "cut.jpg")
    assert_one_line(*run(capsys, "predict", image, "--model", "gfocal_r81", *out), "gfocal_r81")
    assert_one_line(*run(capsys, "predict", image, "--model", directory, *out, "--threshold", 30), "threshold")
    assert_one_line(*run(capsys, "predict", image, "--model", directory, *out, "--device", "gpu9"), "gpu9")
    assert not (tmp_path / "o").exists()


def test_bad_input_of_eval(model, data, tmp_path, capsys):
    directory = model[0]
    options = ["--workers", 0, "--out", tmp_path / "o"]
    assert_one_line(*run(capsys, "eval", directory, "--data", tmp_path / "none", *options), "none")
    assert_one_line(*run(capsys, "eval", directory, "--data", data, *options, "--batch_size", 0), "batch_size")
    file = data / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    changed = tmp_path / "changed.json"
    paths = ["--images", data / "val2017", "--annotations", changed]
    for k, name in enumerate(("horse", "bird")):
        content["categories"][k]["name"] = name
    changed.write_text(json.dumps(content))
    words = ("2 classes (cat, dog)", "2 classes (horse, bird)", changed)
    assert_one_line(*run(capsys, "eval", directory, *paths, *options), *words)
    for k, name in enumerate(("dog", "cat")):
        content["categories"][k]["name"] = name
    changed.write_text(json.dumps(content))
    assert_one_line(*run(capsys, "eval", directory, *paths, *options), "another order")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("verb", ["predict", "eval"])
def test_help_teaches(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and f"ld-hub {verb} " in text and "in Python:" in text
    assert max(len(line) for line in text.splitlines()) <= 80
