"""Where the objects of a photograph come from, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.analysis.photograph import UNKNOWN, detected, from_data, parse_box, with_boxes
from ld_hub.errors import ConfigError, DataError, MissingFileError
from tests.analysis.conftest import NAMES, untrained

NOTHING = Image.new("RGB", (100, 80))


def test_boxes_as_they_are_given():
    assert parse_box("1,2,3.5,4") == ((1.0, 2.0, 3.5, 4.0), "")
    assert parse_box(" 1, 2 ,3,4, a, b ") == ((1.0, 2.0, 3.0, 4.0), "a, b")
    seen = with_boxes(NOTHING, ["10,20,30,40,star", "-5,-5,500,50", "1,1,2,2,dog"], NAMES)
    assert seen.boxes.tolist() == [[10, 20, 30, 40], [0, 0, 100, 50], [1, 1, 2, 2]]
    assert seen.labels == (3, UNKNOWN, UNKNOWN) and seen.names == ("star", "object", "dog") and len(seen) == 3


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "5,5,5,9", "5,5,9,5", "9,5,5,9", "nan,0,5,5", "0,0,inf,5"])
def test_what_is_no_box(text):
    with pytest.raises(ConfigError, match=f"The box '{text}'"):
        with_boxes(NOTHING, [text], NAMES)


def test_a_box_off_the_image():
    with pytest.raises(ConfigError, match=r"'100,0,120,9' lies off the image, which is 100x80 px"):
        with_boxes(NOTHING, ["100,0,120,9"], NAMES)


@pytest.fixture
def data(scenes, tmp_path):
    """A copy of the scenes, whose first image has a crowd, and whose second one has nothing."""
    root = tmp_path / "data"
    shutil.copytree(scenes.root, root)
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    first, second = (row["id"] for row in content["images"][:2])
    rows = [row for row in content["annotations"] if row["image_id"] != second]
    mine = [row for row in rows if row["image_id"] == first]
    rows.append({**mine[0], "id": 10**6, "iscrowd": 1, "bbox": [0, 0, 64, 64]})
    file.write_text(json.dumps({**content, "annotations": rows}))
    return root, [root / "val" / row["file_name"] for row in content["images"]], mine


def test_the_boxes_of_a_data_set(data, tmp_path):
    root, images, mine = data
    known = [*NAMES[1:], "another"]  # the detector's order is another, and it lacks the first class
    expected = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in mine)]
    words = tuple(NAMES[row["category_id"] - 1] for row in mine)
    shutil.copy(images[0], tmp_path / images[0].name)
    file = root / "annotations" / "instances_val.json"
    for image, place, split in (
        (images[0], root, None),
        (images[0], root, "val"),
        (images[0], file, None),
        (tmp_path / images[0].name, file, None),  # a copy, by its name
        (tmp_path / images[0].name, root, "val"),
    ):
        seen = from_data(image, place, split, known)
        assert seen.boxes.tolist() == expected and seen.names == words  # without the crowd
        assert seen.labels == tuple(known.index(word) if word in known else UNKNOWN for word in words)
        assert seen.image.size == (64, 64) and place.name in seen.origin


def test_of_images_of_one_name_the_same_file_is_meant(data, tmp_path):
    """Both parts of the demo number their images from 1."""
    root, images, _ = data
    train = root / "train" / images[0].name
    assert train.is_file() and train.name == images[0].name
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    content["images"] = [row for row in content["images"] if row["file_name"] == train.name]
    rows = [row for row in content["annotations"] if row["image_id"] == content["images"][0]["id"]]
    seen = from_data(train, root, None, NAMES)
    assert seen.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
    shutil.copy(train, tmp_path / train.name)
    with pytest.raises(DataError, match=rf"val.* and .*train.* has 2 images called '{train.name}'.*--split"):
        from_data(tmp_path / train.name, root, None, NAMES)


def test_images_that_are_not_there_or_have_nothing(data, tmp_path):
    root, images, _ = data
    with pytest.raises(DataError, match=f"has no object on '{images[1].name}'"):
        from_data(images[1], root, "val", NAMES)
    NOTHING.save(tmp_path / "strange.png")
    with pytest.raises(MissingFileError, match=r"'strange\.png' is not among the images of .*val.*train"):
        from_data(tmp_path / "strange.png", root, None, NAMES)
    with pytest.raises(MissingFileError, match="nowhere"):
        from_data(images[0], root, "nowhere", NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="No annotations of the split 'val'"):
        from_data(images[0], tmp_path / "empty", None, NAMES)
    NOTHING.save(tmp_path / images[0].name)  # of another size
    with pytest.raises(DataError, match="annotations declare 64x64"):
        from_data(tmp_path / images[0].name, root, "val", NAMES)


def test_own_detections(scenes):
    model = untrained(seed=0)
    image = scenes.set.records.load(0)
    found = model.predict(image, threshold=0.6)
    seen = detected(image, model, 0.6)
    assert np.allclose(seen.boxes, found.boxes.numpy()) and list(seen.labels) == found.labels.tolist()
    assert seen.names == tuple(found.names) and "score above 0.6" in seen.origin and len(seen) > 0
    torch.nn.init.constant_(model.head.cls.bias, -1000.0)
    with pytest.raises(DataError, match=r"finds nothing with a score above 0\.3"):
        detected(image, model, 0.3)
