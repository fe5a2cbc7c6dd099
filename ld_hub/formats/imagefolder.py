"""Hugging Face's ``imagefolder``: ``metadata.jsonl``, ``.csv`` or ``.parquet`` with ``file_name`` and ``objects``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ld_hub.errors import DataError
from ld_hub.formats.labelled_image import Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.objects import read_objects
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.text import read_lines

_FILE = ("file_name", "image", "filename")


def read_metadata(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a metadata file; whether boxes are corners or sizes is to be seen from all of them.

    Args:
        file: The file, of JSON lines, comma-separated values, or parquet.
        name: What messages call it.

    Raises:
        DataError: If it is not text, or no parquet.
    """
    rows = {".csv": _csv_rows, ".parquet": _parquet_rows}.get(file.suffix.lower(), _json_rows)(file)
    for line, row in rows:
        place = f"{name}, line {line}"
        if isinstance(row, str):
            yield "wrong lines", f"{place}: {row}"
            continue
        image = next((str(row[key]) for key in _FILE if row.get(key)), "")
        if not image:
            yield "wrong lines", f"{place} has no 'file_name'"
            continue
        try:
            boxes = read_objects(row)
        except DataError as error:
            yield "wrong lines", f"{place} ('{image}'): {error}"
            continue
        width, height = row.get("width"), row.get("height")
        size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
        yield Labelled((image,), name, tuple(boxes), size, "unsure")


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"it is not valid JSON ({error})"
            continue
        yield number, row if isinstance(row, dict) else "it is no JSON object"


def _csv_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    """Rows whose columns of objects are JSON."""
    for number, row in enumerate(csv.DictReader(read_lines(file)), start=2):
        try:
            yield number, {key: _value(text) for key, text in row.items() if key}
        except ValueError as error:
            yield number, f"its objects are not valid JSON ({error})"


def _parquet_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object] | str]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is no parquet file ({str(error).splitlines()[0]}).") from None
    yield from enumerate(rows, start=1)


def _value(text: str | None) -> object:
    return json.loads(text.replace("'", '"')) if text and text[0] in "[{" else text


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    def holds(file: Path) -> bool:
        named = file.stem.lower().startswith("metadata")
        others = file.suffix.lower() == ".jsonl" and has_marks(file, b'"file_name"', b'"objects"', opening=b"{")
        return (named or others) and has_marks(file, b"bbox")

    return split_files(root, split, (".jsonl", ".csv", ".parquet"), holds)


register_layout(
    "imagefolder", Layout("imagefolder", _files, read_metadata, "Hugging Face's metadata.jsonl, .csv or .parquet")
)
