"""COCO files as tools write them: each kind of looseness is repaired, counted and said, or named with the way out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as masks

from ld_hub.data import doctor, eval_loader, load_data, train_loader
from ld_hub.data.reading import Reading
from ld_hub.errors import ConfigError, DataError, MissingFileError
from ld_hub.formats.outlines import around
from ld_hub.preprocessing import DataConfig, TrainTransform
from tests.support.directories import picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


def content() -> dict[str, Any]:
    """Two images of 60 x 40 px, a cat at 10..40 x 10..30, a dog on the second."""
    boxes = [[10, 10, 30, 20], [1, 2, 5, 6]]
    return {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 60, "height": 40} for k in (1, 2)],
        "annotations": [
            {"id": k, "image_id": k, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for k, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def write(root: Path, data: dict[str, Any], split: str = "train", *, bom: bool = False) -> Path:
    for number in (1, 2):
        picture(root / split / f"{number}.jpg")
    (root / "annotations").mkdir(exist_ok=True)
    text = json.dumps(data).encode()
    (root / "annotations" / f"instances_{split}.json").write_bytes((b"\xef\xbb\xbf" if bom else b"") + text)
    return root


CAT, DOG = ([[10, 10, 40, 30]], [0]), ([[1, 2, 6, 8]], [1])
NOTHING: tuple[list[list[int]], list[int]] = ([], [])
SQUARE = [[10, 10, 40, 10, 40, 30, 10, 30]]


def first(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["annotations"][0].update(changes)


def without(place: str, *keys: str) -> Callable[[dict[str, Any]], None]:
    def spoil(data: dict[str, Any]) -> None:
        for row in data[place]:
            for key in keys:
                row.pop(key)

    return spoil


def all_of(*steps: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def spoil(data: dict[str, Any]) -> None:
        for step in steps:
            step(data)

    return spoil


def text_ids(data: dict[str, Any]) -> None:
    for row in data["images"]:
        row["id"] = str(row["id"])
    data["annotations"][0].update(image_id="1", category_id="1", id="7")
    data["annotations"][1]["image_id"] = 2


def hashes_as_ids(data: dict[str, Any]) -> None:
    for row in data["images"]:
        row["id"] = f"a{row['id']}f"
    for row in data["annotations"]:
        row["image_id"] = f"a{row['image_id']}f"


def names(*given: str) -> Callable[[dict[str, Any]], None]:
    def spoil(data: dict[str, Any]) -> None:
        for row, name in zip(data["images"], given, strict=True):
            row["file_name"] = name

    return spoil


def twice(**other: object) -> Callable[[dict[str, Any]], None]:
    """The second image once more, as its dog has it: some converters write an image for each of its objects."""

    def spoil(data: dict[str, Any]) -> None:
        data["images"].append({"id": 9, "file_name": "2.jpg", "width": 60, "height": 40})
        data["annotations"].append({**data["annotations"][1], "id": 3, "image_id": 9, **other})

    return spoil


def turned(data: dict[str, Any]) -> None:
    for row in data["images"]:
        row.update(width=40, height=60)
    data["annotations"][0]["bbox"] = [10, 10, 45, 20]


def again(data: dict[str, Any]) -> None:
    data["annotations"].append({**data["annotations"][1]})
    data["annotations"].append({**data["annotations"][1], "bbox": [7, 7, 9, 9]})


def rle(compressed: bool) -> dict[str, Any]:
    bitmap = np.zeros((40, 60), dtype=np.uint8, order="F")
    bitmap[10:30, 10:40] = 1
    packed = masks.encode(bitmap)
    if compressed:
        return {"size": [40, 60], "counts": packed["counts"].decode()}
    flat = bitmap.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [40, 60], "counts": np.diff([0, *edges.tolist(), len(flat)]).tolist()}


# name: how the file is loose, the objects of both images, and the kinds of repairs with their numbers
LOOSE: dict[str, tuple[Callable[[dict[str, Any]], None], list[Any], dict[str, int]]] = {
    "ids that are texts": (text_ids, [CAT, DOG], {"numbers as texts": 5}),
    "ids that are hashes": (hashes_as_ids, [CAT, DOG], {"ids": 4}),
    "boxes of texts": (first(bbox=["10", "10", "30", "20.0"]), [CAT, DOG], {"numbers as texts": 1}),
    "a box in one text": (first(bbox="[10, 10, 30, 20]"), [CAT, DOG], {"numbers as texts": 1}),
    "no box, no outline": (first(bbox=None), [NOTHING, DOG], {"objects without a box": 1}),
    "an empty box": (first(bbox=[], segmentation=SQUARE), [CAT, DOG], {"boxes from outlines": 1}),
    "an empty box alone": (first(bbox=[]), [NOTHING, DOG], {"objects without a box": 1}),
    "NaN, and an outline": (
        first(bbox=[float("nan")] * 4, segmentation=SQUARE), [CAT, DOG], {"boxes from outlines": 1}),
    "outlines alone": (
        all_of(without("annotations", "bbox", "area"), first(segmentation=[SQUARE[0][:4], SQUARE[0][4:]]),
               lambda d: d["annotations"][1].update(segmentation=[[1, 2], [6, 2], [6, 8]])),
        [CAT, DOG], {"boxes from outlines": 2}),
    "run lengths": (first(bbox=None, segmentation=rle(True)), [CAT, DOG], {"boxes from outlines": 1}),
    "run lengths, plain": (first(bbox=None, segmentation=rle(False)), [CAT, DOG], {"boxes from outlines": 1}),
    "no sizes": (without("images", "width", "height"), [CAT, DOG], {"image sizes": 2}),
    "sizes that are nothing": (
        lambda d: d["images"][0].update(width=None, height=None), [CAT, DOG], {"image sizes": 1}),
    "sizes of 0": (lambda d: d["images"][1].update(width=0, height=0), [CAT, DOG], {"image sizes": 1}),
    "sizes that are texts": (
        lambda d: d["images"][0].update(width="60", height="40"), [CAT, DOG], {"numbers as texts": 2}),
    "names that are numbers": (
        lambda d: [row.update(name=k) for k, row in enumerate(d["categories"])], [CAT, DOG],
        {"names that are numbers": 2}),
    "backslashes": (names("images\\1.jpg", "images\\2.jpg"), [CAT, DOG], {"file names": 2}),
    "another machine": (names("/home/me/data/1.jpg", "C:\\data\\train\\2.jpg"), [CAT, DOG], {"file names": 2}),
    "addresses": (
        names("https://a.b/x/1.jpg?token=5", "http://localhost:8080/data/local-files/?d=x%2F2.jpg"), [CAT, DOG],
        {"file names": 2}),
    "one level up": (names("../images/1.jpg", "../train/2.jpg"), [CAT, DOG], {"file names": 1}),
    "encoded names": (names("%31.jpg", "2.jpg"), [CAT, DOG], {"file names": 1}),
    "names without suffix": (names("1", "2.jpg"), [CAT, DOG], {"file names": 1}),
    "Roboflow's root": (
        lambda d: (d["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"}),
                   [row.update(supercategory="pets") for row in d["categories"][1:]]),
        [CAT, DOG], {"root category": 1}),
    "an image for each object": (
        twice(category_id=1), [CAT, ([[1, 2, 6, 8]] * 2, [1, 0])], {"images listed twice": 1}),
    "an image listed twice": (twice(), [CAT, DOG], {"images listed twice": 1}),
    "one id for all": (again, [CAT, ([[1, 2, 6, 8], [7, 7, 16, 16]], [1, 1])], {"annotation ids": 1}),
    "sizes the other way round": (turned, [([[10, 10, 55, 30]], [0]), DOG], {"turned images": 2}),
    "flags that are texts": (first(iscrowd="0", area="600"), [CAT, DOG], {"numbers as texts": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", LOOSE)
def test_what_is_loose_is_repaired_counted_and_said(tmp_path, case):
    spoil, objects, repaired = LOOSE[case]
    data = content()
    spoil(data)
    root = write(tmp_path / "set", data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_data(root)
    assert [(row["boxes"], row["labels"]) for row in found.rows] == objects
    assert found.label_names == (("0", "1") if case == "names that are numbers" else ("cat", "dog"))
    assert found.rows["path"][:] == [str(root / "train/1.jpg"), str(root / "train/2.jpg")]
    assert found.sizes.tolist() == [[40, 60]] * 2
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == len(repaired) and all("\n" not in text and str(root) in text for text in texts)
    report = doctor(root)
    assert report.healthy and {repair.kind: repair.count for repair in report.repairs} == repaired
    assert report.table().count("repaired:") == len(repaired)
    with pytest.raises(DataError, match="--strict"):
        load_data(root, strict=True)
    assert not doctor(root, reading=Reading(strict=True)).healthy
    truth = json.loads(Path(found.annotation_file).read_text())  # what is evaluated on is the same
    assert [row["bbox"] for row in truth["annotations"]] == [
        [a, b, c - a, d - b] for row in found.rows for a, b, c, d in row["boxes"]
    ]


def test_clean_files_stay_the_users_own(tmp_path):
    root = write(tmp_path / "set", content())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_data(root, strict=True)
    assert found.annotation_file == str(root / "annotations/instances_train.json")
    root = write(tmp_path / "bom", content(), bom=True)
    assert [row["boxes"] for row in load_data(root, strict=True).rows] == [CAT[0], DOG[0]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (first(bbox=[float("nan"), 1, 2, 3]), "not finite numbers: annotation id 1. Correct or delete them"),
        (first(bbox=["10", "a", "3", "4"]), r"'bbox' of annotation id 1 is \['10', 'a'"),
        (first(bbox=[1, 2, 3]), r"'bbox' of annotation id 1 is \[1, 2, 3\], expected"),
        (first(image_id="other"), "'image_id' of annotation id 1 is 'other', expected an integer"),
        (all_of(hashes_as_ids, first(image_id="other")), "annotation id 1 has the image 'other', which is not listed"),
        (lambda d: d["images"][0].update(width="wide"), "'width' of image id 1 is 'wide', expected an integer"),
        (
            all_of(first(bbox=[0.2, 0.3, 0.5, 0.5]), lambda d: d["annotations"][1].update(bbox=[0, 0.1, 1, 0.5])),
            r"none of 2 boxes has a number above 1 \(for example annotation id 1: bbox \[0\.2, 0\.3, 0\.5, 0\.5\]\)",
        ),
        (names("1.jpg", "other/1.jpg"), r"1 of 2 images are not in .*train: other/1\.jpg"),  # not one picture twice
        (names("1.jpg", "2.JPG"), r"2\.JPG\. There is 2\.jpg: upper and lower case matter"),
    ],
)
def test_what_cannot_be_repaired_is_named(tmp_path, spoil, words):
    data = content()
    spoil(data)
    with pytest.raises((DataError, MissingFileError), match=words):
        load_data(write(tmp_path / "set", data))


def test_of_two_images_of_a_name_none_is_guessed(tmp_path):
    data = content()
    names("1.jpg", "x/5.jpg")(data)
    root = write(tmp_path / "set", data)
    picture(root / "train/a/5.jpg"), picture(root / "train/b/5.jpg")
    with pytest.raises(MissingFileError, match=r"x/5\.jpg"):
        load_data(root)
    (root / "train/b/5.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 file names .*'x/5\.jpg' is 'a/5\.jpg'"):
        assert load_data(root).rows[1]["path"] == str(root / "train/a/5.jpg")


def test_images_of_another_split_are_no_substitute(tmp_path):
    root = write(tmp_path / "set", content())
    write(root, content(), "val")
    (root / "val/1.jpg").unlink()
    with pytest.raises(MissingFileError, match=r"1 of 2 images are not in .*val: 1\.jpg"):
        load_data(root, "val")


def test_the_root_category_is_kept_by_flag_and_where_it_is_a_class(tmp_path):
    data = content()
    LOOSE["Roboflow's root"][0](data)
    root = write(tmp_path / "set", data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_data(root, keep_root_category=True, strict=True)
        assert (found.label_names, found.rows[0]["labels"]) == (("pets", "cat", "dog"), [1])
        data["annotations"][1]["category_id"] = 0
        assert load_data(write(tmp_path / "used", data)).label_names == ("pets", "cat", "dog")
        data = content()  # as in COCO: a person is among persons, and here no other class is
        for row in data["categories"]:
            row["supercategory"] = "dog"
        data["annotations"].pop()
        assert load_data(write(tmp_path / "coco", data)).label_names == ("cat", "dog")


def test_categories_of_one_name_are_refused_or_merged(tmp_path):
    data = content()
    data["categories"].append({"id": 9, "name": "cat"})
    data["annotations"][1]["category_id"] = 9
    root = write(tmp_path / "set", data)
    with pytest.raises(DataError, match=r"two categories are called 'cat' \(ids 1, 9\).*--merge_categories"):
        load_data(root)
    assert [problem.kind for problem in doctor(root).problems] == ["categories of one name"]
    found = load_data(root, merge_categories=True)
    assert (found.label_names, found.category_ids) == (("cat", "dog"), (1, 2))
    assert [row["labels"] for row in found.rows] == [[0], [0]]
    truth = json.loads(Path(found.annotation_file).read_text())
    assert [row["category_id"] for row in truth["annotations"]] == [1, 1]


def test_sizes_that_are_not_the_images_are_found_by_all(tmp_path):
    data = content()
    data["images"][0].update(width=40, height=60)
    root = write(tmp_path / "set", data)
    report = doctor(root)
    assert [(problem.kind, problem.count) for problem in report.problems] == [("other sizes", 1)]
    assert "1.jpg: the file is 60x40 px, but its annotations declare 40x60" in report.problems[0].message
    dataset, config = load_data(root), DataConfig(image_size=(32, 64))
    for loader in (
        train_loader(dataset, TrainTransform(config), 2, workers=0),
        eval_loader(dataset, config, 2, workers=0),
    ):
        with pytest.raises(DataError, match="60x40 px, but its annotations declare 40x60"):
            for _, _batch in zip(range(3), loader, strict=False):
                pass


def test_the_doctor_looks_at_images_from_all_over_the_set(tmp_path):
    data = content()
    data["images"] = [{"id": k, "file_name": f"{k}.jpg", "width": 60, "height": 40} for k in range(1, 251)]
    data["images"][-1]["width"] = 61
    root = write(tmp_path / "set", data)
    for k in range(3, 251):
        (root / f"train/{k}.jpg").hardlink_to(root / "train/1.jpg")
    assert [(problem.kind, problem.count) for problem in doctor(root).problems] == [("other sizes", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_boxes_around_run_lengths_are_pycocotools(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2).tolist()
    bitmap = np.asfortranarray(random.random((height, width)) < random.choice([0.005, 0.05, 0.5, 1]), dtype=np.uint8)
    packed = masks.encode(bitmap)
    x, y, w, h = masks.toBbox(packed).tolist()
    found = around({"size": [height, width], "counts": packed["counts"].decode()})
    rows, columns = np.nonzero(bitmap)
    if not len(rows):
        assert found is None
        return
    exact = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found is not None and found[0::2] == exact[0::2] == (x, x + w)
    # a run that goes on in the next column is taken to touch top and bottom, by pycocotools, too
    assert (found[1], found[3]) == (y, y + h) and y <= exact[1] and y + h >= exact[3]


def test_outlines_of_no_known_form_are_none():
    for other in (None, [], [[]], [[1, 2, 3]], {"counts": [1]}, {"size": [0, 5], "counts": [1, 2]}, "x", [["a"]]):
        assert around(other) is None


def test_a_fraction_is_one():
    for wrong in (-0.1, 1, float("nan")):
        with pytest.raises(ConfigError, match="val_fraction"):
            Reading(val_fraction=wrong)


def test_few_boxes_that_may_be_corners_are_asked_about(tmp_path):
    data = content()
    first(bbox=[20, 10, 50, 30])(data)
    with pytest.warns(UserWarning, match=r"1 of 2 boxes reach out of their image and are clipped\. Are they corners"):
        assert load_data(write(tmp_path / "a", data)).rows[0]["boxes"] == [[20, 10, 60, 40]]
    data["annotations"][1]["bbox"] = [30, 20, 5, 5]  # which is no corners
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(write(tmp_path / "b", data))
