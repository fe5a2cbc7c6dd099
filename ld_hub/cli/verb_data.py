"""`ld-hub data`: look into a data set, draw it, write it in another format, or make the demo data set."""

from __future__ import annotations

import argparse
from typing import Any

from ld_hub.cli.data_show import add_show, run_show
from ld_hub.cli.flags import add_reading_flags, reading_of, require_data
from ld_hub.data.discovery import require_places
from ld_hub.hub.files import require_new_directory

_FORMATS = ("coco", "voc", "yolo", "createml", "labelme", "hub")

_DOCTOR = """\
Read a data set (COCO, PASCAL VOC, YOLO, or what labelling tools write) and list
everything that is wrong with it: broken files and references, missing images,
boxes that are left out, what is repaired on reading, and images of a sample
that are not of the size that is declared.
Shows counts, box sizes, classes with few boxes, and an anchor scale that fits.
Ends with exit code 1 where a problem keeps the data from being used."""

_DOCTOR_EPILOG = """\
examples:
  ld-hub data doctor coco
  ld-hub data doctor my_data --split val --check_images
  ld-hub data doctor VOCdevkit --split val         VOC2007 test
  ld-hub data doctor --images photos --annotations boxes.json

in Python:
  from ld_hub.data import doctor
  report = doctor("coco", "train")
  print(report.table())
  print(report.healthy, report.anchor_scale)"""

_CONVERT = """\
Write a data set in another format. COCO, PASCAL VOC (VOCdevkit/ or one year),
YOLO (data.yaml, or images/ and labels/) and what labelling tools write are
recognised by what is there. OUT appears when it is complete; an existing
directory is not touched.

A box keeps its edges: VOC's xmin, ymin, xmax, ymax (pixels from 1, both inside)
are COCO's xmin-1, ymin-1, xmax-xmin+1, ymax-ymin+1; YOLO's fractions get ten
digits. VOC's difficult is COCO's "ignore". What a format cannot say is counted
and told: VOC has whole pixels only and no crowds (they become difficult), YOLO
and CreateML have neither crowds nor difficult boxes (they are left out), data
sets of the Hub have crowds only. Boxes only: masks and keypoints are not
carried over."""

_CONVERT_EPILOG = """\
examples:
  ld-hub data convert VOCdevkit voc_as_coco --to coco
  ld-hub data convert coco coco_as_yolo --to yolo --split val --images copy
  ld-hub data convert my_yolo my_voc --to voc --split train val test
  ld-hub data convert my_yolo my_parquet --to hub

what it makes:
  coco      SPLIT/*.jpg         annotations/instances_SPLIT.json
  voc       JPEGImages/*.jpg    Annotations/*.xml  ImageSets/Main/*.txt
                                classes.txt
  yolo      images/SPLIT/*.jpg  labels/SPLIT/*.txt  data.yaml
  createml  SPLIT/*.jpg         SPLIT/_annotations.createml.json  classes.txt
  labelme   SPLIT/*.jpg         SPLIT/*.json  classes.txt
  hub       data/SPLIT-*.parquet, as load_dataset reads them and the Hub shows
            them: the images inside (--images none: their paths), and objects
            with bbox (x, y, width, height) and category (ClassLabel)"""

_DEMO = """\
Make a small detection data set without any download: textured scenes with up to
six overlapping shapes of six classes, soft and partly hidden edges, in COCO
format. The same seed makes the same pictures everywhere."""

_DEMO_EPILOG = """\
examples:
  ld-hub data demo shapes
  ld-hub data demo shapes --train_images 5000 --image_size 256 --seed 7"""


def add_parser(subparsers: Any) -> None:
    """Add the verb and its actions to the parser of `ld-hub`."""
    parser = subparsers.add_parser("data", help="look for problems in a data set, convert it, make the demo data set")
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
    look.add_argument("--check_images", action="store_true", help="open every image; finds damaged files")
    look.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        default=(800, 1333),
        metavar=("SHORT", "LONG"),
        help="size the model will be trained at, for the anchor scale (default: 800 1333)",
    )

    add_reading_flags(look)

    turn = actions.add_parser(
        "convert",
        help="write a data set in another format: COCO, VOC, YOLO, CreateML, LabelMe, the Hub's",
        description=_CONVERT,
        epilog=_CONVERT_EPILOG,
        formatter_class=raw,
    )
    turn.add_argument("data", metavar="SRC", help="directory of the data set")
    turn.add_argument("out", metavar="OUT", help="directory to make")
    turn.add_argument("--to", required=True, choices=_FORMATS, help="format of OUT")
    turn.add_argument("--split", nargs="+", metavar="SPLIT", help="parts to convert (default: train and val)")
    add_reading_flags(turn)
    how = "link to the images of SRC, copy them, or write annotations alone"
    turn.add_argument("--images", default="link", choices=("link", "copy", "none"), help=f"{how} {default}")

    add_show(actions)

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
    actions = {"doctor": _run_doctor, "show": run_show, "convert": _run_convert, "demo": _run_demo}
    return actions[args.action](args)


def _run_doctor(args: argparse.Namespace) -> int:
    require_data(args)

    from ld_hub.data import doctor

    report = doctor(
        args.data,
        args.split,
        images=args.images,
        annotations=args.annotations,
        check_images=args.check_images,
        image_size=(args.image_size[0], args.image_size[1]),
        reading=reading_of(args),
    )
    print(report.table())
    return 0 if report.healthy else 1


def _run_convert(args: argparse.Namespace) -> int:
    require_places(args.data)
    require_new_directory(args.out)

    from ld_hub.data.layouts import require_split

    for split in args.split or ():
        require_split(args.data, split)

    from rich.console import Console
    from rich.progress import Progress

    from ld_hub.data.conversion import convert_data

    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("converting", total=None)
        made = convert_data(
            args.data,
            args.out,
            args.to,
            splits=args.split,
            images=args.images,
            reading=reading_of(args),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for split, why in made.skipped.items():
        print(f"no '{split}': {why}")
    for split, images in made.images.items():
        print(f"{split}: {images} images, {made.boxes[split]} boxes")
    for what, count in made.told.items():
        print(f"{count} {what}")
    print(f"{args.to.upper()} data are in {made.out}")
    if args.images == "none" and args.to == "coco":
        print(f"images: --images {args.data} --annotations {made.out}/annotations/instances_SPLIT.json")
    return 0


def _run_demo(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from ld_hub.demo import make_demo_dataset

    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
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
