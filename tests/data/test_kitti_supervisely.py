"""KITTI's and Supervisely's directories, by hand as they are published and exported."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path

import pytest
from PIL import Image

from ld_hub.data import load_data
from ld_hub.errors import DataError
from tests.data.test_tool_layouts import XYXY, dump, objects_of, pictures, quiet_load, read
from tests.support.directories import picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


ROW = "{} 0.00 0 -1.57 {}.00 {}.00 {}.00 {}.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"


def kitti(images: Path, labels: Path, split: str) -> None:
    pictures(images, split)
    labels.mkdir(parents=True)
    for name, items in objects_of(split).items():
        (labels / f"{Path(name).stem}.txt").write_text("".join(ROW.format(label, *b) for label, b in items))


def test_kitti_as_it_is_published(tmp_path):
    kitti(tmp_path / "training/image_2", tmp_path / "training/label_2", "train")
    picture(tmp_path / "testing/image_2/z.jpg")
    with open(tmp_path / "training/label_2/a.txt", "a") as file:
        file.write("DontCare -1 -1 -10 5.00 5.00 9.00 9.00 -1 -1 -1 -1000 -1000 -1000 -10\n")
    found, said = quiet_load(tmp_path, "train", strict=True)
    assert found.label_names == ("cat", "dog") and read(found) == objects_of("train")
    assert [text.partition(": ")[2] for text in said] == [
        "regions of objects that nobody labelled (DontCare), left out: 1."
    ]


def test_kittis_rows_are_not_taken_for_yolos(tmp_path):
    for split in ("train", "val"):
        kitti(tmp_path / split / "images", tmp_path / split / "labels", split)
    for split in ("train", "val"):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert read(found) == objects_of(split) and said == []
    (tmp_path / "train/labels/b.txt").write_text(ROW.format("dog", 1, 2, 3, 4) + "dog 1 2 3 4\n")
    with pytest.raises(DataError, match=r"train/labels/b\.txt, line 2: 'dog 1 2 3 4' is no row of KITTI's"):
        load_data(tmp_path, "train")
    (tmp_path / "train/labels/b.txt").write_text(ROW.format("dog", 1, 2, 3, 4).replace("\n", " 0.9\n"))
    with pytest.raises(DataError, match=r"b\.txt, line 1: .* \(the last of 16 is a score: are these detections\?\)"):
        load_data(tmp_path, "train")


def rectangle(label: str, b: tuple[int, ...]) -> dict[str, object]:
    return {
        "id": 7, "classId": 9, "geometryType": "rectangle", "classTitle": label, "tags": [],
        "points": {"exterior": [[b[2], b[3]], [b[0], b[1]]], "interior": []},
    }  # fmt: skip


def supervisely(folder: Path, split: str) -> None:
    pictures(folder / "img", split)
    for name, items in objects_of(split).items():
        size = {"height": 40, "width": 60}
        content = {"description": "", "tags": [], "size": size, "objects": [rectangle(*item) for item in items]}
        dump(folder / "ann" / f"{name}.json", content)


def test_supervisely_with_a_dataset_for_each_part(tmp_path):
    dump(tmp_path / "meta.json", {"classes": [], "tags": []})
    for split in ("train", "val"):
        supervisely(tmp_path / split, split)
    for split in ("train", "val"):
        found, said = quiet_load(tmp_path, split, strict=True)
        assert found.label_names == ("cat", "dog") and read(found) == objects_of(split) and said == []


def test_datasets_of_other_names_are_a_whole(tmp_path):
    dump(tmp_path / "meta.json", {"classes": [], "tags": []})
    for folder, split in (("one", "train"), ("two", "val")):  # images of the same names
        supervisely(tmp_path / folder, split)
    found, said = quiet_load(tmp_path, "all", strict=True)
    rows = {str(Path(row["path"]).relative_to(tmp_path)): row["boxes"] for row in found.rows}
    assert rows == {
        f"{folder}/img/{name}": [list(b) for _, b in items]
        for folder, split in (("one", "train"), ("two", "val"))
        for name, items in objects_of(split).items()
    }
    assert said == []


def test_objects_of_supervisely_that_are_no_rectangles(tmp_path):
    supervisely(tmp_path / "train", "train")
    bits = io.BytesIO()
    Image.new("1", (25, 20), 1).save(bits, "PNG")
    data = base64.b64encode(zlib.compress(bits.getvalue())).decode()
    objects: list[dict[str, object]] = [
        {**rectangle("dog", (0, 0, 1, 1)), "geometryType": "bitmap", "bitmap": {"data": data, "origin": [25, 5]}},
        {**rectangle("dog", XYXY), "geometryType": "polygon", "points": {"exterior": [[25, 5], [50, 5], [30, 25]]}},
        {**rectangle("dog", XYXY), "geometryType": "point"},
    ]
    file = tmp_path / "train/ann/a.jpg.json"
    content = json.loads(file.read_text())
    dump(file, {**content, "objects": objects})
    found, said = quiet_load(tmp_path, "train", outlines=True)
    assert read(found)["a.jpg"] == [("dog", XYXY)] * 2
    assert [text.partition(": ")[2] for text in said] == [
        "objects that are no rectangles, of which the boxes around them are used: 2.",
        "objects without an area, left out (point): 1.",
    ]
    dump(file, {**content, "objects": [{**rectangle("dog", XYXY), "points": {"exterior": [[1, "x"]]}}]})
    with pytest.raises(DataError, match=r"train/ann/a\.jpg\.json: object 0 is no rectangle or polygon or bitmap"):
        load_data(tmp_path, "train")
