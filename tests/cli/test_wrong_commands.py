"""Wrong commands of every verb, typed: one line, exit code 2, and neither torch nor a second of processor time."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.directories import picture

ROOT = Path(__file__).resolve().parents[2]
DISTILL = "distill gfocal_r18_ld_r101 --data good"
TRAIN = "train gfocal_r18 --data good"

# What is typed after `ld-hub`, and words of the one line that answers.
WRONG = {
    "lsit": "Did you mean list?",
    "--verison": "unrecognized arguments: --verison. Did you mean --version? (usage: ld-hub --help)",
    "list nosuch*": "No model fits 'nosuch*'",
    "list --pretraind": "Did you mean --pretrained?",
    "info": "the following arguments are required: model (usage: ld-hub info --help)",
    "info gfl_r50": "Did you mean 'gfocal_r50'?",
    "recipes vrl": "Close matches: vlr",
    "recipes vlr --family yolo": "invalid choice: 'yolo'",
    "predict no.jpg --model gfocal_r18": "No image or directory 'no.jpg'",
    "predict empty --model gfocal_r50": "No images in 'empty'",
    "predict photo.png --model empty": "'empty' is not a model directory",
    "predict photo.png --model gfocal_r18": "There are no weights for 'gfocal_r18' to download",
    "predict photo.png --model gfocal_r50 --threshold 2": "--threshold 2",
    "predict photo.png --model gfocal_r50 --device gpu": "Device 'gpu' is unknown; try auto",
    "show gfocal_r50 photo.png --regions mian": "Unknown region 'mian'",
    "show gfocal_r50 photo.png --data empty --boxes 1,2,3,4": "--data and --boxes",
    "eval gfocal_r50 --data empty": "No annotations of the split 'val' in empty",
    "eval gfocal_r50 --data good --split tset": "No annotations of the split 'tset' in good",
    "eval gfocal_r50 --data good --protocol voc": "invalid choice: 'voc'",
    "train": "required: name",
    "train nosuch": "Unknown model 'nosuch'",
    "train gfocal_r18 --data empty": "No annotations of the split 'train' in empty",
    "train gfocal_r18 --data file": "The data directory file is a file",
    f"{TRAIN} --output_dir oldrun": "already holds a run",
    f"{TRAIN} --output_dir file/run": "'file' is a file; name a directory",
    f"{TRAIN} --stpes 3": "Did you mean --steps",
    f"{TRAIN} --steps -1": "steps is -1",
    f"{TRAIN} --lr 0": "lr is 0.0",
    f"{TRAIN} --copy_paste 0.5": "has no outlines of objects",
    f"{DISTILL} --copy_paste 0.5": "Leave --copy_paste out",
    "data show good --copy_paste 0.5": "has no outlines of objects",
    f"{TRAIN} --reg_max 0": "--reg_max is 0",
    f"{TRAIN} --checkpoint nosuch": "Unknown model 'nosuch'",
    f"{TRAIN} --backbone r19": "Unknown backbone 'r19'. Close matches: r18",
    f"{TRAIN} --resume nosuch": "resume 'nosuch': neither a checkpoint",
    "distill gfocal_r18 --data good": "is no distilled name: say who teaches",
    "distill gfocal_r18_ld_r101 --data empty": "No annotations of the split 'train' in empty",
    f"{DISTILL} --recipe vrl": "Unknown recipe 'vrl'. Close matches: vlr",
    f"{DISTILL} --terms.ldd.weight 2": "Did you mean --terms.ld.weight",
    f"{DISTILL} --terms.ld.region nowhere": "Unknown region 'nowhere'",
    f"{DISTILL} --teacher gfl_r101": "Did you mean 'gfocal_r101'?",
    f"{DISTILL} --teacher_weights 1 2": "--teacher_weights has 2 numbers; there are 1 teachers",
    f"{DISTILL} --feature_teacher rsenet50": "Unknown feature teacher 'rsenet50'. Close matches:",
    f"{DISTILL} --output_dir oldrun": "already holds a run",
    "data doctor empty": "No annotations of the split 'train' in empty",
    "data docter good": "invalid choice: 'docter'",
    "data convert good out --to kitti": "invalid choice: 'kitti'",
    "data convert good oldrun --to voc": "oldrun exists and is not empty",
    "data demo good": "good exists and is not this demo dataset",
    "convert no.pth out --model gfocal_r18": "No checkpoint file 'no.pth'",
    "push empty org/name": "'empty' is not a model directory",
    "card empty": "'empty' is not a model directory",
    "verify org/name": "Say where the data is",
    "curves": "Name at least one run directory",
    "curves empty": "'empty' is not the directory of a training run",
    "analyze gfocal_r50 --data empty --out report": "No annotations of the split 'val' in empty",
    "sweep gfocal_r50 --data good --nms hardd": "nms is 'hardd'",
    "sweep gfocal_r50 --data good --nms_iou 3": "--nms_iou 3.0: expected numbers from 0 to 1",
    "benchmark gfl_r18": "Did you mean 'gfocal_r18'?",
    "benchmark gfocal_r18 --size 0 0": "--size 0 0: expected height and width in px",
    "demo --out file": "file is a file; name a directory",
    "demo --student_steps 0": "--student_steps is 0",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What came of each command, and of two that are started as modules."""
    place = tmp_path_factory.mktemp("typed")
    for name in ("empty", "oldrun", "good/train", "good/val", "good/annotations"):
        (place / name).mkdir(parents=True)
    (place / "file").write_text("x")
    (place / "oldrun/config.json").write_text("{}")
    picture(place / "photo.png", 40, 30)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12]}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    for split in ("train", "val"):
        picture(place / f"good/{split}/a.png", 40, 30)
        (place / f"good/annotations/instances_{split}.json").write_text(json.dumps(content))
    lines = [["ld_hub.cli.main", *shlex.split(line.replace("*", "\\*"))] for line in WRONG]
    lines += [["ld_hub.train", *shlex.split(TRAIN)[1:], "--lr", "0"], ["ld_hub.distill", "nosuch", "--data", "good"]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.typed"],
        input="\n".join(map(json.dumps, lines)),
        cwd=place,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip([*WRONG, "ld_hub.train", "ld_hub.distill"], told, strict=True))


@pytest.mark.parametrize("line", [*WRONG, "ld_hub.train", "ld_hub.distill"])
def test_one_line_exit_2_and_no_torch(line: str, answers: dict[str, dict]) -> None:
    answer = answers[line]
    assert answer["said"].count("\n") == 1 and "error: " in answer["said"], answer["said"]
    assert WRONG.get(line, "") in answer["said"]
    assert answer["code"] == 2
    assert answer["heavy"] == []
    assert answer["cpu"] < 2  # 0.1 to 0.4 s where nobody else computes
