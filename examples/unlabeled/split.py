"""Few labels and many images: python examples/unlabeled/split.py DATA LABELS OUT.

Makes OUT, a COCO directory with the images of DATA to evaluate on and LABELS of its training images, spread evenly over
them, and OUT/unlabeled.txt, which lists the other training images.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def split(data: Path, labels: int, out: Path) -> None:
    content = json.loads((data / "annotations/instances_train.json").read_text())
    images = sorted(content["images"], key=lambda image: image["file_name"])
    kept = {images[k * len(images) // labels]["id"] for k in range(labels)}
    few = {
        **content,
        "images": [image for image in images if image["id"] in kept],
        "annotations": [row for row in content["annotations"] if row["image_id"] in kept],
    }
    (out / "annotations").mkdir(parents=True)
    (out / "annotations/instances_train.json").write_text(json.dumps(few))
    (out / "annotations/instances_val.json").write_bytes((data / "annotations/instances_val.json").read_bytes())
    for part in ("train", "val"):
        os.symlink((data / part).resolve(), out / part)
    others = [str((data / "train" / image["file_name"]).resolve()) for image in images if image["id"] not in kept]
    (out / "unlabeled.txt").write_text("\n".join(others) + "\n")
    print(f"{out}: {len(kept)} labelled images, {len(others)} without labels")


if __name__ == "__main__":
    split(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
