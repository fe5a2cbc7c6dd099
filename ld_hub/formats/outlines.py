"""Boxes around outlines: polygons, and COCO's run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

Corners: TypeAlias = "tuple[float, float, float, float]"  # x1, y1, x2, y2 px


def around(segmentation: Any) -> Corners | None:
    """The box around a COCO ``segmentation``.

    Args:
        segmentation: Polygons as lists of numbers or of points, or run lengths, compressed or not.

    Returns:
        None where it outlines nothing, or is of no such form.
    """
    if isinstance(segmentation, dict):
        return _around_runs(segmentation)
    numbers = list(_numbers(segmentation))
    return around_points(list(zip(numbers[::2], numbers[1::2], strict=True))) if len(numbers) % 2 == 0 else None


def around_points(points: Sequence[Sequence[float]]) -> Corners | None:
    """The box around points; None where there are none, or one is no finite number.

    Args:
        points: x and y of each, in px.
    """
    array = np.array(points, dtype=np.float64).reshape(-1, 2) if points else np.zeros((0, 2))
    if not len(array) or not np.isfinite(array).all():
        return None
    (x1, y1), (x2, y2) = array.min(axis=0).tolist(), array.max(axis=0).tolist()
    return x1, y1, x2, y2


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def _around_runs(segmentation: dict[str, object]) -> Corners | None:
    """Runs alternate between outside and inside, and go down the columns of the image."""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and isinstance(size[0], int) and size[0] > 0):
        return None
    runs = np.array(_runs(counts) if isinstance(counts, str) else list(_numbers(counts)), dtype=np.int64)
    ends = np.cumsum(runs)
    first, last = (ends - runs)[1::2], ends[1::2] - 1
    first, last = first[runs[1::2] > 0], last[runs[1::2] > 0]
    if not len(first):
        return None
    height = size[0]
    many = bool((first // height != last // height).any())  # such a run touches the bottom and the top
    top = 0 if many else int((first % height).min())
    bottom = height if many else int((last % height).max()) + 1
    return float((first // height).min()), float(top), float((last // height).max() + 1), float(bottom)


def _runs(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a letter, lowest first.

    From the fourth on they are differences to the last but one. The sixth bit of a letter says that more follow, the
    fifth of the last one that the number is negative.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode():
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
