"""What the columns of a table of boxes are, by their names; of tables without names, by what stands in them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ld_hub.formats.text import read_lines
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

# Corners; the upper left corner, width and height; the middle, width and height; either of the first two.
Numbers = Literal["corners", "sizes", "middles", "unsure"]

_IMAGE = (
    "imageid", "image", "filename", "file_name", "image_path", "path", "img", "image_name", "imagename", "img_path",
    "filepath", "file", "image_id",
)  # fmt: skip
LABEL = (
    "labelname", "label", "class", "class_name", "name", "category", "label_name", "classname", "category_name",
    "class_id", "category_id", "label_id",
)  # fmt: skip
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("x_min", "y_min", "x_max", "y_max"))
_BEGINS = (("x", "y"), ("xmin", "ymin"), ("x_min", "y_min"), ("left", "top"))
_SIZES = (
    *((*begin, *end) for begin in _BEGINS for end in (("width", "height"), ("w", "h"))),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)
_MIDDLES = (("x_center", "y_center", "width", "height"), ("cx", "cy", "w", "h"))
_TEXT = ("bbox", "bounding_box")  # one column: [10, 20, 30, 40]
_FORMS: tuple[tuple[Numbers, tuple[tuple[str, ...], ...]], ...] = (
    ("corners", _CORNERS),
    ("sizes", _SIZES),
    ("middles", _MIDDLES),
    ("unsure", tuple((name,) for name in _TEXT)),
)
_IMAGE_SIZES = (("image_width", "image_height"), ("img_width", "img_height"), ("width", "height"))
_PART = ("split", "subset", "set", "usage")
# Of tables without names: keras-retinanet, SKU-110K, make-sense.
_RETINANET = ("image", "x1", "y1", "x2", "y2", "class", "image_width", "image_height")
_MAKE_SENSE = ("class", "x", "y", "w", "h", "image", "image_width", "image_height")


@dataclass(frozen=True)
class Columns:
    """Names of columns as they are written.

    Attributes:
        names: All of them.
        image: Of the image.
        label: Of the class; the empty string where there is none.
        sides: Of the four numbers, or of a text that has them.
        form: What the numbers are.
        size: Of the image's width and height in px; none where there are none.
        part: Of the part of the data; the empty string where there is none.
        delimiter: What stands between two values.
        named: Whether the first line has the names.
    """

    names: tuple[str, ...]
    image: str
    label: str
    sides: tuple[str, ...]
    form: Numbers
    size: tuple[str, ...]
    part: str
    delimiter: str
    named: bool


def find_columns(line: str) -> Columns | None:
    """The columns of a table; None where it is no table of boxes.

    Args:
        line: Its first.
    """
    delimiter = max(",;\t", key=line.count)
    words = next(csv.reader([line], delimiter=delimiter), [])
    names = _unnamed(words)
    written = {name.strip().lower(): name for name in reversed(names or words)}  # of two of one name the first
    image, label, part = (_first(written, keys) for keys in (_IMAGE, LABEL, _PART))
    form, keys = next(
        ((form, keys) for form, all_keys in _FORMS for keys in all_keys if all(key in written for key in keys)),
        ("corners", ()),
    )
    if not image or not keys:
        return None
    sizes = [k for k in _IMAGE_SIZES if all(x in written and x not in keys for x in k)]
    sides, size = (tuple(written[key] for key in each) for each in (keys, sizes[0] if sizes else ()))
    return Columns(tuple(names or words), image, label, sides, form, size, part, delimiter, not names)


def table_rows(file: Path, columns: Columns) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a table with their lines, values without space around them."""
    lines = read_lines(file)
    start = 1 if columns.named else 0
    for number, words in enumerate(csv.reader(lines[start:], delimiter=columns.delimiter), start=start + 1):
        if any(word.strip() for word in words):
            yield number, {name: word.strip() for name, word in zip(columns.names, words, strict=False)}


def _first(written: Mapping[str, str], keys: Sequence[str]) -> str:
    return next((written[key] for key in keys if key in written), "")


def _unnamed(words: Sequence[str]) -> tuple[str, ...]:
    """The names of a line's values where it is no line of names but of a known order; else none."""
    for names in (_RETINANET[:6], _RETINANET, _MAKE_SENSE):
        if len(words) == len(names):
            row = dict(zip(names, words, strict=True))
            numbers = [row[name] for name in names if name not in ("image", "class")]
            filled = [number for number in numbers if number]  # none, of an image without objects
            if row["image"].lower().endswith(IMAGE_SUFFIXES) and all(map(_is_number, filled)):
                return names
    return ()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
