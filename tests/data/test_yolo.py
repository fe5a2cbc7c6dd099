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
    (root / "list.txt").write_text("images/train/a.png\nimages/x.png\n")  # whose label file is missing, too
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
    "a Python object": (yaml("train: images/train\nnames: !!python/object/apply:os.getcwd []"),
                        r"data\.yaml, line 2: the tag !!python/object/apply:os\.getcwd asks for a Python object"),
    "lists in lists": (yaml("a: &a [x, x]\nb: &b [*a, *a]\ntrain: images/train\nnames: *b"), "expected a list of cl"),
    "another number": (yaml("train: images/train\nnames: [cat, dog]\nnc: 80"), "'nc' is 80, but 'names' has 2"),
    "a mapping of directories": (yaml("train: {a: b}\nnames: [cat, dog]"), "'train' is .*, expected a directory"),
    "no file of labels": (lambda d: (d / "labels/train/deep/b.txt").mkdir(parents=True),
                          r"labels/train/deep/b\.txt is no file"),
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


PLACES = {  # what data.yaml says where it was written for another place, and why that is found
    "another root": "path: /gone/data\ntrain: images/train\nval: images/val",
    "another root, absolute": "train: /gone/data/images/train\nval: /gone/data/images/val",
    "Roboflow": "train: ../images/train\nval: ../images/val",
    "Windows": "path: C:\\me\\data\ntrain: images\\train\nval: images\\val",
    "Windows, absolute": "train: C:\\me\\data\\images\\train\nval: C:/me/data/images/val",
    "lists": "train: train.txt\nval: /gone/data/val.txt",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_description_written_for_another_place(yolo, place):
    (yolo / "data.yaml").write_text(f"{PLACES[place]}\nnames: [cat, dog]\n")
    (yolo / "train.txt").write_bytes(b"\xef\xbb\xbf./images/train/a.png\r\n./images/train/deep/b.png\r\n")
    (yolo / "val.txt").write_text("/gone/data/images/val/c.png\n")
    assert [Path(path).name for path in load_data(yolo, "train").rows["path"]] == ["a.png", "b.png"]
    assert load_data(yolo, "val").rows["path"] == [str(yolo / "images/val/c.png")]


def test_data_beside_its_description(yolo):
    file = yolo.parent / "shapes.yaml"
    file.write_text("path: ../datasets/shapes\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n")
    assert load_data(file, "val").rows["path"] == [str(yolo / "images/val/c.png")]


def test_the_last_folder_alone_is_not_taken_for_the_one_that_is_named(yolo):
    (yolo / "data.yaml").write_text("train: images/train\nval: ../valid/images\nnames: [cat, dog]\n")
    with pytest.raises(MissingFileError, match=r"names '\.\./valid/images', which does not exist"):
        load_data(yolo, "val")  # images/ holds those to train on


def test_byte_order_marks_line_ends_and_rounding(yolo):
    before = load_data(yolo, "train").rows["boxes"]
    for file in [*yolo.glob("labels/*/*.txt"), yolo / "data.yaml"]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_data(yolo, "train").rows["boxes"] == before
    (yolo / "labels/val/c.txt").write_text("0 0.5 0.5 1.0000001 1\n0 0.5 -1e-9 1 1\n")
    assert load_data(yolo, "val").rows[0]["boxes"] == [[0, 0, 20, 20], [0, 0, 20, 10]]


def test_hidden_files_are_no_images_and_links_are_followed(yolo):
    (yolo / "images/train/._a.png").write_bytes(b"\0\5\x16\7")
    picture(yolo / "images/train/.ipynb_checkpoints/a.png")
    (yolo / "images/train/deep").rename(yolo / "elsewhere")
    (yolo / "images/train/deep").symlink_to(yolo / "elsewhere")
    (yolo / "images/train/loop").symlink_to(yolo / "images/train")
    (yolo / "images/train/up").symlink_to(yolo / "images")
    assert [Path(path).name for path in load_data(yolo, "train").rows["path"]] == ["a.png", "b.png"]


def test_images_that_share_a_label_file_are_pointed_out(yolo):
    picture(yolo / "images/val/c.jpg", 20, 20)
    assert len(load_data(yolo, "val")) == 2
    assert any("several images of one name (a.jpg, a.png): labels/val/c.txt" in n for n in doctor(yolo, "val").notes)


def test_of_several_descriptions_one_is_to_be_named(yolo):
    (yolo / "data.yaml").rename(yolo / "one.yaml")
    (yolo / "two.yaml").write_bytes((yolo / "one.yaml").read_bytes())
    with pytest.raises(DataError, match=r"Or name one of one\.yaml, two\.yaml in place of the directory"):
        load_data(yolo, "train")
    assert len(load_data(yolo / "two.yaml", "train")) == 2


def test_no_layout_at_all(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(MissingFileError) as caught:
        load_data(tmp_path, "val")
    for words in ("COCO's annotations/instances_val2017.json", "VOC's Annotations/", "YOLO's data.yaml", "pictures/"):
        assert words in str(caught.value)
    assert "XML" not in str(caught.value)
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "a.xml").write_text("<annotation/>")  # as Roboflow writes VOC
    with pytest.raises(MissingFileError, match=r"the XML files in .*valid: move them to Annotations/.*Main/val\.txt"):
        load_data(tmp_path, "val")


def test_a_coco_file_goes_before_other_layouts(yolo):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bee"}]}
    content["images"].append({"id": 1, "file_name": "c.png", "width": 20, "height": 20})
    voc_devkit(yolo)
    (yolo / "annotations").mkdir()
    (yolo / "annotations" / "instances_val.json").write_text(json.dumps(content))
    assert load_data(yolo, "val").label_names == ("bee",)
    assert load_data(yolo, "train").protocol == "voc12"  # which goes before YOLO
    assert load_yolo(yolo, "train").label_names == ("cat", "dog")


@pytest.mark.parametrize(("images", "labels"), [("images/Train", "labels/Train"), ("Images/train", "Labels/train")])
def test_folders_in_another_case(tmp_path, images, labels):
    for part, name in (("train", "a"), ("val", "b")):
        for folder, suffix, text in ((images, "jpg", ""), (labels, "txt", "0 0.5 0.5 1 1\n")):
            place = tmp_path / folder.replace("Train", part.title()).replace("train", part)
            place.mkdir(parents=True, exist_ok=True)
            picture(place / f"{name}.jpg") if suffix == "jpg" else (place / f"{name}.txt").write_text(text)
    (tmp_path / "classes.txt").write_text("cat\n")
    for part, name in (("train", "a.jpg"), ("val", "b.jpg")):
        found = load_data(tmp_path, part)
        assert [Path(row["path"]).name for row in found.rows] == [name]
        assert found.rows[0]["boxes"] == [[0, 0, 60, 40]]


def test_class_names_beside_the_labels_of_each_part(tmp_path):
    root = yolo_directory(tmp_path / "data", None)
    for part in ("train", "val"):
        (root / "labels" / part / "classes.txt").write_text("cat\ndog\n")
    assert load_data(root, "train").label_names == load_data(root, "val").label_names == ("cat", "dog")
    (root / "labels" / "val" / "classes.txt").write_text("dog\ncat\n")  # a number would be two classes
    with pytest.raises(
        DataError, match=r"labels/train/classes\.txt and .*labels/val/classes\.txt have other class names"
    ):
        load_data(root, "val")


def test_rows_that_repeat_are_left_out_and_said(yolo):
    (yolo / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n0 0.5  0.5 0.2 0.2\n")
    with pytest.warns(UserWarning, match=r"1 rows of label files say the same .* left out \(labels/train/a\.txt\)\."):
        assert load_data(yolo, "train").rows[0]["labels"] == [0, 1]
    with pytest.raises(DataError, match="--strict"):
        load_data(yolo, "train", strict=True)


def test_corners_are_not_taken_for_middles_and_sizes(yolo):
    rows = ["0 0.1 0.2 0.5 0.6", "1 0.4 0.4 0.9 0.8", "0 0.6 0.1 0.95 0.4", "1 0.5 0.5 0.9 0.9"]
    (yolo / "labels/train/a.txt").write_text("\n".join(rows))
    with pytest.raises(
        DataError, match=r"3 of 4 boxes reach out .* corners x1 y1 x2 y2 \(for example in labels/train/a"
    ):
        load_data(yolo, "train")
    (yolo / "labels/train/a.txt").write_text("\n".join([*rows, "0 0.5 0.5 0.2 0.2"]))  # which is no corners
    assert len(load_data(yolo, "train").rows[0]["boxes"]) == 5


@pytest.mark.parametrize("row", ["0,0.5,0.5,0.2,0.2", "cat 0.5 0.5 0.2 0.2"])
def test_rows_of_another_form_are_told_the_form(yolo, row):
    (yolo / "labels/train/a.txt").write_text(row)
    with pytest.raises(DataError, match=r"a\.txt, line 1: .* expected a class, as its number, and fractions .* spaces"):
        load_data(yolo, "train")


@pytest.mark.parametrize("name", ["names.txt", "voc.names"])
def test_other_files_of_class_names(tmp_path, name):
    root = yolo_directory(tmp_path / "data", None)
    (root / name).write_text("cat\ndog\n")
    assert load_data(root, "train").label_names == ("cat", "dog")
