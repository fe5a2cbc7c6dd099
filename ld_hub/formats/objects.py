"""Rows with ``objects: {bbox, category}``, as Hugging Face data sets have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ld_hub.errors import DataError
from ld_hub.formats.labelled_image import Box
from ld_hub.formats.object_schema import NAMES

# Columns of classes alone are called `labels`, too; here they are beside their boxes, in no group.
_GROUPS = tuple(name for name in NAMES["objects"] if name not in NAMES["category"])


def read_objects(row: Mapping[str, object]) -> list[Box]:
    """The objects of a row, boxes as written.

    Args:
        row: With ``objects``: a mapping of columns, or a list of mappings; or with the columns themselves.

    Raises:
        DataError: If there are no boxes, or they are not as many as their classes.
    """
    key = next((key for key in _GROUPS if key in row), None)
    group = row if key is None else row[key]
    if not group:
        return []
    if isinstance(group, list) and all(isinstance(item, Mapping) for item in group):
        group = {name: [item.get(name) for item in group] for name in group[0]}
    if not isinstance(group, Mapping):
        raise DataError(f"'{key}' is a {type(group).__name__}, expected columns such as bbox and category")
    boxes, labels = _column(group, NAMES["bbox"]), _column(group, NAMES["category"])
    if len(boxes) != len(labels):
        raise DataError(f"there are {len(boxes)} boxes and {len(labels)} classes")
    crowds = next((group[name] for name in NAMES["crowd"] if group.get(name)), [0] * len(boxes))
    found = []
    for box, label, crowd in zip(boxes, labels, crowds, strict=True):
        try:
            a, b, c, d = (float(side) for side in box)
        except (TypeError, ValueError):
            raise DataError(f"the box {box!r} is not four numbers") from None
        found.append(Box(str(label), (a, b, c, d), crowd=bool(crowd)))
    return found


def are_corners(sides: np.ndarray, limits: np.ndarray) -> bool:
    """Whether boxes that may be x, y, width, height or x1, y1, x2, y2 are the latter.

    They are where all of them lie in their images as corners, and one reaches out of it as corner and size.

    Args:
        sides: ``(K, 4)`` px.
        limits: ``(K, 2)`` width and height of the image of each, in px.
    """
    ends = sides[:, :2] + sides[:, 2:]
    out = (ends > 1.01 * limits + 1).any()
    inside = (sides[:, 2:] > sides[:, :2]).all() and (sides[:, 2:] <= limits + 1).all() and (sides >= -1).all()
    return bool(out and inside)


def _column(group: Mapping[str, object], names: Sequence[str]) -> list[Any]:
    value = next((group[name] for name in names if name in group), None)
    if not isinstance(value, (list, tuple)):
        raise DataError(f"there is no column {' or '.join(names[:3])}; found {', '.join(map(str, group)) or 'none'}")
    return list(value)
