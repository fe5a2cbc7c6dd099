"""LabelMe: a JSON file beside each image, with ``shapes``: rectangles, polygons, circles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_points, ellipse, packed
from ld_hub.formats.split_files import has_marks, label_files, own_name_first
from ld_hub.formats.text import read_json_file

_AREAS = ("rectangle", "polygon", "circle", "mask", "rotation")
_OUTLINES = "shapes that are no rectangles, of which the boxes around them are used"


def read_labelme(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The image of a JSON file. Points and lines have no area and are left out.

    Args:
        file: The JSON.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON.
    """
    content = read_json_file(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        yield "no LabelMe file", f"{name} has no list 'shapes'"
        return
    boxes: list[Box] = []
    told: Counter[str] = Counter()
    for k, shape in enumerate(content["shapes"], start=1):
        kind = (shape.get("shape_type") or "polygon") if isinstance(shape, dict) else None
        corners = _around(shape, kind) if kind in _AREAS else None
        if kind is not None and kind not in _AREAS:
            told[f"shapes without an area, left out ({kind})"] += 1
        elif corners is None or not isinstance(shape.get("label"), (str, int)):
            yield "wrong shapes", f"{name}: shape {k} is no {kind or 'object'} with a label and points"
        else:
            told[_OUTLINES] += kind != "rectangle"
            flags = shape.get("flags") or {}
            crowd, ignore = bool(flags.get("crowd")), bool(flags.get("ignore"))
            boxes.append(Box(str(shape["label"]), corners, crowd, ignore, _outline(shape["points"], kind)))
    width, height = content.get("imageWidth"), content.get("imageHeight")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None
    names = own_name_first(file, str(content.get("imagePath") or ""))
    yield Labelled(names, name, tuple(boxes), size, told=+told)


def _around(shape: dict[str, object], kind: str) -> Corners | None:
    points = shape.get("points")
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        return None
    if kind == "circle" and len(points) == 2:  # its middle, and a point on its edge
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        return x - radius, y - radius, x + radius, y + radius
    return around_points(points) if len(points) >= 2 else None


def _outline(points: list[list[float]], kind: str | None) -> bytes:
    if kind == "circle" and len(points) == 2:
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        points = ellipse(x, y, radius, radius)
    return packed([points]) if kind in ("polygon", "rotation", "circle") else b""


def _is_point(point: object) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(isinstance(x, (int, float)) for x in point)


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return label_files(root, split, ".json", lambda file: has_marks(file, b'"shapes"', b'"imagePath"'))


register_layout(
    "labelme",
    Layout(
        "LabelMe",
        _files,
        read_labelme,
        "LabelMe's SPLIT/*.json or *.json beside images",
        per_image=True,
        outlines=True,
    ),
)
