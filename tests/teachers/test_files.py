"""Results files and YOLO predictions: the boxes that they say, which images they mean, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ld_hub.errors import DataError
from ld_hub.teachers.box_teacher import BoxTeacher, check
from ld_hub.teachers.coco_results import CocoResults
from ld_hub.teachers.named_boxes import tie
from ld_hub.teachers.photos import Photo
from ld_hub.teachers.yolo_predictions import YoloPredictions
from tests.engine.runs import IDS, NAMES
from tests.teachers.boxes import SIZES, coco_rows, known, write_predictions, write_results

PHOTOS = [Photo(f"/photos/{name}", size) for name, size in zip(known(), SIZES, strict=True)]
STUDENT_IDS = dict(zip(NAMES, IDS, strict=True))


def said(teacher: BoxTeacher, photos: list[Photo] = PHOTOS) -> dict[str, list[tuple[str, list[float], float]]]:
    """What a teacher says, in the form of `known`."""
    assert teacher.knows(photos) == [True] * len(photos)
    found = teacher.detect(photos)
    names = teacher.classes(NAMES, IDS)
    return {
        "/".join(Path(photo.path).parts[-2:]): [
            (names[int(label)], box, score)
            for label, box, score in zip(each.labels, each.boxes.tolist(), each.scores.tolist(), strict=True)
        ]
        for photo, each in zip(photos, found, strict=True)
    }


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(
        [row[0] for row in one[key]] == [row[0] for row in other[key]]
        and all(
            a[1] == pytest.approx(b[1], abs=1e-4) and a[2] == pytest.approx(b[2])
            for a, b in zip(one[key], other[key], strict=True)
        )
        for key in one
    )


def test_files_say_what_was_written(tmp_path: Path) -> None:
    assert same(said(CocoResults(write_results(tmp_path / "boxes.json"))), known())
    assert same(said(YoloPredictions(write_predictions(tmp_path / "yolo"))), known())
    assert same(said(YoloPredictions(write_predictions(tmp_path / "unnamed", names=False))), known())


def test_a_plain_list_names_images_by_ids_files_or_numbers(tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    numbered = [Photo(f"/photos/{k // 3}/{k:06d}.jpg", photo.size) for k, photo in enumerate(PHOTOS)]
    with_boxes = {name: rows for name, rows in known().items() if rows}
    for name_of, photos in (
        (lambda k, name: 1000 + k, [Photo(p.path, p.size, 1000 + k) for k, p in enumerate(PHOTOS)]),
        (lambda k, name: name, PHOTOS),
        (lambda k, name: Path(name).stem, PHOTOS),
        (lambda k, name: k, numbered),
    ):  # fmt: skip
        keys = {name: name_of(k, name) for k, name in enumerate(known())}
        rows = [row for name, each in with_boxes.items() for row in coco_rows(each, keys[name], STUDENT_IDS)]
        file.write_text(json.dumps(rows))
        teacher = CocoResults(file)
        assert teacher.knows(photos) == [bool(rows) for rows in known().values()]
        there = [photo for photo, rows in zip(photos, known().values(), strict=True) if rows]
        found = teacher.detect(there)
        assert teacher.classes(NAMES, IDS) == NAMES
        for each, rows in zip(found, with_boxes.values(), strict=True):
            assert each.boxes.tolist() == [pytest.approx(row[1], abs=1e-4) for row in rows]
            assert [NAMES[k] for k in each.labels] == [row[0] for row in rows]


def test_ids_that_the_student_does_not_have_are_called_by_their_number(tmp_path: Path) -> None:
    rows = [row(image_id="x.png", category_id=number)[0] for number in (9, 77)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    assert CocoResults(tmp_path / "boxes.json").classes(NAMES, IDS) == ("blue", "77")


def test_names_are_tied_by_as_much_of_the_path_as_there_is() -> None:
    paths = ["/x/a/1.png", "/x/b/1.png", "/x/b/2.jpg", "/y/c.d.jpg"]
    assert tie(["b/1.png", "a/1.png"], paths, "f") == {1: "b/1.png", 0: "a/1.png"}
    assert tie(["old/b/2.png", "c.d"], paths, "f") == {2: "old/b/2.png", 3: "c.d"}
    assert tie(["C:\\photos\\b\\2"], paths, "f") == {2: "C:\\photos\\b\\2"}
    assert tie(["3.png", "c"], paths, "f") == {}
    with pytest.raises(DataError, match=r"'1.png' may be any of 2 images: /x/a/1.png, /x/b/1.png. Name them with"):
        tie(["1.png"], paths, "f")
    with pytest.raises(DataError, match=r"both 'p/2.jpg' and 'q/2.jpg' may be '/x/b/2.jpg'"):
        tie(["p/2.jpg", "q/2.jpg"], paths, "f")


def test_what_names_an_image_without_labels_says_nothing_about_one_with_labels(tmp_path: Path) -> None:
    teacher = CocoResults(write_results(tmp_path / "boxes.json"))
    labelled = [Photo("/data/photo.0.png", SIZES[0]), Photo("/data/photo.5.png", SIZES[5])]
    assert teacher.knows(PHOTOS[:5]) == [True] * 5
    assert teacher.knows(labelled) == [False, True]  # the sixth was left


def row(**changes: Any) -> list[dict[str, Any]]:
    return [{"image_id": "a", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5, **changes}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not readable JSON .*expected a list of"),
        ([], "holds no boxes"),
        ({"images": []}, "is no results file"),
        ([{k: v for k, v in row()[0].items() if k != "score"}], "no row has a score, so these are labels"),
        (row() + row(score="high"), "row 2: 'score' is 'high'"),
        (row(score=True), "row 1: 'score' is True"),
        (row(bbox=[1, 2, 3]), r"'bbox' is \[1, 2, 3\]; expected \[x, y, width, height\] in px"),
        (row(category_id="cat"), "row 1: 'category_id' is 'cat'"),
        (row(bbox=[0.1, 0.2, 0.3, 0.4]), "no side of any box is longer than 1 px. Are these fractions"),
        ({"images": [{"id": 1}], "annotations": row()}, "an entry of 'images' has no"),
        ({"images": [{"id": "b", "file_name": "b.png"}], "annotations": row()}, "image_id 'a' is not in 'images'"),
        ({"categories": [{"id": 2, "name": "x"}], "annotations": row()}, "the category_id 1, which 'categories' does"),
        ({"categories": [{"id": 2}], "annotations": row()}, "'categories' is no list"),
    ],
)  # fmt: skip
def test_results_files_that_are_none(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "boxes.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        CocoResults(file)


def test_sizes_that_differ_are_refused(tmp_path: Path) -> None:
    images = [{"id": 100, "file_name": "a/photo.0.png", "width": 640, "height": 480}]
    teacher = CocoResults(
        write_results(tmp_path / "boxes.json", {"a/photo.0.png": known()["a/photo.0.png"]}, images=images)
    )
    with pytest.raises(DataError, match=r"has 640x480 px; '/photos/a/photo.0.png' has 64x64: boxes of another image"):
        teacher.knows(PHOTOS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "5 numbers, so the confidence is missing"),
        ("0 0.5 0.5 0.2 0.2 0.9 7", "7 numbers"),
        ("cat 0.5 0.5 0.2 0.2 0.9", "are not numbers"),
        ("0.5 0.5 0.5 0.2 0.2 0.9", "the class is 0.5"),
        ("0 50 50 20 20 0.9", "are not fractions of the image"),
        ("0 nan 0.5 0.2 0.2 0.9", "are not fractions of the image"),
    ],
)
def test_predictions_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    file = write_predictions(tmp_path / "yolo") / "labels/a/photo.1.txt"
    file.write_text(f"1 0.5 0.5 0.2 0.2 0.9\n{line}\n")
    teacher = YoloPredictions(tmp_path / "yolo")
    teacher.knows(PHOTOS)
    with pytest.raises(DataError, match=rf"photo\.1\.txt, line 2: .*{message}"):
        teacher.detect(PHOTOS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": 1.5}, "detection 1 has the score 1.5"),
        ({"score": float("nan")}, "detection 1 has the score nan"),
        ({"bbox": [1, 2, float("inf"), 4]}, r"detection 1 has the score 0.5 and the box \(1, 2, inf, 6\)"),
    ],
)
def test_numbers_that_make_no_sense_are_named_with_their_image(tmp_path: Path, changes: Any, message: str) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(row(image_id="photo.0", **changes)))
    teacher = CocoResults(tmp_path / "boxes.json")
    teacher.knows(PHOTOS)
    with pytest.raises(DataError, match=rf"'boxes.json', image '/photos/a/photo.0.png': {message}"):
        check(teacher.detect(PHOTOS[:1])[0], PHOTOS[0], teacher.name)


def test_boxes_beyond_the_image_are_cut_and_those_without_area_left_out(tmp_path: Path) -> None:
    boxes = [[-5, 10, 30, 20], [50, 50, 40, 40], [70, 10, 5, 5], [10, 10, 0, 5], [60, 3, 4.5, 9]]
    scores = [0.2, 0.9, 0.8, 0.7, 0.004]
    rows = [row(image_id="photo.0", bbox=box, score=score)[0] for box, score in zip(boxes, scores, strict=True)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    teacher = CocoResults(tmp_path / "boxes.json")
    teacher.knows(PHOTOS)
    checked = check(teacher.detect(PHOTOS[:1])[0], PHOTOS[0], "x")
    assert checked.found.boxes.tolist() == [[50, 50, 64, 64], [0, 10, 25, 30]]  # best first; the last scores too low
    assert (checked.clipped, checked.outside) == (2, 2)
