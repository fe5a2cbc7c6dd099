"""Whether boxes are in the form that they are said to be in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Reach(NamedTuple):
    """How some boxes lie in their images.

    Attributes:
        out: Indices of those that reach out of their image.
        known: Number of those whose image has a known size.
        corners: Of these, those that would lie in it if they were corners.
        boxes: Number of all.
    """

    out: npt.NDArray[np.int64]
    known: int
    corners: int
    boxes: int


def sticking_out(boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Tell whether boxes that should be x, y, width, height are x1, y1, x2, y2.

    They are, where at least a fifth of them (and 3) reach out of their image, and all but 1 % would be boxes inside of
    it when read as corners. Of boxes given as corners about three quarters reach out, while of others hardly any does,
    and those near the right or the lower edge are no corners. Where boxes reach out by right (whole objects, of which a
    part is seen), some do so to the left or the top.

    Args:
        boxes: ``(K, 4)`` px.
        sizes: ``(K, 2)`` width and height of the image of each, in px; 0 where it is not known.

    Returns:
        Indices of the boxes that reach out of their image if they are corners, else none.
    """
    return are_corners([reach(boxes, sizes)])


def reach(boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> Reach:
    """Count what `are_corners` needs; arguments as of `sticking_out`."""
    known = (sizes > 0).all(axis=1)
    ends = boxes[:, :2] + boxes[:, 2:]
    out = np.flatnonzero(known & (ends > 1.01 * sizes + 1).any(axis=1))
    in_order, ends_inside = boxes[:, 2:] >= boxes[:, :2], boxes[:, 2:] <= sizes + 1
    corners = known & (in_order & ends_inside & (boxes[:, :2] >= -1)).all(axis=1)
    return Reach(out, int(np.count_nonzero(known)), int(np.count_nonzero(corners)), len(boxes))


def are_corners(parts: Sequence[Reach]) -> npt.NDArray[np.int64]:
    """What `sticking_out` says of all boxes, from what was counted of one part after the other."""
    known, corners = sum(part.known for part in parts), sum(part.corners for part in parts)
    starts = np.cumsum([0, *(part.boxes for part in parts)])
    out = np.concatenate([part.out + start for part, start in zip(parts, starts[:-1], strict=True)])
    many = len(out) >= max(3, 0.2 * known)
    return out if many and corners >= 0.99 * known else out[:0]
