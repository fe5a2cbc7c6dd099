"""VGG's Image Annotator: a JSON object of images with ``regions``, by file name and size; whole projects; its CSV."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from ld_hub.errors import DataError
from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_ellipse, around_points, ellipse, packed
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.text import read_json_file, read_lines

_OUTLINES = "regions that are no rectangles, of which the boxes around them are used"
_NAMES = ("label", "class", "name", "type", "category", "object")  # of the attribute that is the class
_ONLY_CLASS = "object"  # of regions without any attribute


def read_via(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a VIA file, of version 1 or 2.

    Args:
        file: The JSON or CSV.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON, or a CSV of other columns.
    """
    content = _csv_images(file) if file.suffix.lower() == ".csv" else read_json_file(file)
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
                what = _missing(corners, region.get("region_attributes"))
                yield "wrong regions", f"{name}: '{row['filename']}', region {number} has {what}"
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


def _missing(corners: Corners | None, attributes: object) -> str:
    """What keeps a region from being used."""
    names = ", ".join(map(str, attributes)) if isinstance(attributes, dict) else ""
    if corners is None:
        return "no numbers for its shape"
    return f"no one class (attributes: {names or 'none'}); call the attribute that is the class 'class'"


def _csv_images(file: Path) -> Mapping[str, object]:
    """A CSV, which has a row per region, as the JSON would be."""
    images: dict[str, dict[str, object]] = {}
    for line, row in enumerate(csv.DictReader(read_lines(file)), start=2):
        try:
            name = row.get("filename") or row["#filename"]
            shape = json.loads(row["region_shape_attributes"] or "{}")
            attributes = json.loads(row["region_attributes"] or "{}")
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{file}, line {line} has no filename, or no JSON where VIA writes its regions.") from None
        image = images.setdefault(f"{name}{row.get('file_size')}", {"filename": name, "regions": []})
        if shape and isinstance(image["regions"], list):  # an image without regions has a row, too
            image["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
    return images


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    def holds(file: Path) -> bool:
        if file.suffix.lower() == ".csv":
            return has_marks(file, b"region_shape_attributes", b"region_attributes")
        return has_marks(file, b'"regions"', b'"filename"', opening=b"{")

    return split_files(root, split, (".json", ".csv"), holds)


register_layout("via", Layout("VIA", _files, read_via, "VIA's via_region_data.json or CSV", outlines=True))
