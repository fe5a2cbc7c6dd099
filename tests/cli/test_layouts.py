"""VOC and YOLO directories through the commands, from arguments to numbers."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch

from ld_hub import train
from ld_hub.cli.main import main
from tests.engine.runs import records
from tests.support.directories import voc_devkit, voc_image, voc_list, yolo_directory

SMALL = (
    "--pretrained_backbone false --fpn_channels 16 --head_width 16 --head_depth 1 --image_size 64 96 --workers 0 "
    "--batch_size 3"
)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(capsys, line: str, *paths: Path):
    code = main([*shlex.split(line), *map(str, paths)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    return voc_devkit(tmp_path_factory.mktemp("data") / "VOCdevkit")


@pytest.fixture(scope="module")
def trained(devkit, tmp_path_factory):
    """A run by VOC's schedule."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "voc"
    words = ["gfocal_tiny", "--data", str(devkit), "--schedule", "voc", *SMALL.split(), "--output_dir", str(out)]
    assert train.main([*words, "--log_every", "1"]) == 0
    return out


def test_a_devkit_trains_by_its_schedule_and_is_scored_by_its_protocol(trained, devkit, tmp_path, capsys):
    steps = [record for record in records(trained) if "loss" in record]
    assert len(steps) == 24  # 12 passes over 6 images, 3 at a time
    rates = [step["lr"] for step in steps]
    peak = 0.01 * 3 / 16
    assert rates[2:18] == pytest.approx([peak] * 16) and rates[18:] == pytest.approx([peak / 10] * 6)
    code, out, _ = run(capsys, f"eval {trained}/model --data {devkit} --workers 0 --out {tmp_path}/e")
    assert code == 0 and "VOC 2007" in out
    content = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert content["protocol"] == "voc07" and content["data"]["name"] == "VOCdevkit"
    assert content["boxes"] == {**dict.fromkeys(content["boxes"], 0), "dog": 3, "person": 2}  # one is difficult


def test_an_unreadable_image_in_the_middle_is_named(trained, tmp_path, capsys):
    other = voc_devkit(tmp_path / "VOCdevkit")
    image = other / "VOC2007" / "JPEGImages" / "2007_000005.jpg"
    image.write_bytes(image.read_bytes()[:200])
    for workers in (0, 1):
        line = f"eval {trained}/model --data {other} --workers {workers} --batch_size 1 --out {tmp_path}/e"
        code, _, err = run(capsys, line)
        assert code == 2 and err.count("\n") == 1 and f"{image}: the image is damaged" in err
    assert not (tmp_path / "e").exists()
    code, out, _ = run(capsys, f"data doctor {other} --split val --check_images")
    assert code == 1 and "2007_000005.jpg" in out


def test_an_image_that_its_xml_gives_another_size(trained, tmp_path, capsys):
    other = voc_devkit(tmp_path / "VOCdevkit")
    voc_image(other / "VOC2007", "2007_000005", [("dog", 0, (1, 1, 60, 40))], (90, 90))
    xml = other / "VOC2007" / "Annotations" / "2007_000005.xml"
    xml.write_text(xml.read_text().replace("<width>90<", "<width>60<"))
    code, _, err = run(capsys, f"eval {trained}/model --data {other} --workers 0 --out {tmp_path}/e")
    assert code == 2 and "2007_000005.jpg: the file is 90x90 px, but its annotations declare 60x90" in err


def test_a_model_of_other_classes_is_one_error(trained, tmp_path, capsys):
    yolo = yolo_directory(tmp_path / "pets")
    code, _, err = run(capsys, f"eval {trained}/model --data {yolo} --workers 0 --out {tmp_path}/e")
    assert code == 2 and err.count("\n") == 1
    assert "detects 20 classes (aeroplane, bicycle, bird, boat, ...)" in err
    assert f"'{yolo} (images/val)' has 2 classes (cat, dog)" in err


def test_yolo_data_are_scored_by_cocos_protocol(tmp_path, capsys):
    yolo = yolo_directory(tmp_path / "pets")
    words = ["--data", str(yolo), "--steps", "1", "--warmup_steps", "0", "--output_dir", str(tmp_path / "run")]
    assert train.main(["gfocal_tiny", *words, *SMALL.split()]) == 0
    code, out, _ = run(capsys, f"eval {tmp_path}/run/model --data {yolo} --workers 0 --out {tmp_path}/e")
    assert code == 0 and "COCO box metrics" in out
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["boxes"] == {"cat": 1, "dog": 0}


def test_convert_says_what_it_did(devkit, tmp_path, capsys):
    code, out, err = run(capsys, "data convert --to yolo", devkit, tmp_path / "y")
    assert code == 0 and err == ""
    assert out.splitlines() == [
        "train: 6 images, 12 boxes", "val: 3 images, 6 boxes",
        "3 difficult or ignored boxes left out: YOLO cannot say them", f"YOLO data are in {tmp_path}/y",
    ]  # fmt: skip
    code, _, err = run(capsys, "data convert --to yolo", devkit, tmp_path / "y")
    assert (code, err) == (
        2,
        f"ld-hub: error: {tmp_path}/y exists and is not empty: remove it, or name another place.\n",
    )
    code, out, _ = run(capsys, "data convert --to coco --split train --images none", tmp_path / "y", tmp_path / "c")
    assert code == 0 and out.splitlines()[-1].startswith(
        f"images: --images {tmp_path}/y --annotations {tmp_path}/c/ann"
    )
    voc_list(tmp_path / "half", "train", "a")
    voc_image(tmp_path / "half", "a", [("cat", 0, (1, 1, 9, 9))])
    code, out, _ = run(capsys, "data convert --to coco", tmp_path / "half", tmp_path / "h")
    assert code == 0 and out.startswith("no 'val': No list of the split 'val'")


@pytest.mark.parametrize("line", ["data --help", "data convert --help", "data doctor --help", "eval --help"])
def test_the_help_names_the_layouts(line, capsys):
    with pytest.raises(SystemExit):
        main(line.split())
    out = capsys.readouterr().out
    assert "VOC" in out and "YOLO" in out and max(map(len, out.splitlines())) <= 80
