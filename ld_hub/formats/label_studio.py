"""Label Studio's own exports: JSON, JSON-MIN and CSV. Numbers are hundredths of the image's sides."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from ld_hub.errors import DataError
from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.outlines import Corners, around_ellipse, around_points, ellipse, packed
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.text import read_json_file, read_lines
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

Json: TypeAlias = Mapping[str, Any]

_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio's mark before the names of uploaded files
_LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")  # of shapes with an area
_OUTLINES = "shapes that are no rectangles, of which the boxes around them are used"
_TURNED = "rectangles that are turned, of which the boxes around them are used"
_MORE = "images with several annotations, of which the first that was not cancelled is used"
_NONE = "images without an annotation that was not cancelled, left out"
_NO_CLASS = "shapes without a class, left out"


def read_label_studio(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of an export: a list of tasks, or one row per annotation as JSON-MIN and CSV have them.

    Predictions are no labels, and are passed over.

    Args:
        file: The JSON or CSV.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON.
    """
    rows = list(_csv_rows(file)) if file.suffix.lower() == ".csv" else read_json_file(file)
    seen: dict[tuple[str, str], _Image] = {}
    told: Counter[str] = Counter()
    for k, row in enumerate(rows):
        try:
            image = _image(row, told)
        except _WrongError as error:
            yield "wrong tasks", f"{name}, entry {k}: {error}"
            continue
        if image is not None and seen.setdefault((image.task, image.where), image) is not image:
            told[_MORE] += 1  # JSON-MIN and CSV have a row per annotation
    for number, image in enumerate(seen.values()):
        yield Labelled(
            image.names, name, tuple(image.boxes), image.size, told=+(image.told + (Counter() if number else told))
        )


class _WrongError(Exception):
    """A task is not as Label Studio writes it; says why."""


@dataclass
class _Image:
    """One image while its regions are read.

    Attributes:
        task: Id of its task.
        where: Its address, as Label Studio knows it.
        size: Width and height in px, once a region has said it.
        boxes: Its objects.
        told: Remarks about them.
    """

    task: str
    where: str
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    @property
    def names(self) -> tuple[str, ...]:
        """What its file may be called: its path in the storage, its name alone, that without the mark of an upload."""
        path = _path(self.where).lstrip("/")
        alone = path.rpartition("/")[2]
        return tuple(dict.fromkeys((path, alone, _UPLOAD.sub("", alone))))


def _path(where: str) -> str:
    """The path in ``/data/local-files/?d=PATH``, ``s3://bucket/PATH``, ``https://host/PATH?key`` or PATH."""
    address = urlsplit(where)
    return (parse_qs(address.query).get("d") or [unquote(address.path)])[0].replace("\\", "/")


def _image(row: object, told: Counter[str]) -> _Image | None:
    """The image of a task or of an annotation's row; None where nobody has finished it."""
    if not isinstance(row, dict):
        raise _WrongError(f"it is a {type(row).__name__}, expected an object")
    annotations = row.get("annotations", row.get("completions"))
    if annotations is None:
        image = _Image(str(row.get("id")), _where(row))
        lists = [value for value in row.values() if isinstance(value, list)]
        _add_regions(image, [item for value in lists for item in value if isinstance(item, dict)])
        return image
    if not isinstance(annotations, list) or not all(isinstance(item, dict) for item in annotations):
        raise _WrongError("'annotations' is no list of objects")
    image = _Image(str(row.get("id")), _where(row.get("data")))
    finished = [item for item in annotations if not item.get("was_cancelled")]
    if not finished:
        told[_NONE] += 1
        return None
    told[_MORE] += len(finished) > 1
    results = finished[0].get("result")
    if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
        raise _WrongError("an annotation has no list 'result' of objects")
    _add_regions(image, results)
    return image


