"""A small COCO directory that tests spoil in one way at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

SIZES = [(40, 60), (60, 40), (50, 50), (30, 64), (64, 30)]  # height, width


def content():
    """Five images, the last without boxes; category ids neither sorted nor consecutive; one crowd."""
    images = [
        {"id": 100 - 7 * i, "file_name": f"{i}.png", "height": height, "width": width}
        for i, (height, width) in enumerate(SIZES)
    ]
    box = [
        (100, 9, [5.5, 6.0, 20.0, 10.25]),
        (93, 2, [0.0, 0.0, 40.0, 60.0]),
        (100, 2, [50.0, 30.0, 20.0, 20.0]),  # reaches beyond the image
        (86, 5, [10.0, 10.0, 5.0, 5.0]),
        (86, 9, [1.0, 2.0, 30.0, 40.0]),  # a crowd
        (79, 5, [3.0, 4.0, 9.0, 9.0]),
    ]
    annotations = [
        {
            "id": 11 + i,
            "image_id": image,
            "category_id": category,
            "bbox": b,
            "area": b[2] * b[3],
            "iscrowd": int(i == 4),
        }
        for i, (image, category, b) in enumerate(box)
    ]
    categories = [{"id": 9, "name": "bird"}, {"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


class CocoDirectory:
    """``root/train`` + ``root/annotations/instances_train.json``; `content` can be changed before `write`."""

    def __init__(self, root: Path) -> None:
        self.root, self.content = root, content()
        self.images = root / "train"
        self.file = root / "annotations" / "instances_train.json"
        self.images.mkdir()
        self.file.parent.mkdir()
        random = np.random.default_rng(0)
        for entry in self.content["images"]:
            pixels = random.integers(0, 256, (entry["height"], entry["width"], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.images / entry["file_name"])
        self.write()

    def write(self, text: str | None = None) -> Path:
        self.file.write_text(json.dumps(self.content) if text is None else text)
        return self.root


@pytest.fixture
def coco(tmp_path):
    return CocoDirectory(tmp_path)
