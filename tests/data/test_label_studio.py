"""Label Studio's exports, by hand as it writes them; boxes reckoned by hand."""

from __future__ import annotations

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from ld_hub.data import load_data
from ld_hub.errors import DataError, MissingFileError
from tests.support.directories import picture

SIZE = {"original_width": 200, "original_height": 100, "image_rotation": 0}  # px


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


def rectangle(x: float, y: float, w: float, h: float, label: str = "dog", rotation: float = 0) -> dict[str, Any]:
    """Per cent of a picture of 200 x 100 px."""
    return {"x": x, "y": y, "width": w, "height": h, "rotation": rotation, "rectanglelabels": [label]}


def result(value: dict[str, Any], kind: str = "", **more: object) -> dict[str, Any]:
    kind = kind or next(key for key in value if key.endswith("labels"))
    head = {"id": "r1", "type": kind, "from_name": "label", "to_name": "image", "origin": "manual"}
    return {**SIZE, **head, "value": value, **more}


def task(number: int, image: str, *values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A task with one annotation."""
    annotation = {"id": 10 * number, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "lead_time": 3.2}
    results = [value if "type" in value else result(value) for value in values]
    data = {"id": number, "annotations": [{**annotation, "result": results}], "drafts": [], "predictions": []}
    return {**data, "data": {"image": image}, "meta": {}, "project": 1, **more}


def write(root: Path, tasks: object, *images: str) -> Path:
    for name in images:
        picture(root / "images" / name, 200, 100)
    root.mkdir(exist_ok=True)
    (root / "project-1-at-2026-01-02-03-04-5e6f7a8b.json").write_text(json.dumps(tasks))
    return root


def read(root: Path, split: str = "all", **options: Any):
    """Objects by the name of the image, and what was said, without its beginning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_data(root, split, **options)
    rows = {
        Path(row["path"]).name: [
            (found.label_names[label], tuple(round(side, 3) for side in box))
            for label, box in zip(row["labels"], row["boxes"], strict=True)
        ]
        for row in found.rows
    }
    return rows, [str(warning.message).partition(": ")[2] for warning in caught]


def test_boxes_are_hundredths_of_the_image(tmp_path):
    tasks = [
        task(1, "/data/upload/1/0a1b2c3d-a.jpg", rectangle(10, 20, 25, 50), rectangle(0, 0, 2.5, 3, "cat")),
        task(2, "/data/local-files/?d=my%20set/b.jpg", rectangle(50, 10, 50, 90)),
        task(3, "s3://bucket/some/where/c.jpg"),
        task(4, "https://host/d.jpg?X-Key=1", {**rectangle(1, 1, 10, 10), "rectanglelabels": ["dog", "cat"]}),
    ]
    root = write(tmp_path / "set", tasks, "0a1b2c3d-a.jpg", "b.jpg", "c.jpg", "d.jpg")
    rows, said = read(root, strict=True)  # strict: this is how the tool writes, nothing is repaired
    assert rows == {
        "0a1b2c3d-a.jpg": [("dog", (20, 20, 70, 70)), ("cat", (0, 0, 5, 3))],
        "b.jpg": [("dog", (100, 10, 200, 100))],
        "c.jpg": [],
        "d.jpg": [("dog", (2, 1, 22, 11)), ("cat", (2, 1, 22, 11))],
    }
    assert said == []
    (root / "images/0a1b2c3d-a.jpg").rename(root / "images/a.jpg")  # as it was called before it was uploaded
    assert list(read(root, strict=True)[0]) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_folders_of_a_storage_tell_images_of_one_name_apart(tmp_path):
    tasks = [
        task(1, "/data/local-files/?d=one/a.jpg", rectangle(10, 20, 25, 50)),
        task(2, "/data/local-files/?d=two/a.jpg", rectangle(0, 0, 10, 10)),
    ]
    root = write(tmp_path / "set", tasks, "one/a.jpg", "two/a.jpg")
    found = load_data(root, "all")
    shown = {Path(row["path"]).parent.name: row["boxes"] for row in found.rows}
    assert shown == {"one": [[20, 20, 70, 70]], "two": [[0, 0, 20, 10]]}


def test_turned_rectangles_become_the_boxes_around_them(tmp_path):
    """Label Studio turns clockwise about the upper left corner, in pixels: here of 40 x 20 px at (100, 50)."""
    slant = math.sqrt(0.5)
    turned = {
        0: (100, 50, 140, 70),
        90: (80, 50, 100, 90),
        180: (60, 30, 100, 50),
        270: (100, 10, 120, 50),
        45: (100 - 20 * slant, 50, 100 + 40 * slant, 50 + 60 * slant),
        360: (100, 50, 140, 70),
    }
    tasks = [task(1, "a.jpg", *(rectangle(50, 50, 20, 20, str(angle), angle) for angle in turned))]
    rows, said = read(write(tmp_path / "set", tasks, "a.jpg"))
    assert {label: box for label, box in rows["a.jpg"]} == {
        str(angle): pytest.approx(box, abs=1e-3) for angle, box in turned.items()
    }
    assert said == ["rectangles that are turned, of which the boxes around them are used: 4."]


def test_other_shapes(tmp_path):
    polygon = {"points": [[10, 10], [30, 20], [20, 60]], "closed": True, "polygonlabels": ["dog"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90, "ellipselabels": ["dog"]}
    plain = {"x": 5, "y": 10, "width": 10, "height": 10, "rotation": 0}
    tasks = [
        task(
            1, "a.jpg", polygon, ellipse,
            result(plain, "rectangle", id="x"), result({**plain, "labels": ["dog"]}, "labels", id="x"),
            result(plain, "rectangle", id="y"), result({**plain, "rectanglelabels": []}),
            result({"format": "rle", "rle": [0, 1], "brushlabels": ["dog"]}),
            result({"x": 5, "y": 5, "width": 0.3, "keypointlabels": ["dog"]}),
            result({"x": 5, "y": 5, "width": 0.3, "labels": ["dog"]}, "labels", id="z"),
            {"id": "c", "type": "choices", "from_name": "c", "to_name": "image", "value": {"choices": ["sharp"]}},
        )
    ]  # fmt: skip
    rows, said = read(write(tmp_path / "set", tasks, "a.jpg"))
    assert rows["a.jpg"] == [("dog", (20, 10, 60, 60)), ("dog", (90, 30, 110, 70)), ("dog", (10, 10, 30, 20))]
    assert sorted(said) == [
        "results that are no boxes, left out (brushlabels): 1.",
        "results that are no boxes, left out (choices): 1.",
        "results that are no boxes, left out (keypointlabels): 1.",
        "results that are no boxes, left out (labels): 1.",
        "shapes that are no rectangles, of which the boxes around them are used: 2.",
        "shapes without a class, left out: 2.",
    ]


def test_the_first_annotation_that_was_finished_counts(tmp_path):
    def annotated(*annotations: tuple[bool, float]) -> list[dict[str, Any]]:
        return [
            {"id": k, "was_cancelled": cancelled, "result": [result(rectangle(x, 0, 10, 10))]}
            for k, (cancelled, x) in enumerate(annotations)
        ]

    guess = [{"model_version": "1", "result": [result(rectangle(1, 1, 5, 5))]}]
    tasks = [
        task(1, "a.jpg", annotations=annotated((True, 1), (False, 10), (False, 20)), predictions=guess),
        task(2, "b.jpg", annotations=annotated((True, 5))),
        task(3, "c.jpg", annotations=[], predictions=guess),
        task(4, "d.jpg", annotations=annotated((False, 30))),
    ]
    rows, said = read(write(tmp_path / "set", tasks, "a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    assert rows == {"a.jpg": [("dog", (20, 0, 40, 10))], "d.jpg": [("dog", (60, 0, 80, 10))]}
    assert sorted(said) == [
        "images with several annotations, of which the first that was not cancelled is used: 1.",
        "images without an annotation that was not cancelled, left out: 2.",
    ]


def flat(number: int, image: str, *values: dict[str, Any]) -> dict[str, Any]:
    """A row of JSON-MIN."""
    shapes = {"label": [{**SIZE, **value} for value in values]} if values else {}
    return {"image": image, "id": number, **shapes, "annotator": 1, "annotation_id": 10 * number, "lead_time": 3.2}


FLAT = [
    flat(1, "/data/upload/1/0a1b2c3d-a.jpg", rectangle(10, 20, 25, 50), rectangle(0, 0, 2.5, 3, "cat")),
    flat(1, "/data/upload/1/0a1b2c3d-a.jpg", rectangle(11, 21, 25, 50)),  # another annotator's
    flat(2, "s3://bucket/b.jpg"),
]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_the_short_exports(tmp_path, kind):
    root = write(tmp_path / "set", FLAT, "a.jpg", "b.jpg")
    if kind == "csv":
        next(root.glob("*.json")).unlink()
        with (root / "project-1-at-2026.csv").open("w", newline="") as stream:
            rows = csv.DictWriter(stream, ["image", "id", "label", "annotator", "annotation_id", "lead_time"])
            rows.writeheader()
            rows.writerows({**row, "label": json.dumps(row["label"]) if "label" in row else ""} for row in FLAT)
    rows, said = read(root, strict=True)
    assert rows == {"a.jpg": [("dog", (20, 20, 70, 70)), ("cat", (0, 0, 5, 3))], "b.jpg": []}
    assert said == ["images with several annotations, of which the first that was not cancelled is used: 1."]


def test_parts_have_a_file_each(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / split / f"{split}.jpg", 200, 100)
        tasks = [task(1, f"/data/upload/{split}.jpg", rectangle(10, 20, 25, 50, "dog" if split == "train" else "cat"))]
        (tmp_path / f"{split}.json").write_text(json.dumps(tasks))
    for split, label in (("train", "dog"), ("val", "cat")):
        assert read(tmp_path, split, strict=True) == ({f"{split}.jpg": [(label, (20, 20, 70, 70))]}, [])
        assert load_data(tmp_path, split).label_names == ("cat", "dog")


WRONG = {
    "no size": (task(1, "a.jpg", {**result(rectangle(1, 1, 5, 5)), "original_width": None}),
                r"entry 0: result 0 has no original_width and original_height"),
    "two sizes": (task(1, "a.jpg", rectangle(1, 1, 5, 5), {**result(rectangle(1, 1, 5, 5)), "original_width": 9}),
                  r"result 1 is for an image of 9 x 100 px"),
    "turned image": (task(1, "a.jpg", {**result(rectangle(1, 1, 5, 5)), "image_rotation": 90}),
                     r"drawn on the image turned by 90 degrees; turn the image back"),
    "no numbers": (task(1, "a.jpg", {**result(rectangle(1, 1, 5, 5)), "value": {"x": "?", "rectanglelabels": ["a"]}}),
                   r"result 0 \(rectanglelabels\) has no numbers for its place"),
    "two images": (task(1, "a.jpg", rectangle(1, 1, 5, 5), result(rectangle(1, 1, 5, 5), to_name="other")),
                   r"regions on several images \(image, other\)"),
    "no image": ({**task(1, "a.jpg", rectangle(1, 1, 5, 5)), "data": {"text": "a"}}, r"its data name no images"),
    "several": ({**task(1, ""), "data": {"x": "a.jpg", "y": "b.jpg"}}, r"its data name 2 images, expected one"),
    "ids alone": (task(1, "a.jpg", rectangle(1, 1, 5, 5), annotations=[7]), r"'annotations' is no list of objects"),
    "no result": (task(1, "a.jpg", annotations=[{"id": 1}]), r"an annotation has no list 'result'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path, case):
    row, words = WRONG[case]
    root = write(tmp_path / "set", [row, task(2, "b.jpg", rectangle(1, 1, 5, 5))], "a.jpg", "b.jpg")
    with pytest.raises(DataError, match=words) as caught:
        load_data(root, "all")
    assert "project-1-at-2026-01-02-03-04-5e6f7a8b.json" in str(caught.value)


def test_an_image_that_is_not_there_is_named(tmp_path):
    root = write(tmp_path / "set", [task(1, "/data/upload/1/x.jpg", rectangle(1, 1, 5, 5))], "b.jpg")
    with pytest.raises(MissingFileError, match=r"has no image: 'data/upload/1/x\.jpg' does not exist"):
        load_data(root, "all")
    (root / "project-1-at-2026.csv").write_text('image,id,label\nb.jpg,1,"[{""original_width"": ]"\n')
    next(root.glob("*.json")).unlink()
    with pytest.raises(DataError, match=r"project-1-at-2026\.csv is no CSV whose lists are JSON"):
        load_data(root, "all")
