"""Images of the data set as small JPEGs: with boxes, with heat maps, cut out."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ld_hub.analysis.page import Picture
from ld_hub.analysis.plots import heat_colors
from ld_hub.drawing import Color, draw_detections

Floats = npt.NDArray[np.float64]

SIDE = 400  # px of the longer side of a picture with boxes
SMALL = 288  # px of the longer side of a heat map
CUT = 360  # px of the longer side of a cut-out
QUALITY = 80


def jpeg(image: Image.Image, alt: str) -> Picture:
    """An image, encoded."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return Picture(stream.getvalue(), "jpeg", image.width, image.height, alt)


def fit(image: Image.Image, side: int = SMALL) -> Image.Image:
    """An image whose longer side has `side` px."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def with_boxes(
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    alt: str,
    *,
    texts: Sequence[str] | None = None,
    colors: Sequence[Color] | None = None,
) -> Picture:
    """An image with boxes drawn on it.

    Args:
        image: Of the data set.
        boxes: xyxy px of `image`; the last one is drawn first.
        labels: 0..C-1; they give the colours where `colors` does not.
        alt: What it shows.
        texts: What stands at each box; None writes nothing.
        colors: RGB.
    """
    small = fit(image, SIDE)  # before drawing, so that lines and letters have one size on all pictures
    across, down = small.width / image.width, small.height / image.height
    scaled = [[x1 * across, y1 * down, x2 * across, y2 * down] for x1, y1, x2, y2 in boxes]
    ranks = [float(-k) for k in range(len(boxes))]
    words = [""] * len(boxes) if texts is None else texts
    return jpeg(draw_detections(small, scaled, labels, ranks, scale=1, colors=colors, texts=words), alt)


def heat_over(image: Image.Image, cells: Floats, stride: float, largest: float, alt: str) -> Picture:
    """A heat map over a faded image.

    Args:
        image: Of the size that the map refers to, times any factor.
        cells: ``(h, w)`` values; the first cell lies on the top left corner.
        stride: px of `image` that a cell covers.
        largest: Value of the brightest colour.
        alt: What it shows.
    """
    size = (round(cells.shape[1] * stride), round(cells.shape[0] * stride))
    colors = Image.fromarray(heat_colors(cells, largest)).resize(size, Image.Resampling.NEAREST)
    strength = np.clip(cells / largest if largest > 0 else cells * 0, 0, 1)
    opacity = Image.fromarray((255 * (0.35 + 0.5 * strength)).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    whole = (0, 0, image.width, image.height)  # the last cells may reach over the edge
    grey = image.convert("L").convert("RGB")
    return jpeg(Image.composite(colors.crop(whole), grey, opacity.crop(whole)), alt)


def heat(cells: Floats, largest: float, shape: tuple[float, float], alt: str) -> Picture:
    """A heat map alone, stretched to the shape (height, width) of an image."""
    colors, factor = Image.fromarray(heat_colors(cells, largest)), SMALL / max(shape)
    size = (max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor)))
    return jpeg(colors.resize(size, Image.Resampling.NEAREST), alt)


def cut_out(
    image: Image.Image, truth: Sequence[float], boxes: Sequence[Sequence[float]], colors: Sequence[str], alt: str
) -> Picture:
    """The surroundings of an object, with its true box (white) and those of detectors in their colours.

    Args:
        image: Of the data set.
        truth: xyxy px.
        boxes: xyxy px.
        colors: One for each box.
        alt: What it shows.
    """
    reach = np.array([truth, *boxes], dtype=float)
    low, high = reach[:, :2].min(axis=0), reach[:, 2:].max(axis=0)
    margin = 0.35 * float((high - low).max()) + 4
    left, top = (int(v) for v in np.maximum(low - margin, 0))
    right, bottom = (int(v) for v in np.minimum(high + margin, image.size))
    part = image.convert("RGB").crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    big = fit(part, CUT)
    draw = ImageDraw.Draw(big)
    factor = CUT / max(part.size)
    for box, color in zip((truth, *boxes), ("#ffffff", *colors), strict=True):
        x1, y1, x2, y2 = ((side - origin) * factor for side, origin in zip(box, (left, top) * 2, strict=True))
        place = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        draw.rectangle((place[0] - 1, place[1] - 1, place[2] + 1, place[3] + 1), outline="#000000", width=5)
        draw.rectangle(place, outline=color, width=3)
    return jpeg(big, alt)
