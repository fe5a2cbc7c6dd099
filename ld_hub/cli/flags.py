"""Flags that several verbs have in common."""

from __future__ import annotations

import argparse
import re
from typing import Any

from ld_hub.data.discovery import require_places
from ld_hub.errors import ConfigError

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
    if split:
        add("--columns", metavar="PART=COLUMN,...", help="names of columns, of data of the Hub (hf:ORG/NAME)")
    add("--images", metavar="DIR", help="directory of the images, where --data does not lead to them")
    add("--annotations", metavar="FILE", help="COCO annotations, where --data does not lead to them")


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


def require_data(args: argparse.Namespace) -> None:
    """Refuse data flags that lead nowhere, before anything heavy is imported.

    Raises:
        MissingFileError: If a directory or file does not exist, or nothing in it is the split that the verb asks for.
        ConfigError: If too little is named.
    """
    require_places(args.data, images=args.images, annotations=args.annotations)  # without numpy
    if "split" in args:
        from ld_hub.data.layouts import require_split

        columns = getattr(args, "columns", None)
        require_split(args.data, args.split, images=args.images, annotations=args.annotations, columns=columns)
