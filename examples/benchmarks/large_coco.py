"""What reading a COCO file as large as Objects365's costs: seconds and memory, whole and in parts.

    python examples/benchmarks/large_coco.py --mb 300 --out large_coco.json

writes a file with the shape of Objects365's (15 boxes an image, 365 classes, no masks), and reads it in processes of
their own: as a whole, in parts, and once more from the cache. Peak memory is what the process grew by, mapped pages of
the cache included; it is to be compared with the arrow table that comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ld_hub.benchmark.memory import MemoryWatch
from ld_hub.data import coco
from ld_hub.data.large_coco import LARGE

BOXES, CLASSES = 15, 365  # of an image, of the data


def write(path: Path, size: int) -> None:
    """Images first, then annotations whose images are in disorder, as Objects365 has them."""
    random = np.random.default_rng(0)
    images = size // (BOXES * 190 + 110)
    with open(path, "w", encoding="utf-8") as out:
        out.write('{"images": [')
        for k in range(images):
            name = f"patch{k % 51}/objects365_v2_{k:08d}.jpg"
            image = {"id": k + 1, "file_name": name, "width": 683, "height": 512, "license": 5, "url": ""}
            out.write((", " if k else "") + json.dumps(image))
        out.write('], "annotations": [')
        for start in range(0, images * BOXES, 10_000):
            rows = min(10_000, images * BOXES - start)
            boxes = random.random((rows, 4)) * [400, 300, 280, 200] + [0, 0, 2, 2]
            owners, labels = (
                random.integers(1, images + 1, rows).tolist(),
                random.integers(1, CLASSES + 1, rows).tolist(),
            )
            text = [
                {"id": start + k + 1, "iscrowd": 0, "isfake": 0, "area": box[2] * box[3], "isreflected": 0, "bbox": box,
                 "image_id": owner, "category_id": label}
                for k, (box, owner, label) in enumerate(zip(boxes.round(10).tolist(), owners, labels, strict=True))
            ]  # fmt: skip
            out.write((", " if start else "") + json.dumps(text)[1:-1])
        categories = [{"id": k + 1, "name": f"class {k + 1}"} for k in range(CLASSES)]
        out.write(f'], "categories": {json.dumps(categories)}}}')


def read(file: Path, whole: bool) -> dict[str, float]:
    """Read it in this process."""
    small = file.parent / "small.json"
    write(small, 100_000)
    for coco.LARGE in (0, LARGE):  # imports and first uses are not what is measured
        coco.load_coco(images=small.parent, annotations=small, check_files=False)
    coco.LARGE = 1 << 60 if whole else 0
    watch = MemoryWatch(torch.device("cpu"))
    watch.start()
    start, processor = time.perf_counter(), time.process_time()
    data = coco.load_coco(images=file.parent, annotations=file, check_files=False)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    growth, table = watch.stop().growth or 0, data.rows.data.nbytes
    return {
        "seconds": round(seconds, 1), "cpu_seconds": round(processor, 1), "images": len(data), "table_bytes": table,
        "peak_bytes": growth, "peak_per_table": round(growth / table, 2),
    }  # fmt: skip


def measure(size: int, whole: bool, place: Path) -> dict[str, object]:
    """All readings of one size."""
    file = place / "objects365.json"
    write(file, size)
    rows = {}
    environment = os.environ | {"LD_HUB_CACHE": str(place / "cache"), "PYTHONWARNINGS": "ignore"}
    for name in [*(["whole"] if whole else []), "in parts, first time", "in parts, from the cache"]:
        command = [sys.executable, __file__, "--read", str(file), "--whole", str(int(name == "whole"))]
        rows[name] = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        print(name, rows[name], flush=True)
    return {"bytes": file.stat().st_size, "readings": rows}


def main() -> None:
    """Measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, nargs="+", default=[600])
    parser.add_argument("--whole", type=int, default=1, help="0: not as a whole, where that needs too much memory")
    parser.add_argument("--out", type=Path, default=Path("large_coco.json"))
    parser.add_argument("--read", type=Path)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read, bool(args.whole))))
        return
    sizes = []
    for megabytes in args.mb:
        with tempfile.TemporaryDirectory() as place:
            sizes.append(measure(megabytes * 1_000_000, bool(args.whole), Path(place)))
    args.out.write_text(json.dumps({"boxes_per_image": BOXES, "classes": CLASSES, "sizes": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
