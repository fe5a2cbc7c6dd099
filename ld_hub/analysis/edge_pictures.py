"""The edges of one object as a detector sees them: a cut-out with the distributions along its sides, with Pillow alone.

Distributions lie where their bins are on the photograph, so that a bar's place is an answer to "where is the edge?".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ld_hub.analysis.ideas import Edges
from ld_hub.drawing import Color, text_width, write

Floats = npt.NDArray[np.float64]
View = tuple[float, float, float, float]  # x1, y1, x2, y2 px of the photograph

CUT, BARS, ROOM, BETWEEN = 330, 120, 116, 8  # px: longest side of the cut-out, longest bar, for words, between the two
SMALL = 16  # px of letters
LEAST = 0.02  # bins with less probability do not widen the view
MARGIN = 0.12  # of the view's sides, around everything to be seen
INK, LINE, PAPER = (27, 31, 36), (200, 206, 212), (255, 255, 255)
PLAIN = "{} predicts edges as four plain numbers, without bins: there are no distributions to show."


def view_of(box: Floats, edges: Sequence[Edges], size: tuple[int, int]) -> View:
    """The part of a photograph on which an object's box, the detectors' boxes and their bins are to be seen.

    It reaches at most as far beyond the object's box as that is wide and high, whatever far bins say.

    Args:
        box: ``(4,)`` xyxy px of the object.
        edges: Of the detectors.
        size: Width and height of the photograph.
    """
    low, high = box[:2].copy(), box[2:].copy()
    for one in edges:
        low, high = np.minimum(low, one.box[:2]), np.maximum(high, one.box[2:])
        if one.bins is not None:
            reach = [float(np.flatnonzero(side > LEAST).max(initial=0)) + 0.5 for side in one.bins]
            center, bin_ = np.array(one.center), np.array(one.bin)
            low, high = np.minimum(low, center - bin_ * reach[:2]), np.maximum(high, center + bin_ * reach[2:])
    side = box[2:] - box[:2]
    low, high = np.maximum(low, box[:2] - side), np.minimum(high, box[2:] + side)
    margin = MARGIN * (high - low)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, size)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class _Frame:
    """Where a view lies on a panel.

    Attributes:
        view: The part of the photograph.
        scale: px of the panel per px of the photograph.
    """

    view: View
    scale: float

    @classmethod
    def of(cls, view: View) -> _Frame:
        return cls(view, CUT / max(view[2] - view[0], view[3] - view[1]))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the cut-out in px of the panel."""
        return round((self.view[2] - self.view[0]) * self.scale), round((self.view[3] - self.view[1]) * self.scale)

    def place(self, value: float, axis: int) -> float:
        """From x (axis 0) or y (axis 1) of the photograph to px of the panel, held within the cut-out."""
        return min(max((value - self.view[axis]) * self.scale, 0.0), self.size[axis] - 1.0)


def panel(image: Image.Image, box: Floats, edges: Edges, view: View, color: Color) -> Image.Image:
    """One detector's cut-out with its four distributions.

    Args:
        image: The photograph.
        box: ``(4,)`` the object's own box, xyxy px.
        edges: What the detector says.
        view: Of `view_of`, the same for all detectors.
        color: The detector's.
    """
    frame = _Frame.of(view)
    wide, high = frame.size
    below = 0 if edges.bins is None else BETWEEN + BARS + 2 * SMALL
    sheet = Image.new("RGB", (CUT + BETWEEN + BARS + ROOM, high + below), PAPER)
    sheet.paste(image.resize((wide, high), Image.Resampling.LANCZOS, box=view), (0, 0))
    draw = ImageDraw.Draw(sheet)
    _boxes(draw, frame, box, edges, color)
    if edges.bins is None:
        write(draw, (wide + 2 * BETWEEN, 0), PLAIN.format(edges.name), SMALL, width=BARS + ROOM - 2 * BETWEEN)
        return sheet
    _along_x(draw, frame, box, edges, color)
    _along_y(draw, frame, box, edges, color)
    return sheet


def _boxes(draw: ImageDraw.ImageDraw, frame: _Frame, box: Floats, edges: Edges, color: Color) -> None:
    """The object's box dashed, the detector's solid, and a cross at the place that distances are counted from."""
    left, right = sorted(frame.place(float(value), 0) for value in edges.box[[0, 2]])
    top, bottom = sorted(frame.place(float(value), 1) for value in edges.box[[1, 3]])
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=PAPER, width=5)
    draw.rectangle((left, top, right, bottom), outline=color, width=3)
    x1, y1, x2, y2 = (frame.place(float(value), k % 2) for k, value in enumerate(box))
    for start, end in (((x1, y1), (x2, y1)), ((x1, y2), (x2, y2)), ((x1, y1), (x1, y2)), ((x2, y1), (x2, y2))):
        _dashed(draw, start, end)
    x, y = frame.place(edges.center[0], 0), frame.place(edges.center[1], 1)
    for width, ink in ((5, PAPER), (3, INK)):
        draw.line((x - 8, y, x + 8, y), fill=ink, width=width)
        draw.line((x, y - 8, x, y + 8), fill=ink, width=width)


