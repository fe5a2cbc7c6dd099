"""Small data sets of the Hub's usual schema, as parquet files."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image


def picture(number: int) -> bytes:
    """An image of one colour, its number; every third is tall."""
    shape = (30, 20) if number % 3 == 0 else (20, 30)
    stream = io.BytesIO()
    Image.fromarray(np.full((*shape, 3), number, np.uint8)).save(stream, "png")
    return stream.getvalue()


def objects(number: int) -> tuple[list[list[float]], list[int]]:
    """Boxes as x, y, width, height: some go beyond the image, some have no area, some images have none."""
    boxes = [[1.0, 2.0, 10.0, 9.0], [15.0, 5.0, 30.0, 7.5], [3.0, 3.0, 0.0, 5.0]][: number % 4]
    return boxes, [k % 2 for k in range(len(boxes))]


def write(root: Path, files: list[int], form: str = "coco", broken: int | None = None, kind: str = "class") -> Path:
    """Parquet files of so many rows each."""
    category = datasets.ClassLabel(names=["cat", "dog"]) if kind == "class" else datasets.Value("string")
    boxes = datasets.List(datasets.List(datasets.Value("float64")))
    inner = {"bbox": boxes, "category": datasets.List(category)}
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("int64"), "objects": inner})
    (root / "data").mkdir(parents=True)
    numbers = itertools.count()
    for index, many in enumerate(files):
        rows = []
        for number in itertools.islice(numbers, many):
            found, labels = objects(number)
            shown = found if form == "coco" else [[x, y, x + w, y + h] for x, y, w, h in found]
            names: list[Any] = labels if kind == "class" else [("cat", "dog")[label] for label in labels]
            content = b"no image" if number == broken else picture(number)
            held = {"bbox": shown, "category": names}
            rows.append({"image": {"bytes": content, "path": None}, "image_id": number, "objects": held})
        name = f"train-{index:05d}-of-{len(files):05d}.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(root / "data" / name)
    return root
