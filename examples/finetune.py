"""Train a detector on your own data: python examples/finetune.py mine/ [--model NAME_OR_DIR]

mine/ is a COCO, VOC or YOLO directory. Training starts from the weights of a whole detector: a name's, downloaded once,
or a model directory; the layer that predicts classes starts anew where the classes are others. --scratch starts from
random numbers, and downloads nothing.
"""

from __future__ import annotations

import argparse

import torch

import ld_hub
from ld_hub.data import load_data
from ld_hub.engine import TrainConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="directory with images and boxes")
    parser.add_argument("--model", default="gfocal_r18_ld_r101", help="a name with weights, or a model directory")
    parser.add_argument("--scratch", action="store_true", help="random weights instead")
    parser.add_argument("--image_size", type=int, nargs=2, help="short side, and limit of the long one, in px")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--out", default="runs/finetuned")
    args = parser.parse_args()

    train, val = load_data(args.data, "train"), load_data(args.data, "val")
    torch.manual_seed(0)
    classes = {"label_names": train.label_names, "category_ids": train.category_ids}
    from_random = {"frozen_stages": 0, "norm_eval": False} if args.scratch else {}
    model = ld_hub.create_model(args.model, pretrained=not args.scratch, **classes, **from_random)

    config = TrainConfig(
        output_dir=args.out,
        steps=args.steps,
        batch_size=args.batch_size,
        image_size=args.image_size,
        optimizer="adamw",
        lr=1e-3 if args.scratch else 2e-4,  # for 16 images per step; scaled to batch_size
        lr_schedule="cosine",
        clip_grad_norm=10.0,
    )
    result = ld_hub.DetectionTrainer(model, train_dataset=train, eval_dataset=val, config=config).train()
    print(result.metrics)

    tuned = ld_hub.create_model(result.model_dir)
    print(tuned.predict(val.rows[0]["path"], threshold=0.3))


if __name__ == "__main__":
    main()
