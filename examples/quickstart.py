"""Detect objects: python examples/quickstart.py photos/ [--model NAME_OR_DIR] [--out found]

The default model has COCO's 80 classes; its weights are downloaded once. A directory is a model of your own, e.g.
python examples/quickstart.py ld_hub_demo/data/val --model ld_hub_demo/student_vlr
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ld_hub
from ld_hub.models.inference import find_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="an image, or a directory of images")
    parser.add_argument("--model", default="gfocal_r18_ld_r101", help="a name with weights, or a model directory")
    parser.add_argument("--threshold", type=float, default=0.3, help="least score of what is shown")
    parser.add_argument("--out", default="found", help="where the pictures go")
    args = parser.parse_args()

    model = ld_hub.create_model(args.model, pretrained=True)
    print(f"{model.name}: {len(model.label_names)} classes, {', '.join(model.label_names[:6])}, ...")

    files = find_images(args.images)[:8] if Path(args.images).is_dir() else [Path(args.images)]
    for file, detections in zip(files, model.predict(files, threshold=args.threshold), strict=True):
        print(f"\n{file}\n{detections}")  # as numbers: detections.boxes, .scores, .labels, .to_list(), .to_coco(id)
        detections.save(Path(args.out) / f"{file.stem}.jpg")
    print(f"\npictures are in {args.out}")


if __name__ == "__main__":
    main()
