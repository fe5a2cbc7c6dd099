"""VGG's Image Annotator: a JSON object of images with ``regions``, by file name and size; whole projects, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_ellipse, around_points, ellipse, packed
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.text import read_json_file

_OUTLINES = "regions that are no rectangles, of which the boxes around them are used"
_NAMES = ("label", "class", "name", "type", "category", "object")  # of the attribute that is the class
_ONLY_CLASS = "object"  # of regions without any attribute


def read_via(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a VIA file, of version 1 or 2.

    Args:
        file: The JSON.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON.
    """
    content = read_json_file(file)
    images = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(images, dict):
        yield "no VIA file", f"{name} is no object of images"
        return
    for key, row in images.items():
        regions = row.get("regions") if isinstance(row, dict) else None
        if regions is None or not row.get("filename"):
            yield "wrong entries", f"{name}: '{key}' is no image with 'filename' and 'regions'"
            continue
        boxes: list[Box] = []
        told: Counter[str] = Counter()
        for number, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
            shape = region.get("shape_attributes") or {}
            kind = str(shape.get("name"))
            if kind in ("point", "polyline"):
                told[f"regions without an area, left out ({kind})"] += 1
                continue
            corners, label = _around(shape, kind), _label(region.get("region_attributes"))
            if corners is None or label is None:
                yield "wrong regions", f"{name}: '{row['filename']}', region {number} has no shape or no one class"
                continue
            told[_OUTLINES] += kind != "rect"
            boxes.append(Box(label, corners, outline=_outline(shape, kind)))
        yield Labelled((str(row["filename"]),), name, tuple(boxes), told=+told)


def _around(shape: Mapping[str, object], kind: str) -> Corners | None:
    try:
        if kind == "rect":
            x, y, width, height = _numbers(shape, "x", "y", "width", "height")
            return x, y, x + width, y + height
        if kind == "circle":
            x, y, radius = _numbers(shape, "cx", "cy", "r")
            return x - radius, y - radius, x + radius, y + radius
        if kind == "ellipse":
            return around_ellipse(*_ellipse(shape))
        return around_points(_points(shape))
    except (KeyError, TypeError, ValueError):
        return None


def _outline(shape: Mapping[str, object], kind: str) -> bytes:
    """Of what `_around` has found; nothing of rectangles."""
    if kind == "rect":
        return b""
    if kind == "circle":
        x, y, radius = _numbers(shape, "cx", "cy", "r")
        return packed([ellipse(x, y, radius, radius)])
    if kind == "ellipse":
        return packed([ellipse(*_ellipse(shape))])
    return packed([_points(shape)])


def _ellipse(shape: Mapping[str, object]) -> tuple[float, float, float, float, float]:
    """Its middle, radii in px, and the angle in radians by which version 2 turns it."""
    x, y, half_width, half_height = _numbers(shape, "cx", "cy", "rx", "ry")
    return x, y, half_width, half_height, float(str(shape.get("theta") or 0))


def _points(shape: Mapping[str, object]) -> list[list[float]]:
    xs, ys = shape["all_points_x"], shape["all_points_y"]
    if not isinstance(xs, list) or not isinstance(ys, list):
        raise TypeError
    return [[x, y] for x, y in zip(xs, ys, strict=True)]


def _numbers(shape: Mapping[str, object], *keys: str) -> list[float]:
    return [float(str(shape[key])) for key in keys]


def _label(attributes: object) -> str | None:
    """The class: the attribute that is called so, or the only one; of a set of choices the one that is chosen."""
    if not isinstance(attributes, dict) or not attributes:
        return _ONLY_CLASS
    lower = {str(key).lower(): value for key, value in attributes.items()}
    given = [lower[key] for key in _NAMES if key in lower] or (list(lower.values()) if len(lower) == 1 else [])
    value = given[0] if given else None
    if isinstance(value, dict):
        chosen = [str(key) for key, on in value.items() if on]
        return chosen[0] if len(chosen) == 1 else None
    return str(value) if value not in (None, "") else None


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return split_files(root, split, (".json",), lambda file: has_marks(file, b'"regions"', b'"filename"', opening=b"{"))


register_layout("via", Layout("VIA", _files, read_via, "VIA's via_region_data.json", outlines=True))
