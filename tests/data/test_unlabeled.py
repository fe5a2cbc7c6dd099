"""Images without labels, from whatever people keep them in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ld_hub.data import load_coco, load_data
from ld_hub.data.unlabeled import load_unlabeled, refuse_leaks, without_annotations
from ld_hub.errors import ConfigError, DataError, MissingFileError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, two of them below, of different sizes; a hidden one and a text beside them."""
    place = tmp_path / "photos"
    (place / "trip/day 1").mkdir(parents=True)
    (place / ".trash").mkdir()
    for index, name in enumerate(("b.png", "trip/a.JPG", "trip/day 1/c.jpeg", ".trash/x.png")):
        Image.new("RGB", (40 + index, 30), (index, 9, 9)).save(place / name)
    (place / "notes.txt").write_text("not an image")
    return place


def names(dataset: object) -> list[str]:
    return [Path(path).name for path in dataset.records.paths.to_pylist()]  # type: ignore[attr-defined]


def test_a_directory_with_what_is_below_it(photos):
    images = load_unlabeled(photos)
    assert names(images) == ["b.png", "a.JPG", "c.jpeg"]
    assert images.sizes.tolist() == [[30, 40], [30, 41], [30, 42]]
    assert images.records.boxes.shape == (0, 4) and images.label_names == ()
    assert images.source == str(photos)


def test_a_list_of_paths(photos, tmp_path):
    (tmp_path / "list.txt").write_text(f"photos/trip/a.JPG\n\n{photos / 'b.png'}\nphotos/trip/a.JPG\n")
    assert names(load_unlabeled(tmp_path / "list.txt")) == ["b.png", "a.JPG"]
    (tmp_path / "list.txt").write_text("photos/gone.png\n")
    with pytest.raises(MissingFileError, match=r"names 1 files that do not exist: .*gone\.png"):
        load_unlabeled(tmp_path / "list.txt")


def coco(root: Path) -> Path:
    """One training image with a box and one validation image, side by side with others."""
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        (root / split).mkdir()
        Image.new("RGB", (64, 64), (number, 0, 0)).save(root / split / f"{split}.png")
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "width": 64, "height": 64}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400}],
            "categories": [{"id": 1, "name": "thing"}],
        }
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def test_of_a_data_set_the_training_images_alone(tmp_path):
    root = coco(tmp_path / "data")
    images = load_unlabeled(root)
    assert names(images) == ["train.png"] and len(images.records.boxes) == 0
    (root / "annotations/instances_train.json").write_text("{")  # a file that cannot be used: its images can
    assert names(load_unlabeled(root / "train")) == ["train.png"]


def test_boxes_are_taken_off_a_data_set(tmp_path):
    dataset = load_coco(coco(tmp_path / "data"), "train")
    assert len(dataset.records.boxes) == 1
    bare = without_annotations(dataset)
    assert len(bare.records.boxes) == 0 and bare.annotation_file == ""
    assert names(bare) == names(dataset) and (bare.sizes == dataset.sizes).all()


def test_a_broken_image_is_named_or_skipped(photos):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    with pytest.raises(DataError, match=r"1 of the 4 images in .* cannot be read: .*broken\.png.*--skip_broken"):
        load_unlabeled(photos)
    with pytest.warns(UserWarning, match=r"1 broken images are left out: .*broken\.png"):
        assert len(load_unlabeled(photos, skip_broken=True)) == 3


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("empty", MissingFileError, "There are no images in .* or below; files ending in"),
        ("nowhere", MissingFileError, "does not exist"),
        ("notes.md", ConfigError, r"is a file; images without labels are a directory, a \.txt file"),
    ],
)
def test_what_holds_no_images_is_refused(tmp_path, what, error, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("text")
    with pytest.raises(error, match=words):
        load_unlabeled(tmp_path / what)


def test_leaks_are_found_by_content_and_only_by_it(photos, tmp_path):
    root = coco(tmp_path / "data")
    evaluation = load_data(root, "val")
    refuse_leaks(load_unlabeled(photos), evaluation)
    refuse_leaks(load_unlabeled(root), evaluation)  # of the same size in bytes or not: other pixels
    shutil.copy(root / "val/val.png", photos / "trip/z.png")
    with pytest.raises(DataError, match=r"1 of the 4 images without labels in .*z\.png is .*val\.png"):
        refuse_leaks(load_unlabeled(photos), evaluation)
