"""`ld-hub data show`: a picture of what training will see."""

from __future__ import annotations

import argparse
from typing import Any

from ld_hub.cli.flags import add_augmentation_flags, add_reading_flags, augmentation_of, read_data, require_data
from ld_hub.cli.places import check_file
from ld_hub.drawing import picture_format, save_picture
from ld_hub.errors import ConfigError

_SHOW = """\
Draw what training will see of a data set: the first images of a run with this
seed, augmented as --augment and its parts say, with their boxes, on one sheet.
The same flags mean the same in `ld-hub train` and `ld-hub distill`."""

_SHOW_EPILOG = """\
examples:
  ld-hub data show my_data --augment strong --out p.png
  ld-hub data show my_data --augment none --out plain.jpg     with the boxes
  ld-hub data show my_data --augment strong --mixup 0 --image_size 480 640

in Python:
  from ld_hub.data.training_sheet import training_sheet
  from ld_hub.preprocessing import DataConfig
  from ld_hub.preprocessing.augmentation import PRESETS
  sheet = training_sheet(load_data("my_data"), DataConfig(), PRESETS["strong"])"""


def add_show(actions: Any) -> None:
    """Add the action to the parser of `ld-hub data`."""
    show = actions.add_parser(
        "show",
        help="draw what training will see",
        description=_SHOW,
        epilog=_SHOW_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = show.add_argument, "(default: %(default)s)"
    add("data", nargs="?", metavar="DIR", help="directory of the data set")
    add("--split", default="train", help=f"part of the data set {default}")
    add("--images", metavar="DIR", help="directory of the images, where DIR does not lead to them")
    add("--annotations", metavar="FILE", help="COCO annotations, where DIR does not lead to them")
    add("--out", default="training.png", metavar="FILE", help=f"picture to write {default}")
    add("--number", type=int, default=12, metavar="N", help=f"images on the sheet {default}")
    add("--per_row", type=int, default=4, metavar="N", help=f"images in a row {default}")
    add("--seed", type=int, default=0, metavar="N", help=f"of the training {default}")
    size = "size of the training, as in ld-hub train (default: 800 1333)"
    add("--image_size", type=int, nargs=2, default=(800, 1333), metavar=("SHORT", "LONG"), help=size)
    add_reading_flags(show)
    add_augmentation_flags(show.add_argument_group("augmentation"))


def run_show(args: argparse.Namespace) -> int:
    """Draw the sheet; returns the exit code."""
    augmentation = augmentation_of(args)
    if args.number < 1 or args.per_row < 1:
        raise ConfigError(f"--number {args.number} --per_row {args.per_row}: at least 1 is needed of both.")
    check_file(args.out, "--out")
    picture_format(args.out)
    require_data(args)
    pastes = augmentation.copy_paste > 0
    if pastes:
        from ld_hub.data.layouts import require_outlined

        require_outlined(args.data, args.split, images=args.images, annotations=args.annotations)

    from ld_hub.data.training_sheet import training_sheet
    from ld_hub.preprocessing import DataConfig

    dataset = read_data(args, outlines=pastes)
    config = DataConfig(image_size=(args.image_size[0], args.image_size[1]))
    sheet = training_sheet(dataset, config, augmentation, images=args.number, columns=args.per_row, seed=args.seed)
    save_picture(sheet, args.out)
    print(f"{args.out}: {args.number} images of '{dataset.source}' as training sees them: {augmentation.describe()}")
    return 0
