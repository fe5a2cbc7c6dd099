"""The pixels inside of outlines: polygons filled and run lengths laid out, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ld_hub.formats.outlines import RUNS


def mask_of(outline: NDArray[np.uint8] | bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """``(h, w)`` True at the pixels whose centre lies inside.

    Args:
        outline: Of `outlines.packed`.
        size: Height and width of the image in px. Run lengths of an image of another size outline nothing in it.
    """
    height, width = size
    made = np.zeros(size, dtype=bool)
    numbers = np.frombuffer(outline, dtype=np.int32)
    if not len(numbers):
        return made
    if numbers[0] == RUNS:
        if tuple(numbers[1:3]) == (height, width):
            inside = np.arange(len(numbers) - 3) % 2 == 1
            made[:] = np.repeat(inside, numbers[3:]).reshape(width, height).T
        return made
    counts = numbers[1 : 1 + numbers[0]]
    points = numbers[1 + numbers[0] :].view(np.float32).reshape(-1, 2).astype(np.float64)
    for ring in np.split(points, np.cumsum(counts)[:-1]):
        _fill(made, ring)
    return made


def _fill(made: NDArray[np.bool_], ring: NDArray[np.float64]) -> None:
    """Add the pixels inside of a polygon by the even-odd rule: from each edge on, a row is on the other side of it."""
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    height, width = made.shape
    low_x, high_x = (int(np.clip(np.floor(x), 0, width)) for x in (left, right + 1))
    low_y, high_y = (int(np.clip(np.floor(y), 0, height)) for y in (top, bottom + 1))
    if low_x >= high_x or low_y >= high_y:
        return
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    first, last = (
        np.clip(np.ceil(ends - 0.5), low_y, high_y).astype(np.int64)
        for ends in (np.minimum(y, next_y), np.maximum(y, next_y))
    )
    counts = last - first  # rows whose middle an edge crosses
    edge = np.repeat(np.arange(len(ring)), counts)
    rows = np.arange(len(edge)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    across = x[edge] + (rows + 0.5 - y[edge]) / (next_y - y)[edge] * (next_x - x)[edge]
    columns = np.clip(np.ceil(across - 0.5), low_x, high_x).astype(np.int64)
    crossings = np.zeros((high_y - low_y, high_x - low_x + 1), dtype=np.uint8)
    np.add.at(crossings, (rows - low_y, columns - low_x), 1)
    inside = np.cumsum(crossings[:, :-1], axis=1, dtype=np.uint8) % 2 == 1
    made[low_y:high_y, low_x:high_x] |= inside
