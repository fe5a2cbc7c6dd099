"""What the tests of teachers that only detect share: images of several sizes, boxes on them, and files of these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.engine.runs import NAMES

SIZES = ((64, 64), (48, 80), (90, 60), (64, 96), (40, 40), (72, 54))  # height, width in px
Row = tuple[str, list[float], float]  # class, x1 y1 x2 y2 in px of the file, score


def photos(directory: Path) -> Path:
    """Six photographs in two directories."""
    random = np.random.default_rng(3)
    for index, (height, width) in enumerate(SIZES):
        file = directory / ("a" if index < 3 else "b") / f"photo.{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file)
    return directory


def known(seed: int = 5, best: float = 0.95) -> dict[str, list[Row]]:
    """Boxes of each photograph by its path below the directory; the fifth has none."""
    random = np.random.default_rng(seed)
    found: dict[str, list[Row]] = {}
    for index, (height, width) in enumerate(SIZES):
        rows: list[Row] = []
        for _ in range(0 if index == 4 else 2 + index):
            x, y = random.uniform(0, width / 2), random.uniform(0, height / 2)
            w, h = random.uniform(8, width / 2), random.uniform(8, height / 2)
            label, score = NAMES[int(random.integers(0, 3))], round(float(random.uniform(0.05, best)), 3)
            rows.append((label, [round(float(v), 3) for v in (x, y, x + w, y + h)], score))
        found[f"{'a' if index < 3 else 'b'}/photo.{index}.png"] = rows
    return found


def coco_rows(rows: list[Row], image: Any, ids: dict[str, int]) -> list[dict[str, Any]]:
    """Rows of a results file."""
    return [
        {"image_id": image, "category_id": ids[name], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for name, (x1, y1, x2, y2), score in rows
    ]


def write_results(file: Path, found: dict[str, list[Row]] | None = None, **changes: Any) -> Path:
    """A results file that names its images and classes, the latter in another order than the student's."""
    found = known() if found is None else found
    ids = {"blue": 4, "red": 7, "green": 20}
    images = [{"id": 100 + k, "file_name": name} for k, name in enumerate(found)]
    rows = [row for k, each in enumerate(found.values()) for row in coco_rows(each, 100 + k, ids)]
    content = {"images": images, "categories": [{"id": i, "name": n} for n, i in ids.items()], "annotations": rows}
    file.write_text(json.dumps({**content, **changes}))
    return file


def write_predictions(directory: Path, found: dict[str, list[Row]] | None = None, names: bool = True) -> Path:
    """A directory of YOLO predictions, with the student's classes."""
    for (name, rows), (height, width) in zip((found or known()).items(), SIZES, strict=True):
        file = directory / "labels" / Path(name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for label, (x1, y1, x2, y2), score in rows:
            sides = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(" ".join([str(NAMES.index(label)), *(f"{side:.9f}" for side in sides), f"{score:.3f}"]))
        file.write_text("\n".join(lines))
    if names:
        (directory / "data.yaml").write_text(f"names: [{', '.join(NAMES)}]\n")
    return directory
