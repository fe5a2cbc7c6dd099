"""Flags that several verbs have in common."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ld_hub.data.discovery import require_places
from ld_hub.data.reading import Reading
from ld_hub.errors import ConfigError
from ld_hub.fields import config_fields
from ld_hub.preprocessing.augmentation import Augmentation, AugmentationFlags
from ld_hub.tiling import Tiling

if TYPE_CHECKING:
    from ld_hub.data import DetectionSet

DEFAULT = "(default: %(default)s)"


def add_data_flags(parser: argparse.ArgumentParser, *, split: bool = True) -> None:
    """Where the images and their annotations are.

    Args:
        parser: Of a verb.
        split: Whether the user says which part of the data is meant.
    """
    add = parser.add_argument
    add("--data", metavar="DIR", help="directory of the data set")
    if split:
        add("--split", default="val", help=f"part of the data set {DEFAULT}")
    add("--images", metavar="DIR", help="directory of the images, where --data does not lead to them")
    add("--annotations", metavar="FILE", help="COCO annotations, where --data does not lead to them")
    add_reading_flags(parser)


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """How loosely data are read.

    Args:
        parser: Of a verb.
    """
    add = parser.add_argument
    add("--strict", action="store_true", help="refuse data that would have to be repaired on reading")
    held = "part of the images that is held out to evaluate on, by the hash of their names (default: 0.1 of data"
    add("--val_fraction", type=float, metavar="F", help=f"{held} without parts)")
    add("--keep_root_category", action="store_true", help="keep the category without boxes that Roboflow writes")
    add("--merge_categories", action="store_true", help="make one class of categories that share a name")
    add("--columns", metavar="PART=COLUMN,...", help="names of columns, of data of the Hub (hf:ORG/NAME)")


def reading_of(args: argparse.Namespace) -> Reading:
    """What the flags of `add_reading_flags` say.

    Raises:
        ConfigError: If a value makes no sense.
    """
    return Reading(args.strict, args.val_fraction, args.keep_root_category, args.merge_categories, args.columns)


def add_inference_flags(parser: argparse.ArgumentParser) -> None:
    """How a detector goes through a data set."""
    add = parser.add_argument
    add("--batch_size", type=int, default=8, metavar="N", help=f"images per forward pass {DEFAULT}")
    add("--workers", type=int, default=2, metavar="N", help=f"processes that load images {DEFAULT}")
    add_device_flag(parser)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """Where a verb computes; a device that nobody has is refused where it is typed.

    Args:
        parser: Of a verb.
    """
    parser.add_argument("--device", default="auto", action=_Device, help=f"auto, cpu, cuda, cuda:1, mps {DEFAULT}")


class _Device(argparse.Action):
    """Takes a device's name."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, option_string: object = None
    ) -> None:
        if re.fullmatch(r"auto|(cpu|cuda|mps|xpu|hpu|mtia|npu|xla|meta)(:\d+)?", values) is None:
            raise ConfigError(f"Device '{values}' is unknown; try auto, cpu, cuda, cuda:1 or mps.")
        setattr(namespace, self.dest, values)


def add_tile_flags(parser: argparse.ArgumentParser) -> None:
    """How large images are looked at."""
    add = parser.add_argument
    add("--tile", type=int, metavar="PX", help="look at larger images in tiles of this side, such as 1024, too")
    add("--overlap", type=float, default=0.2, metavar="P", help=f"share of a tile that neighbours also see {DEFAULT}")


def tiling_of(args: argparse.Namespace) -> Tiling | None:
    """The tiles that were asked for; None for whole images only.

    Raises:
        ConfigError: If they cannot be.
    """
    return None if args.tile is None else Tiling(args.tile, args.overlap)


def refuse_tiles(args: argparse.Namespace) -> None:
    """Say that an exported detector looks at whole images.

    Raises:
        ConfigError: If tiles were asked for.
    """
    if args.tile is not None:
        raise ConfigError(f"--tile {args.tile}: an exported detector looks at whole images; give the model itself.")


def require_data(args: argparse.Namespace) -> None:
    """Refuse data flags that lead nowhere, before anything heavy is imported.

    Raises:
        MissingFileError: If a directory or file does not exist, or nothing in it is the split that the verb asks for.
        ConfigError: If too little is named.
    """
    require_places(args.data, images=args.images, annotations=args.annotations)  # without numpy
    if "split" in args:
        from ld_hub.data.layouts import require_split

        require_split(args.data, args.split, images=args.images, annotations=args.annotations, reading=reading_of(args))


def read_data(args: argparse.Namespace, *, outlines: bool = False) -> DetectionSet:
    """The part of the data that the flags of `add_data_flags` name; errors of `ld_hub.data.load_data`.

    Args:
        args: The flags.
        outlines: Keep the outlines of objects.
    """
    from ld_hub.data import load_data

    places = {"images": args.images, "annotations": args.annotations}
    return load_data(args.data, args.split, **places, **asdict(reading_of(args)), outlines=outlines)


def add_augmentation_flags(parser: Any) -> None:
    """What training does to its images: the flags of `AugmentationFlags`, with its texts.

    Args:
        parser: Of a verb, or a group of it.
    """
    for each in config_fields(AugmentationFlags):
        inner = [part for part in get_args(each.hint) if part is not type(None)]
        pairs = [part for part in inner if get_origin(part) is tuple]
        options: dict[str, object] = {"type": float}
        if pairs:
            options = {"type": get_args(pairs[0])[0], "nargs": 2, "metavar": ("LOW", "HIGH")}
        elif get_origin(each.hint) is Literal:
            options = {"choices": inner}
        parser.add_argument(f"--{each.name}", default=each.default, help=each.text, **options)


def augmentation_of(args: argparse.Namespace) -> Augmentation:
    """What these flags ask for.

    Raises:
        ConfigError: If a value cannot work; names the flag.
    """
    names = [each.name for each in config_fields(AugmentationFlags)]
    return AugmentationFlags(**{name: getattr(args, name) for name in names}).augmentation
