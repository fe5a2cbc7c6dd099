from __future__ import annotations

import contextlib
import io
import shutil
import warnings

import datasets
import numpy as np
import pytest
from pycocotools.coco import COCO

from ld_hub.data import load_coco
from ld_hub.errors import ConfigError, DataError, MissingFileError


def published(annotation, image):
    """The published rule for one annotation: x1, y1, x2, y2 clipped to the image, or None."""
    x, y, w, h = annotation["bbox"]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, image["width"]), min(y + h, image["height"])
    outside = max(0, x2 - x1) * max(0, y2 - y1) == 0
    if annotation.get("ignore") or outside or annotation["area"] <= 0 or w < 1 or h < 1:
        return None
    return [x1, y1, x2, y2]


def test_rows_agree_with_pycocotools(coco):
    coco.content["annotations"] += [
        {"id": 50, "image_id": 93, "category_id": 5, "bbox": [-5, -5, 4, 4], "area": 16, "iscrowd": 0},
        {"id": 51, "image_id": 93, "category_id": 5, "bbox": [-5, -5, 9, 8], "area": 72, "iscrowd": 0},
        {"id": 52, "image_id": 93, "category_id": 5, "bbox": [5, 5, 0.5, 8], "area": 4, "iscrowd": 0},
        {"id": 53, "image_id": 79, "category_id": 2, "bbox": [5, 5, 9, 8], "area": 0, "iscrowd": 0},
        {"id": 54, "image_id": 79, "category_id": 2, "bbox": [5, 5, 9, 8], "area": 72, "iscrowd": 0, "ignore": 1},
    ]
    coco.write()
    with pytest.warns(UserWarning, match="boxes cannot be trained on"):
        found = load_coco(coco.root, "train")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco.file))
    assert isinstance(found.rows, datasets.Dataset)
    assert len(found) == len(truth.imgs)
    for row in found.rows:
        image = truth.loadImgs(row["image_id"])[0]
        assert row["path"] == str(coco.images / image["file_name"])
        assert (row["width"], row["height"]) == (image["width"], image["height"])
        annotations = [(a, published(a, image)) for a in truth.loadAnns(truth.getAnnIds(row["image_id"]))]
        annotations = [(a, box) for a, box in annotations if box is not None]
        assert np.allclose(np.reshape(row["boxes"], (-1, 4)), np.reshape([box for _, box in annotations], (-1, 4)))
        assert [found.category_ids[label] for label in row["labels"]] == [a["category_id"] for a, _ in annotations]
        assert row["crowd"] == [bool(a["iscrowd"]) for a, _ in annotations]
    assert found.category_ids == tuple(sorted(truth.getCatIds()))
    assert found.label_names == tuple(c["name"] for c in truth.loadCats(found.category_ids))
    assert found.dropped == {"flagged ignore": 1, "no area": 2, "outside the image": 1}


def test_explicit_paths(coco, tmp_path):
    moved = shutil.move(str(coco.images), str(tmp_path / "pictures"))
    assert len(load_coco(images=moved, annotations=coco.file)) == 5
    assert len(load_coco(coco.root, images=moved)) == 5


def test_file_names_that_begin_with_the_directory(coco):
    for image in coco.content["images"]:
        image["file_name"] = "train/" + image["file_name"]
    coco.write()
    assert load_coco(coco.root).rows[0]["path"] == str(coco.images / "0.png")


def spoil_annotation(**changes):
    return lambda content: content["annotations"][1].update(changes)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_annotation(image_id=8), r"not in the list 'images': annotation id 12 \(image 8\)"),
        (
            spoil_annotation(category_id=77),
            r"unknown category: annotation id 12 \(category 77\).*Known category ids: 2, 5, 9",
        ),
        (spoil_annotation(bbox=[0, 0, float("nan"), 3]), "not finite numbers: annotation id 12"),
        (spoil_annotation(bbox=[0, 0, float("inf"), 3]), "not finite numbers: annotation id 12"),
        (spoil_annotation(area=float("nan")), "not finite numbers: annotation id 12"),
        (spoil_annotation(bbox=[30, 30, -5, 3]), "negative width or height: annotation id 12"),
        (lambda c: c["images"][1].update(id=100, file_name="0.png"), "image ids given more than once: 100"),
        (lambda c: c["images"][1].update(height=0), "below 1 px for image ids 93"),
        (lambda c: c.update(images=[], annotations=[]), "list 'images' is empty"),
    ],
)
def test_contradictions_are_errors_with_file_and_id(coco, spoil, words):
    spoil(coco.content)
    coco.write()
    with pytest.raises(DataError, match=words) as caught:
        load_coco(coco.root)
    assert str(coco.file) in str(caught.value)
    assert not isinstance(caught.value, MissingFileError)


def test_missing_images_are_counted_and_named(coco):
    for name in ("1.png", "3.png"):
        (coco.images / name).unlink()
    with pytest.raises(MissingFileError, match=r"2 of 5 images are not in .*train: 1\.png, 3\.png"):
        load_coco(coco.root)
    assert len(load_coco(coco.root, check_files=False)) == 5


def test_bad_boxes_can_be_errors(coco):
    coco.content["annotations"][3]["bbox"] = [10, 10, 5, 0]
    coco.write()
    with pytest.raises(DataError, match=r"1 no area \(annotation id 14\)"):
        load_coco(coco.root, on_bad_box="error")
    with pytest.warns(UserWarning, match=r"1 of 6 boxes.*1 no area \(annotation id 14\).*left out"):
        load_coco(coco.root)


def test_good_data_gives_no_warning(coco):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_coco(coco.root).dropped == {}


def test_arguments_that_name_no_data(coco, tmp_path):
    for arguments in ({}, {"images": coco.images}, {"annotations": coco.file}):
        with pytest.raises(ConfigError, match="Say where the data is"):
            load_coco(**arguments)
    with pytest.raises(ConfigError, match="on_bad_box"):
        load_coco(coco.root, on_bad_box="keep")
    with pytest.raises(MissingFileError, match=r"image directory .*none"):
        load_coco(images=tmp_path / "none", annotations=coco.file)
    with pytest.raises(MissingFileError, match=r"none\.json"):
        load_coco(images=coco.images, annotations=tmp_path / "none.json")


def test_a_side_of_one_pixel_counts_however_it_was_subtracted(coco):
    """Layouts of corners leave a little less of it; what is smaller by more than rounding is no box to train on."""
    first, second = (row for row in coco.content["annotations"][:2])
    first["bbox"][2], second["bbox"][3] = (0.13 + 1) - 0.13, 0.999
    assert 0.999999 < first["bbox"][2] < 1
    coco.write()
    with pytest.warns(UserWarning, match=rf"1 no area \(annotation id {second['id']}\)"):
        load_coco(coco.root)
