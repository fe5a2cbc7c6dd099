"""What reading large COCO files costs: seconds and memory, whole and in parts, to train on and to evaluate against.

    python examples/benchmarks/large_coco.py --mb 300 --out large_coco.json
    python examples/benchmarks/large_coco.py --shape coco --mb 450

writes a file with the shape of Objects365's (15 boxes an image, 365 classes, no masks) or of COCO's train2017 (7.3
boxes an image, 80 classes, polygons), and reads it in processes of their own: as a whole, in parts, and once more from
the cache; and as the ground truth of an evaluation. Peak memory is what the process grew by, mapped pages of the cache
included; where data are loaded it is to be compared with the arrow table that comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ld_hub.benchmark.memory import MemoryWatch
from ld_hub.data import coco
from ld_hub.evaluation import ground_truth
from ld_hub.formats.json_lists import LARGE


@dataclass(frozen=True)
class Shape:
    """What a file looks like.

    Attributes:
        boxes: Of an image, on average.
        classes: Of the data.
        points: Of a polygon for each box; 0 for none.
        box_bytes: Of an annotation.
    """

    boxes: float
    classes: int
    points: int
    box_bytes: int


SHAPES = {"objects365": Shape(15, 365, 0, 190), "coco": Shape(860_001 / 118_287, 80, 21, 510)}
READINGS = (
    "whole", "in parts, first time", "in parts, from the cache", "ground truth, whole", "ground truth, in parts"
)  # fmt: skip


def write(path: Path, size: int, shape: Shape) -> None:
    """Images first, then annotations whose images are in disorder, as Objects365 has them."""
    random = np.random.default_rng(0)
    images = int(size / (shape.boxes * shape.box_bytes + 140))
    count = round(images * shape.boxes)
    with open(path, "w", encoding="utf-8") as out:
        out.write('{"images": [')
        for k in range(images):
            name = f"patch{k % 51}/objects365_v2_{k:08d}.jpg"
            image = {"id": k + 1, "file_name": name, "width": 683, "height": 512, "license": 5, "url": ""}
            out.write((", " if k else "") + json.dumps(image))
        out.write('], "annotations": [')
        for start in range(0, count, 10_000):
            rows = min(10_000, count - start)
            boxes = random.random((rows, 4)) * [400, 300, 280, 200] + [0, 0, 2, 2]
            owners, labels = (
                random.integers(1, images + 1, rows).tolist(),
                random.integers(1, shape.classes + 1, rows).tolist(),
            )
            polygons = (random.random((rows, 2 * shape.points)) * 500).round(2).tolist()
            text = [
                {"id": start + k + 1, "iscrowd": 0, "isfake": 0, "area": box[2] * box[3], "isreflected": 0, "bbox": box,
                 "image_id": owner, "category_id": label, **({"segmentation": [polygon]} if polygon else {})}
                for k, (box, owner, label, polygon) in enumerate(
                    zip(boxes.round(10).tolist(), owners, labels, polygons, strict=True)
                )
            ]  # fmt: skip
            out.write((", " if start else "") + json.dumps(text)[1:-1])
        categories = [{"id": k + 1, "name": f"class {k + 1}"} for k in range(shape.classes)]
        out.write(f'], "categories": {json.dumps(categories)}}}')


def read(file: Path, kind: str, shape: Shape) -> dict[str, float]:
    """Read it in this process."""
    small = file.parent / "small.json"
    write(small, 100_000, shape)
    for limit in (0, LARGE):  # imports and first uses are not what is measured
        coco.LARGE = ground_truth.LARGE = limit
        coco.load_coco(images=small.parent, annotations=small, check_files=False)
        ground_truth.read_ground_truth(small)
    coco.LARGE = ground_truth.LARGE = 1 << 60 if "whole" in kind else 0
    watch = MemoryWatch(torch.device("cpu"))
    watch.start()
    start, processor = time.perf_counter(), time.process_time()
    if kind.startswith("ground truth"):
        truth = ground_truth.read_ground_truth(file)
        counts = {"images": len(truth.images), "boxes": len(truth.annotations)}
    else:
        data = coco.load_coco(images=file.parent, annotations=file, check_files=False)
        counts = {"images": len(data), "table_bytes": data.rows.data.nbytes}
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    growth = watch.stop().growth or 0
    compared = {"peak_per_table": round(growth / counts["table_bytes"], 2)} if "table_bytes" in counts else {}
    return {
        "seconds": round(seconds, 1), "cpu_seconds": round(processor, 1), **counts, "peak_bytes": growth, **compared
    }  # fmt: skip


def measure(size: int, name: str, kinds: list[str], place: Path) -> dict[str, object]:
    """All readings of one size."""
    file = place / f"{name}.json"
    write(file, size, SHAPES[name])
    rows = {}
    environment = os.environ | {"LD_HUB_CACHE": str(place / "cache"), "PYTHONWARNINGS": "ignore"}
    for kind in kinds:
        command = [sys.executable, __file__, "--read", str(file), "--readings", kind, "--shape", name]
        rows[kind] = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        print(kind, rows[kind], flush=True)
    return {"bytes": file.stat().st_size, "readings": rows}


def main() -> None:
    """Measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, nargs="+", default=[600])
    parser.add_argument("--shape", choices=SHAPES, default="objects365")
    parser.add_argument("--readings", nargs="+", choices=READINGS, default=READINGS)
    parser.add_argument("--out", type=Path, default=Path("large_coco.json"))
    parser.add_argument("--read", type=Path)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, args.readings[0], SHAPES[args.shape])))
        return
    sizes = []
    for megabytes in args.mb:
        with tempfile.TemporaryDirectory() as place:
            sizes.append(measure(megabytes * 1_000_000, args.shape, list(args.readings), Path(place)))
    shape = SHAPES[args.shape]
    head = {"shape": args.shape, "boxes_per_image": round(shape.boxes, 2), "classes": shape.classes}
    args.out.write_text(json.dumps({**head, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
