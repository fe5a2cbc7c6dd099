"""A COCO annotation file as arrays: fast to read, and wrong types are named."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ld_hub.data.outline_store import Outlines
from ld_hub.errors import DataError, MissingFileError
from ld_hub.formats.outlines import packed

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# Polygons are three quarters of COCO's bytes and no detector here reads them. In valid JSON nothing but brackets,
# numbers and commas stands between this key and the next quote or brace, so cutting them out before parsing is safe.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[^"{}]*\]')


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What a COCO detection file says, nothing dropped or corrected.

    I images, K annotations, C categories.

    Attributes:
        path: The JSON file.
        image_ids: ``(I,)``.
        file_names: I names as written.
        sizes: ``(I, 2)`` height, width in px as declared.
        ids: ``(K,)`` annotation ids; where the file gives none, numbers above all given ones.
        image_of: ``(K,)`` image id of each annotation.
        category_of: ``(K,)`` category id of each annotation.
        boxes: ``(K, 4)`` x, y, width, height in px.
        areas: ``(K,)`` px²; width x height where the file gives none.
        crowd: ``(K,)`` the ``iscrowd`` flag.
        ignore: ``(K,)`` the ``ignore`` flag some converters write.
        category_ids: C ids, sorted.
        label_names: C names in that order.
        federated: Images say which categories were looked for, as LVIS' do.
        supercategories: C names of their groups, empty texts where the file gives none.
        origins: I files that the boxes of each image were read from, for messages; empty where all are from `path`.
        outlines: Of objects, by annotation id; None where nobody asked for them.
    """

    path: Path
    image_ids: Ints
    file_names: list[str]
    sizes: Ints
    ids: Ints
    image_of: Ints
    category_of: Ints
    boxes: Floats
    areas: Floats
    crowd: Bools
    ignore: Bools
    category_ids: tuple[int, ...]
    label_names: tuple[str, ...]
    federated: bool = False
    supercategories: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    outlines: Outlines | None = None


def read_coco(path: str | Path) -> CocoFile:
    """Read an annotation file.

    Args:
        path: ``instances_*.json`` or alike.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is not valid JSON, or an entry lacks a field or has one of the wrong type.
    """
    return parse_coco(Path(path), read_json(Path(path)))


def parse_coco(path: Path, content: Mapping[str, Any], *, outlines: bool = False) -> CocoFile:
    """The arrays of a COCO file's content.

    Args:
        path: What messages call it.
        content: Images (where each was read from a file of its own, that file under ``read_from``), annotations and
            categories.
        outlines: Keep the outlines of objects.

    Raises:
        DataError: If an entry lacks a field or has one of the wrong type.
    """
    images, annotations, categories = (entries(path, content, key) for key in ("images", "annotations", "categories"))
    category_ids, label_names, supercategories = _categories(path, categories)
    read = _Columns(path, "image", images)
    image_ids, file_names = read.ints("id"), _file_names(read)
    sizes = np.stack([read.ints("height"), read.ints("width")], axis=1)
    read = _Columns(path, "annotation", _with_ids(annotations))
    boxes = read.boxes("bbox")
    with np.errstate(over="ignore"):  # sides that large are told by `find_problems`
        products = boxes[:, 2] * boxes[:, 3]
    ids = read.ints("id")
    return CocoFile(
        path=path,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        ids=ids,
        image_of=read.ints("image_id"),
        category_of=read.ints("category_id"),
        boxes=boxes,
        areas=read.floats("area", products),
        crowd=read.flags("iscrowd"),
        ignore=read.flags("ignore"),
        category_ids=category_ids,
        label_names=label_names,
        federated=any("neg_category_ids" in image for image in images[:1]),
        supercategories=supercategories,
        origins=tuple(str(image["read_from"]) for image in images if "read_from" in image),
        outlines=_outlines(ids, annotations) if outlines else None,
    )


def _outlines(ids: Ints, annotations: Sequence[Mapping[str, Any]]) -> Outlines:
    return Outlines.gather(zip(ids.tolist(), (row.get("segmentation") for row in annotations), strict=True))


def _file_names(read: _Columns) -> list[str]:
    """Names of the images; LVIS has none, but COCO's addresses, which end in ``train2017/000000000009.jpg``."""
    if all("file_name" in row or "coco_url" not in row for row in read.rows[:1]):
        return read.strings("file_name")
    return ["/".join(url.split("/")[-2:]) for url in read.strings("coco_url")]


