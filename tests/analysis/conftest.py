"""A handful of demo images with names that try to become markup, and detectors that nobody trained."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from ld_hub.data import load_data
from ld_hub.demo import make_demo_dataset
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import DataConfig
from tests.engine.conftest import data  # noqa: F401  # fixture

EVIL = '"</td><script>alert(1)</script>'
NAMES = [EVIL, "$x_1$ & <b>", "triangle", "star", "日本", "cross"]
SMALL = {"fpn_channels": 16, "head_width": 16, "head_depth": 1, "backbone": "test_resnet"}


def untrained(family="gfocal", seed=0, size=64, **options):
    """A detector whose random scores and boxes make detections of every class."""
    torch.manual_seed(seed)
    config = {**SMALL, **({"reg_max": 8, "anchor_scale": 4.0} if family == "gfocal" else {}), **options}
    model = create_model(family, label_names=NAMES, category_ids=range(1, 7), pretrained_backbone=False, **config)
    model.data_config = DataConfig(image_size=(size, size))
    torch.nn.init.constant_(model.head.cls.bias, -0.8)
    for weight in (model.head.cls.weight, model.head.box.weight):
        torch.nn.init.normal_(weight, std=0.4)
    return model.eval()


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """The directory of the images, and the set."""
    torch.set_num_threads(1)
    root = make_demo_dataset(tmp_path_factory.mktemp("scenes") / "<data>", train_images=1, val_images=6, image_size=64)
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    for row, name in zip(content["categories"], NAMES, strict=True):
        row["name"] = name
    file.write_text(json.dumps(content))
    return SimpleNamespace(root=root, set=load_data(root, "val"))
