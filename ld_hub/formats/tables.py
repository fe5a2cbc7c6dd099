"""Tables of boxes (CSV), a row each: Open Images, VoTT, TensorFlow, Kaggle, make-sense, RetinaNet, SKU-110K."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ld_hub.formats.labelled_image import Box, Fault, Form, Labelled, Sides
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.split_files import split_files
from ld_hub.formats.table_columns import LABEL, Columns, find_columns, table_rows
from ld_hub.formats.text import read_lines

_NAMES = "class-descriptions*.csv"  # of Open Images: /m/01yrx,Cat
_FIFTYONES = "metadata/classes.csv"  # the same, as FiftyOne fetches it
_ROUNDING = 1e-3  # by which fractions may go beyond the image
_FRACTIONS = "boxes were read as fractions of the image, since none has a number above 1"
_SIZES = "boxes were read as x, y of the upper left corner, width, height"
_NO_BOX = "rows with a class and no box, of which the image alone is taken"


@dataclass
class _Image:
    """An image while its rows are read."""

    size: tuple[int, int] | None
    part: str
    boxes: list[Box] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)


class _WrongError(Exception):
    """A row is not as it should be; says why."""


def read_table(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a table that has a row per box. Numbers of which none is above 1 are fractions of the image.

    Args:
        file: The CSV.
        name: What messages call it.

    Raises:
        DataError: If it is not text.
    """
    columns = find_columns(read_lines(file)[0])
    if columns is None or not columns.label:
        has = ", ".join(columns.names if columns else ()) or "others"
        looked = f"looked for {', '.join(LABEL[:6])} and alike; it has {has}. Give all rows a column 'class'"
        yield "no classes", f"{name} has no column of classes: {looked}"
        return
    open_images = columns.image.strip().lower() == "imageid"
    names = _descriptions(file) if open_images else {}
    images: dict[str, _Image] = {}
    rows = list(table_rows(file, columns))
    if columns.form == "corners" and any(_reaches_out(row, columns) for _, row in rows):
        columns = replace(columns, size=())  # width and height of the boxes, not of the images
    for line, row in rows:
        try:
            _add(images, row, columns, names)
        except _WrongError as error:
            yield "wrong rows", f"{name}, line {line}{error}"
    sides = [side for image in images.values() for box in image.boxes for side in box.sides]
    small = bool(sides) and all(-_ROUNDING <= side <= 1 + _ROUNDING for side in sides)
    fractions = small and columns.form != "unsure" and (open_images or any(side % 1 for side in sides))
    for key, image in images.items():
        if fractions and not open_images:
            image.told[_FRACTIONS] += len(image.boxes)
        if columns.form == "sizes" and columns.sides[0].strip().lower() == "x":
            image.told[_SIZES] += len(image.boxes)
        form: Form = "fractions" if fractions else "unsure" if columns.form == "unsure" else "corners"
        yield Labelled((key,), name, tuple(image.boxes), image.size, form, +image.told, image.part)


def _add(images: dict[str, _Image], row: Mapping[str, str], columns: Columns, names: Mapping[str, str]) -> None:
    key, label = row.get(columns.image, ""), row.get(columns.label, "")
    if not key:
        raise _WrongError(" has no image")
    size, part = _size(row, columns), row.get(columns.part, "") if columns.part else ""
    image = images.setdefault(key, _Image(size, part))
    if (image.size, image.part) != (size, part):
        raise _WrongError(f": another row gives '{key}' another size or part")
    texts = [row.get(side, "") for side in columns.sides]
    if not "".join(texts).strip("[]() ,"):
        image.told[_NO_BOX] += bool(label)
        return
    if not label:
        raise _WrongError(" has no class")
    group = row.get("IsGroupOf") == "1"
    image.boxes.append(Box(names.get(label, label), _sides(texts, columns), crowd=group))


def _sides(texts: list[str], columns: Columns) -> Sides:
    """The numbers of a box; corners, but where the form is not sure."""
    words = re.findall(r"[^\s,;\[\]()]+", texts[0]) if len(texts) == 1 else texts
    if columns.delimiter == ";":
        words = [word.replace(",", ".") for word in words]
    try:
        a, b, c, d = (float(word) for word in words)
    except ValueError:
        raise _WrongError(f": the corners {', '.join(words)} are not four numbers") from None
    if columns.form == "middles":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return (a, b, a + c, b + d) if columns.form == "sizes" else (a, b, c, d)


def _size(row: Mapping[str, str], columns: Columns) -> tuple[int, int] | None:
    """Width and height of the image in px, where there are columns of them."""
    try:
        width, height = (float(row[name]) for name in columns.size)
    except (KeyError, ValueError):
        return None
    return (int(width), int(height)) if 1 <= width < math.inf and 1 <= height < math.inf else None


def _reaches_out(row: Mapping[str, str], columns: Columns) -> bool:
    """Whether a box reaches out of the size that its row gives."""
    size = _size(row, columns)
    try:
        _, _, x, y = (float(row[side]) for side in columns.sides)
    except (KeyError, ValueError):
        return False
    return size is not None and (x > 1.01 * size[0] + 1 or y > 1.01 * size[1] + 1)


def _descriptions(file: Path) -> Mapping[str, str]:
    """Names of Open Images' classes, where the file of them lies beside the table or above."""
    for folder in (file.parent, file.parent.parent):
        for found in (*sorted(folder.glob(_NAMES)), *folder.glob(_FIFTYONES)):
            rows = [row for row in csv.reader(read_lines(found)) if len(row) >= 2]
            return {row[0]: row[1] for row in rows}
    return {}


def _columns(file: Path) -> Columns | None:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:  # which `read_lines` tells
            return find_columns(stream.readline().rstrip("\r\n"))
    except (OSError, csv.Error):
        return None


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return split_files(root, split, (".csv", ".tsv"), lambda file: _columns(file) is not None)


def _divided(file: Path) -> bool:
    columns = _columns(file)
    return columns is not None and bool(columns.part)


register_layout(
    "table",
    Layout(
        "CSV",
        _files,
        read_table,
        "tables of boxes (*.csv: Open Images, VoTT, TensorFlow, Kaggle)",
        divided=_divided,
    ),
)
