"""A small model with data on which its AP is neither 0 nor 1, and a helper to run the commands on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ld_hub.cli.main import main
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model

STRANGE = ('"</td><script>alert(1)</script>', "a: b | c # d", "🦆👨‍👩‍👧", "قطة \u202e cat", "[x](http://a.b) `y` *z*_")
SMALL: dict[str, Any] = {"fpn_channels": 16, "head_width": 16, "head_depth": 1, "reg_max": 8}


def lively(names: tuple[str, ...] = STRANGE, seed: int = 0, **options: Any) -> DenseDetector:
    """A detector with random weights that detects something on any image."""
    torch.manual_seed(seed)
    ids = range(3, 3 + len(names))
    model = create_model("gfocal_tiny", label_names=names, category_ids=list(ids), **{**SMALL, **options})
    model.data_config = type(model.data_config)(image_size=(64, 64))
    torch.nn.init.constant_(model.head.cls.bias, -1.0)
    for weight in (model.head.cls.weight, model.head.box.weight):
        torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def write_data(root: Path, model: DenseDetector, count: int = 4) -> Path:
    """A COCO directory whose boxes are some of the model's own detections."""
    (root / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for k in range(count):
        pixels = random.integers(0, 255, (9, 9, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((64, 64))
        image.save(root / "val" / f"{k}.png")
        images.append({"id": 10 + k, "file_name": f"{k}.png", "width": 64, "height": 64})
        for row in model.predict(image).to_coco(10 + k)[k::7]:
            row.update(id=len(annotations) + 1, area=row["bbox"][2] * row["bbox"][3], iscrowd=0)
            annotations.append(row)
    pairs = zip(model.category_ids, model.label_names, strict=True)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in pairs],
    }
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return root


def judge(model: str | Path, data: Path, out: Path, *words: str) -> dict[str, Any]:
    """`ld-hub eval` with further flags; returns the artefact."""
    flags = ["--data", data, "--out", out, "--device", "cpu", "--workers", "0", *words]
    assert main([str(word) for word in ("eval", model, *flags)]) == 0
    return dict(json.loads((out / "metrics.json").read_text()))
