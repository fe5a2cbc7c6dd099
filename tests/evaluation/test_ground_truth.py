"""Annotation files: what is filled in and what is refused."""

from __future__ import annotations

import contextlib
import copy
import json

import numpy as np
import pytest

from ld_hub.errors import DataError, MissingFileError
from ld_hub.evaluation import read_ground_truth

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
