"""Annotations of kinds that are not read are called by their names, with what makes a set of them that is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ld_hub.cli.main import main
from ld_hub.data import load_data
from ld_hub.errors import MissingFileError
from tests.data.test_tool_layouts import each, pictures, roboflow_coco
from tests.support.directories import yolo_directory

# name: a file, what stands in it, what is said of it
KINDS = {
    "TFRecord": ("train/pets.tfrecord", "\0", r"train/pets\.tfrecord is a TFRecord, .* FiftyOne"),
    "shards": ("train.record-00000-of-00002", "\0", r"train\.record-00000-of-00002 is a TFRecord"),
    "archive": ("annotations.zip", "PK", r"annotations\.zip is an archive, which is not read here: unpack it\."),
    "gzip": ("annotations/instances_train.json.gz", "\0", r"instances_train\.json\.gz is compressed, .* unpack it"),
    "Datumaro": (
        "annotations/train.json", '{"categories": {"label": {}}, "items": [{"id": "a", "annotations": []}]}',
        r"annotations/train\.json is Datumaro's, .* datum convert -if datumaro -f coco"),
    "SuperAnnotate": (
        "a.jpg.json", '{"metadata": {"name": "a.jpg"}, "instances": [{"type": "bbox", "className": "x"}]}',
        r"a\.jpg\.json is SuperAnnotate's, which is not read here: export it from there as COCO"),
    "BDD100K": (
        "labels/det_train.json", '[{"name": "a.jpg", "labels": [{"category": "x", "box2d": {"x1": 1}}]}]',
        r"labels/det_train\.json is BDD100K's"),
    "FiftyOne": ("labels.json", '{"classes": ["x"], "labels": {"a": [{"bounding_box": [0, 0, 1, 1]}]}}', "FiftyOne's"),
    "VIA 3": ("via.json", '{"file": {"1": {"fname": "a"}}, "metadata": {"1_x": {"xy": [2, 1]}}}', "project of VIA 3"),
    "Detectron2": ("train.json", '[{"file_name": "a", "annotations": [{"bbox": [], "bbox_mode": 0}]}]', "Detectron2's"),
    "results": ("train.json", '[{"image_id": 1, "category_id": 1, "bbox": [], "score": 1}]', "a list of detections"),
    "LabelMe": (
        "json/a.json", '{"shapes": [], "imagePath": "a.jpg", "imageData": "x"}', r"LabelMe's, .* labelme_export_json"),
    "CVAT's video": (
        "annotations.xml", '<annotations><track id="0"/></annotations>', r"CVAT's of a video, .* 'CVAT for images'"),
    "MOT": ("train/MOT17-02/gt/gt.txt", "1,1,1,1,9,9,1,1,1\n", r"train/MOT17-02/gt/gt\.txt is MOT's"),
    "DOTA": ("train/labelTxt/a.txt", "1 1 9 1 9 9 1 9 ship 0\n", r"train/labelTxt/a\.txt is DOTA's"),
    "PaliGemma": ("train/_a.train.jsonl", '{"image": "a", "suffix": "<loc0001><loc0002> x"}', "PaliGemma's"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_are_not_read_are_named(tmp_path, kind):
    name, text, words = KINDS[kind]
    if kind not in ("SuperAnnotate", "MOT"):
        pictures(tmp_path / ("photos" if kind == "LabelMe" else "images/train"), "train")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(MissingFileError, match=words) as caught:
        load_data(tmp_path, "train")
    assert str(caught.value).startswith(f"No annotations of the split 'train' in {tmp_path}. ")


def test_a_directory_that_was_unpacked_into_one_more(tmp_path, capsys):
    (tmp_path / "pets").mkdir()
    each(roboflow_coco, "valid")(tmp_path / "pets")
    assert main(["data", "doctor", str(tmp_path)]) == 2
    assert f"Such data are in {tmp_path / 'pets'}: name that directory." in capsys.readouterr().err
    yolo_directory(tmp_path / "more")
    with pytest.raises(MissingFileError, match=r"Such data are in .*more, .*pets: name that"):
        load_data(tmp_path, "val")
    (tmp_path / "test").mkdir()
    roboflow_coco(tmp_path, "train")  # a part that is there: nothing else is meant
    with pytest.raises(MissingFileError) as caught:
        load_data(tmp_path, "val")
    assert "Such data" not in str(caught.value)


def test_nothing_is_said_of_what_nobody_knows(tmp_path):
    pictures(tmp_path / "train", "train")
    Path(tmp_path / "notes.json").write_text('{"a": 1}')
    with pytest.raises(MissingFileError) as caught:
        load_data(tmp_path, "train")
    assert "not read here" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pets.zip", "Unpack it, and name the directory"),
        ("a.json", r"Name .*, which is the directory\. .*--annotations"),
    ],
)
def test_a_file_in_place_of_a_directory(tmp_path, name, words):
    (tmp_path / name).write_text("")
    with pytest.raises(MissingFileError, match=rf"{name} is a file, not a directory\. {words}"):
        load_data(tmp_path / name)
