from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from ld_hub.data import doctor, load_data, load_yolo
from ld_hub.errors import DataError, LdHubError, MissingFileError
from tests.support.directories import picture, voc_devkit, yolo_directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def yolo(tmp_path):
    return yolo_directory(tmp_path / "shapes")


def test_boxes_and_empty_images(yolo):
    found = load_data(yolo, "train")
    assert (found.label_names, found.category_ids, found.protocol) == (("cat", "dog"), (1, 2), "coco")
    assert found.rows["path"][:] == [str(yolo / "images/train/a.png"), str(yolo / "images/train/deep/b.png")]
    assert found.sizes.tolist() == [[40, 50], [32, 64]]
    # 1 0.5 0.5 0.2 0.1 and 0 0.25 0.5 0.5 1 of 50 x 40 px
    assert found.rows[0]["boxes"] == [[20, 18, 30, 22], [0, 0, 25, 40]] and found.rows[0]["labels"] == [1, 0]
    assert found.rows[1]["boxes"] == []
    assert Path(found.annotation_file).name.startswith("shapes-")
    content = json.loads(Path(found.annotation_file).read_text())
    assert content["annotations"][0]["bbox"] == [20, 18, 10, 4] and content["annotations"][0]["area"] == 40
    assert len(load_yolo(yolo, "val")) == 1


YAMLS = {  # what data.yaml may say: names, and where the images are
    "mapping": "train: images/train\nval: images/val\nnames: {1: dog, 0: cat}",
    "a path that is not ours": "path: ../datasets/coco8\ntrain: images/train\nval: images/val\nnames: [cat, dog]",
    "a path of ours": "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]",
    "one level too high": "train: ../images/train\nval: ../images/val\nnames: [cat, dog]",
    "several": "train: [images/train]\nval: [images/val]\nnames:\n  - cat\n  - dog\nnc: 2",
    "absent": "names: [cat, dog]",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_what_data_yaml_may_say(tmp_path, text):
    root = yolo_directory(tmp_path / "data", text)
    plain = yolo_directory(tmp_path / "plain")
    for split in ("train", "val"):
        found, expected = load_data(root, split), load_data(plain, split)
        assert found.label_names == expected.label_names
        assert [str(Path(p).relative_to(root)) for p in found.rows["path"]] == [
            str(Path(p).relative_to(plain)) for p in expected.rows["path"]
        ]
        assert found.rows["boxes"][:] == expected.rows["boxes"][:]


def test_a_list_of_images_and_a_yaml_of_another_name(yolo):
    (yolo / "data.yaml").unlink()
    (yolo / "some.txt").write_text("./images/train/a.png\n\nimages/val/c.png\n")
    (yolo / "shapes.yml").write_text("train: some.txt\nvalid: images/val\nnames: [cat, dog]\n")
    for place in (yolo, yolo / "shapes.yml"):
        assert [Path(p).name for p in load_data(place, "train").rows["path"]] == ["a.png", "c.png"]
        assert len(load_data(place, "val")) == 1
    with pytest.raises(MissingFileError, match=r"shapes\.yml has no 'test', and none of these exist: images/test/"):
        load_data(yolo, "test")


def test_names_that_yaml_takes_for_something_else(yolo):
    (yolo / "data.yaml").write_text("train: images/train\nnames: [no, 1, 'a: b', 'Größe #1']\n")
    assert load_data(yolo, "train").label_names == ("no", "1", "a: b", "Größe #1")


def test_without_data_yaml(tmp_path):
    root = yolo_directory(tmp_path / "data", None)
    with pytest.raises(DataError, match=r"there is no .*data\.yaml, nor .*classes\.txt.*names: \[NAME, NAME\]"):
        load_data(root, "train")
    (root / "labels" / "classes.txt").write_text("cat\ndog\n")
    assert load_data(root, "train").label_names == ("cat", "dog")
    (root / "classes.txt").write_text("bird\nant\n")
    assert load_data(root, "val").label_names == ("bird", "ant")


def test_a_directory_per_split(tmp_path):
    for split in ("train", "valid"):
        picture(tmp_path / split / "images" / "a.jpg")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert load_data(tmp_path, "val").rows[0]["path"] == str(tmp_path / "valid/images/a.jpg")
    assert load_data(tmp_path, "train").rows[0]["boxes"] == [[0, 0, 60, 40]]


def test_directories_above_may_be_called_images(tmp_path):
    root = tmp_path / "images" / "mine"
    picture(root / "pictures" / "a.png")
    (root / "pictures" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "data.yaml").write_text("train: pictures\nnames: [cat]\n")
    assert load_data(root, "train").rows[0]["boxes"] == [[0, 0, 60, 40]]


def test_of_a_polygon_the_box_around_it(yolo):
    (yolo / "labels/train/a.txt").write_text("1 0.2 0.5 0.6 0.25 0.4 0.75\n")
    assert load_data(yolo, "train").rows[0]["boxes"] == [[10, 10, 30, 30]]
    assert "rows that are polygons: 1. The boxes around them are used." in doctor(yolo, "train").notes


def test_keypoints_are_not_read(yolo):
    (yolo / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 3]\n")
    (yolo / "labels/train/a.txt").write_text("1 0.5 0.5 0.2 0.1 0.1 0.1 2 0.9 0.9 1\n")
    assert load_data(yolo, "train").rows[0]["boxes"] == [[20, 18, 30, 22]]


def test_images_that_lie_on_their_side_are_measured_upright(tmp_path):
    root = yolo_directory(tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 40)).save(root / "images/train/a.jpg", exif=exif)
    (root / "images/train/a.png").unlink()
    found = load_data(root, "train")
    assert found.sizes[0].tolist() == [50, 40]
    assert found.records.load(0).size == (40, 50)


