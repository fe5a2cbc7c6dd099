"""Files read in parts against the same files read whole, with blocks and parts as small as they can be."""

from __future__ import annotations

import json
import os
import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ld_hub.data import large_coco, load_data
from ld_hub.data.annotations import CocoFile, read_coco
from ld_hub.data.checks import bad_boxes, find_problems
from ld_hub.data.large_coco import read_large
from ld_hub.errors import DataError
from tests.support.directories import picture

pytestmark = pytest.mark.filterwarnings("ignore:.*it is read in parts")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ld_hub.formats.json_lists._BLOCK", 40)
    for name, value in {"large_coco._ROWS": 3, "box_parts.PART": 4, "coco.LARGE": 0}.items():
        monkeypatch.setattr(f"ld_hub.data.{name}", value)


def content(seed: int) -> dict:
    """Some of everything that files hold: masks of both kinds, brackets in texts, numbers of all kinds, no ids."""
    dice = random.Random(seed)
    images = [
        {"id": k * 7 - 3, "file_name": dice.choice(["a},{", "ä]", '"b"', "c"]) + f"{k}.png", "width": 60, "height": 40}
        for k in range(dice.randint(1, 9))
    ]
    annotations = []
    for k in range(dice.randint(0, 30)):
        box = [dice.choice([1, 2.5, 1e1, -3, 70]) for _ in range(2)] + [dice.choice([0, 5, 12.25]) for _ in range(2)]
        row: dict = {"image_id": dice.choice(images)["id"], "category_id": dice.choice([2, 5]), "bbox": box}
        masks = [
            [[1, 2, 3.5, 4], [5, 6, 7, 8]],
            [],
            {"counts": "a},{b", "size": [4, 5]},
            {"counts": [1, 2], "size": []},
        ]
        row |= dice.choice([{}, *({"segmentation": mask} for mask in masks)])
        row |= dice.choice([{}, {"area": 3}, {"iscrowd": 1}, {"ignore": 1}, {"note": "x, ]} y"}, {"more": [{"a": {}}]}])
        annotations.append(row | ({} if seed % 3 == 0 else {"id": 10 + k}))
    parts = {
        "info": {"year": 2026, "list": [1]},
        "licenses": [{"id": 1}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog", "supercategory": "pet"}],
        "version": 12,
    }
    keys = dice.sample(list(parts), len(parts))
    return {key: parts[key] for key in keys}


def write(path: Path, seed: int) -> Path:
    style = [{"separators": (",", ":")}, {"indent": 1}, {}, {"ensure_ascii": False}][seed % 4]
    path.write_text(("\ufeff" if seed == 5 else "") + json.dumps(content(seed), **style), encoding="utf-8")
    return path


def equal(one: CocoFile, other: CocoFile) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


@pytest.mark.parametrize("seed", range(24))
def test_the_arrays_are_those_of_the_whole_file(seed: int, tmp_path: Path) -> None:
    file = write(tmp_path / "boxes.json", seed)
    whole = read_coco(file)
    large = read_large(file)
    assert equal(large, whole) and equal(read_large(file), whole)
    masks = bad_boxes(whole)
    assert all(np.array_equal(mask, bad_boxes(large)[reason]) for reason, mask in masks.items())


def test_data_are_the_same_read_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = content(7)
    for image in words["images"]:
        image["file_name"] = image["file_name"].replace('"', "")
        picture(tmp_path / "images" / image["file_name"])
    (tmp_path / "train.json").write_text(json.dumps(words))
    with pytest.warns(UserWarning, match="boxes cannot be trained on"):
        large = load_data(tmp_path)
    monkeypatch.setattr("ld_hub.data.coco.LARGE", 1 << 40)
    monkeypatch.setattr("ld_hub.data.box_parts.PART", 1 << 40)
    with pytest.warns(UserWarning, match="boxes cannot be trained on"):
        whole = load_data(tmp_path)
    assert large.rows[:] == whole.rows[:] and large.dropped == whole.dropped and sum(large.dropped.values()) > 3


def test_problems_are_the_same_read_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = content(5)
    rows = words["annotations"]
    rows[3]["image_id"], rows[8]["image_id"], rows[9]["category_id"] = 999, 998, 77
    rows[10]["bbox"], rows[11]["bbox"][3], rows[12]["id"] = [1, float("inf"), 2, 2], -4, rows[1]["id"]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(words))
    large = find_problems(read_large(file), tmp_path, check_files=False)
    monkeypatch.setattr("ld_hub.data.box_parts.PART", 1 << 40)
    assert large == find_problems(read_coco(file), tmp_path, check_files=False) and len(large) == 5
    for row in rows:
        row |= {"bbox": [40, 10, 50, 30], "image_id": words["images"][0]["id"], "category_id": 2}
    file.write_text(json.dumps(words))
    monkeypatch.setattr("ld_hub.data.box_parts.PART", 4)
    problems = find_problems(read_large(file), tmp_path, check_files=False)
    assert f"{len(rows)} of {len(rows)} boxes reach out of their image" in problems[-1].message


