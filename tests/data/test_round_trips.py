"""Random sets through every format and back: boxes, flags, classes and AP stay."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.data import load_data
from ld_hub.data.conversion import convert_data
from ld_hub.evaluation import DetectionEvaluator
from ld_hub.structures import Detections
from tests.support.directories import picture

NAMES = ("dog", "cat", "a bee")  # in no alphabetical order; the last one may have no boxes
FORMATS = ("voc", "yolo", "createml", "labelme")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@st.composite
def data_sets(draw):
    """Sizes of images, and boxes as image, class, x, y, width, height in hundredths of a pixel, all within."""
    sizes = draw(st.lists(st.tuples(st.integers(2, 3000), st.integers(2, 3000)), min_size=1, max_size=3))
    boxes = []
    for _ in range(draw(st.integers(1, 6))):
        image = draw(st.integers(0, len(sizes) - 1))
        sides = []
        for side in sizes[image]:
            low = draw(st.integers(0, 100 * side - 100))
            sides.append((low / 100, draw(st.integers(100, 100 * side - low)) / 100))
        (x, w), (y, h) = sides
        boxes.append((image, draw(st.integers(0, 1)), [x, y, w, h]))
    return sizes, boxes


def write(root: Path, sizes, boxes) -> Path:
    images = [{"id": 3 + k, "file_name": f"i{k}.jpg", "width": w, "height": h} for k, (w, h) in enumerate(sizes)]
    rows = [
        {"id": 5 + k, "image_id": 3 + i, "category_id": 10 - label, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for k, (i, label, b) in enumerate(boxes)
    ]
    categories = [{"id": 10 - k, "name": name} for k, name in enumerate(NAMES)]
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    for image in images:
        (root / "train" / image["file_name"]).touch()
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return root


def by_image(root: Path):
    """Classes in their order, sizes, and per image class names and boxes."""
    found = load_data(root)
    content = json.loads(Path(found.annotation_file).read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    images = {row["id"]: Path(row["file_name"]).name for row in content["images"]}
    rows: dict[str, list[tuple[str, list[float]]]] = {name: [] for name in images.values()}
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        rows[images[row["image_id"]]].append((names[row["category_id"]], [x, y, x + w, y + h]))
    assert sum(map(len, rows.values())) == sum(map(len, found.rows["labels"][:]))
    return found.label_names, dict(zip(images.values(), found.sizes.tolist(), strict=True)), rows


@settings(max_examples=15)
@given(data_sets(), st.permutations(FORMATS))
def test_boxes_come_back_from_every_format_and_from_all_in_a_row(data, order):
    sizes, boxes = data
    with (
        tempfile.TemporaryDirectory() as place,
        mock.patch("ld_hub.data.source.read_size", lambda path: sizes[int(Path(path).stem[1:])]),  # too large to write
    ):
        last = write(Path(place) / "coco", sizes, boxes)
        names, shapes, rows = by_image(last)
        rounded = False
        for to in order:
            convert_data(last, Path(place) / to, to, splits=["train"])
            last, rounded = Path(place) / to, rounded or to == "voc"
            again = by_image(last)
            assert again[1] == shapes and again[0] == names
            assert again[2].keys() == rows.keys()
            for name, expected in rows.items():  # YOLO's reader has four digits of a pixel
                assert matched(again[2][name], expected, 0.5 + 1e-3 if rounded else 2e-4)


def matched(found, expected, tolerance: float) -> bool:
    """Whether each box has one of its class within a tolerance, each another."""
    left = list(found)
    for name, box in expected:
        fits = [
            k
            for k, (label, other) in enumerate(left)
            if label == name and np.abs(np.subtract(other, box)).max() <= tolerance
        ]
        if not fits:
            return False
        left.pop(min(fits, key=lambda k: float(np.abs(np.subtract(left[k][1], box)).max())))
    return not left


def test_crowds_and_what_is_ignored_come_back_from_labelme(tmp_path):
    root = write(tmp_path / "a", [(60, 40)], [(0, 0, [1, 2, 10, 12]), (0, 1, [5, 5, 9, 8]), (0, 1, [20, 5, 9, 8])])
    picture(root / "train/i0.jpg")
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["iscrowd"] = content["annotations"][1]["ignore"] = 1
    file.write_text(json.dumps(content))
    made = convert_data(root, tmp_path / "b", "labelme", splits=["train"])
    assert made.told == {}
    convert_data(tmp_path / "b", tmp_path / "c", "coco", splits=["train"])
    back = json.loads((tmp_path / "c/annotations/instances_train.json").read_text())["annotations"]
    flags = [(row["bbox"], row["iscrowd"], row.get("ignore", 0)) for row in back]
    assert flags == [([1, 2, 10, 12], 1, 0), ([5, 5, 9, 8], 0, 1), ([20, 5, 9, 8], 0, 0)]
    told = convert_data(root, tmp_path / "d", "createml", splits=["train"]).told
    assert told == {
        "crowds left out: CreateML cannot say them": 1,
        "difficult or ignored boxes left out: CreateML cannot say them": 1,
    }


def test_detections_have_the_same_ap_on_every_format(tmp_path):
    random = np.random.default_rng(3)
    sizes = [(int(w), int(h)) for w, h in random.integers(80, 200, (12, 2))]
    boxes = []
    for image, (width, height) in enumerate(sizes):
        for _ in range(int(random.integers(0, 6))):
            x, y = int(random.integers(0, width - 60)), int(random.integers(0, height - 60))
            boxes.append((image, int(random.integers(0, 3)), [x, y, *random.integers(5, 60, 2).tolist()]))
    root = write(tmp_path / "coco", sizes, boxes)
    for k, size in enumerate(sizes):
        picture(root / f"train/i{k}.jpg", *size)
    found = {
        f"i{k}.jpg": [
            (label, [x + dx, y + dy, x + w + dx, y + h + dy], score)
            for image, label, (x, y, w, h) in boxes
            if image == k
            for dx, dy, score in [(*random.normal(0, 4, 2).tolist(), float(random.random()))]
        ]
        for k in range(len(sizes))
    }
    scores = {}
    for to in ("coco", *FORMATS):
        if to != "coco":
            convert_data(root, tmp_path / to, to, splits=["train"])
        data = load_data(tmp_path / to)
        assert data.label_names == NAMES[::-1]  # by id, as it is written
        evaluator = DetectionEvaluator(
            data.annotation_file, category_ids=data.category_ids, label_names=data.label_names
        )
        for row in data.rows:
            items = found[Path(row["path"]).name]
            evaluator.update(
                [row["image_id"]],
                [
                    Detections(
                        torch.tensor([box for _, box, _ in items]).reshape(-1, 4),
                        torch.tensor([score for *_, score in items]),
                        torch.tensor([2 - label for label, *_ in items], dtype=torch.int64),
                        data.label_names,
                    )
                ],
            )
        scores[to] = dict(evaluator.compute().stats)
    assert 0.1 < scores["coco"]["AP"] < 0.9
    for to in FORMATS:
        assert scores[to] == pytest.approx(scores["coco"], abs=1e-9), to
