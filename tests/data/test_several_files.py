"""Several annotation files of one split: read as one where each is about other images, else named."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ld_hub.data import doctor, load_data
from ld_hub.data.labelled_files import read_layout
from ld_hub.errors import ConfigError, DataError
from ld_hub.formats.layout import LAYOUTS
from tests.support.directories import picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))


def coco(file: Path, names: list[str], boxes: dict[str, tuple[str, list[float]]], ids: dict[str, int]) -> None:
    """A COCO file whose ids begin at 0, as those of every file do."""
    rows = [
        {"id": k, "image_id": names.index(name), "category_id": ids[label], "bbox": box, "area": 7.0, "iscrowd": k % 2}
        for k, (name, (label, box)) in enumerate(boxes.items())
    ]
    images = [{"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(names)]
    categories = [{"id": number, "name": name, "supercategory": f"of {name}"} for name, number in ids.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))


def quiet_load(root: Path, split: str = "train", **options: Any):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_data(root, split, **options)
    return found, [str(warning.message) for warning in caught]


def read(found) -> dict[str, list[tuple[str, list[float]]]]:
    return {
        row["path"].partition("/set/")[2]: [
            (found.label_names[label], box) for label, box in zip(row["labels"], row["boxes"], strict=True)
        ]
        for row in found.rows
    }


def two(root: Path, names: tuple[str, str], ids: tuple[dict[str, int], dict[str, int]]) -> Path:
    """Two COCO files beside a folder of images each, in which images have the same names."""
    for k, name in enumerate(names):
        for image in ("a.png", "b.png"):
            picture(root / Path(name).parent / image)
        boxes = {"a.png": ("dog", [1 + k, 2, 10, 12]), "b.png": ("cat" if k == 0 else "bee", [5, 5 + k, 9, 8])}
        coco(root / name, ["a.png", "b.png"], boxes, ids[k])
    return root


def test_outlines_stay_with_the_objects_of_their_file(tmp_path):
    """Both files number from 0; the first object of the first one and the second of the other one have an outline."""
    root = two(
        tmp_path / "set", ("train_1/boxes.json", "train_2/boxes.json"), ({"cat": 1, "dog": 2}, {"dog": 0, "bee": 1})
    )
    for k, (x, y) in enumerate(((1, 2), (5, 6))):
        file = root / f"train_{k + 1}/boxes.json"
        content = json.loads(file.read_text())
        content["annotations"][k]["segmentation"] = [[x, y, x + 3, y, x + 3, y + 4, x, y + 4]]
        file.write_text(json.dumps(content))
    records = quiet_load(root, outlines=True)[0].records
    names = [path.as_py().partition("/set/")[2] for path in records.paths]
    assert {name: int(records.masks(k).sum()) for k, name in enumerate(names)} == {
        "train_1/a.png": 12, "train_1/b.png": 0, "train_2/a.png": 0, "train_2/b.png": 12,
    }  # fmt: skip
    assert records.masks(0)[0, 2:6, 1:4].all() and records.masks(3)[0, 6:10, 5:8].all()


def test_coco_files_of_other_images_are_one_split(tmp_path):
    names = ("train_1/boxes.json", "train_2/boxes.json")
    root = two(tmp_path / "set", names, ({"cat": 1, "dog": 2}, {"dog": 0, "bee": 1}))
    found, said = quiet_load(root, strict=True)
    assert said == [f"{root}: {', '.join(names)} are read as one: together they are 'train', with ids given anew."]
    assert read(found) == {
        "train_1/a.png": [("dog", [1, 2, 11, 14])],
        "train_1/b.png": [("cat", [5, 5, 14, 13])],
        "train_2/a.png": [("dog", [2, 2, 12, 14])],
        "train_2/b.png": [("bee", [5, 6, 14, 14])],
    }
    assert found.label_names == ("cat", "dog", "bee") and found.category_ids == (1, 2, 3)
    assert found.rows["crowd"][:] == [[False], [True]] * 2
    content = json.loads(Path(found.annotation_file).read_text())
    for key, count in (("images", 4), ("annotations", 4), ("categories", 3)):
        assert [row["id"] for row in content[key]] == list(range(1, count + 1))
    assert [row["area"] for row in content["annotations"]] == [7] * 4
    assert doctor(root, "train").healthy


def test_categories_keep_their_ids_where_all_files_have_the_same(tmp_path):
    ids = {"cat": 17, "dog": 4, "bee": 30}
    root = two(tmp_path / "set", ("train_1/boxes.json", "train_2/boxes.json"), (ids, ids))
    found, _ = quiet_load(root)
    assert found.label_names == ("dog", "cat", "bee") and found.category_ids == (4, 17, 30)


def test_coco_files_that_describe_an_image_both_are_named(tmp_path):
    names = ("one.json", "two.json")
    root = two(tmp_path / "set", names, ({"cat": 1, "dog": 2}, {"dog": 0, "bee": 1}))
    with pytest.raises(ConfigError, match=r"Each of one\.json, two\.json .* both describe 'a\.png'.* --annotations"):
        load_data(root, "all")


def test_a_fault_in_one_of_the_files_is_named_there(tmp_path):
    root = two(tmp_path / "set", ("train_1/x.json", "train_2/y.json"), ({"cat": 1, "dog": 2}, {"dog": 0, "bee": 1}))
    file = root / "train_2/y.json"
    content = json.loads(file.read_text())
    content["annotations"][1]["image_id"] = 7
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train_2/y\.json: .*annotation.* 1 .*7"):
        load_data(root, "train")
    content["annotations"][1].update(image_id=1, bbox=None)
    content["images"][0]["neg_category_ids"] = []
    file.write_text(json.dumps(content | {"annotations": content["annotations"][:1]}))
    with pytest.raises(ConfigError, match="LVIS' files stand alone"):
        load_data(root, "train")


def test_files_that_are_passed_over_are_said(tmp_path):
    root = tmp_path / "set"
    for name, folder in (("instances_train2017", "train2017"), ("instances_train2014", "train2014")):
        picture(root / folder / "a.png")
        coco(root / f"annotations/{name}.json", ["a.png"], {"a.png": ("dog", [1, 2, 10, 12])}, {"dog": 1})
    for name in ("captions_train2017", "person_keypoints_train2017"):  # COCO's own, which nobody takes for boxes
        coco(root / f"annotations/{name}.json", ["a.png"], {}, {"dog": 1})
    found, said = quiet_load(root)
    assert list(read(found)) == ["train2017/a.png"]
    assert said == [
        f"{root}: instances_train2017.json is read; annotations/instances_train2014.json may hold annotations of "
        "'train', too, and is not: --annotations FILE (annotations=FILE) names another."
    ]
    file = root / "annotations/instances_train2014.json"
    assert quiet_load(root, annotations=file, images=root / "train2014")[1] == []
    file.unlink()
    assert quiet_load(root)[1] == []


def createml(file: Path, boxes: dict[str, float]) -> None:
    """A dog in each image, 10 x 10 px around (x, 20)."""
    place = {"y": 20, "width": 10, "height": 10}
    rows = [
        {"image": name, "annotations": [{"label": "dog", "coordinates": {"x": x, **place}}]}
        for name, x in boxes.items()
    ]
    file.write_text(json.dumps(rows))


def test_files_of_a_tool_are_one_split(tmp_path):
    root = tmp_path / "set"
    for name in ("a.png", "b.png", "c.png"):
        picture(root / "train" / name)
    createml(root / "train/1.json", {"a.png": 10, "b.png": 20})
    createml(root / "train/2.json", {"c.png": 30})
    found, said = quiet_load(root, strict=True)
    boxes = {f"train/{n}.png": [("dog", [x - 5, 15, x + 5, 25])] for n, x in (("a", 10), ("b", 20), ("c", 30))}
    assert read(found) == boxes
    assert said == [f"{root}: train/1.json, train/2.json are read as one: together they are 'train'."]
    createml(root / "train/2.json", {"b.png": 20, "c.png": 30})  # b once more, alike
    found, said = quiet_load(root)
    assert read(found) == boxes and len(said) == 2
    assert "1 images are described in two files alike, and taken once ('train/b.png' in train/1.json and" in said[0]
    with pytest.raises(DataError, match="described in two files alike"):
        load_data(root, strict=True)
    createml(root / "train/2.json", {"b.png": 21, "c.png": 30})
    with pytest.raises(DataError, match=r"train/2\.json describes 'train/b\.png' otherwise than train/1\.json; keep"):
        load_data(root)


def test_images_of_one_name_belong_to_the_file_beside_them(tmp_path):
    root = tmp_path / "set"
    for k in (1, 2):
        picture(root / f"train{k}/a.png")
        createml(root / f"train{k}/boxes.json", {"a.png": 10 * k})
    assert read(quiet_load(root)[0]) == {f"train{k}/a.png": [("dog", [10 * k - 5, 15, 10 * k + 5, 25])] for k in (1, 2)}


def test_xml_files_of_all_folders_of_a_split(tmp_path):
    root = tmp_path / "set"
    for k in (1, 2):
        for folder in (f"train{k}", f"train{k}/again"):
            picture(root / f"train{k}/{k}.png")
            text = "<xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>14</ymax>"
            (root / folder).mkdir(exist_ok=True)
            inner = f"<object><name>dog</name><bndbox>{text}</bndbox></object>"
            (root / folder / f"{k}.xml").write_text(f"<annotation><filename>{k}.png</filename>{inner}</annotation>")
    (root / "train2/Annotations").symlink_to(root / "train2")  # the same files by another path
    found, said = quiet_load(root, strict=True)
    assert read(found) == {f"train{k}/{k}.png": [("dog", [1, 2, 11, 14])] for k in (1, 2)} and said == []


def test_a_file_of_a_tool_is_read_once_for_all_splits(tmp_path, monkeypatch):
    root, read_files = tmp_path / "set", []
    reads = LAYOUTS["createml"].reads

    def counted(file: Path, name: str):
        read_files.append(name)
        return reads(file, name)

    layout = replace(LAYOUTS["createml"], reads=counted)
    for split, label in (("train", "dog"), ("val", "cat")):
        picture(root / split / "a.png")
        createml(root / f"{split}.json", {"a.png": 20})
        (root / f"{split}.json").write_text((root / f"{split}.json").read_text().replace("dog", label))
    for split in ("train", "val"):
        assert read_layout(layout, root, split).coco.label_names == ("cat", "dog")
    assert read_files == ["train.json", "val.json"]
    (root / "val.json").write_text((root / "val.json").read_text().replace("cat", "mouse"))  # it is another file now
    assert read_layout(layout, root, "train").coco.label_names == ("dog", "mouse")
    assert read_files == ["train.json", "val.json", "val.json"]
    (root / "classes.txt").write_text("dog\nbee\nmouse\n")
    read_files.clear()
    (root / "train.json").write_text((root / "train.json").read_text() + "\n")
    (root / "val.json").write_text("[")  # nothing of it is needed
    assert read_layout(layout, root, "train").coco.label_names == ("dog", "bee", "mouse")
    assert read_files == ["train.json"]
