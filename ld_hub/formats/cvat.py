"""CVAT for images: one ``annotations.xml`` of images with boxes, polygons, ellipses and masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_ellipse, around_points, ellipse, packed, packed_mask
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.voc_xml import UnreadableXMLError, parse_xml

_OUTLINES = "shapes that are no rectangles, of which the boxes around them are used"
_TURNED = "boxes that are turned, of which the upright boxes around them are used"
_POINTLESS = ("points", "polyline", "tag", "cuboid", "skeleton")


def read_cvat(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a CVAT file.

    Args:
        file: The XML.
        name: What messages call it.
    """
    try:
        tree = parse_xml(file, name)
    except UnreadableXMLError as error:
        yield error.fault
        return
    for image in tree.findall("image"):
        width, height = image.get("width") or "", image.get("height") or ""
        size = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
        boxes: list[Box] = []
        told: Counter[str] = Counter()
        for shape in image:
            if shape.tag in _POINTLESS:
                told[f"shapes without an area, left out ({shape.tag})"] += 1
                continue
            corners, label = _around(shape), shape.get("label")
            if corners is None or not label:
                yield "wrong shapes", f"{name}: '{image.get('name')}' has a {shape.tag} without numbers or label"
                continue
            told[_OUTLINES] += shape.tag != "box"
            told[_TURNED] += shape.tag == "box" and _turn(shape) != 0
            boxes.append(Box(label, corners, outline=_outline(shape, size)))
        part = image.get("subset") or ""
        yield Labelled((image.get("name") or "",), name, tuple(boxes), size, told=+told, part=part)


def _around(shape: ElementTree.Element) -> Corners | None:
    try:
        if shape.tag == "box":
            x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
            return around_points(_turned_box(shape)) if _turn(shape) else (x1, y1, x2, y2)
        if shape.tag == "ellipse":
            return around_ellipse(*_ellipse(shape))
        if shape.tag == "mask":
            left, top, width, height = _numbers(shape, "left", "top", "width", "height")
            return left, top, left + width, top + height
        return around_points(_points(shape))
    except ValueError:
        return None


def _outline(shape: ElementTree.Element, size: tuple[int, int] | None) -> bytes:
    """Of what `_around` has found; nothing of upright boxes, and of masks that are not what they say."""
    if shape.tag == "box":
        return packed([_turned_box(shape)]) if _turn(shape) else b""
    if shape.tag == "ellipse":
        return packed([ellipse(*_ellipse(shape))])
    if shape.tag != "mask":
        return packed([_points(shape)])
    left, top, width, height = map(int, _numbers(shape, "left", "top", "width", "height"))
    words = (shape.get("rle") or "").split(",")
    runs = [int(word) for word in words] if all(word.strip().isdecimal() for word in words) else []
    inside = size is not None and left >= 0 and top >= 0 and left + width <= size[0] and top + height <= size[1]
    if size is None or not inside or sum(runs) != width * height:
        return b""
    mask = np.zeros(size[::-1], dtype=bool)  # runs go along the rows of the box, and begin outside
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return packed_mask(mask)


def _turn(shape: ElementTree.Element) -> float:
    """By how much a box or ellipse is turned about its middle, clockwise in radians."""
    return math.radians(float(shape.get("rotation") or 0))


def _ellipse(shape: ElementTree.Element) -> tuple[float, float, float, float, float]:
    x, y, half_width, half_height = _numbers(shape, "cx", "cy", "rx", "ry")
    return x, y, half_width, half_height, _turn(shape)


def _turned_box(shape: ElementTree.Element) -> list[list[float]]:
    x1, y1, x2, y2 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    x, y, cos, sin = (x1 + x2) / 2, (y1 + y2) / 2, math.cos(_turn(shape)), math.sin(_turn(shape))
    corners = ((x1 - x, y1 - y), (x2 - x, y1 - y), (x2 - x, y2 - y), (x1 - x, y2 - y))
    return [[x + a * cos - b * sin, y + a * sin + b * cos] for a, b in corners]


def _numbers(shape: ElementTree.Element, *keys: str) -> list[float]:
    return [float(shape.get(key) or "") for key in keys]


def _points(shape: ElementTree.Element) -> list[list[float]]:
    pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
    return [[float(x), float(y)] for x, y in pairs]


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return split_files(root, split, (".xml",), lambda file: has_marks(file, b"<annotations", b"<image "))


def _divided(file: Path) -> bool:
    return has_marks(file, b" subset=")


register_layout("cvat", Layout("CVAT", _files, read_cvat, "CVAT's annotations.xml", outlines=True, divided=_divided))
