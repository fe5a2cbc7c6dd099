"""The entries of a COCO file as they should be: whole numbers as ids, boxes of four numbers, names as texts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ld_hub.data.annotations import entries
from ld_hub.data.checks import Repair, name_some
from ld_hub.errors import DataError
from ld_hub.formats.outlines import around

Row: TypeAlias = Mapping[str, Any]

_WORDS = {
    "numbers as texts": "numbers are written as texts and were read as numbers",
    "ids": "ids are no whole numbers and were numbered anew",
    "boxes from outlines": "annotations have no box, and the box around their outline was taken",
    "objects without a box": "annotations have neither a box nor an outline and were left out",
    "names that are numbers": "category names are numbers and were taken as texts",
}


def lacks_boxes(content: Row) -> bool:
    """Whether an annotation has no box, so that its outline is needed.

    Args:
        content: Of a COCO file.
    """
    rows = content.get("annotations")
    return isinstance(rows, list) and any(isinstance(row, dict) and _no_box(row.get("bbox")) for row in rows)


def mend_rows(path: Path, content: Row) -> tuple[Row, list[Repair]]:
    """Put right what can be; what cannot is left as it is, for the reader to name.

    Args:
        path: What messages call the file.
        content: Images, annotations and categories.

    Raises:
        DataError: If a list is missing, or an annotation belongs to nothing that is listed.
    """
    images, annotations, categories = (entries(path, content, key) for key in ("images", "annotations", "categories"))
    mender = _Mender(path)
    image_ids, category_ids = mender.ids(images, "image"), mender.ids(categories, "category")
    mended = {
        "images": [mender.image(row, image_ids) for row in images],
        "annotations": list(mender.annotations(annotations, image_ids, category_ids)),
        "categories": [mender.category(row, category_ids) for row in categories],
    }
    return mended, mender.repairs()


class _Ids:
    """Whole numbers in place of the ids of a list: their own where all are numbers, else counted from 1."""

    def __init__(self, path: Path, kind: str, rows: Sequence[Row]) -> None:
        given = [row.get("id") for row in rows]
        self.path, self.kind = path, kind
        whole = [_whole(value) for value in given]
        self.own = None in given or (
            all(isinstance(number, int) for number in whole) and len(set(whole)) == len(set(map(str, given)))
        )
        self.numbers = {str(value): number for number, value in enumerate(given, start=1)}

    def of(self, value: object, owner: str) -> object:
        """The number for an id.

        Args:
            value: The id as written.
            owner: Who has it, for messages.
        """
        if self.own:
            return _whole(value)
        if str(value) not in self.numbers:
            raise DataError(f"{self.path}: {owner} has the {self.kind} {value!r}, which is not listed.")
        return self.numbers[str(value)]


class _Mender:
    """Mends rows, and remembers by kind which."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, list[str]] = {}

    def repairs(self) -> list[Repair]:
        """What was done."""
        return [
            Repair(kind, len(who), f"{self.path}: {len(who)} {_WORDS[kind]} ({name_some(who, 3)}).")
            for kind, who in self.done.items()
        ]

    def ids(self, rows: Sequence[Row], kind: str) -> _Ids:
        """Numbers for the ids of a list."""
        return _Ids(self.path, kind, rows)

    def image(self, row: Row, ids: _Ids) -> Row:
        """An image; 0 stands for a size that is not given."""
        owner = f"image {row.get('id')}"
        changed = {"id": self._id(row, "id", ids, owner)} if "id" in row else {}
        sides = {key: row.get(key) or 0 for key in ("width", "height")}
        name = row.get("file_name")
        changed |= {key: self._number(value, f"{key} of {owner}", whole=True) for key, value in sides.items()}
        return {**row, **changed, **({"file_name": str(name)} if _is_number(name) else {})}

    def category(self, row: Row, ids: _Ids) -> Row:
        """A category."""
        changed = {"id": self._id(row, "id", ids, f"category {row.get('id')}")} if "id" in row else {}
        if _is_number(row.get("name")):
            self._tell("names that are numbers", str(row["name"]))
            changed["name"] = str(row["name"])
        return {**row, **changed}

    def annotations(self, rows: Sequence[Row], images: _Ids, categories: _Ids) -> Iterable[Row]:
        """The annotations, without those that have no box."""
        own = _Ids(self.path, "annotation", rows)
        for position, row in enumerate(rows):
            owner = f"annotation id {row.get('id')}" if row.get("id") is not None else f"annotation {position}"
            changed: dict[str, object] = {}
            for key, ids in (("id", own), ("image_id", images), ("category_id", categories)):
                if row.get(key) is not None:
                    changed[key] = self._id(row, key, ids, owner)
            for key, whole in (("area", False), ("iscrowd", True), ("ignore", True)):
                if isinstance(row.get(key), str):
                    changed[key] = self._number(row[key], f"{key} of {owner}", whole=whole)
            box = self._box(row, owner)
            if box is not None:
                yield {**row, **changed, "bbox": box}

    def _box(self, row: Row, owner: str) -> object:
        """The box as written where it cannot be mended; None where there is none."""
        box = row.get("bbox")
        if isinstance(box, str):
            box = [word for word in re.split(r"[\s,;\[\]()]+", box) if word]
        if isinstance(box, list) and len(box) == 4 and any(isinstance(side, str) for side in box):
            numbers = [_float(side) for side in box]
            if None in numbers:
                return row["bbox"]
            self._tell("numbers as texts", f"bbox of {owner}")
            box = numbers
        if not _no_box(box):
            return box
        corners = around(row.get("segmentation"))
        if corners is not None:
            self._tell("boxes from outlines", owner)
            x1, y1, x2, y2 = corners
            return [x1, y1, x2 - x1, y2 - y1]
        if isinstance(box, list) and any(side is not None for side in box):
            return box  # numbers that are not finite: somebody's mistake, not an object without a box
        self._tell("objects without a box", owner)
        return None

    def _id(self, row: Row, key: str, ids: _Ids, owner: str) -> object:
        value = row[key]
        number = ids.of(value, owner)
        if not isinstance(value, int) and number != value:
            self._tell("numbers as texts" if ids.own else "ids", owner if key == "id" else f"{key} of {owner}")
        return number

    def _number(self, value: object, what: str, *, whole: bool) -> object:
        """A number from a text; as written where it is none."""
        number = _float(value) if isinstance(value, str) else value
        if number is None:
            return value
        if isinstance(value, str):
            self._tell("numbers as texts", what)
        return int(number) if whole and isinstance(number, float) and number.is_integer() else number

    def _tell(self, kind: str, who: str) -> None:
        self.done.setdefault(kind, []).append(who)


def _no_box(box: object) -> bool:
    """No value, an empty one, or one that is not finite."""
    if not box:
        return box is None or box in ([], "")
    return isinstance(box, list) and any(
        side is None or (isinstance(side, float) and not math.isfinite(side)) for side in box
    )


def _whole(value: object) -> object:
    """A whole number where a text or a float is one."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, (str, int, float)) else None
    except ValueError:
        return None
