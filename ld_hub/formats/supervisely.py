"""Supervisely: ``ann/IMAGE.json`` beside ``img/IMAGE``, with ``objects``: rectangles, polygons, bitmaps."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_points, packed
from ld_hub.formats.split_files import has_images, has_marks, label_files, split_names
from ld_hub.formats.splits import SPLITS, WHOLE
from ld_hub.formats.text import read_json_file

_AREAS = ("rectangle", "polygon", "bitmap")
_OUTLINES = "objects that are no rectangles, of which the boxes around them are used"


def read_supervisely(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The image of an annotation file.

    Args:
        file: The JSON.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON.
    """
    content = read_json_file(file)
    objects = content.get("objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        yield "no Supervisely file", f"{name} has no list 'objects'"
        return
    boxes: list[Box] = []
    told: Counter[str] = Counter()
    for k, item in enumerate(objects):
        kind = str(item.get("geometryType")) if isinstance(item, dict) else "None"
        if kind not in (*_AREAS, "None"):
            told[f"objects without an area, left out ({kind})"] += 1
            continue
        corners = _around(item, kind) if kind != "None" else None
        if corners is None or not isinstance(item.get("classTitle"), str):
            yield "wrong objects", f"{name}: object {k} is no {' or '.join(_AREAS)} with a classTitle"
            continue
        told[_OUTLINES] += kind != "rectangle"
        outline = packed([item["points"]["exterior"]]) if kind == "polygon" else b""
        boxes.append(Box(item["classTitle"], corners, outline=outline))
    size = content.get("size") or {}
    known = (size["width"], size["height"]) if size.get("width") and size.get("height") else None
    yield Labelled((f"../img/{file.stem}", file.stem), name, tuple(boxes), known, told=+told)


def _around(item: Mapping[str, Any], kind: str) -> Corners | None:
    """The box around an object, px; None where there are no numbers."""
    try:
        if kind == "bitmap":  # a picture of the object alone, and where its corner is
            x, y = item["bitmap"]["origin"]
            with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(item["bitmap"]["data"])))) as picture:
                return float(x), float(y), float(x + picture.width), float(y + picture.height)
        return around_points([[float(a), float(b)] for a, b in item["points"]["exterior"]])
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error, OSError):
        return None


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Those of the split's folder; of data without parts, those of all datasets of a project."""

    def holds(file: Path) -> bool:
        return has_marks(file, b'"objects"', b'"size"', b'"tags"', opening=b"{")

    files, folders = label_files(root, split, ".json", holds)
    if files or split != WHOLE or not (root / "meta.json").is_file():
        return files, folders
    parts = {name for each in ("train", "val", "test", *SPLITS) for name in split_names(each)}
    for folder in sorted(root.iterdir()):
        if folder.name.lower() not in parts and has_images(folder / "img"):
            files += sorted(file for file in (folder / "ann").glob("*.json") if holds(file))
            folders.append(folder / "img")
    return files, folders if files else []


register_layout(
    "supervisely",
    Layout(
        "Supervisely", _files, read_supervisely, "Supervisely's ann/*.json beside img/", per_image=True, outlines=True
    ),
)