def _where(data: object) -> str:
    """The address of the image among the data of a task: ``image``, or the only one with the ending of an image."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
    if texts.get("image"):
        return texts["image"]
    found = [value for value in texts.values() if _path(value).lower().endswith(IMAGE_SUFFIXES)]
    if len(found) != 1:
        raise _WrongError(f"its data name {len(found) or 'no'} images{'' if not found else ', expected one'}")
    return found[0]


def _add_regions(image: _Image, items: Sequence[Json]) -> None:
    """Put what was drawn on an image into it; `items` are results, or their values as JSON-MIN has them."""
    labelled = {item.get("id") for item in items if item.get("type") == "labels"}
    places = {item["to_name"] for item in items if item.get("to_name")}
    if len(places) > 1:
        raise _WrongError(f"it has regions on several images ({', '.join(sorted(map(str, places)))})")
    for number, item in enumerate(items):
        value = item.get("value", item)
        key = _label_key(value)
        if key is None:
            kind = str(item.get("type") or next((name for name in item if str(name).endswith("labels")), "others"))
            if kind not in ("rectangle", "polygon", "ellipse"):
                image.told[f"results that are no boxes, left out ({kind})"] += 1
            elif item.get("id") not in labelled:  # else its class stands in a result of its own
                image.told[_NO_CLASS] += 1
            continue
        labels = value[key] or []
        if not isinstance(labels, list):
            raise _WrongError(f"result {number} has no list '{key}'")
        _keep_size(image, item, number)
        corners = _around(image, value)
        if corners is None:
            raise _WrongError(f"result {number} ({key}) has no numbers for its place")
        image.told[_NO_CLASS] += not labels
        outline = _outline(image, value)
        image.boxes += [Box(str(label), corners, outline=outline) for label in labels]


def _label_key(value: object) -> str | None:
    """Where the classes of a shape stand; None of what is no shape: texts and points have ``labels``, too."""
    if not isinstance(value, dict):
        return None
    key = next((key for key in _LABELS if key in value), None)
    return None if key == "labels" and not {"points", "radiusX", "height"} & set(value) else key


def _keep_size(image: _Image, item: Json, number: int) -> None:
    width, height = item.get("original_width"), item.get("original_height")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        raise _WrongError(f"result {number} has no original_width and original_height")
    if image.size not in (None, (width, height)):
        raise _WrongError(f"result {number} is for an image of {width} x {height} px, those before it for another size")
    if item.get("image_rotation"):
        raise _WrongError(
            f"result {number} was drawn on the image turned by {item['image_rotation']} degrees; turn the image back "
            "in Label Studio, or turn its file"
        )
    image.size = (width, height)


def _around(image: _Image, value: Json) -> Corners | None:
    """The box around a shape in px; None where it has no numbers."""
    width, height = image.size or (0, 0)
    try:
        angle = math.radians(float(value.get("rotation") or 0))
        cos, sin = math.cos(angle), math.sin(angle)
        if "points" in value:
            image.told[_OUTLINES] += 1
            return around_points(_points(image, value))
        x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
        if "radiusX" in value:
            image.told[_OUTLINES] += 1
            return around_ellipse(*_ellipse(image, value))
        w, h = float(value["width"]) * width / 100, float(value["height"]) * height / 100
    except (KeyError, TypeError, ValueError):
        return None
    image.told[_TURNED] += bool(angle % (2 * math.pi))
    across, down = (w * cos, w * sin), (-h * sin, h * cos)  # turned about the corner x, y
    corners = ((0, 0), across, down, (across[0] + down[0], across[1] + down[1]))
    return around_points([(x + dx, y + dy) for dx, dy in corners])


def _outline(image: _Image, value: Json) -> bytes:
    """Of a polygon or ellipse in which `_around` has found numbers."""
    if "points" in value:
        return packed([_points(image, value)])
    return packed([ellipse(*_ellipse(image, value))]) if "radiusX" in value else b""


def _ellipse(image: _Image, value: Json) -> tuple[float, float, float, float, float]:
    """Its middle, radii in px, and by how much it is turned in radians."""
    width, height = image.size or (0, 0)
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    a, b = float(value["radiusX"]) * width / 100, float(value["radiusY"]) * height / 100
    return x, y, a, b, math.radians(float(value.get("rotation") or 0))


def _points(image: _Image, value: Json) -> list[list[float]]:
    width, height = image.size or (0, 0)
    return [[float(x) * width / 100, float(y) * height / 100] for x, y in value["points"]]


def _csv_rows(file: Path) -> Iterator[Json]:
    """Rows of a CSV, whose lists are JSON."""
    try:
        for row in csv.DictReader(read_lines(file)):
            yield {key: json.loads(text) if text and text[0] in "[{" else text for key, text in row.items() if key}
    except (ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is no CSV whose lists are JSON ({error}).") from None


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    def holds(file: Path) -> bool:
        if file.suffix.lower() == ".csv":
            return has_marks(file, b'""original_width""')
        kinds = (b'"annotations"', b'"result"'), (b'"completions"', b'"result"'), (b'"original_width"',)
        return any(has_marks(file, *marks, opening=b"[") for marks in kinds)

    return split_files(root, split, (".json", ".csv"), holds)


register_layout(
    "label_studio",
    Layout("Label Studio", _files, read_label_studio, "Label Studio's JSON, JSON-MIN or CSV", outlines=True),
)
