"""Layouts by name: which files hold a split, and what reads one of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import ld_hub.formats
from ld_hub.formats.labelled_image import Fault, Labelled
from ld_hub.registry import Registry

Reads: TypeAlias = "Callable[[Path, str], Iterator[Labelled | Fault]]"


@dataclass(frozen=True)
class Layout:
    """What a tool writes.

    Attributes:
        title: Its name, for people.
        files: The files of a split and the folders of their images; no files where there is no such split.
        reads: Yields the images of a file, and its faults; gets the file, and what messages call it.
        looked_for: What `files` looks for, in words.
        protocol: How such data is usually scored, see `DetectionSet`.
        per_image: Whether there is a file for each image; else one describes all images of a split, or some files do.
        outlines: Whether `reads` gives the outlines of objects.
        divided: Whether a file without a split's name says of each image which split it is of; None where none does.
    """

    title: str
    files: Callable[[Path, str], tuple[list[Path], list[Path]]]
    reads: Reads
    looked_for: str
    protocol: str = "coco"
    per_image: bool = False
    outlines: bool = False
    divided: Callable[[Path], bool] | None = None


LAYOUTS: Registry[Layout] = Registry("layout")


def register_layout(name: str, layout: Layout) -> None:
    """Make a layout known to `load_data` and all commands.

    Args:
        name: In small letters; where several find a split, the first name counts.
        layout: What it is.
    """
    LAYOUTS.register(name, layout)


def known_layouts() -> dict[str, Layout]:
    """All layouts by name; every module of this room is imported for it, so that a layout is known by its file."""
    for module in pkgutil.iter_modules(ld_hub.formats.__path__, "ld_hub.formats."):
        importlib.import_module(module.name)
    return {name: LAYOUTS[name] for name in LAYOUTS}
