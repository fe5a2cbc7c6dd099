"""Where rows of the Hub's data sets say what is on an image: usual names of columns, usual forms of boxes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ld_hub.errors import ConfigError, DataError

FORMS = {"coco": "x, y, width, height", "xyxy": "x1, y1, x2, y2"}

# What each part is called; the first name that is there counts.
NAMES = {
    "image": ("image", "img", "photo", "picture"),
    "objects": ("objects", "annotations", "object", "detections", "labels", "faces"),
    "bbox": ("bbox", "bboxes", "boxes", "box", "bounding_box"),
    "category": (
        "category",
        "categories",
        "category_id",
        "category_ids",
        "label",
        "labels",
        "class",
        "classes",
        "name",
    ),
    "crowd": ("iscrowd", "is_crowd", "crowd"),
    "area": ("area", "areas"),
    "image_id": ("image_id", "id"),
}
_OPTIONAL = ("crowd", "area", "image_id")
_SLACK = 0.01  # by how much of the image's side boxes may go beyond it


class RowObjects(NamedTuple):
    """What is on an image.

    Attributes:
        boxes: Four numbers each.
        values: Of their classes.
        crowds: Which boxes stand for many objects.
        areas: In px², as the row says; None where it does not.
    """

    boxes: list[Sequence[float]]
    values: list[Any]
    crowds: list[bool]
    areas: list[float | None]


@dataclass(frozen=True)
class ObjectSchema:
    """Names of columns, and of the keys in the column of objects.

    Attributes:
        image: Column of the images.
        objects: Column of the objects; the empty string where `bbox` and `category` are columns of the row.
        bbox: Key of the boxes.
        category: Key of the classes.
        crowd: Key that says which boxes stand for many objects; the empty string where none does.
        area: Key of the objects' areas in px²; the empty string where there is none.
        image_id: Column of the images' ids; the empty string where there is none.
        form: ``"coco"`` (x, y, width, height) or ``"xyxy"``, in px; the empty string until `find_form`.
    """

    image: str
    objects: str
    bbox: str
    category: str
    crowd: str = ""
    area: str = ""
    image_id: str = ""
    form: str = ""

    def describe(self) -> str:
        """One line for the user."""
        inside = f"{self.objects}." if self.objects else ""
        return (
            f"images in '{self.image}', boxes in '{inside}{self.bbox}' ({FORMS.get(self.form, 'form not known yet')}), "
            f"classes in '{inside}{self.category}'"
        )

    def objects_of(self, row: Mapping[str, Any]) -> RowObjects:
        """The objects of a row, as they stand there.

        Args:
            row: Whose objects are a mapping of lists, or a list of mappings.

        Raises:
            DataError: If there are not as many classes as boxes, or a box has not four numbers.
        """
        inner: Any = row[self.objects] if self.objects else row
        listed: Callable[[str], list[Any]] = (
            (lambda key: list(inner.get(key) or []) if key else [])
            if isinstance(inner, Mapping)
            else (lambda key: [each.get(key) for each in inner or []] if key else [])
        )
        boxes, values = listed(self.bbox), listed(self.category)
        if len(boxes) != len(values):
            raise DataError(f"{len(boxes)} boxes and {len(values)} classes; expected a class for each box.")
        if any(box is None or len(box) != 4 for box in boxes):
            raise DataError("a box has not four numbers.")
        crowds = [bool(value) for value in listed(self.crowd)] or [False] * len(boxes)
        areas = listed(self.area) or [None] * len(boxes)
        return RowObjects(boxes, values, crowds, areas)

    def sides(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """x, y, width and height in px of a box in this form."""
        x, y, w, h = (float(side) for side in box)
        return (x, y, w - x, h - y) if self.form == "xyxy" else (x, y, w, h)


def parse_columns(text: str | None) -> dict[str, str]:
    """``"bbox=box,category=label,form=xyxy"`` as a mapping.

    Raises:
        ConfigError: If it is no such text, or names a part that there is not.
    """
    pairs = [entry.partition("=") for entry in (text or "").split(",") if entry.strip()]
    found = {part.strip(): name.strip() for part, _, name in pairs}
    parts = (*NAMES, "form")
    wrong = [part for part, name in found.items() if part not in parts or not name]
    if wrong or found.get("form", "coco") not in FORMS:
        raise ConfigError(
            f"--columns is {text!r}; expected PART=COLUMN,..., where a part is {', '.join(parts)} and form is "
            f"{' or '.join(FORMS)}."
        )
    return found


def find_schema(columns: Mapping[str, Collection[str]], given: Mapping[str, str], where: str) -> ObjectSchema:
    """Which columns are meant.

    Args:
        columns: Columns of the data set, each with the keys in it; none for plain ones.
        given: Of `parse_columns`; goes before what is found.
        where: What messages call the data set.

    Raises:
        DataError: If a part is not there; says what is, and which flag names it.
    """

    def pick(part: str, known: Collection[str]) -> str:
        wanted = (given[part],) if part in given else NAMES[part]
        found = next((name for name in wanted if name in known), "")
        if not found and (part not in _OPTIONAL or part in given):
            raise DataError(
                f"{where}: no column of the part '{part}' (looked for {', '.join(wanted)}). There are "
                f"{', '.join(known)}. Name it: --columns {part}=COLUMN."
            )
        return found

    image, image_id = pick("image", columns), pick("image_id", columns)
    holders = [name for name in NAMES["objects"] if columns.get(name)]
    objects = pick("objects", columns) if "objects" in given else holders[0] if holders else ""
    inside = columns[objects] if objects else columns
    keys = {part: pick(part, inside) for part in ("bbox", "category", "crowd", "area")}
    return ObjectSchema(image=image, objects=objects, image_id=image_id, **keys)


def find_form(samples: Iterable[tuple[Sequence[Sequence[float]], int, int]], where: str) -> str:
    """Which form boxes have: the one that keeps them inside their images, with sides above 0; COCO's if both do.

    Args:
        samples: Boxes, width and height in px of images.
        where: What messages call the data set.

    Raises:
        DataError: If neither does.
    """
    outside = dict.fromkeys(FORMS, 0)
    count = 0
    for boxes, width, height in samples:
        array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        limit = np.array([width, height]) * (1 + _SLACK)
        count += len(array)
        outside["coco"] += int((array[:, :2] + array[:, 2:] > limit).any(axis=1).sum())
        outside["xyxy"] += int(((array[:, 2:] > limit) | (array[:, 2:] < array[:, :2])).any(axis=1).sum())
    best = min(FORMS, key=outside.__getitem__)
    if outside[best] > count / 2:
        raise DataError(
            f"{where}: of {count} boxes {outside['coco']} lie off their images as {FORMS['coco']}, and "
            f"{outside['xyxy']} as {FORMS['xyxy']} in px. Say which they are: --columns form=coco or form=xyxy."
        )
    return best
