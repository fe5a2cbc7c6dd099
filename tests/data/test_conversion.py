from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.data import load_data
from ld_hub.data.conversion import convert_data
from ld_hub.errors import ConfigError, DataError, MissingFileError
from tests.support.directories import picture, voc_devkit, voc_image, voc_list, yolo_directory


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def write_coco(root: Path, sizes, boxes, names=("cat", "dog"), split="train") -> Path:
    """Boxes are image, category, x, y, w, h; the images are there by name only."""
    images = [{"id": 7 + i, "file_name": f"i{i}.jpg", "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    annotations = [
        {"id": 5 + k, "image_id": 7 + image, "category_id": 3 + 2 * label, "bbox": box, "area": box[2] * box[3]}
        for k, (image, label, box) in enumerate(boxes)
    ]
    categories = [{"id": 3 + 2 * k, "name": name} for k, name in enumerate(names)]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def read_coco(root: Path, split="train"):
    """Per image name and class name the boxes, in order, and the categories."""
    content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    files = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    rows = [(files[r["image_id"]], names[r["category_id"]], r["bbox"]) for r in content["annotations"]]
    sizes = {Path(i["file_name"]).stem: (i["width"], i["height"]) for i in content["images"]}
    return rows, sizes, list(names.values())


@st.composite
def images_and_boxes(draw, unit):
    """Sizes, and boxes in whole multiples of `unit` px that lie in their image."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1, max_size=3))
    boxes = []
    for _ in range(draw(st.integers(1, 6))):
        image = draw(st.integers(0, len(sizes) - 1))
        box = []
        for side in sizes[image]:
            low = draw(st.integers(0, side - 1))
            high = draw(st.integers(low + 1, side))
            box.append((low, high - low))
        shrink = draw(st.integers(0, round(1 / unit) - 1)) * unit if min(box[0][1], box[1][1]) > 1 else 0
        (x, w), (y, h) = box
        boxes.append((image, draw(st.integers(0, 1)), [x, y, round(w - shrink, 2), round(h - shrink, 2)]))
    return sizes, boxes


@settings(max_examples=60)
@given(images_and_boxes(1))
def test_whole_pixels_go_through_voc_unchanged(data):
    sizes, boxes = data
    with tempfile.TemporaryDirectory() as place:
        root = write_coco(Path(place) / "a", sizes, boxes)
        assert convert_data(root, Path(place) / "b", "voc", splits=["train"], images="none").told == {}
        for i, (width, height) in enumerate(sizes):  # read by the rule of the format, not by our reader
            for element in ElementTree.parse(Path(place) / f"b/Annotations/i{i}.xml").iter("bndbox"):
                x1, y1, x2, y2 = (int(element.findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax"))
                assert 1 <= x1 <= x2 <= width and 1 <= y1 <= y2 <= height
        convert_data(Path(place) / "b", Path(place) / "c", "coco", splits=["train"], images="none")
        there, back = read_coco(root), read_coco(Path(place) / "c")
        assert (sorted(there[0]), *there[1:]) == (sorted(back[0]), *back[1:])


@settings(max_examples=60)
@given(images_and_boxes(0.01))
def test_hundredths_of_a_pixel_go_through_yolo_unchanged(data):
    sizes, boxes = data
    with tempfile.TemporaryDirectory() as place:
        root = write_coco(Path(place) / "a", sizes, boxes)
        made = convert_data(root, Path(place) / "b", "yolo", splits=["train"], images="none")
        assert made.told == {} and made.boxes == {"train": len(boxes)}
        for k, (width, height) in enumerate(sizes):
            expected = [(label, *box) for image, label, box in boxes if image == k]
            lines = (Path(place) / f"b/labels/train/i{k}.txt").read_text().splitlines()
            assert len(lines) == len(expected)
            for line, (label, x, y, w, h) in zip(lines, expected, strict=True):
                number, cx, cy, fw, fh = map(float, line.split())
                found = [(cx - fw / 2) * width, (cy - fh / 2) * height, fw * width, fh * height]
                assert number == label and found == pytest.approx([x, y, w, h], abs=1e-5)
        (Path(place) / "b/images/train").mkdir(parents=True)
        for k in range(len(sizes)):
            (Path(place) / f"b/images/train/i{k}.jpg").touch()
        with mock.patch("ld_hub.data.source.read_size", lambda path: sizes[int(path.stem[1:])]):  # too large to write
            convert_data(Path(place) / "b", Path(place) / "c", "coco", splits=["train"], images="none")
        there, back = read_coco(root), read_coco(Path(place) / "c")
        assert (sorted(there[0]), *there[1:]) == (sorted(back[0]), *back[1:])


def numbers(root: Path) -> dict[str, list[tuple[str, ...]]]:
    """Per XML, everything between tags that the conversion has to keep, as text."""
    keys = ("name", "difficult", "xmin", "ymin", "xmax", "ymax")
    found = {}
    for file in sorted(root.rglob("*.xml")):
        objects = re.sub(r"<part>.*?</part>", "", file.read_text(), flags=re.S).split("<object>")[1:]
        found[file.name] = [tuple(re.search(rf"<{k}>(.*?)</{k}>", text)[1] for k in keys) for text in objects]
    return found


def test_voc_through_coco_is_the_same_text(tmp_path):
    source = voc_devkit(tmp_path / "VOCdevkit")
    made = convert_data(source, tmp_path / "coco", "coco")
    assert made.images == {"train": 6, "val": 3} and made.told == {}
    rows = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text())["annotations"]
    assert [row.get("ignore", 0) for row in rows] == [0, 1, 0, 0, 0, 0]
    assert convert_data(tmp_path / "coco", tmp_path / "voc", "voc").told == {}
    assert numbers(tmp_path / "voc") == numbers(source) and len(numbers(source)) == 9
    again = convert_data(tmp_path / "voc", tmp_path / "coco2", "coco")
    assert again.images == made.images
    for split in ("train", "val"):
        name = f"annotations/instances_{split}.json"
        assert (tmp_path / "coco2" / name).read_text() == (tmp_path / "coco" / name).read_text()


def test_every_format_reads_back_as_the_same_data(tmp_path):
    source = yolo_directory(tmp_path / "yolo")
    convert_data(source, tmp_path / "coco", "coco", images="copy")
    convert_data(tmp_path / "coco", tmp_path / "voc", "voc")
    convert_data(tmp_path / "voc", tmp_path / "back", "yolo", images="copy")
    assert not (tmp_path / "back/images/train/a.png").is_symlink()
    assert (tmp_path / "voc/JPEGImages/a.png").is_symlink() and not (tmp_path / "coco/train/a.png").is_symlink()
    assert (tmp_path / "back/labels/train/a.txt").read_text() == "1 0.5 0.5 0.2 0.1\n0 0.25 0.5 0.5 1\n"
    assert (tmp_path / "back/labels/train/b.txt").read_text() == ""
    for split in ("train", "val"):
        expected = load_data(source, split)
        for place in ("coco", "voc", "back"):
            found = load_data(tmp_path / place, split)
            assert found.label_names == expected.label_names
            assert (
                found.rows["boxes"][:] == expected.rows["boxes"][:]
                and found.rows["labels"][:] == expected.rows["labels"][:]
            )
            assert [found.records.load(i).size for i in range(len(found))] == [
                expected.records.load(i).size for i in range(len(expected))
            ]


def test_what_a_format_cannot_say_is_counted(tmp_path):
    boxes = [(0, 0, [1.25, 2, 30.5, 20]), (0, 1, [50, 30, 20, 20]), (0, 1, [70, 5, 5, 5]), (0, 0, [3, 3, 0.2, 9])]
    root = write_coco(tmp_path / "a", [(60, 40)], boxes)
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for flags in ({"iscrowd": 1}, {"ignore": 1}, {"area": 50}):
        content["annotations"].append({**content["annotations"][0], "bbox": [2, 2, 10, 10], "area": 100, **flags})
        content["annotations"][-1]["id"] = 100 + len(content["annotations"])
    file.write_text(json.dumps(content))
    left_out = {"boxes without an area in their image left out": 2, "boxes that reached beyond their image clipped": 1}
    areas = {"areas of masks replaced by those of boxes, which moves COCO's small, medium and large": 1}
    voc = convert_data(root, tmp_path / "voc", "voc", splits=["train"], images="none")
    assert voc.told == {
        **left_out, **areas, "boxes rounded to whole pixels, which is how VOC writes them": 1,
        "crowds marked difficult: VOC has no crowds": 1,
    }  # fmt: skip
    assert numbers(tmp_path / "voc")["i0.xml"] == [
        ("cat", "0", "2", "3", "32", "22"), ("dog", "0", "51", "31", "60", "40"), ("cat", "1", "3", "3", "12", "12"),
        ("cat", "1", "3", "3", "12", "12"), ("cat", "0", "3", "3", "12", "12"),
    ]  # fmt: skip
    yolo = convert_data(root, tmp_path / "yolo", "yolo", splits=["train"], images="none")
    assert yolo.told == {
        **left_out, **areas, "crowds left out: YOLO cannot say them": 1,
        "difficult or ignored boxes left out: YOLO cannot say them": 1,
    }  # fmt: skip
    assert len((tmp_path / "yolo/labels/train/i0.txt").read_text().splitlines()) == 3


ODD = ("a & b <c>", 'it\'s "quoted"', "- no", "yes", "1", "Größe: #5", "{x: [y]}", "日本", "a\\b", "%d")


def test_odd_class_names(tmp_path):
    picture(tmp_path / "a/train/i0.jpg")
    root = write_coco(tmp_path / "a", [(60, 40)], [(0, k, [1, 1, 5 + k, 5]) for k in range(len(ODD))], ODD)
    for to in ("voc", "yolo"):
        convert_data(root, tmp_path / to, to, splits=["train"])
        found = load_data(tmp_path / to)
        assert found.label_names == ODD and found.rows[0]["labels"] == list(range(len(ODD)))
    for bad in ("two\nlines", " dog", "nul\x00"):
        write_coco(root, [(60, 40)], [(0, 0, [1, 1, 5, 5])], ("cat", bad))
        with pytest.raises(DataError, match=r"class name .* cannot be written to an XML"):
            convert_data(root, tmp_path / "bad", "voc", splits=["train"])
    write_coco(root, [(60, 40)], [], ("cat", "cat"))
    with pytest.raises(DataError, match="two categories are called 'cat'"):
        convert_data(root, tmp_path / "bad", "voc", splits=["train"])
    assert not (tmp_path / "bad").exists()


def test_images_of_the_same_name(tmp_path):
    root = tmp_path / "a"
    for split, names in (("train", ["x/1.jpg", "y/2.jpg"]), ("val", ["x/1.jpg"])):
        write_coco(root, [(60, 40)] * len(names), [(0, 0, [1, 1, 5, 5])], split=split)
        file = root / f"annotations/instances_{split}.json"
        content = json.loads(file.read_text())
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name
            picture(root / split / name)
        file.write_text(json.dumps(content))
    convert_data(root, tmp_path / "voc", "voc")
    assert sorted(os.listdir(tmp_path / "voc/JPEGImages")) == ["train_1.jpg", "train_2.jpg", "val_1.jpg"]
    assert (tmp_path / "voc/JPEGImages/val_1.jpg").resolve() == (root / "val/x/1.jpg").resolve()
    convert_data(root, tmp_path / "yolo", "yolo")
    assert sorted(os.listdir(tmp_path / "yolo/labels/train")) == ["1.txt", "2.txt"]
    content["images"].append({**content["images"][0], "id": 99, "file_name": "y/1.png"})
    file.write_text(json.dumps(content))
    picture(root / "val/y/1.png")
    convert_data(root, tmp_path / "voc2", "voc")
    assert sorted(os.listdir(tmp_path / "voc2/Annotations")) == [
        "train_x_1.xml", "train_y_2.xml", "val_x_1.xml", "val_y_1.xml",
    ]  # fmt: skip


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch):
    source = voc_devkit(tmp_path / "VOCdevkit")
    before = sorted(os.listdir(tmp_path))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ConfigError, match="full exists and is not empty"):
        convert_data(source, tmp_path / "full", "coco")
    assert os.listdir(tmp_path / "full") == ["mine.txt"]
    shutil.rmtree(tmp_path / "full")
    calls = []
    monkeypatch.setattr(
        shutil, "copyfile", lambda a, b: calls.append(b) or (_ for _ in ()).throw(OSError(28, "full disk"))
    )
    with pytest.raises(OSError, match="full disk"):
        convert_data(source, tmp_path / "out", "yolo", images="copy")
    assert len(calls) == 1 and sorted(os.listdir(tmp_path)) == before
    (tmp_path / "out").mkdir()  # an empty one may be used
    assert convert_data(source, tmp_path / "out", "yolo").images == {"train": 6, "val": 3}


def test_splits_and_arguments(tmp_path):
    source = voc_devkit(tmp_path / "VOCdevkit")
    made = convert_data(source, tmp_path / "a", "yolo", splits=["trainval2007", "val2012"])
    assert made.images == {"trainval2007": 3, "val2012": 1}
    assert len(load_data(tmp_path / "a", "trainval2007")) == 3
    with pytest.raises(ConfigError, match="is in VOC's format already"):
        convert_data(source, tmp_path / "b", "voc")
    with pytest.raises(MissingFileError, match="split 'extra'"):
        convert_data(source, tmp_path / "b", "coco", splits=["train", "extra"])
    with pytest.raises(ConfigError, match="to='tfrecord'"):
        convert_data(source, tmp_path / "b", "tfrecord")
    yolo = yolo_directory(tmp_path / "yolo")
    shutil.rmtree(yolo / "images/val")
    made = convert_data(yolo, tmp_path / "c", "coco")
    assert made.images == {"train": 2} and "images/val" in made.skipped["val"]
    assert [image["file_name"] for image in json.loads(
        (tmp_path / "c/annotations/instances_train.json").read_text())["images"]] == ["a.png", "b.png"]  # fmt: skip
    convert_data(yolo, tmp_path / "d", "coco", images="none")
    found = load_data(images=yolo, annotations=tmp_path / "d/annotations/instances_train.json")
    assert found.rows["path"][:] == load_data(yolo).rows["path"][:]


def test_faults_of_the_source_stop_it(tmp_path):
    voc_image(tmp_path / "a", "x", [("cat", 0, (1, 1, 99, 9))])
    voc_list(tmp_path / "a", "train", "x")
    with pytest.raises(DataError, match=r"Annotations/x\.xml: object 1"):
        convert_data(tmp_path / "a", tmp_path / "b", "coco")
    assert not (tmp_path / "b").exists()
