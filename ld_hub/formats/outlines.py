"""Outlines of objects, polygons and COCO's run lengths: boxes around them, and the few bytes that say as much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Corners: TypeAlias = "tuple[float, float, float, float]"  # x1, y1, x2, y2 px

RUNS = 0  # stands in place of the number of polygons where run lengths follow
_SIDES = 64  # of the polygon that an ellipse is taken for


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


def packed(segmentation: Any) -> bytes:
    """A COCO ``segmentation`` in four bytes a number; nothing where it outlines nothing, or is of no such form.

    Polygons are their number, the numbers of their points, and these as float32; run lengths are `RUNS`, height, width
    and the lengths. Integers are int32.

    Args:
        segmentation: As for `around`; flat lists of numbers, lists of points, and one such list alone are polygons.
    """
    if isinstance(segmentation, bytes):
        return segmentation
    try:
        if isinstance(segmentation, dict):
            return _packed_runs(segmentation)
        rings = [[*_numbers(ring)] for ring in _rings(segmentation)]
        if not rings or any(len(ring) % 2 for ring in rings):
            return b""
        rings = [ring for ring in rings if len(ring) >= 6]
        points = np.array([x for ring in rings for x in ring], dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        return b""
    if not rings or not np.isfinite(points).all():
        return b""
    return np.array([len(rings), *(len(ring) // 2 for ring in rings)], dtype=np.int32).tobytes() + points.tobytes()


def packed_mask(mask: NDArray[np.bool_]) -> bytes:
    """As `packed`, of pixels ``(h, w)``."""
    columns = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff(np.concatenate([[0] if columns[:1].any() else [], [0], edges, [columns.size]]))
    return np.array([RUNS, *mask.shape, *runs], dtype=np.int32).tobytes()


def ellipse(x: float, y: float, half_width: float, half_height: float, turn: float = 0.0) -> list[list[float]]:
    """Points of the polygon that an ellipse is taken for.

    Args:
        x: Of its middle, px.
        y: Of its middle, px.
        half_width: Its first radius, px.
        half_height: Its second radius, px.
        turn: By how much it is turned clockwise, in radians.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    steps = [(half_width * math.cos(k), half_height * math.sin(k)) for k in np.linspace(0, math.tau, _SIDES + 1)[:-1]]
    return [[x + a * cos - b * sin, y + a * sin + b * cos] for a, b in steps]


def around_ellipse(x: float, y: float, half_width: float, half_height: float, turn: float = 0.0) -> Corners:
    """The box around an ellipse; arguments as of `ellipse`."""
    cos, sin = math.cos(turn), math.sin(turn)
    right, down = math.hypot(half_width * cos, half_height * sin), math.hypot(half_width * sin, half_height * cos)
    return x - right, y - down, x + right, y + down


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


def _rings(value: Any) -> Sequence[Any]:
    """Lists of one polygon each, of polygons or of one."""
    if not isinstance(value, (list, tuple)) or not value:
        return ()
    first = value[0]
    if not isinstance(first, (list, tuple)):
        return (value,)  # x, y, x, y, ...
    pairs = len(first) == 2 and not isinstance(first[0], (list, tuple))
    return (value,) if pairs else value  # [x, y], [x, y], ...


def _packed_runs(segmentation: Mapping[str, Any]) -> bytes:
    height, width = segmentation["size"] if len(segmentation.get("size", ())) == 2 else (0, 0)
    runs = np.array(run_lengths(segmentation.get("counts")), dtype=np.int64)
    if height < 1 or width < 1 or (runs < 0).any() or runs.sum() != height * width:
        return b""
    return np.array([RUNS, height, width, *runs], dtype=np.int32).tobytes()


def _around_runs(segmentation: dict[str, object]) -> Corners | None:
    """Runs alternate between outside and inside, and go down the columns of the image."""
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and isinstance(size[0], int) and size[0] > 0):
        return None
    runs = np.array(run_lengths(counts), dtype=np.int64)
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


def run_lengths(counts: Any) -> list[int]:
    """Run lengths as they are, or from COCO's text: five bits a letter, lowest first.

    From the fourth on they are differences to the last but one. The sixth bit of a letter says that more follow, the
    fifth of the last one that the number is negative.

    Args:
        counts: Numbers, or the text.
    """
    if not isinstance(counts, str):
        return [int(number) for number in _numbers(counts)]
    runs: list[int] = []
    value = shift = 0
    for letter in counts.encode():
        bits = letter - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