def test_the_cache_is_used_as_long_as_the_file_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "boxes.json", 1)
    read_large(file)
    times, conversions = file.stat().st_mtime_ns, []
    convert = large_coco._convert
    monkeypatch.setattr(large_coco, "_convert", lambda *args: (conversions.append(args), convert(*args))[1])
    assert equal(read_large(file), read_coco(file)) and not conversions
    file.write_text(file.read_text().replace('"cat"', '"cow"'))  # as long, and as old
    os.utime(file, ns=(times, times))
    assert read_large(file).label_names == ("dog", "cow") and len(conversions) == 1
    os.utime(file)
    read_large(file)
    assert len(conversions) == 2
    columns = list((tmp_path / "cache").rglob("boxes.bin"))
    assert len(columns) == 1  # of what the file was before, nothing is left
    columns[0].write_bytes(columns[0].read_bytes()[:-8])
    assert equal(read_large(file), read_coco(file)) and len(conversions) == 3


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_a_file_that_was_cut_short_is_named_with_the_place(seed: int, tmp_path: Path) -> None:
    file = write(tmp_path / "boxes.json", seed)
    whole = file.read_bytes().rstrip()
    for length in [1, 7, *range(20, len(whole), 23), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"ends at byte {length} in .*it was cut short"):
            read_large(file)
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_the_place_of_a_cut_is_the_row(tmp_path: Path) -> None:
    file = write(tmp_path / "boxes.json", 10)
    words = file.read_text()
    rows = json.loads(words)["annotations"]
    file.write_text(words[: words.index(json.dumps(rows[6])) + 5])
    with pytest.raises(DataError, match=r"in annotations\[6\]: it was cut short"):
        read_large(file)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"annotations"', '"rows"', "needs a list 'annotations'; found nothing"),
        ('"images": [', '"images": 3, "pictures": [', "needs a list 'images'; found no list"),
        ('{"id": 12', '5, {"id": 12', r"annotations\[2\] is 5, not an object"),
        ('"id": 12', '"id": "12"', "'id' of annotation id 12 is '12', expected an integer"),
        ('"id": 12, "', '"id": 12 "', r"not valid JSON near byte \d+, in annotations\[2\]: expecting ',' delimiter"),
        ('"categories": [', '"categories": [], "others": [', "the list 'categories' is empty"),
        ("{", "[", r"not valid JSON near byte 0, in the beginning: expected an object with 'images'"),
    ],
)
def test_faults_are_named(old: str, new: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    rows = [{"id": 10 + k, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]} for k in range(9)]
    images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    text = json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]})
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=words):
        read_large(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "boxes.json", 1)
    file.write_bytes(file.read_bytes().replace(b'"cat"', b'"c\xe4t"'))
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_large(file)
