from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from ld_hub.data import load_coco
from ld_hub.data.annotations import read_coco
from ld_hub.errors import DataError, MissingFileError


def test_everything_is_read_as_written(coco):
    read = read_coco(coco.file)
    written = coco.content
    assert read.image_ids.tolist() == [i["id"] for i in written["images"]]
    assert read.sizes.tolist() == [[i["height"], i["width"]] for i in written["images"]]
    assert read.boxes.tolist() == [a["bbox"] for a in written["annotations"]]
    assert read.areas.tolist() == [a["area"] for a in written["annotations"]]
    assert read.crowd.tolist() == [False] * 4 + [True, False]
    assert read.category_ids == (2, 5, 9)
    assert read.label_names == ("cat", "dog", "bird")


def test_polygons_do_not_change_what_is_read(coco):
    plain = read_coco(coco.file)
    chance = random.Random(0)
    for i, annotation in enumerate(coco.content["annotations"]):
        numbers = [[round(chance.uniform(-9, 600), 2) for _ in range(6)] for _ in range(i)]
        annotation["segmentation"] = [numbers, [], [[1e-5, 2]], {"counts": [1, 2], "size": [3, 4]}, [[]], [[1]]][i]
        # Keys before and after; texts that look like the key.
        coco.content["annotations"][i] = {**annotation, "note": '"segmentation": [[1, 2]], "bbox": ['}
    coco.content["info"] = {"segmentation": [1, [2]], "text": "]"}
    for indent in (None, 2):
        coco.write(json.dumps(coco.content, indent=indent))
        read = read_coco(coco.file)
        for name in ("ids", "image_of", "category_of", "boxes", "areas", "crowd"):
            assert np.array_equal(getattr(read, name), getattr(plain, name))


def test_missing_area_and_flags_have_defaults(coco):
    for annotation in coco.content["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    coco.content["annotations"][1]["ignore"] = 1
    coco.write()
    read = read_coco(coco.file)
    assert np.array_equal(read.areas, read.boxes[:, 2] * read.boxes[:, 3])
    assert not read.crowd.any()
    assert read.ignore.tolist() == [False, True, False, False, False, False]


def test_missing_annotation_ids_are_issued_and_taken_ones_left_alone(coco):
    annotations = coco.content["annotations"]
    del annotations[0]["id"]
    annotations[2]["id"] = None
    coco.write()
    assert read_coco(coco.file).ids.tolist() == [17, 12, 18, 14, 15, 16]
    for annotation in annotations:
        annotation.pop("id", None)
    coco.write()
    assert read_coco(coco.file).ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert len(load_coco(coco.root).rows) == 5


def test_repeated_annotation_ids_are_numbered_anew(coco):
    coco.content["annotations"][1]["id"] = 14
    coco.write()
    with pytest.warns(UserWarning, match=r"annotation ids are given more than once \(14\); all were numbered anew\."):
        found = load_coco(coco.root)
    truth = json.loads(Path(found.annotation_file).read_text())["annotations"]
    assert [row["id"] for row in truth] == [1, 2, 3, 4, 5, 6]
    assert [row["bbox"] for row in truth] == [row["bbox"] for row in coco.content["annotations"]]


def test_no_annotations_at_all(coco):
    coco.content["annotations"] = []
    coco.write()
    assert read_coco(coco.file).boxes.shape == (0, 4)


def test_invalid_json_tells_the_position_in_the_file(coco):
    text = json.dumps({"a": {"segmentation": [[1.0] * 50]}}, indent=1) + "\n}"
    coco.write(text)
    with pytest.raises(DataError, match=rf"instances_train\.json is not valid JSON.*line {len(text.splitlines())} "):
        read_coco(coco.file)


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"nothing\.json"):
        read_coco(tmp_path / "nothing.json")


def change(place, key, value):
    def apply(content):
        entry = content[place][1]
        if value is None:
            del entry[key]
        else:
            entry[key] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (change("annotations", "bbox", None), "annotation id 12 has no 'bbox'"),
        (change("annotations", "bbox", [1, 2, 3]), r"'bbox' of annotation id 12 is \[1, 2, 3\], expected \[x, y"),
        (change("annotations", "bbox", [1, 2, 3, "4"]), "'bbox' of annotation id 12"),
        (change("annotations", "bbox", [[1, 2, 3, 4]]), "'bbox' of annotation id 12"),
        (change("annotations", "bbox", "1 2 3 4"), "'bbox' of annotation id 12"),
        (change("annotations", "area", "big"), "'area' of annotation id 12 is 'big', expected a number"),
        (change("annotations", "iscrowd", 3), "'iscrowd' of annotation id 12 is 3"),
        (change("annotations", "image_id", "100"), "'image_id' of annotation id 12 is '100', expected an integer"),
        (change("annotations", "image_id", 1.5), "'image_id' of annotation id 12 is 1.5"),
        (change("annotations", "image_id", [100]), r"'image_id' of annotation id 12 is \[100\], expected an integer"),
        (change("images", "width", [[1]]), r"'width' of image id 93 is \[\[1\]\], expected an integer"),
        (change("annotations", "id", 2**70), "'id' of annotation id 11805916207174113"),
        (change("annotations", "id", "12"), "'id' of annotation id 12 is '12', expected an integer"),
        (change("images", "id", None), "image 1 of the list has no 'id'"),
        (change("images", "file_name", 3), "'file_name' of image id 93 is 3, expected a text"),
        (change("images", "height", None), "image id 93 has no 'height'"),
        (change("categories", "name", ""), "'name' of category id 2 is '', expected a text"),
        (change("categories", "id", 9), "category id 9 is given more than once"),
        (lambda content: content.pop("images"), "needs a list 'images'; found nothing"),
        (lambda content: content.update(annotations={}), "needs a list 'annotations'; found no list"),
        (lambda content: content.update(categories=[]), "'categories' is empty"),
        (lambda content: content["images"].append(5), r"images\[5\] is 5, not an object"),
    ],
)
def test_wrong_entries_are_named(coco, spoil, words):
    spoil(coco.content)
    coco.write()
    with pytest.raises(DataError, match=words) as caught:
        read_coco(coco.file)
    assert str(coco.file) in str(caught.value)


def test_a_list_is_no_coco_file(coco):
    coco.write("[1]")
    with pytest.raises(DataError, match="holds a list"):
        read_coco(coco.file)
