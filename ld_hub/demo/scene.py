"""Painting of the demo images: textured backgrounds, overlapping shapes, edges that nobody can place exactly.

Everything is an array operation on one image of S x S px; a random generator per image decides. Colours are 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array: TypeAlias = NDArray[np.float32]
Random: TypeAlias = np.random.Generator

VISIBLE = 0.5  # an object's box is drawn around the pixels that it fills at least by this part
MIN_VISIBLE_PIXELS = 12  # below this nothing can be recognised, and nothing is annotated


@dataclass(frozen=True, eq=False)
class Scene:
    """One image and its ground truth.

    Attributes:
        pixels: ``(S, S, 3)`` uint8 RGB.
        boxes: ``(G, 4)`` xyxy px, whole numbers.
        labels: ``(G,)`` indices into `CLASSES`.
        areas: ``(G,)`` visible pixels.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    labels: NDArray[np.int64]
    areas: NDArray[np.int64]


@dataclass(frozen=True)
class _Thing:
    """An object before it is painted; lengths in px."""

    label: int
    x: float
    y: float
    radius: float
    stretch: float
    angle: float
    softness: float


def paint_scene(random: Random, size: int) -> Scene:
    """Paint one image.

    Objects are painted from back to front. The share of a pixel that an object fills is its own soft coverage times
    what the things in front of it let through; its box is the smallest around the pixels where that share is at least
    one half.

    Args:
        random: Decides everything.
        size: S in px.
    """
    canvas = _background(random, size)
    _clutter(canvas, random)
    things = _place(random, size)
    shares = np.zeros((len(things), size, size), dtype=np.float32)
    for i, thing in enumerate(things):
        _paint(canvas, shares, i, thing, random)
    if random.random() < 0.4:
        _veil(canvas, shares, random)
    pixels = _photograph(canvas, random)
    boxes, labels, areas = [], [], []
    for thing, share in zip(things, shares, strict=True):
        seen = share >= VISIBLE
        area = int(seen.sum())
        if area < MIN_VISIBLE_PIXELS:
            continue
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        labels.append(thing.label)
        areas.append(area)
    return Scene(
        pixels, np.array(boxes, np.int64).reshape(-1, 4), np.array(labels, np.int64), np.array(areas, np.int64)
    )


# Shapes: signed distance, in units of the radius, to the outline at (u, v); negative inside.


def _disc(u: Array, v: Array) -> Array:
    return _f32(np.hypot(u, v) - 0.92)


def _square(u: Array, v: Array) -> Array:
    return _f32(np.maximum(np.abs(u), np.abs(v)) - 0.78)


def _triangle(u: Array, v: Array) -> Array:
    slanted = np.abs(u) * 0.866 - v * 0.5
    return _f32(np.maximum(slanted, v) - 0.52)


def _star(u: Array, v: Array) -> Array:
    fifth = math.pi / 5
    fold = np.abs(np.mod(np.arctan2(u, -v), 2 * fifth) - fifth)  # pi / 5 on a point of the star, 0 between two
    rho = np.hypot(u, v)
    inner, outer = 0.42, 1.05
    # The edge runs from the notch at (inner, 0) to the point at outer * (cos, sin)(pi / 5).
    dx, dy = outer * math.cos(fifth) - inner, outer * math.sin(fifth)
    length = math.hypot(dx, dy)
    return _f32(((rho * np.cos(fold) - inner) * dy - rho * np.sin(fold) * dx) / length)


def _ring(u: Array, v: Array) -> Array:
    return _f32(np.abs(np.hypot(u, v) - 0.7) - 0.24)


def _cross(u: Array, v: Array) -> Array:
    a, b = np.abs(u), np.abs(v)
    return _f32(np.maximum(np.maximum(a, b) - 0.95, np.minimum(a, b) - 0.3))


_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
CLASSES: tuple[str, ...] = tuple(_SHAPES)
# Colours that classes tend to: a hint, no proof, as with real things.
_TYPICAL: Array = np.array(
    [[0.9, 0.25, 0.2], [0.25, 0.35, 0.9], [0.95, 0.85, 0.2], [0.85, 0.3, 0.8], [0.2, 0.75, 0.35], [0.3, 0.85, 0.9]],
    dtype=np.float32,
)


def _place(random: Random, size: int) -> list[_Thing]:
    """One to six objects, larger ones rather at the back; they may overlap and leave the image."""
    unit = size / 128
    things: list[_Thing] = []
    for _ in range(int(random.integers(1, 7))):
        radius = unit * math.exp(random.uniform(math.log(10), math.log(31)))
        for _ in range(8):
            x, y = random.uniform(0.04, 0.96, 2) * size
            if all(math.hypot(x - o.x, y - o.y) > 0.6 * (radius + o.radius) for o in things):
                things.append(
                    _Thing(
                        label=int(random.integers(len(CLASSES))),
                        x=x,
                        y=y,
                        radius=radius,
                        stretch=math.exp(random.uniform(-0.22, 0.22)),
                        angle=random.uniform(0, 2 * math.pi),
                        softness=unit * random.choice([0.6, 1.2, 2.5, 4.0], p=[0.3, 0.3, 0.25, 0.15]),
                    )
                )
                break
    depth = [thing.radius * math.exp(random.uniform(-0.4, 0.4)) for thing in things]
    return [things[i] for i in np.argsort(depth)[::-1]]


