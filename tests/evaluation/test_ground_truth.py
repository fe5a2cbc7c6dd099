"""Annotation files: what is filled in and what is refused."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re

import numpy as np
import pytest
import torch

from ld_hub.errors import DataError, MissingFileError
from ld_hub.evaluation import DetectionEvaluator, read_ground_truth
from ld_hub.structures import Detections

GOOD = {
    "images": [{"id": 7, "width": 10, "height": 10}, {"id": 3}],
    "categories": [{"id": 2, "name": "b"}, {"id": 1, "name": "a"}],
    "annotations": [
        {"id": 0, "image_id": 3, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 5, 0], "area": 9.5, "iscrowd": True},
    ],
}


def test_missing_fields_are_filled_in():
    truth = read_ground_truth(copy.deepcopy(GOOD))
    assert [row["id"] for row in truth.annotations] == [1, 2]
    assert [row["area"] for row in truth.annotations] == [12.0, 9.5]
    assert [row["iscrowd"] for row in truth.annotations] == [0, 1]
    assert [row["id"] for row in truth.images] == [3, 7]
    assert truth.category_names == {1: "a", 2: "b"}
    assert [row["ignore"] for row in truth.annotations] == [0, 0]
    assert truth.boxes_per_category() == {1: 1}
    assert truth.sizes_of(np.array([7, 3, 7])).tolist() == [[10, 10], [0, 0], [10, 10]]


@pytest.mark.parametrize("field", ["ignore", "difficult"])
def test_difficult_boxes(field):
    content = copy.deepcopy(GOOD)
    content["annotations"][0][field] = 1
    truth = read_ground_truth(content)
    assert [row["ignore"] for row in truth.annotations] == [1, 0]
    assert truth.boxes_per_category() == {1: 1} and truth.boxes_per_category(skip_ignored=True) == {}


def test_some_images_only():
    truth = read_ground_truth(GOOD)
    part = truth.only([7])
    assert [row["id"] for row in part.images] == [7] and [row["image_id"] for row in part.annotations] == [7]
    assert part.categories == truth.categories and truth.only([3, 7]) is truth


def drawn(seed, corners, size=(640, 480), count=60):
    """Boxes in an image; a few of them reach out of it."""
    random = np.random.default_rng(seed)
    start = random.random((count, 2)) * np.array(size) * 0.9
    end = start + random.random((count, 2)) * (size - start)
    end[: count // 20] += 40
    boxes = np.concatenate([start, end if corners else end - start], axis=1)
    rows = [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes.tolist()]
    image = {"id": 1, "width": size[0], "height": size[1]}
    return {"images": [image, {"id": 2}], "categories": [{"id": 1, "name": "a"}], "annotations": rows}


@pytest.mark.parametrize("seed", range(20))
def test_corners_given_as_sizes_are_refused(seed, tmp_path):
    good = drawn(seed, corners=False)
    assert len(read_ground_truth(good).annotations) == 60
    bad = drawn(seed, corners=True)
    bad["annotations"] = bad["annotations"][3:]  # in the image
    (tmp_path / "boxes.json").write_text(json.dumps(bad))
    with pytest.raises(DataError, match=r"boxes\.json: \d+ of 57 boxes reach out.*read as corners x1, y1, x2, y2"):
        read_ground_truth(tmp_path / "boxes.json")
    del bad["images"][0]["width"]  # then nobody can tell
    read_ground_truth(bad)


@pytest.mark.parametrize(("out", "refused"), [(20, True), (19, False)])
def test_a_fifth_that_reaches_out_tells_corners(out, refused):
    """Objects at the upper left of their images: few reach out even as corners."""
    boxes = [[60, 10, 90, 30]] * out + [[5, 10, 40, 30]] * (100 - out)
    content = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
    }
    with pytest.raises(DataError, match="20 of 100 boxes reach out") if refused else contextlib.nullcontext():
        read_ground_truth(content)


def test_boxes_that_reach_out_are_no_corners():
    content = drawn(0, corners=False)
    for row in content["annotations"][::2]:
        row["bbox"][0] += 400  # half of them, badly: but few would be boxes when read as corners
    assert len(read_ground_truth(content).annotations) == len(content["annotations"])
    content["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [300.0, 20.0, 400.0, 100.0]}] * 2
    assert len(read_ground_truth(content).annotations) == 2  # too few to tell


@pytest.mark.parametrize("seed", range(10))
def test_boxes_of_whole_objects_in_an_image_of_a_part_are_no_corners(seed):
    """Close views, of which the annotations tell the whole (amodal boxes): many reach out, on all sides."""
    random = np.random.default_rng(seed)
    content = drawn(seed, corners=False)
    for row in content["annotations"]:
        middle, side = random.uniform(0.3, 0.7, 2) * [640, 480], random.uniform(0.6, 1.3, 2) * [640, 480]
        row["bbox"] = [*(middle - side / 2).tolist(), *np.minimum(side, [640, 480]).tolist()]
    reach = [row["bbox"][0] + row["bbox"][2] > 650 for row in content["annotations"]]
    assert sum(reach) > 12
    read_ground_truth(content)


def change(path, value):
    content = copy.deepcopy(GOOD)
    *parents, last = path
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


@pytest.mark.parametrize(
    "content, message",
    [
        (change(("images", 1, "id"), 7), "id 7 appears twice in 'images'"),
        (change(("images", 1, "id"), "x"), r"images\[1\] has id 'x'"),
        (change(("categories", 0, "id"), 1), "id 1 appears twice in 'categories'"),
        (change(("annotations", 0, "image_id"), 4), r"annotations\[0\].*names image id 4"),
        (change(("annotations", 1, "category_id"), 8), r"annotations\[1\].*names category id 8"),
        (change(("annotations", 0, "bbox"), [1, 2, float("nan"), 4]), r"annotations\[0\].*bbox"),
        (change(("annotations", 0, "bbox"), [1, 2, 3]), "four finite numbers"),
        (change(("annotations", 0, "bbox"), [1, 2, -3, 4]), "negative size"),
        (change(("annotations", 0, "area"), float("inf")), "area inf"),
        (change(("annotations", 1, "id"), 0), "annotation id 0 is given more than once"),
        (change(("annotations", 1, "id"), "9"), r"annotations\[1\] has id '9'; ids are integers"),
        (change(("annotations", 0, "id"), 2**63), "ids are integers of at most 64 bits"),
        (change(("annotations", 0, "id"), True), "has id True"),
        (change(("images", 0, "id"), 2**63), r"images\[0\] has id 9223372036854775808; ids are integers of at most 64"),
        (change(("annotations", 0, "image_id"), [3]), r"names image id \[3\]"),
        (change(("annotations", 0, "category_id"), {}), r"names category id \{\}"),
        (change(("annotations", 0, "bbox"), [1, 2, 10**400, 4]), "four finite numbers"),
        (change(("annotations", 0, "bbox"), [1, 2, 1e300, 1e300]), "area inf"),
        (change(("annotations",), None), "no list 'annotations'"),
        ({"annotations": []}, "no list 'images'"),
    ],
)
def test_unusable_annotations_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        read_ground_truth(content)


def outcome(annotations):
    """What is read, or what is said."""
    try:
        truth = read_ground_truth(annotations)
    except DataError as error:
        return str(error)
    return truth.source, truth.images, truth.categories, list(truth.annotations)


def strange(seed):
    """Rows as people write them, keys in any order; some files have a fault or two."""
    dice = random.Random(seed)
    images = [{"id": 3 * k - 5, "file_name": "a},{", "width": 60, "height": 40} for k in range(dice.randint(1, 6))]
    rows = []
    for k in range(dice.randint(0, 25)):
        box = [dice.choice([1, 2.5, 1e1]), 3, dice.choice([0, 5, 12.25]), 6]
        row = {"image_id": dice.choice(images)["id"], "category_id": dice.choice([2, 5, 5.0]), "bbox": box}
        row |= dice.choice([{}, {"area": 3}, {"iscrowd": 1}, {"ignore": 1}, {"difficult": True}, {"area": None}])
        row |= dice.choice([{}, {"segmentation": [[1, 2, 3.5, 4]]}, {"segmentation": {"counts": "a},{b"}}])
        rows.append(row | dice.choice([{}, {"id": 40 - k}, {"id": None}]))
    for _ in range(dice.choice([0, 0, 1, 2]) if rows else 0):
        wrong = [
            {"image_id": 999}, {"image_id": 1.5}, {"image_id": "1"}, {"category_id": 7}, {"bbox": [1, 2]}, {"id": "x"},
            {"bbox": [1, 2, -3, 4]}, {"area": "1"}, {"id": 40}, {"id": 2**63}, {"image_id": 10**400}, {"id": True},
        ]  # fmt: skip
        dice.choice(rows).update(dice.choice(wrong))
    if dice.random() < 0.1:
        rows.insert(dice.randint(0, len(rows)), 7)
    categories = [{"id": 5, "name": "cat", "frequency": "r"}, {"id": 2, "name": "dog", "supercategory": "pet"}]
    images[0]["neg_category_ids"] = [5]
    parts = {"info": {"list": [1]}, "images": images, "annotations": rows, "categories": categories, "version": 2}
    if dice.random() < 0.1:
        del parts[dice.choice(["images", "annotations", "categories"])]
    return {key: parts[key] for key in dice.sample(list(parts), len(parts))}


@pytest.mark.parametrize("seed", range(60))
def test_large_files_are_read_as_small_ones(seed, tmp_path, monkeypatch):
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(strange(seed)))
    small = outcome(file)
    monkeypatch.setattr("ld_hub.evaluation.ground_truth.LARGE", 0)
    monkeypatch.setattr("ld_hub.evaluation.ground_truth._PART", 2)
    monkeypatch.setattr("ld_hub.formats.json_lists._BLOCK", 40)
    monkeypatch.setattr("ld_hub.evaluation.annotation_columns._PART", 3)
    assert outcome(file) == small


def test_strange_files_are_of_all_kinds():
    kinds = [outcome(strange(seed)) for seed in range(60)]
    good = [kind for kind in kinds if isinstance(kind, tuple)]
    said = {re.sub(r"\d+|\(.*?\)", "", kind.partition(": ")[2])[:40] for kind in kinds if isinstance(kind, str)}
    assert len(good) > 20 and len(said) > 8


def test_rows_of_large_files_are_a_sequence(tmp_path, monkeypatch):
    content = strange(1)
    content["annotations"] = [
        {"image_id": content["images"][k % 2]["id"], "category_id": 2, "bbox": [k, 1, 5, 5]} for k in range(7)
    ]
    content["images"] = content["images"][:2]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content))
    whole = read_ground_truth(file)
    monkeypatch.setattr("ld_hub.evaluation.ground_truth.LARGE", 0)
    large = read_ground_truth(file)
    assert [large.annotations[k] for k in (0, 6, -1, -7)] == [whole.annotations[k] for k in (0, 6, -1, -7)]
    assert list(large.annotations[1:5:2]) == whole.annotations[1:5:2] and len(large.annotations) == 7
    for wrong in (7, -8):
        with pytest.raises(IndexError):
            large.annotations[wrong]
    some = {content["images"][1]["id"]}
    assert list(large.only(some).annotations) == whole.only(some).annotations != []
    assert large.boxes_per_category() == whole.boxes_per_category()
    bad = drawn(3, corners=True)
    bad["annotations"] = bad["annotations"][3:]
    file.write_text(json.dumps(bad))
    with pytest.raises(DataError, match=r"boxes\.json: \d+ of 57 boxes reach out.*read as corners x1, y1, x2, y2"):
        read_ground_truth(file)


@pytest.mark.parametrize("protocol", ["coco", "voc07", "voc12", "lvis"])
def test_scores_are_equal_read_either_way(protocol, tmp_path, monkeypatch):
    content = drawn(5, corners=False)
    content["images"] = [{"id": k, "width": 640, "height": 480} for k in (1, 2)]
    for image in content["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    content["categories"] = [{"id": k, "name": "ab"[k - 1], "frequency": "c"} for k in (1, 2)]
    for k, row in enumerate(content["annotations"]):
        row |= {"image_id": 1 + k % 2, "category_id": 1 + k % 3 // 2, "iscrowd": int(k == 9), "ignore": int(k == 12)}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    stats = []
    for size in (1 << 40, 0):
        monkeypatch.setattr("ld_hub.evaluation.ground_truth.LARGE", size)
        evaluator = DetectionEvaluator(
            tmp_path / "boxes.json", category_ids=[1, 2], label_names=["a", "b"], protocol=protocol
        )
        for image in (1, 2):
            rows = [row for row in content["annotations"] if row["image_id"] == image]
            boxes = torch.tensor([row["bbox"] for row in rows])
            boxes[:, 2:] += boxes[:, :2] + torch.tensor(np.random.default_rng(image).normal(0, 20, (len(rows), 2)))
            labels = torch.tensor([row["category_id"] - 1 for row in rows])
            scores = torch.tensor(np.random.default_rng(9 + image).random(len(rows)))
            boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
            evaluator.update([image], [Detections(boxes, scores, labels, ("a", "b"))])
        stats.append(dict(evaluator.compute().stats))
    assert stats[0] == pytest.approx(stats[1], abs=1e-12, nan_ok=True)
    assert 0.05 < next(iter(stats[0].values())) < 0.95


def test_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.json"):
        read_ground_truth(tmp_path / "nowhere.json")
    (tmp_path / "cut.json").write_text(json.dumps(GOOD)[:50])
    with pytest.raises(DataError, match=r"cut\.json.*not JSON"):
        read_ground_truth(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="holds a list"):
        read_ground_truth(tmp_path / "list.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(DataError, match=r"bytes\.json"):
        read_ground_truth(tmp_path / "bytes.json")
