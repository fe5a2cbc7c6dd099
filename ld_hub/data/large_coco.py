"""COCO files that are too large to be held as Python objects: read in parts, kept as arrays in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ld_hub.checked import Source, read_fields
from ld_hub.data.annotations import CocoFile, parse_coco
from ld_hub.data.box_parts import COLUMNS
from ld_hub.data.outline_store import Outlines
from ld_hub.errors import DataError
from ld_hub.formats.json_lists import read_lists
from ld_hub.hub import cache_root, disk_errors, new_directory, one_at_a_time, sha256_of

FORMAT = 1
_ROWS = 20_000  # parsed at a time
_IMAGES = {"image_ids": "<i8", "sizes": "<i8"}
_TYPES = {"boxes": "<f8", "areas": "<f8", "crowd": "?", "ignore": "?"}  # others are integers
_PAIRS = {"sizes": 2, "boxes": 4}  # values of a row
_NO_LISTS: Mapping[str, list[Mapping[str, object]]] = {
    "images": [],
    "annotations": [],
    "categories": [{"id": 0, "name": "of a part, which has none"}],
}


@dataclass(frozen=True)
class Kept:
    """What the arrays in the cache were made from.

    Attributes:
        size: Bytes of the file.
        mtime: When it was written, in ns.
        sha256: Of its content.
        images: I.
        boxes: K.
        federated: See `CocoFile`.
        format: Of the cache.
    """

    size: int
    mtime: int
    sha256: str
    images: int
    boxes: int
    federated: bool
    format: int = FORMAT


def read_large(path: Path, *, outlines: bool = False) -> CocoFile:
    """Read a COCO file of any size; the arrays of annotations lie in the cache and are read from there as needed.

    The first time, rows become arrays some thousand at a time. After that, the arrays are taken as long as size, time
    and sha256 of the file are those that they were made from. Processes that read the same file wait for the first.

    Args:
        path: The JSON file.
        outlines: Read the outlines of objects as well, from the file itself and every time, into memory.

    Raises:
        DataError: If it cannot be used; names the place in the file, or the id.
        HubError: If the cache cannot be written.
    """
    place = cache_root() / "datasets" / f"{path.stem}-{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:16]}"
    with one_at_a_time(place):
        kept = _kept(place, path)
        if kept is None:
            shutil.rmtree(place, ignore_errors=True)
            with disk_errors(place.parent), new_directory(place) as draft:
                kept = _convert(path, draft)
    coco = _mapped(path, place, kept)
    return replace(coco, outlines=_read_outlines(path)) if outlines else coco


def _read_outlines(path: Path) -> Outlines:
    """Those of the file, packed some thousand objects at a time."""

    def pairs() -> Iterator[tuple[int, object]]:
        count = 0
        with _opened(path, "to find the outlines of objects") as stream:
            for key, value in _portions(read_lists(stream.read, path, polygons=True)):
                if key == "annotations" and isinstance(value, list):
                    rows = _numbered(path, key, value, count)
                    count += len(rows)
                    yield from ((row["id"], row.get("segmentation")) for row in rows)

    return Outlines.gather(pairs())


def _kept(place: Path, path: Path) -> Kept | None:
    """What the cache has of a file, if it is what the file says now."""
    try:
        content = json.loads((place / "kept.json").read_bytes())
        kept = read_fields(Kept, content, Source(str(place), DataError))
    except (OSError, ValueError, DataError):
        return None
    status = path.stat()
    right = (kept.format, kept.size, kept.mtime) == (FORMAT, status.st_size, status.st_mtime_ns)
    whole = all((place / f"{name}.bin").stat().st_size == size for name, size in _sizes(kept).items())
    return kept if right and whole and sha256_of(path) == kept.sha256 else None


def _type(name: str) -> np.dtype[Any]:
    return np.dtype({**_IMAGES, **_TYPES}.get(name, "<i8"))


def _sizes(kept: Kept) -> dict[str, int]:
    """Bytes of each column's file."""
    counts = {**dict.fromkeys(_IMAGES, kept.images), **dict.fromkeys(COLUMNS, kept.boxes)}
    return {name: count * _PAIRS.get(name, 1) * _type(name).itemsize for name, count in counts.items()}


