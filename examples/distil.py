"""Does a teacher help on your data? python examples/distil.py mine/ --teacher runs/teacher/model [--recipe vlr]

Trains the student twice from the same start, on the same images in the same order: alone, and taught. Prints the AP and
the seconds of both. One seed is no verdict: run it with several (--seed). finetune.py makes a teacher.
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
    parser.add_argument("--teacher", required=True, help="directory of a model that was trained on these classes")
    parser.add_argument("--student", default="gfocal_r18")
    parser.add_argument("--recipe", default="vlr", help="`ld-hub recipes` lists them")
    parser.add_argument("--scratch", action="store_true", help="random weights instead of ImageNet's; no download")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/distil")
    args = parser.parse_args()

    train, val = load_data(args.data, "train"), load_data(args.data, "val")
    teacher = ld_hub.create_model(args.teacher)
    from_random = {"frozen_stages": 0, "norm_eval": False} if args.scratch else {"pretrained_backbone": True}
    results = {}
    for name in ("alone", args.recipe):
        torch.manual_seed(args.seed)  # the same start
        student = ld_hub.create_model(args.student, num_classes=len(train.label_names), **from_random)
        config = TrainConfig(
            output_dir=f"{args.out}/{name}-{args.seed}", steps=args.steps, batch_size=args.batch_size, seed=args.seed,
            optimizer="adamw", lr=1e-3, lr_schedule="cosine", clip_grad_norm=10.0,
            image_size=teacher.data_config.image_size,  # both look at the same images
        )  # fmt: skip
        data = {"train_dataset": train, "eval_dataset": val, "config": config}
        if name == "alone":
            trainer = ld_hub.DetectionTrainer(student, **data)
        else:
            trainer = ld_hub.DistillationTrainer(student, teacher, args.recipe, **data)
        results[name] = trainer.train()

    for name, result in results.items():
        print(f"{name:<12} AP {100 * result.metrics['AP']:.1f}  {result.seconds:.0f} s  {result.model_dir}")


if __name__ == "__main__":
    main()