ROWS = {
    "0 0.5 0.5 0.2": "4 numbers; expected class, cx, cy, width, height, or a class and a polygon",
    "0 0.5 0.5 0.2 0.2 0.9": "6 numbers",
    "2 0.5 0.5 0.2 0.2": "class 2, but there are 2 classes, numbered from 0",
    "-1 0.5 0.5 0.2 0.2": "class -1, but",
    "0.5 0.5 0.5 0.2 0.2": "class 0.5, but",
    "0 25 20 10 4": "25 20 10 4 are not fractions of the image, 0 to 1",
    "0 0.5 0.5 -0.2 0.2": "are not fractions",
    "0 nan 0.5 0.2 0.2": "are not fractions",
    "cat 0.5 0.5 0.2 0.2": "'cat 0.5 0.5 0.2 0.2' are not numbers",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_wrong_row_is_one_error_with_file_and_line(yolo, row):
    (yolo / "labels/train/a.txt").write_text(f"0 0.5 0.5 1 1\n\n{row}\n")
    with pytest.raises(DataError, match=rf"labels/train/a\.txt, line 3: .*{ROWS[row]}") as caught:
        load_data(yolo, "train")
    assert str(yolo) in str(caught.value) and "\n" not in str(caught.value)
    report = doctor(yolo, "train")
    assert [problem.kind for problem in report.problems] == ["wrong rows"] and report.boxes == 1
    assert len(load_data(yolo, "val")) == 1


def yaml(text):
    return lambda root: (root / "data.yaml").write_text(text)


def list_a_missing_image(root):
    (root / "list.txt").write_text("images/train/a.png\nimages/x.png\n")
    yaml("train: list.txt\nnames: [a, b]")(root)


OTHERS = {  # how to spoil the directory
    "no image": (lambda d: (d / "images/train/a.png").write_bytes(b"no"), r"images/train/a\.png: not an image"),
    "no text": (lambda d: (d / "labels/train/a.txt").write_bytes(b"\xff\xfe0"), r"labels/train/a\.txt is not text"),
    "no label file": (lambda d: (d / "labels/train/a.txt").unlink(), "none of the 2 images of 'train' has a label"),
    "no YAML": (yaml("names: [a"), r"data\.yaml is not YAML"),
    "no mapping": (yaml("- a"), r"data\.yaml is no YAML mapping"),
    "no names": (yaml("train: images/train"), r"data\.yaml has no 'names', nor"),
    "names twice": (yaml("train: images/train\nnames: [a, a]"), "'a' is given twice"),
    "names with a hole": (yaml("train: images/train\nnames: {0: a, 2: b}"), "has the numbers 0, 2; expected 0 to 1"),
    "names, a number": (yaml("train: images/train\nnames: 3"), "'names' is 3, expected a list of class names"),
    "no directory": (yaml("train: pics\nnames: [a]"), r"names 'pics', which does not exist; looked for .*/shapes/pics"),
    "no images": (yaml("train: labels\nnames: [a]"), r"no images in .*labels"),
    "a missing image": (list_a_missing_image, r"No image file .*images/x\.png"),
}  # fmt: skip


@pytest.mark.parametrize("fault", OTHERS)
def test_what_cannot_be_read_is_one_error(yolo, fault):
    spoil, words = OTHERS[fault]
    spoil(yolo)
    with pytest.raises(LdHubError, match=words) as caught:
        load_data(yolo, "train")
    assert str(yolo) in str(caught.value) and "\n" not in str(caught.value)


def test_no_layout_at_all(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(MissingFileError) as caught:
        load_data(tmp_path, "val")
    for words in ("COCO's annotations/instances_val2017.json", "VOC's Annotations/", "YOLO's data.yaml", "pictures/"):
        assert words in str(caught.value)


def test_a_coco_file_goes_before_other_layouts(yolo):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bee"}]}
    content["images"].append({"id": 1, "file_name": "c.png", "width": 20, "height": 20})
    voc_devkit(yolo)
    (yolo / "annotations").mkdir()
    (yolo / "annotations" / "instances_val.json").write_text(json.dumps(content))
    assert load_data(yolo, "val").label_names == ("bee",)
    assert load_data(yolo, "train").protocol == "voc12"  # which goes before YOLO
    assert load_yolo(yolo, "train").label_names == ("cat", "dog")
