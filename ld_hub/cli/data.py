"""`ld-hub data`: look into a data set, or make the demo data set."""

from __future__ import annotations

import argparse
from typing import Any

_DOCTOR = """\
Read a data set in COCO format and list everything that is wrong with it: broken
references, duplicate ids, missing images, boxes that training would leave out.
Shows counts, box sizes, classes with few boxes, and an anchor scale that fits.
Ends with exit code 1 where a problem keeps the data from being used."""

_DOCTOR_EPILOG = """\
examples:
  ld-hub data doctor coco
  ld-hub data doctor my_data --split val --check-images
  ld-hub data doctor --images photos --annotations boxes.json

in Python:
  from ld_hub.data import doctor
  report = doctor("coco", "train")
  print(report.table())
  print(report.healthy, report.anchor_scale)"""

_DEMO = """\
Make a small detection data set without any download: textured scenes with up to
six overlapping shapes of six classes, soft and partly hidden edges, COCO format.
The same seed makes the same pictures everywhere."""

_DEMO_EPILOG = """\
examples:
  ld-hub data demo shapes
  ld-hub data demo shapes --train_images 5000 --image_size 256 --seed 7"""


def add_parser(subparsers: Any) -> None:
    """Add the verb and its two actions to the parser of `ld-hub`."""
    parser = subparsers.add_parser("data", help="look for problems in a data set, or make the demo data set")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    raw = argparse.RawDescriptionHelpFormatter
    default = "(default: %(default)s)"

    look = actions.add_parser(
        "doctor", help="look for problems", description=_DOCTOR, epilog=_DOCTOR_EPILOG, formatter_class=raw
    )
    look.add_argument("data", nargs="?", metavar="DIR", help="directory of the data set")
    look.add_argument("--split", default="train", help=f"part of the data set {default}")
    look.add_argument("--images", metavar="DIR", help="directory of the images, where DIR does not lead to them")
    look.add_argument("--annotations", metavar="FILE", help="COCO annotations, where DIR does not lead to them")
    look.add_argument("--check-images", action="store_true", help="open every image; finds damaged files")
    look.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        default=(800, 1333),
        metavar=("SHORT", "LONG"),
        help="size the model will be trained at, for the anchor scale (default: 800 1333)",
    )

    make = actions.add_parser(
        "demo", help="make the demo data set", description=_DEMO, epilog=_DEMO_EPILOG, formatter_class=raw
    )
    make.add_argument("out", metavar="OUT", help="directory to make")
    make.add_argument("--train_images", type=int, default=1500, metavar="N", help=default)
    make.add_argument("--val_images", type=int, default=300, metavar="N", help=default)
    make.add_argument("--image_size", type=int, default=128, metavar="PX", help=f"side of the images {default}")
    make.add_argument("--seed", type=int, default=0, metavar="N", help=default)


def run(args: argparse.Namespace) -> int:
    """Run the action; returns the exit code."""
    return _run_doctor(args) if args.action == "doctor" else _run_demo(args)


def _run_doctor(args: argparse.Namespace) -> int:
    from ld_hub.data import doctor

    report = doctor(
        args.data,
        args.split,
        images=args.images,
        annotations=args.annotations,
        check_images=args.check_images,
        image_size=(args.image_size[0], args.image_size[1]),
    )
    print(report.table())
    return 0 if report.healthy else 1


def _run_demo(args: argparse.Namespace) -> int:
    from rich.progress import Progress

    from ld_hub.data import make_demo_dataset

    with Progress(transient=True) as progress:
        task = progress.add_task("painting", total=args.train_images + args.val_images)
        out = make_demo_dataset(
            args.out,
            train_images=args.train_images,
            val_images=args.val_images,
            image_size=args.image_size,
            seed=args.seed,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    print(f"{out}: {args.train_images} training and {args.val_images} validation images.")
    return 0
