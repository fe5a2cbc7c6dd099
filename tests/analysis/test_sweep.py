"""A sweep over settings of post-processing, as engine and as verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.analysis.sweep import grid, sweep
from ld_hub.cli.main import main
from ld_hub.data import load_coco
from ld_hub.engine.evaluate import evaluate
from ld_hub.errors import ConfigError
from ld_hub.layers.postprocess import NMS_KINDS, PostprocessConfig
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.gfocal import GFocal, GFocalConfig
from ld_hub.preprocessing import DataConfig
from ld_hub.structures import DenseOutput

NAMES, IDS = ("cat", "dog"), (3, 8)


@pytest.fixture(scope="module")
def model() -> GFocal:
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
    return made.eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, model: GFocal) -> Path:
    """Images whose boxes lie beside some of the model's own detections."""
    root, random = tmp_path_factory.mktemp("coco"), np.random.default_rng(0)
    (root / "val").mkdir()
    (root / "annotations").mkdir()
    images, annotations = [], []
    for k in range(4):
        image = Image.fromarray(random.integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize((96, 64))
        image.save(root / "val" / f"{k}.png")
        images.append({"id": 10 + k, "file_name": f"{k}.png", "width": 96, "height": 64})
        for row in model.predict(image).to_coco(10 + k)[k::5]:
            x, y, width, height = row["bbox"]
            box = [x, y, 0.8 * width, 0.9 * height]
            annotations.append({**row, "id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": i, "name": name} for i, name in zip(IDS, NAMES, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return root


def test_a_row_is_what_evaluate_gives_with_that_setting(model: GFocal, data: Path) -> None:
    dataset = load_coco(data, "val")
    settings = grid(model.postprocess_config, nms=NMS_KINDS, nms_iou=(0.3, 0.6), score_threshold=(0.05, 0.3))
    rows = list(sweep(model, dataset, settings, batch_size=3, workers=0))
    assert [row.config for row in rows] == settings
    values = set()
    plain = model.postprocess_config
    try:
        for row in rows:
            model.postprocess_config = row.config
            metrics, _ = evaluate(model, dataset, batch_size=2, workers=0)
            assert metrics == row.metrics
            values.add(metrics["AP"])
            assert row.seconds > 0
    finally:
        model.postprocess_config = plain
    assert 0 < min(values) < max(values) < 1 and len(values) > len(settings) / 2


def test_quality_and_the_other_prefilter(model: GFocal, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of ATSS and FCOS: scores that a second output lowers; and pairs of location and class, few of them."""
    forward = model.forward

    def with_quality(images: torch.Tensor) -> DenseOutput:
        output = forward(images)
        return replace(output, quality=output.cls_logits[..., 0].sin() * 3)

    monkeypatch.setattr(model, "forward", with_quality)
    dataset, plain = load_coco(data, "val"), model.postprocess_config
    kinds = grid(plain, nms=NMS_KINDS)
    settings = [
        replace(config, prefilter=kind, nms_pre=9) for config in kinds for kind in ("pair", "location")
    ]  # fmt: skip
    rows, values = list(sweep(model, dataset, settings, batch_size=3, workers=0)), set()
    for row in rows:
        monkeypatch.setattr(model, "postprocess_config", row.config)
        assert evaluate(model, dataset, batch_size=2, workers=0)[0] == row.metrics
        values.add((row.metrics["AP"], row.metrics.detections))
    assert len(values) > len(settings) / 2


def test_time_is_per_image_and_the_protocol_that_of_the_data(
    model: GFocal, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr("ld_hub.analysis.sweep.time.perf_counter", lambda: next(ticks))  # a second per batch
    dataset = replace(load_coco(data, "val"), protocol="voc12")
    settings = grid(model.postprocess_config, nms_iou=(0.3, 0.6))
    rows = list(sweep(model, dataset, settings, batch_size=3, workers=0, progress=False))
    assert [(row.seconds, row.metrics.protocol) for row in rows] == [(2 / 4, "voc12")] * 2
    (row,) = sweep(model, dataset, settings[:1], workers=0, progress=False, protocol="coco")
    assert row.metrics.protocol == "coco"


def test_grid_has_every_combination_once() -> None:
    base = PostprocessConfig(nms_iou=0.4)
    assert grid(base) == [base]
    settings = grid(base, nms=("hard", "soft_gaussian"), nms_iou=(0.5, 0.6, 0.5), score_threshold=(0.1,))
    changed = replace(base, score_threshold=0.1)
    assert settings == [
        replace(changed, nms_iou=0.5), replace(changed, nms_iou=0.6), replace(changed, nms="soft_gaussian")
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="nms is 'softest'; expected one of hard, soft_linear"):
        grid(base, nms=("softest",))  # type: ignore[arg-type]


def test_predict_takes_another_nms(model: GFocal, data: Path) -> None:
    image = data / "val" / "0.png"
    hard, voted = model.predict(image), model.predict(image, nms="score_voting")
    own = model.predict(image, nms="hard")
    assert torch.equal(own.boxes, hard.boxes) and not torch.equal(voted.boxes, hard.boxes)
    plain = model.postprocess_config
    try:
        model.postprocess_config = replace(plain, nms="score_voting")
        assert torch.equal(model.predict(image).boxes, voted.boxes)
    finally:
        model.postprocess_config = plain
    with pytest.raises(ConfigError, match="nms is 'none'"):
        model.predict(image, nms="none")  # type: ignore[arg-type]


def test_verb(model: GFocal, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pretrained(model, tmp_path / "model")
    words = ["sweep", str(tmp_path / "model"), "--data", str(data), "--workers", "0", "--device", "cpu"]
    options = ["--nms", "hard", "score_voting", "--nms_iou", "0.3", "0.6", "--json", str(tmp_path / "out.json")]
    assert main([*words, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads((tmp_path / "out.json").read_text())
    expected = list(sweep(model, load_coco(data, "val"), grid(
        model.postprocess_config, nms=("hard", "score_voting"), nms_iou=(0.3, 0.6)
    ), workers=0))  # fmt: skip
    assert [row["metrics"] for row in content["rows"]] == [row.metrics.to_dict() for row in expected]
    assert [row["postprocess"]["nms_iou"] for row in content["rows"]] == [0.3, 0.6, 0.3, 0.6]
    first = next(place for place, line in enumerate(lines) if line.startswith("hard"))
    assert max(map(len, lines[2:-1])) <= 80  # above are names of files
    shown = lines[first : first + 4]
    assert [line.split()[0] for line in shown] == ["hard", "hard", "score_voting", "score_voting"]
    best = max(row.metrics["AP"] or 0 for row in expected)
    for line, row in zip(shown, expected, strict=True):
        value = row.metrics["AP"] or 0
        assert line.split()[3] == f"{100 * value:.1f}{'*' if value == best else ''}"
    assert sum(line.endswith("*") for line in shown) == 1  # the fastest
    assert main([*words, "--nms", "fast"]) == 2
    error = capsys.readouterr().err
    assert "nms is 'fast'" in error and len(error.splitlines()) == 1
