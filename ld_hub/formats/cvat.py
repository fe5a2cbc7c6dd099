"""CVAT for images: one ``annotations.xml`` of images with boxes, polygons, ellipses and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_points
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.voc_xml import UnreadableXMLError, parse_xml

_OUTLINES = "shapes that are no rectangles, of which the boxes around them are used"
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
            boxes.append(Box(label, corners))
        width, height = image.get("width") or "", image.get("height") or ""
        size = (int(width), int(height)) if width.isdecimal() and height.isdecimal() else None
        yield Labelled((image.get("name") or "",), name, tuple(boxes), size, told=+told)


def _around(shape: ElementTree.Element) -> Corners | None:
    def numbers(*keys: str) -> list[float]:
        return [float(shape.get(key) or "") for key in keys]

    try:
        if shape.tag == "box":
            x1, y1, x2, y2 = numbers("xtl", "ytl", "xbr", "ybr")
            return x1, y1, x2, y2
        if shape.tag == "ellipse":
            x, y, half_width, half_height = numbers("cx", "cy", "rx", "ry")
            return x - half_width, y - half_height, x + half_width, y + half_height
        if shape.tag == "mask":
            left, top, width, height = numbers("left", "top", "width", "height")
            return left, top, left + width, top + height
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        return around_points([(float(x), float(y)) for x, y in pairs])
    except ValueError:
        return None


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return split_files(root, split, (".xml",), lambda file: has_marks(file, b"<annotations", b"<image "))


register_layout("cvat", Layout("CVAT", _files, read_cvat, "CVAT's annotations.xml"))