def _paint(canvas: Array, shares: Array, index: int, thing: _Thing, random: Random) -> None:
    """Paint an object onto the canvas and note which share of each pixel it fills."""
    size = canvas.shape[0]
    reach = thing.radius * 1.35 + thing.softness + 2
    left, right = max(0, int(thing.x - reach)), min(size, int(thing.x + reach) + 1)
    top, bottom = max(0, int(thing.y - reach)), min(size, int(thing.y + reach) + 1)
    window = (slice(top, bottom), slice(left, right))
    dx = (np.arange(left, right, dtype=np.float32) + 0.5 - np.float32(thing.x))[None, :] / np.float32(thing.radius)
    dy = (np.arange(top, bottom, dtype=np.float32) + 0.5 - np.float32(thing.y))[:, None] / np.float32(thing.radius)
    cos, sin = np.float32(math.cos(thing.angle)), np.float32(math.sin(thing.angle))
    stretch = np.float32(thing.stretch)
    u, v = (cos * dx + sin * dy) * stretch, (cos * dy - sin * dx) / stretch
    outline = _SHAPES[CLASSES[thing.label]](u, v)
    wobble = _noise(random, size, 12, window) - 0.5
    distance = (outline + wobble * np.float32(random.uniform(0, 0.16))) * np.float32(thing.radius)
    cover = _soft(-distance, thing.softness)
    if random.random() < 0.35:  # fades away towards one side
        direction = random.uniform(0, 2 * math.pi)
        along = u * np.float32(math.cos(direction)) + v * np.float32(math.sin(direction))
        cover = cover * _soft(np.float32(random.uniform(0.25, 0.6)) - along, random.uniform(0.3, 0.9))
    cover = cover * np.float32(random.uniform(0.88, 1.0))
    shade = canvas[window].mean(axis=(0, 1))
    skin = _skin(random, thing.label, u, v, _noise(random, size, 24, window), shade)
    shadow = np.zeros_like(cover)
    shadow[2:, 2:] = cover[:-2, :-2] * np.float32(0.45)
    canvas[window] = canvas[window] * ((1 - shadow) * (1 - cover))[..., None] + skin * cover[..., None]
    shares[:index, top:bottom, left:right] *= 1 - cover
    shares[index, top:bottom, left:right] = cover


def _skin(random: Random, label: int, u: Array, v: Array, mottle: Array, around: Array) -> Array:
    """Colour and texture of an object, ``(h, w, 3)``: apart from what is around it, and rather as its class has it."""
    first = _colour(random, away_from=around)
    first += (_TYPICAL[label] - first) * np.float32(random.uniform(0, 0.9))
    second = np.clip(first + random.uniform(-0.35, 0.35, 3), 0, 1).astype(np.float32)
    kind = random.integers(5)
    if kind == 0:
        mix = mottle
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sin(u * np.float32(random.uniform(6, 16)) + v)
    elif kind == 2:
        mix = 0.5 + 0.5 * np.sign(np.sin(u * np.float32(7)) * np.sin(v * np.float32(7)))
    elif kind == 3:
        mix = np.hypot(u, v).clip(0, 1)
    else:
        mix = np.full_like(u, 0.15)
    light = 1 + np.float32(0.28) * (mottle - 0.5) - np.float32(0.14) * (u + v)  # uneven light on its surface
    return _f32((first + (second - first) * mix[..., None]) * light[..., None])


def _veil(canvas: Array, shares: Array, random: Random) -> None:
    """Hide parts of everything behind a strand of the colours around: a soft band or a bank of mist."""
    size = canvas.shape[0]
    if random.random() < 0.5:
        angle, width = random.uniform(0, math.pi), random.uniform(3, 9) * size / 128
        grid = np.arange(size, dtype=np.float32) - np.float32(random.uniform(0.25, 0.75) * size)
        across = grid[None, :] * np.float32(math.cos(angle)) + grid[:, None] * np.float32(math.sin(angle))
        bend = (_noise(random, size, 4) - 0.5) * np.float32(size / 5)
        cover = _soft(np.float32(width / 2) - np.abs(across + bend), 2.5) * np.float32(0.95)
    else:
        # Thin enough that what lies behind stays above VISIBLE: nothing that can be seen goes without a box.
        cover = ((_noise(random, size, 4) - np.float32(0.55)) * 4).clip(0, np.float32(0.42))
    tint = canvas.reshape(-1, 3)[random.integers(size * size, size=16)].mean(axis=0)
    texture = np.clip(tint + random.normal(0, 0.05, 3), 0, 1).astype(np.float32) * (
        np.float32(0.8) + np.float32(0.4) * _noise(random, size, 32)[..., None]
    )
    canvas += (texture - canvas) * cover[..., None]
    shares *= 1 - cover