def content_of(coco: CocoFile, names: Sequence[str]) -> Mapping[str, Any]:
    """The arrays as a COCO file's content; every box is kept.

    Args:
        coco: The arrays.
        names: I file names to write.
    """
    images = [
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, name, (height, width) in zip(coco.image_ids.tolist(), names, coco.sizes.tolist(), strict=True)
    ]
    columns = zip(
        coco.ids.tolist(), coco.image_of.tolist(), coco.category_of.tolist(), coco.boxes.tolist(), coco.areas.tolist(),
        coco.crowd.tolist(), coco.ignore.tolist(), strict=True,
    )  # fmt: skip
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": [_plain(value) for value in box],
            "area": _plain(area),
            "iscrowd": int(crowd),
            **({"ignore": 1} if ignore else {}),
        }
        for number, image, category, box, area, crowd, ignore in columns
    ]
    categories = [{"id": i, "name": n} for i, n in zip(coco.category_ids, coco.label_names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _plain(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _with_ids(annotations: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Issue ids to annotations that have none: nothing but messages needs them."""
    missing = [k for k, row in enumerate(annotations) if row.get("id") is None]
    if not missing:
        return annotations
    used = [row["id"] for row in annotations if _is_int(row.get("id"))]
    numbered = list(annotations)
    for number, k in enumerate(missing, start=max([0, *used]) + 1):
        numbered[k] = {**annotations[k], "id": number}
    return numbered


def read_json(path: Path, *, polygons: bool = False, outlines: bool = False) -> Mapping[str, Any]:
    """The content of a COCO file.

    Args:
        path: The file.
        polygons: Keep the polygons, which are most of it and which nothing but missing boxes needs.
        outlines: Keep all outlines, packed as soon as an object is read where that has a box.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is not valid JSON, or no object.
    """
    if not path.is_file():
        raise MissingFileError(f"No annotation file {path}.")
    raw = path.read_bytes()
    try:
        with _no_collection():
            try:
                whole = raw if polygons or outlines else _POLYGONS.sub(b'"segmentation":[]', raw)
                content = json.loads(whole, object_hook=_pack_outline if outlines else None)
            except ValueError:
                content = json.loads(raw)  # for a message with the position in the real file
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a COCO file: it holds a {type(content).__name__} instead of an object.")
    return content


def _pack_outline(row: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A polygon as Python's numbers takes eight times the memory."""
    if "segmentation" in row and _is_box(row.get("bbox")) and all(map(math.isfinite, row["bbox"])):
        row["segmentation"] = packed(row["segmentation"])
    return row


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause garbage collection: it would walk a million fresh dictionaries again and again (3 to 4 x the time)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def entries(path: Path, content: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """One of the three lists of a COCO file.

    Args:
        path: What messages call it.
        content: The file's content.
        key: Name of the list.

    Raises:
        DataError: If there is no such list, or something in it is no object.
    """
    found = content.get(key)
    if not isinstance(found, list):
        what = "no list" if key in content else "nothing"
        raise DataError(f"{path}: a COCO detection file needs a list '{key}'; found {what} under that key.")
    for position, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {key}[{position}] is {entry!r}, not an object.")
    return found


def _categories(
    path: Path, categories: Sequence[Mapping[str, Any]]
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    if not categories:
        raise DataError(f"{path}: the list 'categories' is empty; a detector needs at least one.")
    read = _Columns(path, "category", categories)
    ids, names = read.ints("id").tolist(), read.strings("name")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError(f"{path}: category id {twice} is given more than once.")
    order = sorted(range(len(ids)), key=ids.__getitem__)
    groups = [str(category.get("supercategory") or "") for category in categories]
    return tuple(ids[i] for i in order), tuple(names[i] for i in order), tuple(groups[i] for i in order)


class _Columns:
    """Reads one field of all entries; on failure looks for the entry to blame."""

    def __init__(self, path: Path, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.path, self.kind, self.rows = path, kind, rows

    def ints(self, key: str) -> Ints:
        values = self._values(key)
        try:
            array = np.array(values)
            right = array.dtype.kind in "iu" and array.ndim == 1
        except ValueError:  # lists among numbers
            right = False
        if not right:
            self._blame(key, values, _is_int, "an integer")
        return np.array(values, dtype=np.int64)

    def strings(self, key: str) -> list[str]:
        values = self._values(key)
        self._blame(key, values, lambda v: isinstance(v, str) and bool(v), "a text")
        return values

    def floats(self, key: str, default: Floats) -> Floats:
        values = [row.get(key) for row in self.rows]
        if None in values:
            values = [other if value is None else value for value, other in zip(values, default.tolist(), strict=True)]
        self._blame(key, values, lambda v: isinstance(v, (int, float)), "a number")
        return np.array(values, dtype=np.float64)

    def flags(self, key: str) -> Bools:
        values = [row.get(key, 0) for row in self.rows]
        self._blame(key, values, lambda v: v in (0, 1, None), "0 or 1")
        return np.array(values, dtype=bool)

    def boxes(self, key: str) -> Floats:
        values = self._values(key)
        if not values:
            return np.zeros((0, 4))
        try:
            array = np.array(values)  # without a dtype: else texts that look like numbers would pass
            right = array.dtype.kind in "iuf" and array.shape == (len(values), 4)
        except ValueError:  # rows of different lengths
            right = False
        if not right:
            self._blame(key, values, _is_box, "[x, y, width, height]")
        return np.array(values, dtype=np.float64)

    def _values(self, key: str) -> list[Any]:
        try:
            return [row[key] for row in self.rows]
        except KeyError:
            position = next(i for i, row in enumerate(self.rows) if key not in row)
            raise DataError(f"{self.path}: {self._name(position)} has no '{key}'.") from None

    def _blame(self, key: str, values: Sequence[Any], right: Callable[[Any], bool], expected: str) -> None:
        for position, value in enumerate(values):
            if not right(value):
                found = repr(value)
                shown = found if len(found) <= 60 else found[:57] + "..."
                raise DataError(f"{self.path}: '{key}' of {self._name(position)} is {shown}, expected {expected}.")

    def _name(self, position: int) -> str:
        own = self.rows[position].get("id")
        return f"{self.kind} {position} of the list" if own is None else f"{self.kind} id {own}"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    )
