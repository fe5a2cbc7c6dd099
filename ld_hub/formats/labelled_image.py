"""One image with its objects, as a labelling tool's file describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Fault: TypeAlias = tuple[str, str]  # kind; what is wrong, in words that begin with the file
Sides: TypeAlias = tuple[float, float, float, float]
# Corners x1, y1, x2, y2 or x, y, width, height in px; fractions of the image as corners; corners or sizes, to be seen.
Form = Literal["corners", "sizes", "fractions", "unsure"]


@dataclass(frozen=True)
class Box:
    """One object.

    Attributes:
        label: Name of its class.
        sides: Four numbers, see `Form`.
        crowd: Whether it is many objects.
        ignore: Whether it is not to be learnt, as VOC's difficult ones.
        outline: Of `ld_hub.formats.outlines.packed`; empty where there is none.
    """

    label: str
    sides: Sides
    crowd: bool = False
    ignore: bool = False
    outline: bytes = b""


@dataclass(frozen=True)
class Labelled:
    """One image as a layout's file describes it.

    Attributes:
        names: What the image may be called, best first.
        read_from: The file, seen from the data directory.
        boxes: Its objects.
        size: Width and height in px; None where the file does not say.
        form: What the boxes' numbers are.
        told: Remarks about its objects, by number: ``{"shapes that are polygons ...": 2}``.
        part: The split that the file gives it; empty where it gives none.
    """

    names: tuple[str, ...]
    read_from: str
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    form: Form = "corners"
    told: Mapping[str, int] = field(default_factory=dict)
    part: str = ""