def _background(random: Random, size: int) -> Array:
    """``(S, S, 3)``: two or three colours mixed by one of six textures, under uneven light."""
    grid = np.arange(size, dtype=np.float32) / np.float32(size)
    x, y = grid[None, :], grid[:, None]
    angle, waves = random.uniform(0, math.pi), random.uniform(3, 14)
    bend = _noise(random, size, 4)
    along = (x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))) * np.float32(2 * math.pi * waves)
    across = (y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))) * np.float32(2 * math.pi * waves)
    kind = random.integers(6)
    if kind == 0:  # clouds
        mix = 0.6 * bend + 0.3 * _noise(random, size, 10) + 0.1 * _noise(random, size, 28)
    elif kind == 1:  # bent stripes
        mix = 0.5 + 0.5 * np.sin(along + 7 * bend)
    elif kind == 2:  # tiles
        mix = 0.5 + 0.45 * np.tanh(3 * np.sin(along + 2 * bend) * np.sin(across))
    elif kind == 3:  # grain on a slope
        mix = 0.35 * (x + y) + 0.3 * _noise(random, size, 48)
    elif kind == 4:  # pebbles
        mix = np.abs(_noise(random, size, 14) - 0.5) * 2 + 0.3 * bend
    else:  # weave
        mix = 0.5 + 0.25 * np.sin(along * 2) + 0.25 * np.sin(across * 2) * bend
    first = _colour(random)
    first = first.mean() + (first - first.mean()) * np.float32(random.uniform(0.2, 0.8))  # duller than the objects
    second = np.clip(first + random.uniform(-0.2, 0.2) + random.uniform(-0.2, 0.2, 3), 0, 1).astype(np.float32)
    light = np.float32(0.75) + np.float32(0.5) * _noise(random, size, 3)
    return _f32((first + (second - first) * mix[..., None].clip(0, 1)) * light[..., None])


def _clutter(canvas: Array, random: Random) -> None:
    """Patches of other colour with irregular outlines, which are no objects."""
    size = canvas.shape[0]
    for _ in range(int(random.integers(0, 3))):
        level = np.float32(random.uniform(0.62, 0.75))
        cover = _soft((_noise(random, size, int(random.integers(4, 9))) - level) * size, random.uniform(2, 14))
        colour = np.clip(canvas.mean(axis=(0, 1)) + random.uniform(-0.3, 0.3, 3), 0, 1).astype(np.float32)
        texture = colour * (np.float32(0.8) + np.float32(0.4) * _noise(random, size, 20)[..., None])
        canvas += (texture - canvas) * (cover * np.float32(random.uniform(0.4, 0.9)))[..., None]


def _photograph(canvas: Array, random: Random) -> NDArray[np.uint8]:
    """Exposure and sensor noise, and 8 bit."""
    noise = random.standard_normal(canvas.shape[:2], dtype=np.float32)[..., None] * np.float32(random.uniform(2, 9))
    exposed = canvas * np.float32(255 * random.uniform(0.8, 1.15)) + noise
    return np.asarray(exposed.clip(0, 255), dtype=np.uint8)


def _colour(random: Random, away_from: Array | None = None) -> Array:
    """A colour; the farthest of three from `away_from`, most of the time."""
    tries = random.uniform(0.08, 0.95, (3, 3)).astype(np.float32)
    if away_from is None or random.random() < 0.1:
        return _f32(tries[0])
    return _f32(tries[int(np.argmax(np.abs(tries - away_from).sum(axis=1)))])


def _soft(depth: Array, width: float) -> Array:
    """0 to 1 over `width` around depth 0, smoothly."""
    t = (depth / np.float32(width) + np.float32(0.5)).clip(0, 1)
    return _f32(t * t * (3 - 2 * t))


def _f32(values: NDArray[Any]) -> Array:
    return np.asarray(values, dtype=np.float32)


def _noise(random: Random, size: int, cells: int, window: tuple[slice, slice] | None = None) -> Array:
    """Smooth noise in about 0..1 with features of S / cells px: ``(S, S)``, or the part of it in a window.

    A bicubic enlargement by Pillow: a matrix product would be as short, but wakes the threads of the BLAS library.
    """
    values = random.random((cells + 2, cells + 2), dtype=np.float32)
    rows, columns = window or (slice(0, size), slice(0, size))
    left, top, right, bottom = (
        1 + edge * cells / size for edge in (columns.start, rows.start, columns.stop, rows.stop)
    )
    shape = columns.stop - columns.start, rows.stop - rows.start
    smooth = Image.fromarray(values).resize(shape, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.asarray(smooth)
