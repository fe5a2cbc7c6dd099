"""Tables of boxes (CSV): Open Images, whose numbers are fractions, VoTT, Roboflow and TensorFlow's tools."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ld_hub.errors import DataError
from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.split_files import split_files
from ld_hub.formats.text import read_lines

_IMAGE = ("imageid", "image", "filename", "file_name", "image_path", "path", "img")
_LABEL = ("labelname", "label", "class", "class_name", "name", "category")
_SIDES = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("x_min", "y_min", "x_max", "y_max"))
_NAMES = "class-descriptions*.csv"  # of Open Images: /m/01yrx,Cat


def read_table(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a table that has a row per box.

    Args:
        file: The CSV.
        name: What messages call it.

    Raises:
        DataError: If it is not text.
    """
    rows = csv.DictReader(read_lines(file))
    columns = _columns(rows.fieldnames or ())
    if columns is None:
        yield "no table of boxes", f"{name} has no columns of image, class and corners"
        return
    image_key, label_key, sides_keys = columns
    fractions = _key(image_key) == "imageid"
    names = _descriptions(file) if fractions else {}
    images: dict[str, list[Box]] = {}
    for line, row in enumerate(rows, start=2):
        image, label = (row.get(image_key) or "").strip(), (row.get(label_key) or "").strip()
        boxes = images.setdefault(image, []) if image else []
        texts = [(row.get(key) or "").strip() for key in sides_keys]
        if image and not label and not any(texts):
            continue  # an image without objects
        try:
            x1, y1, x2, y2 = (float(text) for text in texts)
        except ValueError:
            yield "wrong rows", f"{name}, line {line}: the corners {', '.join(texts)} are not four numbers"
            continue
        if not image or not label:
            yield "wrong rows", f"{name}, line {line} has no {'class' if image else 'image'}"
            continue
        group = (row.get("IsGroupOf") or "").strip() == "1"
        boxes.append(Box(names.get(label, label), (x1, y1, x2, y2), crowd=group))
    for image, boxes in images.items():
        yield Labelled((image,), name, tuple(boxes), form="fractions" if fractions else "corners")


def _columns(names: Sequence[str]) -> tuple[str, str, tuple[str, ...]] | None:
    """The columns of image, class and corners, as they are written."""
    written = {_key(name): name for name in names}
    image, label = (next((written[key] for key in keys if key in written), None) for keys in (_IMAGE, _LABEL))
    sides = next((keys for keys in _SIDES if all(key in written for key in keys)), None)
    return None if image is None or label is None or sides is None else (image, label, tuple(written[k] for k in sides))


def _key(name: str) -> str:
    return name.strip().lower()


def _descriptions(file: Path) -> Mapping[str, str]:
    """Names of Open Images' classes, where the file of them lies beside the table or above."""
    for folder in (file.parent, file.parent.parent):
        for found in sorted(folder.glob(_NAMES)):
            rows = [row for row in csv.reader(read_lines(found)) if len(row) >= 2]
            return {row[0]: row[1] for row in rows}
    return {}


def _is_table(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            return _columns(next(csv.reader([stream.readline()]), [])) is not None
    except (OSError, UnicodeDecodeError, csv.Error, DataError):
        return False


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return split_files(root, split, (".csv",), _is_table)


register_layout("table", Layout("CSV", _files, read_table, "tables of boxes (*.csv: Open Images, VoTT, TensorFlow)"))
