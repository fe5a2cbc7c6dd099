"""What labelling tools write, by hand as they write it: images, boxes, names and remarks of every layout."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from ld_hub.data import doctor, load_data
from ld_hub.errors import ConfigError, DataError, MissingFileError
from tests.support.directories import picture, voc_devkit, voc_image, voc_list, yolo_directory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


# Every set has in each split the image a, 60 x 40 px, with a dog at 25..50 x 5..25, and b without objects, and in the
# training split c with a cat at 0..6 x 0..8.
XYXY, CAT = (25, 5, 50, 25), (0, 0, 6, 8)


def dump(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def objects_of(split: str) -> dict[str, list[tuple[str, tuple[int, int, int, int]]]]:
    both: dict[str, list[tuple[str, tuple[int, int, int, int]]]] = {"a.jpg": [("dog", XYXY)], "b.jpg": []}
    return both | ({"c.jpg": [("cat", CAT)]} if split == "train" else {})


def pictures(folder: Path, split: str) -> None:
    for name in objects_of(split):
        picture(folder / name)


def coco(split: str, prefix: str = "") -> dict[str, object]:
    found = objects_of(split)
    ids = {name: k for k, name in enumerate(found, start=1)}
    boxes = [(ids[n], label, b) for n, items in found.items() for label, b in items]
    return {
        "images": [{"id": i, "file_name": prefix + n, "width": 60, "height": 40} for n, i in ids.items()],
        "annotations": [
            {"id": k, "image_id": i, "category_id": 1 + (label == "dog"), "iscrowd": 0,
             "area": (b[2] - b[0]) * (b[3] - b[1]), "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
            for k, (i, label, b) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip


def voc_text(name: str, items: list[tuple[str, tuple[int, int, int, int]]]) -> str:
    inner = "".join(
        f"<object><name>{label}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax>"
        f"<ymax>{b[3]}</ymax></bndbox></object>"
        for label, b in items
    )
    size = "<size><width>60</width><height>40</height></size>"
    return f"<annotation><filename>{name}</filename>{size}{inner}</annotation>"


def yolo_text(items: list[tuple[str, tuple[int, int, int, int]]]) -> str:
    return "".join(
        f"{int(label == 'dog')} {(b[0] + b[2]) / 120} {(b[1] + b[3]) / 80} {(b[2] - b[0]) / 60} {(b[3] - b[1]) / 40}\n"
        for label, b in items
    )


def voc_beside(root: Path, split: str, folder: str, labels: str) -> None:
    pictures(root / folder, split)
    for name, items in objects_of(split).items():
        file = root / labels / f"{Path(name).stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(voc_text(name, items))


def yolo_beside(root: Path, split: str, folder: str, labels: str, classes: str = "") -> None:
    pictures(root / folder, split)
    for name, items in objects_of(split).items():
        file = root / labels / f"{Path(name).stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yolo_text(items))
    if classes:
        (root / classes).write_text("cat\ndog\n")


def labelme(root: Path, split: str) -> None:
    pictures(root / split, split)
    for name, items in objects_of(split).items():
        shapes: list[dict[str, object]] = [
            {"label": label, "points": [[b[2], b[3]], [b[0], b[1]]], "shape_type": "rectangle", "flags": {}}
            for label, b in items
        ]
        path = {"imagePath": f"..\\{split}\\{name}", "imageWidth": 60, "imageHeight": 40, "imageData": None}
        dump(root / split / f"{Path(name).stem}.json", {"version": "5.4", "shapes": shapes, **path})


def createml(root: Path, split: str, name: str) -> None:
    pictures(root / split, split)
    rows = [
        {"image": name, "annotations": [
            {"label": label, "coordinates": {
                "x": (b[0] + b[2]) / 2, "y": (b[1] + b[3]) / 2, "width": b[2] - b[0], "height": b[3] - b[1]}}
            for label, b in items]}
        for name, items in objects_of(split).items()
    ]  # fmt: skip
    dump(root / name, rows)


def via(root: Path, split: str, *, version: int) -> None:
    pictures(root / split, split)
    images = {}
    for name, items in objects_of(split).items():
        regions = [
            {"shape_attributes": {"name": "rect", "x": b[0], "y": b[1], "width": b[2] - b[0], "height": b[3] - b[1]},
             "region_attributes": {"name": label} if version == 1 else {"type": {label: True, "bird": False}}}
            for label, b in items
        ]  # fmt: skip
        named = {str(k): region for k, region in enumerate(regions)} if version == 1 else regions
        images[f"{name}4711"] = {"filename": name, "size": 4711, "regions": named, "file_attributes": {}}
    content = images if version == 1 else {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}}
    dump(root / split / "via_region_data.json", content)


def vott(root: Path) -> None:
    folder = root / "vott-json-export"
    pictures(folder, "train")
    assets = {
        f"9e107d{k}": {
            "asset": {"name": name, "path": f"file:/home/me/{name}", "size": {"width": 60, "height": 40}},
            "regions": [
                {"id": "x", "tags": [label], "type": "RECTANGLE",
                 "boundingBox": {"left": b[0], "top": b[1], "width": b[2] - b[0], "height": b[3] - b[1]}}
                for label, b in items],
        }
        for k, (name, items) in enumerate(objects_of("train").items())
    }  # fmt: skip
    dump(folder / "pets-export.json", {"name": "pets", "assets": assets})


def table(file: Path, split: str, head: str, row: Callable[..., str]) -> None:
    lines = [row(name, label, *b) for name, items in objects_of(split).items() for label, b in items]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([head, *lines]) + "\n")


def open_images(root: Path) -> None:
    for split, name in (("train", "oidv6-train-annotations-bbox"), ("val", "validation-annotations-bbox")):
        pictures(root / ("validation" if split == "val" else split), split)
        table(
            root / f"{name}.csv", split, "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf",
            lambda n, label, a, b, c, d: (
                f"{Path(n).stem},xclick,/m/{label},1,{a / 60},{c / 60},{b / 40},{d / 40},0,{int(label == 'cat')}"
            ),
        )  # fmt: skip
    (root / "class-descriptions-boxable.csv").write_text("/m/dog,dog\n/m/cat,cat\n/m/bee,bee\n")


def cvat_xml(root: Path) -> None:
    pictures(root / "images", "train")
    images = "".join(
        f'<image id="{k}" name="{name}" width="60" height="40">'
        + "".join(f'<box label="{label}" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"/>' for label, b in items)
        + "</image>"
        for k, (name, items) in enumerate(objects_of("train").items())
    )
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")


def imagefolder(root: Path, *, rows: bool = False, corners: bool = False, suffix: str = "jsonl") -> None:
    for split, folder in (("train", "train"), ("val", "validation")):
        pictures(root / folder, split)
        lines = []
        for name, items in objects_of(split).items():
            boxes = [list(b) if corners else [b[0], b[1], b[2] - b[0], b[3] - b[1]] for _, b in items]
            labels = [label for label, _ in items]
            objects: object = {"bbox": boxes, "category": labels}
            if rows:
                objects = [{"bbox": box, "label": label} for box, label in zip(boxes, labels, strict=True)]
            lines.append({"file_name": name, "objects": objects})
        file = root / folder / f"metadata.{suffix}"
        if suffix == "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(lines), file)
        elif suffix == "jsonl":
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        else:
            texts = [(line["file_name"], json.dumps(line["objects"]).replace('"', '""')) for line in lines]
            file.write_text("file_name,objects\n" + "".join(f'{name},"{text}"\n' for name, text in texts))


def darknet(root: Path, *, valid: bool) -> None:
    for split, name in (("train", "train"), *([("val", "valid")] if valid else [])):
        yolo_beside(root, split, f"obj_{name}_data", f"obj_{name}_data")
        lines = [f"data/obj_{name}_data/{image}" for image in objects_of(split)]
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "obj.names").write_text("cat\ndog\n")
    more = "valid = data/valid.txt\n" if valid else ""
    (root / "obj.data").write_text(f"classes = 2\ntrain = data/train.txt\n{more}names = data/obj.names\nbackup = x/\n")


def each(make: Callable[[Path, str], object], val: str = "val") -> Callable[[Path], None]:
    def make_all(root: Path) -> None:
        make(root, "train")
        made = root / "val"
        make(root, "val")
        if made.is_dir() and val != "val":
            made.rename(root / val)

    return make_all


def roboflow_coco(root: Path, split: str) -> None:
    pictures(root / split, split)
    dump(root / split / "_annotations.coco.json", coco(split))


def cvat_coco(root: Path, split: str) -> None:
    name = {"train": "Train", "val": "Validation"}[split]
    pictures(root / "images" / name, split)
    dump(root / "annotations" / f"instances_{name}.json", coco(split))


# name: what makes a set with parts for training and evaluation
PARTS: dict[str, Callable[[Path], None]] = {
    "Roboflow COCO": each(roboflow_coco, "valid"),
    "Roboflow VOC": each(lambda root, split: voc_beside(root, split, split, split), "valid"),
    "Roboflow CreateML": each(
        lambda root, split: createml(root, split, f"{split}/_annotations.createml.json"), "valid"
    ),
    "Roboflow Darknet": each(
        lambda root, split: yolo_beside(root, split, split, split, f"{split}/_darknet.labels"), "valid"
    ),
    "Roboflow table": each(
        lambda root, split: (
            pictures(root / split, split),
            table(root / split / "_annotations.csv", split, "filename,width,height,class,xmin,ymin,xmax,ymax",
                  lambda n, label, *b: f"{n},60,40,{label},{b[0]},{b[1]},{b[2]},{b[3]}"),
        ),
        "valid",
    ),
    "CVAT COCO": each(cvat_coco),
    "CVAT YOLO": lambda root: darknet(root, valid=True),
    "annotations in a folder each": each(
        lambda root, split: voc_beside(root, split, f"images/{split}", f"annotations/{split}")
    ),
    "folders in each part": each(
        lambda root, split: voc_beside(root, split, f"{split}/images", f"{split}/Annotations")
    ),
    "LabelMe": each(labelme),
    "VIA 1": each(lambda root, split: via(root, split, version=1)),
    "VIA 2": each(lambda root, split: via(root, split, version=2)),
    "CreateML beside": each(lambda root, split: createml(root, split, f"{split}.json")),
    "Open Images": open_images,
    "imagefolder": imagefolder,
    "imagefolder, rows": lambda root: imagefolder(root, rows=True),
    "imagefolder, corners": lambda root: imagefolder(root, corners=True),
    "imagefolder, table": lambda root: imagefolder(root, suffix="csv"),
    "imagefolder, parquet": lambda root: imagefolder(root, suffix="parquet"),
    "imagefolder, other name": lambda root: (
        imagefolder(root),
        [(root / f / "metadata.jsonl").rename(root / f"{f}.jsonl") for f in ("train", "validation")],
    ),
    "lists of images": each(
        lambda root, split: (
            yolo_beside(root, split, f"pictures/{split}", f"pictures/{split}", "classes.txt"),
            (root / f"{split}.txt").write_text("".join(f"pictures/{split}/{n}\n" for n in objects_of(split))),
        )
    ),
}  # fmt: skip


def quiet_load(root: Path, split: str, **options: object):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_data(root, split, **options)
    return found, [str(warning.message) for warning in caught]


def read(found) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    return {
        Path(row["path"]).name: [
            (found.label_names[label], tuple(round(side, 3) for side in box))
            for label, box in zip(row["labels"], row["boxes"], strict=True)
        ]
        for row in found.rows
    }


NOT_LISTED = ("Roboflow table", "Open Images")  # tables have no rows for images without objects


@pytest.mark.parametrize("layout", PARTS)
def test_parts_are_read_as_they_lie_there(tmp_path, layout):
    root = tmp_path / "set"
    root.mkdir()
    PARTS[layout](root)
    for split in ("train", "val"):
        found, said = quiet_load(root, split, strict=True)  # strict: this is how the tool writes, nothing is repaired
        expected = {n: items for n, items in objects_of(split).items() if items or layout not in NOT_LISTED}
        assert found.label_names == ("cat", "dog")
        assert read(found) == expected
        assert found.sizes.tolist() == [[40, 60]] * len(expected)
        assert all(Path(path).is_file() for path in found.rows["path"])
        assert [text for text in said if "imagefolder" not in layout] == []
        assert doctor(root, split).healthy


def single(root: Path, file: str, folder: str, prefix: str = "") -> None:
    pictures(root / folder, "train")
    dump(root / file, coco("train", prefix))


# name: what makes a set without parts
WHOLES: dict[str, Callable[[Path], object]] = {
    "Label Studio COCO": lambda root: single(root, "result.json", "images", "images/"),
    "Label Studio VOC": lambda root: voc_beside(root, "train", "images", "Annotations"),
    "Label Studio YOLO": lambda root: (
        yolo_beside(root, "train", "images", "labels", "classes.txt"), (root / "notes.json").write_text("{}")),
    "Label Studio YOLO, notes alone": lambda root: (
        yolo_beside(root, "train", "images", "labels"),
        dump(root / "notes.json", {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]})),
    "CVAT COCO": lambda root: single(root, "annotations/instances_default.json", "images"),
    "CVAT VOC": lambda root: (
        voc_beside(root, "train", "JPEGImages", "Annotations"), voc_list(root, "default", "a", "b", "c")),
    "CVAT for images": cvat_xml,
    "one COCO file": lambda root: single(root, "annotations.json", "images"),
    "one COCO file beside the images": lambda root: single(root, "labels_my-project_2024.json", ""),
    "images.txt": lambda root: (
        yolo_beside(root, "train", "frames", "frames", "obj.names"),
        (root / "images.txt").write_text("frames/a.jpg\nframes/b.jpg\nframes/c.jpg\n")),
    "labelImg YOLO": lambda root: yolo_beside(root, "train", "", "", "classes.txt"),
    "labelImg VOC": lambda root: voc_beside(root, "train", "", ""),
    "VoTT": vott,
    "VoTT table": lambda root: (
        pictures(root / "vott-csv-export", "train"),
        table(root / "vott-csv-export/pets-export.csv", "train", '"image","xmin","ymin","xmax","ymax","label"',
              lambda n, label, *b: f'"{n}",{b[0]}.0,{b[1]}.0,{b[2]}.0,{b[3]}.0,"{label}"')),
}  # fmt: skip


@pytest.mark.parametrize("layout", WHOLES)
def test_without_parts_some_images_are_held_out(tmp_path, layout):
    root = tmp_path / "set"
    root.mkdir()
    WHOLES[layout](root)
    expected = {n: items for n, items in objects_of("train").items() if items or "table" not in layout}
    whole, said = quiet_load(root, "all", strict=True)
    assert read(whole) == expected and whole.label_names == ("cat", "dog") and said == []
    parts = {}
    for split in ("train", "val"):
        found, said = quiet_load(root, split, strict=True, val_fraction=0.5)
        assert len(said) == 1 and "--val_fraction" in said[0] and f"of {len(expected)} images are held out" in said[0]
        assert found.label_names == whole.label_names and found.category_ids == whole.category_ids
        parts |= read(found)
        assert 0 < len(found) < len(expected)
        assert sorted(json.loads(Path(found.annotation_file).read_text())["images"][0]) is not None
    assert parts == expected


def test_what_is_held_out_stays_so_when_images_are_added(tmp_path):
    def names_of(count: int) -> list[str]:
        copies = [f"{k}_jpg.rf.{version}.jpg" for k in range(count // 10) for version in ("1a", "2b")]
        return [f"i/{k}.jpg" for k in range(count)] + copies

    held: dict[int, set[str]] = {}
    for count in (200, 800):
        root = tmp_path / str(count)
        rows = [{"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(names_of(count))]
        dump(root / "annotations.json", {**coco("train"), "images": rows[::-1], "annotations": []})
        train, val = (quiet_load(root, split, check_files=False)[0] for split in ("train", "val"))
        names = [{str(Path(path).relative_to(root)) for path in part.rows["path"]} for part in (train, val)]
        assert not names[0] & names[1] and names[0] | names[1] == set(names_of(count))
        copies = [{name[: name.index("_jpg")] for name in part if "_jpg" in name} for part in names]
        assert not copies[0] & copies[1]  # versions of one picture are not on both sides
        assert 0.05 < len(names[1]) / len(rows) < 0.15
        held[count] = names[1]
    assert held[200] == held[800] & set(names_of(200))
    all_of_it, said = quiet_load(root, "train", check_files=False, val_fraction=0)
    assert len(all_of_it) == 960 and said == []
    with pytest.raises(MissingFileError, match="val_fraction is 0"):
        load_data(root, "val", check_files=False, val_fraction=0)


def test_a_test_part_is_taken_where_there_is_none_to_evaluate_on(tmp_path):
    roboflow_coco(tmp_path, "train")
    roboflow_coco(tmp_path, "val")
    (tmp_path / "val").rename(tmp_path / "test")
    found, said = quiet_load(tmp_path, "val")
    assert read(found) == objects_of("val") and len(said) == 1 and "there is no part 'val'; 'test' is taken" in said[0]
    assert any("'test' is taken" in note for note in doctor(tmp_path, "val").notes)
    assert (
        quiet_load(tmp_path, "train", val_fraction=0.5)[0].rows.num_rows == 3
    )  # there are others: nothing is held out
    (tmp_path / "test").rename(tmp_path / "valid")
    assert quiet_load(tmp_path, "val")[1] == []


@pytest.mark.parametrize("make", [yolo_directory, lambda r: darknet(r, valid=False) or r])
def test_training_images_alone_are_divided_on_request(tmp_path, make):
    root = tmp_path / "set"
    root.mkdir()
    make(root)
    for folder in ("images/val", "labels/val"):
        if (root / folder).is_dir():
            for file in (root / folder).iterdir():
                file.unlink()
            (root / folder).rmdir()
    whole = len(load_data(root, "train"))
    with pytest.raises(MissingFileError, match=r"--val_fraction 0\.1"):
        load_data(root, "val")
    parts = [quiet_load(root, split, val_fraction=0.4)[0] for split in ("train", "val")]
    assert [len(part) for part in parts] != [whole, 0] and sum(map(len, parts)) == whole


def test_lists_of_voc_are_not_mixed_with_all_its_images(tmp_path):
    voc_image(tmp_path / "v", "x", [("cat", 0, (1, 1, 9, 9))])
    voc_image(tmp_path / "v", "y", [("cat", 0, (1, 1, 9, 9))])
    voc_list(tmp_path / "v", "train", "x")
    with pytest.raises(MissingFileError, match="No list of the split 'val'"):
        load_data(tmp_path / "v", "val")  # y alone is listed nowhere, x is trained on
    assert len(load_data(voc_devkit(tmp_path / "VOCdevkit"), "val")) == 3


def test_shapes_that_are_no_rectangles(tmp_path):
    labelme(tmp_path, "train")
    file = tmp_path / "train/a.json"
    content = json.loads(file.read_text())
    content["shapes"] = [
        {"label": "dog", "points": [[25, 5], [50, 5], [30, 25]], "shape_type": "polygon"},
        {"label": "dog", "points": [[20, 20], [20, 25]], "shape_type": "circle"},
        {"label": "dog", "points": [[20, 20]], "shape_type": "point"},
    ]
    dump(file, content)
    found, said = quiet_load(tmp_path, "train")
    assert read(found)["a.jpg"] == [("dog", XYXY), ("dog", (15, 15, 25, 25))]
    assert [text.partition(": ")[2] for text in said] == [
        "shapes that are no rectangles, of which the boxes around them are used: 2.",
        "shapes without an area, left out (point): 1.",
    ]
    content["shapes"][0]["points"] = [[1, "x"]]
    dump(file, content)
    with pytest.raises(DataError, match=r"train/a\.json: shape 1 is no polygon with a label and points"):
        load_data(tmp_path, "train")


def test_regions_of_via(tmp_path):
    via(tmp_path, "train", version=2)
    file = tmp_path / "train/via_region_data.json"
    content = json.loads(file.read_text())
    shapes = [
        {"name": "polygon", "all_points_x": [25, 50, 30], "all_points_y": [5, 5, 25]},
        {"name": "circle", "cx": 20, "cy": 20, "r": 5}, {"name": "ellipse", "cx": 20, "cy": 20, "rx": 5, "ry": 4},
        {"name": "point", "cx": 1, "cy": 1},
    ]  # fmt: skip
    content["_via_img_metadata"]["a.jpg4711"]["regions"] = [
        {"shape_attributes": shape, "region_attributes": {"label": "dog"}} for shape in shapes
    ]
    dump(file, content)
    found, said = quiet_load(tmp_path, "train")
    assert read(found)["a.jpg"] == [("dog", XYXY), ("dog", (15, 15, 25, 25)), ("dog", (15, 16, 25, 24))]
    assert len(said) == 2


def test_files_that_may_both_be_meant_are_named(tmp_path):
    for name in ("one", "two"):
        single(tmp_path, f"{name}.json", "images")
    with pytest.raises(ConfigError, match=r"Each of one\.json, two\.json .* --annotations FILE"):
        load_data(tmp_path, "train")


def test_missing_and_lying_images(tmp_path):
    labelme(tmp_path, "train")
    (tmp_path / "train/c.jpg").unlink()
    with pytest.raises(MissingFileError, match=r"train/c\.json has no image: '\.\.\\train\\c\.jpg' does not exist"):
        load_data(tmp_path, "train")
    root = tmp_path / "turned"
    imagefolder(root)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60)).save(root / "train/a.jpg", exif=exif)
    found, _ = quiet_load(root, "train")
    assert found.sizes[0].tolist() == [40, 60] and found.records.load(0).size == (60, 40)


def test_one_part_tells_what_the_boxes_of_another_are(tmp_path):
    imagefolder(tmp_path, corners=True)
    file = tmp_path / "validation/metadata.jsonl"  # which may be either by itself
    file.write_text('{"file_name": "a.jpg", "objects": {"bbox": [[3, 4, 6, 8]], "category": ["cat"]}}\n')
    found, said = quiet_load(tmp_path, "val")
    assert found.rows[0]["boxes"] == [[3, 4, 6, 8]] and "read as corners x1, y1, x2, y2: 1." in said[0]
    other = tmp_path / "sizes"
    imagefolder(other)
    (other / "validation/metadata.jsonl").write_text(file.read_text())
    found, said = quiet_load(other, "val")
    assert found.rows[0]["boxes"] == [[3, 4, 9, 12]] and "read as x, y, width, height: 1." in said[0]


def test_images_that_nobody_has_labelled_are_said(tmp_path):
    labelme(tmp_path, "train")
    picture(tmp_path / "train/new.jpg"), picture(tmp_path / "train/.hidden.jpg")
    found, said = quiet_load(tmp_path, "train")
    assert len(found) == 3 and [t.partition(": ")[2] for t in said] == ["images that no file describes, left out: 1."]


def test_upper_case_suffixes(tmp_path):
    for split in ("train", "val"):
        voc_beside(tmp_path, split, split, split)
        for file in (tmp_path / split).glob("*.jpg"):
            file.rename(file.with_suffix(".JPG"))
        for file in (tmp_path / split).glob("*.xml"):
            file.write_text(file.read_text().replace(".jpg", ".JPG"))
    assert sorted(read(quiet_load(tmp_path, "train", strict=True)[0])) == ["a.JPG", "b.JPG", "c.JPG"]


WRONG = {
    "no JSON": ("train/a.json", "{", r"train/a\.json is not valid JSON"),
    "no coordinates": (
        "train/_annotations.createml.json", '[{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {}}]}]',
        r"entry 0 \('a\.jpg'\): annotation 0 has no label, or no coordinates"),
    "no objects": (
        "train/metadata.jsonl", '{"file_name": "a.jpg", "objects": {"bbox": [[1, 2, 3]], "category": [0]}}\n',
        r"train/metadata\.jsonl, line 1 \('a\.jpg'\): the box \[1, 2, 3\] is not four numbers"),
    "too few classes": (
        "train/metadata.jsonl", '{"file_name": "a.jpg", "objects": {"bbox": [[1, 2, 3, 4]], "category": []}}\n',
        r"there are 1 boxes and 0 classes"),
    "no number": (
        "train/x.csv", "image,xmin,ymin,xmax,ymax,label\na.jpg,1,2,x,4,dog\n",
        r"line 2: the corners 1, 2, x, 4 are not"),
    "no entity": ("train/a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', r"train/a\.xml has a DOCTYPE"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_by_file_and_place(tmp_path, case):
    name, text, words = WRONG[case]
    pictures(tmp_path / "train", "train")
    if case == "no JSON":
        text += '"shapes": [, "imagePath": 1'
    (tmp_path / name).write_text(text)
    (tmp_path / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match=words) as caught:
        load_data(tmp_path, "train")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["", "ImageSets", "splits"])
def test_lists_divide_one_folder_of_images(tmp_path, folder):
    for split, names in (("train", ["a", "c"]), ("val", ["b"])):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    voc_beside(tmp_path, "train", "images", "annotations")
    for split, names in (("train", ["a.jpg", "c.jpg"]), ("val", ["b.jpg"])):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert read(found) == {name: objects_of("train")[name] for name in names} and said == []
        assert found.label_names == ("cat", "dog")


@pytest.mark.parametrize("make", [labelme, lambda root, split: voc_beside(root, split, split, split)])
def test_images_that_were_renamed_with_their_files(tmp_path, make):
    make(tmp_path, "train")
    for old, new in (("a", "x"), ("c", "a"), ("x", "c")):  # a and c change places; what stands in their files stays
        for file in list((tmp_path / "train").glob(f"{old}.*")):
            file.rename(file.with_stem(new))
    found, said = quiet_load(tmp_path, "train")
    expected = objects_of("train")
    assert read(found) == {"a.jpg": expected["c.jpg"], "b.jpg": expected["b.jpg"], "c.jpg": expected["a.jpg"]}
    assert len(said) == 1 and "2 files are called as one image and name another; the images of their own" in said[0]
    with pytest.raises(DataError, match="--strict"):
        load_data(tmp_path, "train", strict=True)


def test_sizes_the_other_way_round(tmp_path):
    voc_beside(tmp_path, "train", "train", "train")
    for file in (tmp_path / "train").glob("*.xml"):
        file.write_text(file.read_text().replace("<width>60", "<width>40").replace("<height>40", "<height>60"))
    found, said = quiet_load(tmp_path, "train")
    assert read(found) == objects_of("train") and found.sizes.tolist() == [[40, 60]] * 3
    assert len(said) == 1 and "3 images have their width and height the other way round" in said[0]


def test_images_on_their_side_are_taken_as_they_are_seen(tmp_path):
    """Some tools give the size of the file as it lies, and boxes on the image as it is seen."""
    roboflow_coco(tmp_path, "train")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in objects_of("train"):
        Image.new("RGB", (40, 60)).save(tmp_path / "train" / name, exif=exif)
    file = tmp_path / "train/_annotations.coco.json"
    file.write_text(file.read_text().replace('"width": 60, "height": 40', '"width": 40, "height": 60'))
    found, said = quiet_load(tmp_path, "train")
    assert read(found) == objects_of("train") and found.sizes.tolist() == [[40, 60]] * 3
    assert found.records.load(0).size == (60, 40) and len(said) == 1


def test_open_images_as_fiftyone_fetches_them(tmp_path):
    open_images(tmp_path)
    for split, table_name in (("train", "oidv6-train"), ("validation", "validation")):
        for folder in ("data", "labels", "metadata"):
            (tmp_path / split / folder).mkdir()
        for file in (tmp_path / split).glob("*.jpg"):
            file.rename(file.parent / "data" / file.name)
        (tmp_path / f"{table_name}-annotations-bbox.csv").rename(tmp_path / split / "labels/detections.csv")
        classes = tmp_path / "class-descriptions-boxable.csv"
        (tmp_path / split / "metadata/classes.csv").write_text(classes.read_text())
    classes.unlink()
    for split in ("train", "val"):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert read(found) == {name: items for name, items in objects_of(split).items() if items} and said == []


def test_a_table_that_is_not_in_utf_8(tmp_path):
    pictures(tmp_path / "train", "train")
    (tmp_path / "train.csv").write_bytes("image,class,x1,y1,x2,y2\na.jpg,Käfer,1,2,9,9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.csv is not text in UTF-8"):
        load_data(tmp_path, "train")


def by_folder(root: Path, names: dict[str, str]) -> None:
    """Files of labels in one folder, images in a folder for each part."""
    voc_beside(root, "train", "images", "annotations")
    for name, folder in names.items():
        (root / "images" / folder).mkdir(exist_ok=True)
        (root / "images" / name).rename(root / "images" / folder / name)


@pytest.mark.parametrize("second", ["valid", "Test"])
def test_folders_of_images_divide_what_no_file_does(tmp_path, second):
    by_folder(tmp_path, {"a.jpg": "Train", "b.jpg": "Train", "c.jpg": second})
    for split, names in (("train", ["a.jpg", "b.jpg"]), ("val", ["c.jpg"])):
        found, said = quiet_load(tmp_path, split, val_fraction=0.5)
        assert read(found) == {name: objects_of("train")[name] for name in names}
        assert len(said) == 1 and f"{len(names)} of 3 images are '{split}', by the folders" in said[0]
    assert len(load_data(tmp_path, "all")) == 3
    if second == "Test":
        assert read(quiet_load(tmp_path, "test")[0]) == {"c.jpg": objects_of("train")["c.jpg"]}


def test_folders_that_are_no_parts_divide_nothing(tmp_path):
    by_folder(tmp_path, {"a.jpg": "train", "b.jpg": "train"})
    found, said = quiet_load(tmp_path, "train", val_fraction=0.4)
    assert len(found) in (1, 2) and "images are held out" in said[-1]
    with pytest.raises(MissingFileError):
        load_data(tmp_path, "test")


def test_names_that_are_not_in_utf_8_are_a_fault(tmp_path):
    yolo_directory(tmp_path / "y")
    try:
        for folder, suffix in ((b"images", b"png"), (b"labels", b"txt")):
            place = os.fsencode(tmp_path / "y") + b"/" + folder + b"/train/"
            os.rename(place + b"a." + suffix, place + b"K\xe4fer." + suffix)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    with pytest.raises(DataError, match=r"1 file names are not in UTF-8.*'images/train/K\\udce4fer\.png'. Rename"):
        load_data(tmp_path / "y", "train")
    assert [problem.kind for problem in doctor(tmp_path / "y", "train").problems] == ["names not in UTF-8"]