def _along_x(draw: ImageDraw.ImageDraw, frame: _Frame, box: Floats, edges: Edges, color: Color) -> None:
    """Left and right below the cut-out: bars that rise from a base line."""
    wide, high = frame.size
    base, words = high + BETWEEN + BARS, []
    for share in (0.5, 1.0):
        draw.line((0, base - share * BARS, wide, base - share * BARS), fill=LINE)
    for side, sign, name in ((0, -1, "left"), (2, 1, "right")):
        for low, high_, probability in _bars(frame, edges, side, sign, axis=0):
            draw.rectangle((low, base - probability * BARS, high_, base), fill=color)
        x, true = frame.place(float(edges.box[side]), 0), frame.place(float(box[side]), 0)
        _dashed(draw, (true, high + BETWEEN), (true, base))
        draw.line((x, high, x, base + 5), fill=INK, width=2)
        words.append((x, f"{name} {edges.box[side]:.1f}"))
    draw.line((0, base, wide, base), fill=INK)
    (left, first), (right, second) = words
    # beside each other whatever the distance of the two edges, within the panel
    left = max(text_width(first, SMALL), left)
    right = max(left + 12, min(right, CUT + BARS - text_width(second, SMALL)))
    write(draw, (left, base + 8), first, SMALL, anchor="ra")
    write(draw, (right, base + 8), second, SMALL)
    write(draw, (wide + BETWEEN, base - BARS), "100 %", SMALL - 2, color=(89, 99, 110))
    write(draw, (wide + BETWEEN, base - BARS / 2), "50 %", SMALL - 2, color=(89, 99, 110), anchor="lm")


def _along_y(draw: ImageDraw.ImageDraw, frame: _Frame, box: Floats, edges: Edges, color: Color) -> None:
    """Top and bottom beside the cut-out: bars to the right of a base line."""
    wide, high = frame.size
    base, places = wide + BETWEEN, []
    for share in (0.5, 1.0):
        draw.line((base + share * BARS, 0, base + share * BARS, high), fill=LINE)
    for side, sign in ((1, -1), (3, 1)):
        for low, high_, probability in _bars(frame, edges, side, sign, axis=1):
            draw.rectangle((base, low, base + probability * BARS, high_), fill=color)
        y, true = frame.place(float(edges.box[side]), 1), frame.place(float(box[side]), 1)
        _dashed(draw, (base, true), (base + BARS, true))
        draw.line((wide, y, base + BARS + 4, y), fill=INK, width=2)
        places.append(y)
    draw.line((base, 0, base, high), fill=INK)
    top = max(SMALL / 2, min(places[0], high - 1.5 * SMALL))
    bottom = min(high - SMALL / 2, max(places[1], top + 1.2 * SMALL))
    for y, side, name in ((top, 1, "top"), (bottom, 3, "bottom")):
        write(draw, (base + BARS + 8, y), f"{name} {edges.box[side]:.1f}", SMALL, anchor="lm")


def _bars(frame: _Frame, edges: Edges, side: int, sign: int, axis: int) -> list[tuple[float, float, float]]:
    """From, to (px of the panel) and probability of the bins of one edge that are within the view."""
    assert edges.bins is not None  # noqa: S101  # the caller looked
    found = []
    for number, probability in enumerate(edges.bins[side]):
        middle = edges.center[axis] + sign * number * edges.bin[axis]
        low, high = sorted(middle + half * edges.bin[axis] / 2 for half in (-1, 1))
        if high <= frame.view[axis] or low >= frame.view[axis + 2]:
            continue
        gap = 1 if edges.bin[axis] * frame.scale > 6 else 0
        found.append((frame.place(low, axis) + gap, max(frame.place(high, axis) - gap, 0), float(probability)))
    return [(low, max(low, high), probability) for low, high, probability in found]


def _dashed(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], dash: float = 7) -> None:
    """A dashed line, black with a light border, so that it is seen on any background."""
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    if length < 1:
        return
    step = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
    for width, color in ((4, PAPER), (2, INK)):
        for at in np.arange(0, length, 2 * dash):
            ends = (at, min(at + dash, length))
            draw.line([(start[0] + d * step[0], start[1] + d * step[1]) for d in ends], fill=color, width=width)
