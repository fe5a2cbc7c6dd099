from __future__ import annotations

import pytest

from ld_hub.data.discovery import find_images, find_places
from ld_hub.errors import ConfigError, MissingFileError

INSTANCES = "annotations/instances"


def find_split(root, split):
    """The image directory and the annotation file of a split."""
    folders, (file,) = find_places(root, split)
    return find_images(folders, file), file


def make(root, *paths):
    for path in paths:
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()


@pytest.mark.parametrize(
    ("split", "paths", "images", "annotations"),
    [
        ("train", ["train2017/", f"{INSTANCES}_train2017.json"], "train2017", f"{INSTANCES}_train2017.json"),
        ("val", ["images/val2017/", f"{INSTANCES}_val2017.json"], "images/val2017", f"{INSTANCES}_val2017.json"),
        ("val", ["val2014/", f"{INSTANCES}_val2014.json"], "val2014", f"{INSTANCES}_val2014.json"),
        ("train", ["train/", "annotations/instances_train.json"], "train", "annotations/instances_train.json"),
        ("train", ["images/train/", "annotations/train.json"], "images/train", "annotations/train.json"),
        ("val", ["images/", "annotations/instances_val.json"], "images", "annotations/instances_val.json"),
        ("val", ["val.json"], "", "val.json"),
        ("train", ["train/_annotations.coco.json"], "train", "train/_annotations.coco.json"),
        ("val", ["valid/_annotations.coco.json"], "valid", "valid/_annotations.coco.json"),
        ("test", ["test/", "annotations/instances_test.json"], "test", "annotations/instances_test.json"),
    ],
)  # fmt: skip
def test_layouts(tmp_path, split, paths, images, annotations):
    make(tmp_path, *paths)
    assert find_split(tmp_path, split) == (tmp_path / images, tmp_path / annotations)


def test_coco_itself_goes_before_others(tmp_path):
    make(tmp_path, "train2017/", "train/", "annotations/instances_train2017.json", "annotations/instances_train.json")
    assert find_split(tmp_path, "train")[0].name == "train2017"


def test_the_error_says_what_was_looked_for_and_found(tmp_path):
    make(tmp_path, "pictures/", "annotations/all.json")
    with pytest.raises(MissingFileError) as caught:
        find_split(tmp_path, "val")
    text = str(caught.value)
    for words in (
        str(tmp_path),
        "instances_val2017.json",
        "val/_annotations.coco.json, images/val/_annotations.coco.json, and the same with valid or validation.",
        "pictures/",
        "annotations/all.json",
    ):
        assert words in text
    assert "images=..., annotations=..." in text


def test_missing_directories(tmp_path):
    with pytest.raises(MissingFileError, match="does not exist"):
        find_split(tmp_path / "no", "train")
    make(tmp_path, "file")
    with pytest.raises(MissingFileError, match="is a file"):
        find_split(tmp_path / "file", "train")
    with pytest.raises(MissingFileError, match="an empty directory"):
        (tmp_path / "empty").mkdir()
        find_split(tmp_path / "empty", "train")


@pytest.mark.parametrize("split", ["", "../val", "a/b"])
def test_splits_are_plain_names(tmp_path, split):
    with pytest.raises(ConfigError, match="plain name"):
        find_split(tmp_path, split)
