"""Tables of boxes as tools and competitions write them, by hand: columns of many names, and of none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ld_hub.data import doctor, load_data
from ld_hub.errors import DataError
from tests.data.test_tool_layouts import objects_of, pictures, quiet_load, read


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


Row = Callable[[str, str, int, int, int, int], str]  # file name, class, corners in px of an image of 60 x 40 px


def write(root: Path, head: str, row: Row, empty: str = "") -> Path:
    """Images and a table of each split; `empty` is a row of an image without objects."""
    for split in ("train", "val"):
        pictures(root / split, split)
        rows = [row(name, label, *b) for name, items in objects_of(split).items() for label, b in items]
        rows += [empty.format(name) for name, items in objects_of(split).items() if empty and not items]
        (root / f"{split}.csv").write_text("\n".join([*([head] if head else []), *rows]) + "\n")
    return root


# name: first line, row of a box, row of an image without objects, what is said
TABLES: dict[str, tuple[str, Row, str, str]] = {
    "TensorFlow": (
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        lambda n, c, x1, y1, x2, y2: f"{n},60,40,{c},{x1},{y1},{x2},{y2}", "", ""),
    "TensorFlow, fractions": (
        "filename,width,height,class,xmin,ymin,xmax,ymax",
        lambda n, c, x1, y1, x2, y2: f"{n},60,40,{c},{x1 / 60},{y1 / 40},{x2 / 60},{y2 / 40}", "",
        "boxes were read as fractions of the image, since none has a number above 1"),
    "Kaggle": (
        "image_id,width,height,bbox,label",
        lambda n, c, x1, y1, x2, y2: f'{n[:-4]},60,40,"[{x1}.0, {y1}.0, {x2 - x1}.0, {y2 - y1}.0]",{c}', "",
        "boxes were read as x, y, width, height"),
    "Kaggle, nothing": (
        "image_id,bbox,label",
        lambda n, c, x1, y1, x2, y2: f'{n[:-4]},"[{x1}, {y1}, {x2 - x1}, {y2 - y1}]",{c}', "{},[],",
        "boxes were read as x, y, width, height"),
    "Kaggle, numbers": (
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        lambda n, c, *b: f"{n[:-4]},{c},7,R8,{b[0]}.0,{b[1]},{b[2]},{b[3]}", "{},No finding,14,R8,,,,",
        "rows with a class and no box, of which the image alone is taken: 1"),
    "x, y, width, height": (
        "image_name,class,x,y,width,height",
        lambda n, c, x1, y1, x2, y2: f"{n},{c},{x1},{y1},{x2 - x1},{y2 - y1}", "",
        "boxes were read as x, y of the upper left corner, width, height"),
    "make-sense": (
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height",
        lambda n, c, x1, y1, x2, y2: f"{c},{x1},{y1},{x2 - x1},{y2 - y1},{n},60,40", "", ""),
    "make-sense without names": (
        "", lambda n, c, x1, y1, x2, y2: f"{c},{x1},{y1},{x2 - x1},{y2 - y1},{n},60,40", "",
        "boxes were read as x, y of the upper left corner, width, height"),
    "RetinaNet": ("", lambda n, c, *b: f"{n},{b[0]},{b[1]},{b[2]},{b[3]},{c}", "{},,,,,", ""),
    "SKU-110K": ("", lambda n, c, *b: f"{n},{b[0]},{b[1]},{b[2]},{b[3]},{c},60,40", "", ""),
    "middles": (
        "image,label,x_center,y_center,width,height",
        lambda n, c, x1, y1, x2, y2: f"{n},{c},{(x1 + x2) / 2},{(y1 + y2) / 2},{x2 - x1},{y2 - y1}", "", ""),
    "width and height of the boxes": (
        "image,label,xmin,ymin,xmax,ymax,width,height",
        lambda n, c, x1, y1, x2, y2: f"{n},{c},{x1},{y1},{x2},{y2},{x2 - x1},{y2 - y1}", "", ""),
    "semicolons": (
        "filename;class;xmin;ymin;xmax;ymax", lambda n, c, *b: f"{n};{c};{b[0]},0;{b[1]},0;{b[2]},0;{b[3]},0", "", ""),
    "with an index": (
        '"","filename","class","xmin","ymin","xmax","ymax"',
        lambda n, c, *b: f'"3","{n}","{c}","{b[0]}","{b[1]}","{b[2]}","{b[3]}"', "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_by_their_columns(tmp_path, name):
    head, row, empty, words = TABLES[name]
    root = write(tmp_path / "set", head, row, empty)
    for split in ("train", "val"):
        found, said = quiet_load(root, split, strict=True)
        assert found.label_names == ("cat", "dog")
        assert read(found) == {n: items for n, items in objects_of(split).items() if items or empty}
        assert found.sizes.tolist() == [[40, 60]] * len(found)
        assert len(said) == bool(words) and all(words in text for text in said)


@pytest.mark.parametrize("shape", ["rect", "polygon"])
def test_the_table_of_via(tmp_path, shape):
    for split in ("train", "val"):
        pictures(tmp_path / split, split)
        lines = ["#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
        for name, items in objects_of(split).items():
            for k, (label, (x1, y1, x2, y2)) in enumerate(items):
                place: dict[str, object] = {"name": shape, "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
                if shape == "polygon":
                    place = {"name": shape, "all_points_x": [x1, x2, x2], "all_points_y": [y1, y1, y2]}
                texts = [json.dumps(value).replace('"', '""') for value in (place, {"label": label})]
                lines.append(f'{name},47,"{{}}",{len(items)},{k},"{texts[0]}","{texts[1]}"')
            lines += [f'{name},47,"{{}}",0,0,"{{}}","{{}}"'] * (not items)
        (tmp_path / split / "via_export_csv.csv").write_text("\n".join(lines) + "\n")
    for split in ("train", "val"):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert read(found) == objects_of(split)
        assert len(said) == (shape == "polygon")
    (tmp_path / "train/via_export_csv.csv").write_text(f"{lines[0]}\na.jpg,47,{{}},1,0,{{,{{}}\n")
    with pytest.raises(DataError, match=r"via_export_csv\.csv, line 2 has no filename, or no JSON"):
        load_data(tmp_path, "train")


def test_a_column_of_parts(tmp_path):
    lines = ["filename,class,xmin,ymin,xmax,ymax,split"]
    for split, word in (("train", "TRAIN"), ("val", "validation")):
        pictures(tmp_path / "images", split)
        for name, items in objects_of(split).items():
            lines += [f"{split}_{name},{label},{b[0]},{b[1]},{b[2]},{b[3]},{word}" for label, b in items]
            (tmp_path / "images" / name).rename(tmp_path / "images" / f"{split}_{name}")
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    for split in ("train", "val"):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert read(found) == {f"{split}_{n}": items for n, items in objects_of(split).items() if items}
        assert said == [] and doctor(tmp_path, split).healthy
    assert len(quiet_load(tmp_path, "all")[0]) == 3


def test_subsets_of_cvat(tmp_path):
    images = ""
    for split, word in (("train", "Train"), ("val", "Validation")):  # images of the same names in both
        pictures(tmp_path / "images" / word, split)
        for name, items in objects_of(split).items():
            boxes = "".join(
                f'<box label="{label}" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"/>' for label, b in items
            )
            images += f'<image id="0" name="{name}" subset="{word}" width="60" height="40">{boxes}</image>'
    (tmp_path / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    for split, word in (("train", "Train"), ("val", "Validation")):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert read(found) == objects_of(split) and said == []
        assert {Path(path).parent.name for path in found.rows["path"]} == {word}


WRONG = {
    "no classes": (
        "image,x1,y1,x2,y2\na.jpg,1,2,3,4\n",
        r"train\.csv has no column of classes: .* it has image, x1, y1, x2, y2\. Give all rows a column 'class'"),
    "two sizes": (
        "filename,class,width,height,xmin,ymin,xmax,ymax\na.jpg,dog,60,40,1,2,9,9\na.jpg,dog,50,40,1,2,9,9\n",
        r"train\.csv, line 3: another row gives 'a\.jpg' another size or part"),
    "no image": ("filename,class,xmin,ymin,xmax,ymax\n,dog,1,2,9,9\n", r"train\.csv, line 2 has no image"),
    "no numbers": ('image_id,label,bbox\na,dog,"[1, 2, 3]"\n', r"train\.csv, line 2: the corners 1, 2, 3 are not four"),
    "nobody's class": ("filename,class,xmin,ymin,xmax,ymax\na.jpg,,1,2,9,9\n", r"train\.csv, line 2 has no class"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rows_are_named(tmp_path, case):
    pictures(tmp_path / "train", "train")
    (tmp_path / "train.csv").write_text(WRONG[case][0])
    (tmp_path / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match=WRONG[case][1]):
        load_data(tmp_path, "train")


def test_an_image_of_another_size_than_its_row_says(tmp_path):
    pictures(tmp_path / "train", "train")
    (tmp_path / "train.csv").write_text(
        "filename,class,width,height,xmin,ymin,xmax,ymax\na.jpg,dog,120,80,1,2,100,70\n"
    )
    report = doctor(tmp_path, "train")
    assert [problem.kind for problem in report.problems] == ["other sizes"] and "120x80" in report.problems[0].message
