"""Names of columns and forms of boxes are found, or the flag that names them is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.errors import ConfigError, DataError
from ld_hub.formats.labelled_image import Box
from ld_hub.formats.object_schema import FORMS, ObjectSchema, find_form, find_schema, parse_columns
from ld_hub.formats.objects import read_objects

BOTH = {"bbox": [[1, 2, 3, 4], [5, 6, 7, 8]], "category": [1, 0]}


@pytest.mark.parametrize(
    ("columns", "given", "expected"),
    [
        ({"image": (), "objects": ("bbox", "category")}, {}, ObjectSchema("image", "objects", "bbox", "category")),
        (
            {"image_id": (), "img": (), "annotations": ("boxes", "label", "iscrowd", "area")},
            {},
            ObjectSchema("img", "annotations", "boxes", "label", "iscrowd", "area", "image_id"),
        ),
        ({"image": (), "bboxes": (), "labels": ()}, {}, ObjectSchema("image", "", "bboxes", "labels")),
        (
            {"image": (), "x": ("b", "c"), "objects": ("bbox", "category")},
            {"objects": "x", "bbox": "b", "category": "c"},
            ObjectSchema("image", "x", "b", "c"),
        ),
    ],
)
def test_columns_are_found(columns, given, expected):
    assert find_schema(columns, given, "here") == expected


@pytest.mark.parametrize(
    ("columns", "given", "words"),
    [
        ({"photo_of_it": (), "objects": ("bbox", "category")}, {}, "no column of the part 'image'.*photo_of_it"),
        ({"image": (), "objects": ("rect", "category")}, {}, r"'bbox' .*There are rect, category.*--columns bbox=COL"),
        ({"image": (), "objects": ("bbox", "category")}, {"crowd": "many"}, "'crowd' .looked for many"),
    ],
)
def test_what_is_missing_is_named_with_the_flag(columns, given, words):
    with pytest.raises(DataError, match=words):
        find_schema(columns, given, "here")


@pytest.mark.parametrize("text", ["bbox", "bbox=", "box=b", "form=yolo"])
def test_a_wrong_flag(text):
    with pytest.raises(ConfigError, match="--columns is"):
        parse_columns(text)
    assert parse_columns("bbox=b, form=xyxy") == {"bbox": "b", "form": "xyxy"}
    assert parse_columns(None) == {}


def test_objects_as_lists_and_as_mappings():
    inside = ObjectSchema("image", "objects", "bbox", "category", "crowd")
    rows = [{**BOTH, "crowd": [0, 1]}, [{"bbox": b, "category": c, "crowd": k} for b, c, k in
            zip(BOTH["bbox"], BOTH["category"], (0, 1), strict=True)]]  # fmt: skip
    for objects in rows:
        assert inside.objects_of({"objects": objects}) == (BOTH["bbox"], BOTH["category"], [False, True], [None, None])
    assert ObjectSchema("image", "", "bbox", "category").objects_of(BOTH).crowds == [False, False]
    for wrong, words in (({"bbox": [[1, 2, 3]], "category": [1]}, "four"), ({**BOTH, "category": []}, "2 boxes and 0")):
        with pytest.raises(DataError, match=words):
            inside.objects_of({"objects": {**wrong, "crowd": None}})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(FORMS)))
def test_boxes_all_over_images_tell_their_form(seed, form):
    draw = np.random.default_rng(seed)
    samples = []
    for _ in range(8):
        width, height = (int(side) for side in draw.integers(50, 500, 2))
        start = draw.uniform(0.3, 0.8, (6, 2)) * (width, height)
        end = start + draw.uniform(0.1, 0.2, (6, 2)) * (width, height)
        last = end if form == "xyxy" else end - start
        samples.append((np.concatenate([start, last], axis=1).tolist(), width, height))
    assert find_form(samples, "here") == form


def test_boxes_that_fit_both_forms_are_cocos_and_those_of_none_are_refused():
    assert find_form([([[0, 0, 10, 10]], 50, 50)], "here") == "coco"
    assert find_form([], "here") == "coco"
    with pytest.raises(DataError, match=r"of 2 boxes 2 lie off their images as x, y, width.*form=coco or form=xyxy"):
        find_form([([[40, 40, 90, 90], [45, 45, 80, 80]], 50, 50)], "here")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"bbox": [[1, 2, 3, 4]], "labels": ["cat"]}, [Box("cat", (1, 2, 3, 4))]),
        ({"objects": {"boxes": [[1, 2, 3, 4]], "labels": ["cat"], "crowd": [1]}}, [Box("cat", (1, 2, 3, 4), True)]),
        ({"detections": [{"bbox": [1, 2, 3, 4], "category_ids": 7}]}, [Box("7", (1, 2, 3, 4))]),
        ({"objects": None}, []),
        ({"objects": {}}, []),
    ],
)
def test_objects_of_a_row(row, expected):
    assert read_objects(row) == expected


@pytest.mark.parametrize("group", [3, "cat", [[1, 2, 3, 4]]])
def test_objects_that_are_no_columns(group):
    with pytest.raises(DataError, match=f"'objects' is a {type(group).__name__}, expected columns"):
        read_objects({"objects": group})
