"""Random sets through every format and back: boxes, flags, classes and AP stay."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ld_hub.data import load_data
from ld_hub.data.conversion import convert_data
from ld_hub.errors import ConfigError
from ld_hub.evaluation import DetectionEvaluator
from ld_hub.structures import Detections

NAMES = ("dog", "cat", "a bee")  # in no alphabetical order; the last one may have no boxes
FORMATS = ("voc", "yolo", "createml", "labelme", "hub")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("arrow"))
        datasets.disable_progress_bars()
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
    images = [{"id": 3 + k, "file_name": f"i{k:02d}.png", "width": w, "height": h} for k, (w, h) in enumerate(sizes)]
    rows = [
        {"id": 5 + k, "image_id": 3 + i, "category_id": 10 - label, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for k, (i, label, b) in enumerate(boxes)
    ]
    categories = [{"id": 10 - k, "name": name} for k, name in enumerate(NAMES)]
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    for image in images:
        Image.new("1", (image["width"], image["height"])).save(root / "train" / image["file_name"])
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    return root


def by_image(root: Path):
    """Classes in their order, and per image, by the order of names, its size, class names and boxes."""
    found = load_data(root)
    content = json.loads(Path(found.annotation_file).read_text())
    names = {row["id"]: row["name"] for row in content["categories"]}
    images = sorted(content["images"], key=lambda row: Path(row["file_name"]).name)
    rows: dict[int, list[tuple[str, list[float]]]] = {row["id"]: [] for row in images}
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        rows[row["image_id"]].append((names[row["category_id"]], [x, y, x + w, y + h]))
    assert sum(map(len, rows.values())) == sum(map(len, found.rows["labels"][:]))
    return found.label_names, [(row["width"], row["height"]) for row in images], [rows[row["id"]] for row in images]


@settings(max_examples=15)
@given(data_sets(), st.permutations(FORMATS))
def test_boxes_come_back_from_every_format_and_from_all_in_a_row(data, order):
    sizes, boxes = data
    with tempfile.TemporaryDirectory() as place:
        last = write(Path(place) / "coco", sizes, boxes)
        names, shapes, rows = by_image(last)
        assert shapes == sizes
        rounded = False
        for to in order:
            convert_data(last, Path(place) / to, to, splits=["train"])
            last, rounded = Path(place) / to, rounded or to == "voc"
            again = by_image(last)
            assert again[:2] == (names, shapes)
            for found, expected in zip(again[2], rows, strict=True):  # YOLO's reader has four digits of a pixel
                assert matched(found, expected, 0.5 + 1e-3 if rounded else 2e-4)


@settings(max_examples=15)
@given(data_sets())
def test_boxes_are_equal_in_the_schema_of_the_hub(data):
    with tempfile.TemporaryDirectory() as place:
        root = write(Path(place) / "coco", *data)
        convert_data(root, Path(place) / "hub", "hub", splits=["train"])
        convert_data(Path(place) / "hub", Path(place) / "again", "coco", splits=["train"])
        expected, back = by_image(root), by_image(Path(place) / "again")
        assert back[:2] == expected[:2]
        for one, other in zip(back[2], expected[2], strict=True):
            assert [label for label, _ in one] == [label for label, _ in other]
            np.testing.assert_allclose([b for _, b in one], [b for _, b in other], rtol=0, atol=1e-9)


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


def test_crowds_and_what_is_ignored_come_back_where_a_format_says_them(tmp_path):
    root = write(tmp_path / "a", [(60, 40)], [(0, 0, [1, 2, 10, 12]), (0, 1, [5, 5, 9, 8]), (0, 1, [20, 5, 9, 8])])
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
    made = convert_data(root, tmp_path / "e", "hub", splits=["train"])
    assert made.told == {"ignored boxes left out: data sets of the Hub cannot say them": 1}
    convert_data(tmp_path / "e", tmp_path / "f", "coco", splits=["train"])
    back = json.loads((tmp_path / "f/annotations/instances_train.json").read_text())["annotations"]
    assert [(row["bbox"], row["iscrowd"]) for row in back] == [([1, 2, 10, 12], 1), ([20, 5, 9, 8], 0)]
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
    found = [
        [
            (label, [x + dx, y + dy, x + w + dx, y + h + dy], score)
            for image, label, (x, y, w, h) in boxes
            if image == k
            for dx, dy, score in [(*random.normal(0, 4, 2).tolist(), float(random.random()))]
        ]
        for k in range(len(sizes))
    ]
    scores = {}
    for to in ("coco", *FORMATS):
        if to != "coco":
            convert_data(root, tmp_path / to, to, splits=["train"])
        data = load_data(tmp_path / to)
        assert data.label_names == NAMES[::-1]  # by id, as it is written
        evaluator = DetectionEvaluator(
            data.annotation_file, category_ids=data.category_ids, label_names=data.label_names
        )
        for row, items in zip(sorted(data.rows, key=lambda row: Path(row["path"]).name), found, strict=True):
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


def test_what_the_hub_reads_is_what_was_written(tmp_path, monkeypatch):
    """Without this library's reader: features, classes by name, several files, pixels, areas and paths."""
    monkeypatch.setattr("ld_hub.data.hub_writer.SHARD", 1)
    monkeypatch.setattr("ld_hub.data.hub_writer._GROUP", 2)
    boxes = [(0, 0, [1, 2, 10, 12]), (1, 1, [0.25, 5, 9, 8]), (1, 2, [55, 3, 20, 6]), (3, 0, [70, 70, 5, 5])]
    root = write(tmp_path / "coco", [(60, 40), (61, 40), (62, 41), (63, 40), (64, 40)], boxes)
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["area"] = 77.5
    file.write_text(json.dumps(content))
    file.with_name("instances_val.json").write_text(file.read_text())
    (root / "val").symlink_to(root / "train")
    made = convert_data(root, tmp_path / "hub", "hub", splits=["train", "val"])
    assert made.told == {
        "boxes that reached beyond their image clipped": 2,
        "boxes without an area in their image left out": 2,
    }
    names = {f"{split}-0000{k}-of-00003.parquet" for split in ("train", "validation") for k in range(3)}
    assert {path.name for path in (tmp_path / "hub/data").iterdir()} == names
    found = datasets.load_dataset(str(tmp_path / "hub"))
    assert set(found) == {"train", "validation"}
    rows = found["train"]
    assert rows.features["objects"]["category"].feature.names == list(NAMES[::-1])
    assert [row["image"].size for row in rows] == [(row["width"], row["height"]) for row in rows]
    assert [row["image_id"] for row in rows] == [3, 4, 5, 6, 7]
    assert [row["objects"]["bbox"] for row in rows] == [
        [[1, 2, 10, 12]], [[0.25, 5, 9, 8], [55, 3, 6, 6]], [], [], []
    ]  # fmt: skip
    assert [row["objects"]["category"] for row in rows] == [[2], [1, 0], [], [], []]
    assert rows[0]["objects"]["area"] == [77.5] and rows[1]["objects"]["id"] == [6, 7]
    again = json.loads(Path(load_data(tmp_path / "hub", "train").annotation_file).read_text())
    assert again["annotations"][0]["area"] == 77.5
    convert_data(root, tmp_path / "paths", "hub", splits=["train"], images="none")
    paths = datasets.load_dataset("parquet", data_files=str(tmp_path / "paths/data/*.parquet"), split="train")
    assert paths.cast_column("image", datasets.Image(decode=False))[1]["image"] == {
        "bytes": None, "path": str(root / "train/i01.png")
    }  # fmt: skip
    assert len(load_data(tmp_path / "paths")) == 5
    with pytest.raises(ConfigError, match="The split 'val2' cannot be written as parquet"):
        file.rename(file.with_name("instances_val2.json"))
        (root / "val").rename(root / "val2")
        convert_data(root, tmp_path / "no", "hub", splits=["val2"])
    assert not (tmp_path / "no").exists()
