"""Readers against files that are nearly right: python -m tests.endurance.fuzz [--cases 1000] [--seed 0] [NAME ...].

Each reader has to read a file or refuse it with an `LdHubError`, and that in two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np
import yaml
from PIL import Image

from ld_hub.data import load_data
from ld_hub.distillation import Distiller
from ld_hub.errors import LdHubError
from ld_hub.launch.recipe_files import find_recipe
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import load_image
from ld_hub.teachers.kinds import load_teacher
from tests.support.fuzzing import changed_bytes, changed_json, changed_text
from tests.support.judged import lively

Case: TypeAlias = Callable[[Random], object]
SLOW = 2.0  # seconds


@dataclass
class Outcome:
    """What became of the cases of a reader.

    Attributes:
        read: Files that were read.
        refused: Files that were refused.
        escaped: Numbers of the cases with another error, and where that came from.
        slow: Numbers of the cases that took longer than `SLOW`, and seconds.
    """

    read: int = 0
    refused: int = 0
    escaped: dict[int, str] = field(default_factory=dict)
    slow: dict[int, float] = field(default_factory=dict)


def pictures(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for k in range(count):
        Image.new("RGB", (40, 30)).save(folder / f"{k}.png")


def coco(root: Path) -> Case:
    pictures(root / "train")
    (root / "annotations").mkdir()
    images = [{"id": k + 1, "file_name": f"{k}.png", "width": 40, "height": 30} for k in range(3)]
    boxes = [
        {"id": k + 1, "image_id": 1 + k % 3, "category_id": 1 + k % 2, "bbox": [1 + k, 2, 10, 9], "area": 90,
         "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 5]] if k else {"size": [30, 40], "counts": [10, 5, 1185]}}
        for k in range(5)
    ]  # fmt: skip
    content = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }

    def case(random: Random) -> None:
        (root / "annotations/instances_train.json").write_bytes(changed_json(content, random))
        _look(load_data(root, "train", outlines=random.random() < 0.3))

    return case


def yolo(root: Path) -> Case:
    pictures(root / "images/train")
    (root / "labels/train").mkdir(parents=True)
    about = "train: images/train\nval: images/train\nnames:\n  0: cat\n  1: dog\nnc: 2\n"
    labels = "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n"

    def case(random: Random) -> None:
        first = random.random() < 0.5
        (root / "data.yaml").write_bytes(changed_text(about, random) if first else about.encode())
        (root / "labels/train/0.txt").write_bytes(labels.encode() if first else changed_text(labels, random))
        _look(load_data(root, "train"))

    return case


def voc(root: Path) -> Case:
    pictures(root / "JPEGImages", 1)
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("0\n")
    sides = "".join(f"<{name}>{value}</{name}>" for name, value in (("xmin", 1), ("ymin", 2), ("xmax", 9), ("ymax", 8)))
    text = (
        "<annotation><filename>0.png</filename><size><width>40</width><height>30</height><depth>3</depth></size>"
        f"<object><name>cat</name><difficult>0</difficult><bndbox>{sides}</bndbox></object></annotation>"
    )

    def case(random: Random) -> None:
        (root / "Annotations/0.xml").write_bytes(changed_text(text, random))
        _look(load_data(root, "train"))

    return case


def _look(dataset: Any) -> None:
    records = dataset.records
    if len(dataset):
        records.load(0)
        records.masks(0)


def config(root: Path) -> Case:
    lively(("a", "b")).save_pretrained(root / "model")
    content = json.loads((root / "model/config.json").read_text())

    def case(random: Random) -> None:
        (root / "model/config.json").write_bytes(changed_json(content, random))
        create_model(root / "model").predict(Image.new("RGB", (32, 32)))

    return case


def weights(root: Path) -> Case:
    lively(("a", "b")).save_pretrained(root / "model")
    whole = (root / "model/model.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])

    def case(random: Random) -> None:
        made = changed_bytes(whole, random)
        if random.random() < 0.5:
            text = changed_json(header, random)
            made = len(text).to_bytes(8, "little") + text + whole[8 + size :]
        (root / "model/model.safetensors").write_bytes(made)
        create_model(root / "model")

    return case


def recipe(root: Path) -> Case:
    feature = {"kind": "feature_mse", "region": "fine_grained", "last_step": 600, "decay": "cosine", "decay_from": 0.5}
    edges = {"kind": "box_bins_kl", "region": "main+vlr", "gamma": 0.5, "temperature": 10.0, "weight": 1.0}
    text = yaml.safe_dump({"summary": "mine", "terms": {"ld_vlr": edges, "feature": feature}})

    def case(random: Random) -> None:
        (root / "mine.yaml").write_bytes(changed_text(text, random))
        Distiller(find_recipe(str(root / "mine.yaml"), "gfocal"))

    return case


def results(root: Path) -> Case:
    content = [{"image_id": k, "category_id": k, "bbox": [1, 2, 3, 4], "score": 0.25 * k} for k in (1, 2)]

    def case(random: Random) -> None:
        (root / "boxes.json").write_bytes(changed_json(content, random))
        load_teacher(str(root / "boxes.json"), None)

    return case


def image(root: Path) -> Case:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    files = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        files.append(stream.getvalue())
    return lambda random: load_image(changed_bytes(random.choice(files), random))


READERS: dict[str, Callable[[Path], Case]] = {
    "coco": coco, "yolo": yolo, "voc": voc, "config": config, "weights": weights, "recipe": recipe, "results": results,
    "image": image,
}  # fmt: skip


def fuzz(name: str, root: Path, cases: int, seed: int) -> Outcome:
    """Run the cases of one reader; case k of a seed is the same however many there are."""
    case, outcome = READERS[name](root), Outcome()
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    for number in range(cases):
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case(Random(f"{seed} {number}"))
            outcome.read += 1
        except LdHubError:
            outcome.refused += 1
        except Exception as error:
            ours = [line for line in traceback.extract_tb(error.__traceback__) if "ld_hub/" in line.filename]
            where = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "outside"
            outcome.escaped[number] = f"{type(error).__name__}: {str(error)[:100]} ({where})"
        if (seconds := time.perf_counter() - started) > SLOW:
            outcome.slow[number] = round(seconds, 1)
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; returns 1 if anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(READERS), metavar="NAME", help=", ".join(READERS))
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    escaped = 0
    print(f"{'reader':<10}{'cases':>8}{'read':>8}{'refused':>9}{'escaped':>9}{'slow':>6}{'seconds':>9}")
    for name in args.names:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            found = fuzz(name, Path(folder), args.cases, args.seed)
        taken = time.perf_counter() - started
        print(f"{name:<10}{args.cases:>8}{found.read:>8}{found.refused:>9}{len(found.escaped):>9}{len(found.slow):>6}"
              f"{taken:>9.0f}", flush=True)  # fmt: skip
        for number, what in list(found.escaped.items())[:5]:
            print(f"  case {number}: {what}")
        escaped += len(found.escaped)
    return int(escaped > 0)


if __name__ == "__main__":
    raise SystemExit(main())
