"""The annotation file an evaluation answers to, checked and cleaned of what trips the scorers."""

from __future__ import annotations

import json
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from ld_hub.errors import DataError, MissingFileError
from ld_hub.evaluation.annotation_columns import AnnotationColumns, GrowingColumns
from ld_hub.formats.json_lists import LARGE, read_lists
from ld_hub.ops.corners import Reach, are_corners, reach
from ld_hub.structures import AnnotationRow, CategoryRow, ImageRow

_PART = 1 << 18  # boxes looked at together
_FIELDS = ("id", "width", "height", "name", "frequency", "neg_category_ids", "not_exhaustive_category_ids")  # are read


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Images, categories and boxes to evaluate against.

    Attributes:
        source: Where it came from, for messages.
        images: Sorted by id; 0 stands for a size that the file does not tell.
        categories: Sorted by id.
        annotations: In the order of the file; ids are issued anew as 1, 2, ..., because the scorers treat id 0 as
            "matched nothing". ``ignore`` is 1 where the file says ``ignore`` or ``difficult``: only the protocols of
            VOC and LVIS look at it. Those of a very large file are `AnnotationColumns`.
    """

    source: str
    images: list[ImageRow]
    categories: list[CategoryRow]
    annotations: Sequence[AnnotationRow]

    @cached_property
    def image_ids(self) -> frozenset[int]:
        """Ids of all images."""
        return frozenset(image["id"] for image in self.images)

    @cached_property
    def category_names(self) -> dict[int, str]:
        """Category id to name."""
        return {category["id"]: category["name"] for category in self.categories}

    def only(self, image_ids: Iterable[int]) -> GroundTruth:
        """The ground truth of these images, as if there were no others."""
        wanted = frozenset(image_ids)
        if wanted == self.image_ids:
            return self
        images = [row for row in self.images if row["id"] in wanted]
        if isinstance(self.annotations, AnnotationColumns):
            return replace(self, images=images, annotations=self.annotations.of_images(wanted))
        return replace(self, images=images, annotations=[r for r in self.annotations if r["image_id"] in wanted])

    def boxes_per_category(self, *, skip_ignored: bool = False) -> Counter[int]:
        """Count the boxes of each category id.

        Args:
            skip_ignored: Leave out those marked ``ignore``; crowds are left out anyway.
        """
        return Counter(
            row["category_id"]
            for row in self.annotations
            if not row["iscrowd"] and not (skip_ignored and row["ignore"])
        )

    def sizes_of(self, image_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """``(K, 2)`` width and height in px of the images of these ids ``(K,)``; 0 where they are not known."""
        known = np.array([row["id"] for row in self.images], dtype=np.int64)
        sizes = np.array([[row["width"], row["height"]] for row in self.images], dtype=np.float64).reshape(-1, 2)
        found: npt.NDArray[np.float64] = sizes[np.searchsorted(known, image_ids)]
        return found


def read_ground_truth(annotations: str | Path | Mapping[str, Any]) -> GroundTruth:
    """Read COCO annotations for evaluation.

    Args:
        annotations: A COCO instances JSON file, or its content. Missing annotation ids, areas (then width x height)
            and crowd flags (then 0) are filled in; segmentations are not needed.

    Returns:
        The checked ground truth; the argument is not changed.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is not COCO JSON, an image, category or annotation id repeats, an annotation names an
            unknown image or category or has no finite box, or the boxes are corners instead of corner and size.
    """
    if isinstance(annotations, Mapping):
        truth = _truth("the annotations", annotations)
    elif Path(annotations).is_file() and Path(annotations).stat().st_size >= LARGE:
        truth = _large_truth(Path(annotations))
    else:
        truth = _truth(str(annotations), _load(Path(annotations)))
    truth.images.sort(key=lambda row: row["id"])
    truth.categories.sort(key=lambda row: row["id"])
    _refuse_corners(truth)
    return truth


def _truth(source: str, content: Mapping[str, Any]) -> GroundTruth:
    """All of it, in the order of the file."""
    images = [_image(row, source) for row in _rows(content, "images", source)]
    categories = [_category(row) for row in _rows(content, "categories", source)]
    known_images, known_categories = {row["id"] for row in images}, {row["id"] for row in categories}
    rows = _listed(content, source)
    _refuse_repeated(rows, source)
    checked = [_annotation(row, k, known_images, known_categories, source) for k, row in enumerate(rows)]
    return GroundTruth(source, images, categories, checked)


def _large_truth(path: Path) -> GroundTruth:
    """As `_truth`, of a file that is read in parts; the first fault is the same."""
    source, found = str(path), _Streamed(str(path))
    with path.open("rb") as stream:
        for key, value in read_lists(stream.read, path):
            found.take(key, value)
    images = [_image(row, source) for row in _rows(found.content, "images", source)]
    categories = [_category(row) for row in _rows(found.content, "categories", source)]
    known_images, known_categories = {row["id"] for row in images}, {row["id"] for row in categories}
    _listed(found.content, source)
    found.refuse_ids()
    rows = found.columns.done()
    strange = ~(np.isin(rows.images, list(known_images)) & np.isin(rows.categories, list(known_categories)))
    faulty = [(k, {**rows[k], "id": found.given_id(k)}) for k in np.flatnonzero(strange)[:1].tolist()]
    for k, row in (*faulty, *found.faulty):
        _annotation(row, k, known_images, known_categories, source)  # says what is wrong with it
    return GroundTruth(source, images, categories, rows)


class _Streamed:
    """The lists of a file that comes in parts: of annotations no more than columns.

    Attributes:
        content: Images and categories; no annotations, but whether there is a list of them.
        columns: The annotations up to the first that has a fault by itself.
        faulty: That one, with its place in the list.
    """

    def __init__(self, source: str) -> None:
        self.content: dict[str, object] = {}
        self.columns, self.faulty = GrowingColumns(), list[tuple[int, Any]]()
        self._source, self._count = source, 0
        self._ids, self._wrong_ids = array("q"), list[tuple[int, Any]]()
        self._without = array("q")  # places of annotations that have no id

    def take(self, key: str, value: object) -> None:
        """Add a part of a list, or another value."""
        held = self.content.setdefault(key, [] if isinstance(value, list) else value)
        if not isinstance(value, list) or not isinstance(held, list):
            return
        if key == "annotations":
            for row in value:
                self._add(row)
        elif key in ("images", "categories"):
            held += [_slim(row) for row in value]

    def given_id(self, place: int) -> int | None:
        """The id that the file gives an annotation."""
        before = bisect_left(self._without, place)
        return None if self._without[before : before + 1].count(place) else self._ids[place - before]

    def refuse_ids(self) -> None:
        """What `_refuse_repeated` says of all rows."""
        ids = np.frombuffer(self._ids, dtype=np.int64) if self._ids else np.zeros(0, dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        again = order[1:][ids[order][1:] == ids[order][:-1]]
        if len(again):
            _refuse_repeated([{"id": int(ids[again.min()])}] * 2, self._source)
        for place, number in self._wrong_ids:
            _require_id(number, place, self._source)

    def _add(self, row: Any) -> None:
        place, self._count = self._count, self._count + 1
        number = row.get("id") if isinstance(row, dict) else None
        if number is None:
            self._without.append(place)
        elif self._wrong_ids or not _is_id(number):
            self._wrong_ids = self._wrong_ids or [(place, number)]
        else:
            self._ids.append(number)
        if not self.faulty:
            try:
                self.columns.add(_annotation(row, place, _ALL, _ALL, self._source))
            except ValueError:  # DataError, too
                self.faulty = [(place, row)]


class _Everything:
    """Holds whatever is asked for."""

    def __contains__(self, value: object) -> bool:
        return True


_ALL = _Everything()


def _slim(row: Any) -> Any:
    """A row of images or categories without what nobody reads; others as they are."""
    return {key: row[key] for key in _FIELDS if key in row} if isinstance(row, dict) else row


def _refuse_corners(truth: GroundTruth) -> None:
    rows = truth.annotations
    parts = [_lie(truth, rows[start : start + _PART]) for start in range(0, len(rows), _PART)]
    out = are_corners(parts) if parts else np.zeros(0, dtype=np.int64)
    if len(out):
        k = int(out[0])
        width, height = truth.sizes_of(np.array([rows[k]["image_id"]], dtype=np.int64)).ravel().tolist()
        raise DataError(
            f"{truth.source}: {len(out)} of {len(rows)} boxes reach out of their image when read as x, y, width, "
            "height, as COCO has them, but lie in it when read as corners x1, y1, x2, y2 (for example annotations"
            f"[{k}]: bbox {rows[k]['bbox']}, image {width:g}x{height:g} px). Write x2 - x1 and y2 - y1 in place of "
            "x2 and y2."
        )


def _lie(truth: GroundTruth, rows: Sequence[AnnotationRow]) -> Reach:
    """How some boxes lie in their images."""
    if isinstance(rows, AnnotationColumns):
        return reach(rows.boxes, truth.sizes_of(rows.images))
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    return reach(boxes, truth.sizes_of(np.array([row["image_id"] for row in rows], dtype=np.int64)))


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"No annotation file '{path}'.")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # JSONDecodeError, or bytes that are no text
        raise DataError(f"'{path}' is not JSON: {error}. Is the file complete?") from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}; COCO annotations are an object with 'images'.")
    return content


def _rows(content: Mapping[str, Any], key: str, source: str) -> list[Mapping[str, Any]]:
    """Rows of a section whose ids must be distinct integers."""
    rows = content.get(key)
    if not isinstance(rows, list):
        raise DataError(f"{source} has no list '{key}'; COCO annotations have images, annotations and categories.")
    seen: set[int] = set()
    for k, row in enumerate(rows):
        number = row.get("id") if isinstance(row, dict) else None
        if not _is_id(number):
            raise DataError(f"{source}: {key}[{k}] has id {number!r}; ids are integers of at most 64 bits.")
        if number in seen:
            raise DataError(f"{source}: id {number} appears twice in '{key}'; ids must be distinct.")
        seen.add(number)
    return rows


def _listed(content: Mapping[str, Any], source: str) -> list[Any]:
    """The annotations, unchecked."""
    rows = content.get("annotations")
    if not isinstance(rows, list):
        raise DataError(f"{source} has no list 'annotations'; a test file without boxes cannot be evaluated against.")
    return rows


def _image(row: Mapping[str, Any], source: str) -> ImageRow:
    """An image with the lists of LVIS, where it has them."""
    image: ImageRow = {"id": row["id"], "width": _side(row.get("width")), "height": _side(row.get("height"))}
    for key in ("neg_category_ids", "not_exhaustive_category_ids"):
        if key in row:
            ids = row[key]
            if not isinstance(ids, list) or not all(_is_id(number) for number in ids):
                raise DataError(f"{source}: '{key}' of image id {row['id']} is {ids!r}; expected a list of integers.")
            image[key] = ids
    return image


def _category(row: Mapping[str, Any]) -> CategoryRow:
    """A category with LVIS' group of frequency, where it has one."""
    category: CategoryRow = {"id": row["id"], "name": str(row.get("name", row["id"]))}
    if "frequency" in row:
        category["frequency"] = str(row["frequency"])
    return category