def _convert(path: Path, folder: Path) -> Kept:
    """Write the columns of a file."""
    status, digest = path.stat(), hashlib.sha256()
    found: dict[str, object] = {}
    categories: list[object] = []
    counts = {"images": 0, "annotations": 0}
    federated = False
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_opened(path, "and kept in the cache for later"))
        files = {name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in (*_IMAGES, *COLUMNS)}
        names = stack.enter_context(open(folder / "names.jsonl", "w", encoding="utf-8"))

        def read(most: int) -> bytes:
            block = stream.read(most)
            digest.update(block)
            return block

        for key, value in _portions(read_lists(read, path)):
            found[key] = [] if isinstance(value, list) else value
            if key == "categories" and isinstance(value, list):
                found[key] = categories = categories + value
            if key not in counts or not isinstance(value, list):
                continue
            part = parse_coco(path, {**_NO_LISTS, key: _numbered(path, key, value, counts[key])})
            federated |= key == "images" and not counts[key] and part.federated
            counts[key] += len(value)
            for name in _IMAGES if key == "images" else COLUMNS:
                files[name].write(np.ascontiguousarray(getattr(part, name), dtype=_type(name)).data)
            if key == "images":
                names.write(json.dumps(part.file_names) + "\n")
        while read(1 << 20):  # what may follow counts for the hash
            pass
    parse_coco(path, found)  # are all lists there, and the categories right?
    (folder / "categories.json").write_text(json.dumps(categories))
    kept = Kept(
        status.st_size, status.st_mtime_ns, digest.hexdigest(), counts["images"], counts["annotations"], federated
    )
    (folder / "kept.json").write_text(json.dumps(asdict(kept)))
    return kept


def _portions(lists: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    """Lists in portions of about `_ROWS` rows, the last one of each as large as it is."""
    waiting: list[object] = []
    last = ""
    for key, value in lists:
        if last and key != last:
            yield last, waiting
            waiting, last = [], ""
        if isinstance(value, list):
            waiting, last = waiting + value, key
            if len(waiting) >= _ROWS:
                yield key, waiting
                waiting = []
        else:
            yield key, value
    if last:
        yield last, waiting


def _numbered(path: Path, key: str, rows: list[Any], before: int) -> list[Any]:
    """Rows that are objects; annotations without an id get their place in the list."""
    for k, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: {key}[{before + k}] is {row!r}, not an object.")
        if key == "annotations" and row.get("id") is None:
            row["id"] = before + k + 1
    return rows


@contextlib.contextmanager
def _opened(path: Path, purpose: str) -> Iterator[BinaryIO]:
    """The file, behind a progress bar where somebody can see one; others are told once."""
    from rich.console import Console
    from rich.progress import open as open_with_bar

    console = Console(stderr=True)
    shown = os.environ.get("RANK", "0") == "0"
    if shown and console.is_terminal:
        title = f"reading {path.name}"
        with open_with_bar(path, "rb", description=title, console=console, transient=True) as stream:
            yield stream
        return
    if shown:
        size = path.stat().st_size / 1e9
        text = f"{path} has {size:.1f} GB: it is read in parts, which takes minutes, {purpose}."
        warnings.warn(text, stacklevel=6)
    with open(path, "rb") as plain:
        yield plain


def _mapped(path: Path, place: Path, kept: Kept) -> CocoFile:
    """The annotations as they lie in the cache; images and their names are few."""
    with open(place / "names.jsonl", encoding="utf-8") as lines:
        names = [name for line in lines for name in json.loads(line)]
    categories = json.loads((place / "categories.json").read_bytes())
    arrays = {name: np.fromfile(place / f"{name}.bin", _type(name)) for name in _IMAGES}
    arrays |= {name: _map(place / f"{name}.bin", _type(name)) for name in COLUMNS}
    fields: Mapping[str, Any] = {
        name: array.reshape(-1, _PAIRS[name]) if name in _PAIRS else array for name, array in arrays.items()
    }
    head = parse_coco(path, {**_NO_LISTS, "categories": categories})
    return replace(head, file_names=names, federated=kept.federated, **fields)


def _map(file: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    if not file.stat().st_size:
        return np.zeros(0, dtype=kind)
    with open(file, "rb") as stream:
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), dtype=kind)