def _refuse_repeated(rows: list[Any], source: str) -> None:
    """Given annotation ids are distinct integers, as `ld_hub.data` demands of them; missing ones are no matter."""
    seen: set[int] = set()
    for k, row in enumerate(rows):
        number = row.get("id") if isinstance(row, dict) else None
        if number is None:
            continue
        _require_id(number, k, source)
        if number in seen:
            raise DataError(f"{source}: annotation id {number} is given more than once. Number the annotations anew.")
        seen.add(number)


def _require_id(number: Any, index: int, source: str) -> None:
    if not _is_id(number):
        raise DataError(f"{source}: annotations[{index}] has id {number!r}; ids are integers of at most 64 bits.")


def _annotation(row: Any, index: int, images: Container[int], categories: Container[int], source: str) -> AnnotationRow:
    """One annotation with the fields the scorers read, and its new id."""
    where = f"{source}: annotations[{index}]"
    if not isinstance(row, dict):
        raise DataError(f"{where} is a {type(row).__name__}, not an object.")
    where += f" (id {row.get('id')}, image {row.get('image_id')})"
    if not _is_one_of(row.get("image_id"), images):
        raise DataError(f"{where} names image id {row.get('image_id')!r}, which is not in 'images'.")
    if not _is_one_of(row.get("category_id"), categories):
        raise DataError(f"{where} names category id {row.get('category_id')!r}, which is not in 'categories'.")
    box = row.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(_finite(side) for side in box):
        raise DataError(f"{where} has bbox {box!r}; expected four finite numbers x, y, width, height.")
    if box[2] < 0 or box[3] < 0:
        raise DataError(f"{where} has bbox {box!r} of negative size; expected x, y, width, height in px.")
    area = row.get("area")
    if area is None:
        area = box[2] * box[3]
    if not _finite(area):
        raise DataError(f"{where} has area {area!r}; expected a finite number of square px.")
    return {
        "id": index + 1,
        "image_id": row["image_id"],
        "category_id": row["category_id"],
        "bbox": [float(side) for side in box],
        "area": float(area),
        "iscrowd": int(bool(row.get("iscrowd", 0))),
        "ignore": int(bool(row.get("ignore") or row.get("difficult"))),
    }


def _side(value: Any) -> float:
    """A side of an image in px, 0 where there is none."""
    return value if _finite(value) and value > 0 else 0


def _is_one_of(value: Any, ids: Container[int]) -> bool:
    return isinstance(value, (int, float)) and value in ids  # other JSON values may not be looked up


def _is_id(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer that the scorers' arrays hold."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _finite(value: Any) -> bool:
    """Whether a value is a number that a float holds; JSON knows integers of any length."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
