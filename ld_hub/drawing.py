"""Pictures of detections, with Pillow alone: boxes with labels, and sheets of pictures side by side."""

from __future__ import annotations

import colorsys
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ld_hub.errors import ConfigError

Color = tuple[int, int, int]
Rect = tuple[int, int, int, int]

READABLE_SIDE = 448  # px; pictures whose longer side is shorter are enlarged before drawing
# Lines and letters need more than Pillow's defaults, which suit photographs.
QUALITY: dict[str, dict[str, int]] = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 88}}
GOLDEN_RATIO = 0.618033988749895  # turning the hue by it keeps any run of classes far apart on the colour wheel
# Fonts that know more scripts than Pillow's own, tried by name for labels outside ASCII.
WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf")


def class_color(label: int) -> Color:
    """RGB colour of a class: always the same, and far from the colours of the classes next to it."""
    hue = (0.02 + label * GOLDEN_RATIO) % 1.0
    # Hues come close again after 5, 8, 13, 21 classes; those then differ in lightness.
    lightness, saturation = ((0.52, 0.95), (0.38, 0.90), (0.66, 0.90))[(label + label // 16) % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_color(background: Color) -> Color:
    """Black or white, whichever contrasts more with `background` (WCAG relative luminance)."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.18 else (255, 255, 255)


def draw_detections(
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    scores: Sequence[float] | None = None,
    *,
    label_names: Sequence[str] | None = None,
    scale: int | None = None,
    colors: Sequence[Color] | None = None,
    texts: Sequence[str] | None = None,
    font_size: int | None = None,
) -> Image.Image:
    """Draw boxes and labels on a copy of an image.

    Line width and font follow the size of the picture. The best detection is drawn last, on top; its label also
    chooses its place first, and labels avoid each other where they can.

    Args:
        image: Any Pillow image.
        boxes: K boxes xyxy px of `image`; they may reach beyond it.
        labels: K class indices; they choose the colours.
        scores: K scores in 0..1, written as percent; None for ground truth.
        label_names: Names of the classes; None writes the indices.
        scale: Whole factor to enlarge the picture by; None enlarges small images until labels are readable.
        colors: K RGB colours instead of those of the classes.
        texts: K texts instead of name and score; an empty one writes nothing.
        font_size: px of the labels' letters in the new picture; None takes what suits its size.

    Returns:
        A new RGB picture, `scale` times as large as `image`.

    Raises:
        ConfigError: If boxes, labels and scores differ in number, or `scale` is below 1.
    """
    if len(boxes) != len(labels) or (scores is not None and len(scores) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(labels)} labels, {'no' if scores is None else len(scores)} scores"
        raise ConfigError(f"Drawing needs as many labels and scores as boxes; found {counts}.")
    if scale is not None and scale < 1:
        raise ConfigError(f"scale is a whole factor of at least 1; found {scale}.")
    factor = -(-READABLE_SIDE // max(image.size)) if scale is None else int(scale)
    canvas = image.convert("RGB")
    if factor > 1:
        canvas = canvas.resize((canvas.width * factor, canvas.height * factor), Image.Resampling.BICUBIC)
    elif canvas is image:
        canvas = image.copy()
    pen = _Pen.for_picture(canvas)
    pen = pen if font_size is None else replace(pen, font_size=font_size)
    order = range(len(boxes)) if scores is None else sorted(range(len(boxes)), key=lambda k: scores[k])
    rects = {k: rect for k in order if (rect := _visible(boxes[k], factor, canvas.size)) is not None}
    hues = [class_color(label) for label in labels] if colors is None else colors
    for k, rect in rects.items():
        pen.box(rect, hues[k])
    words = _texts(labels, scores, label_names) if texts is None else texts
    tags: list[tuple[Rect, str, Color]] = []
    for k in reversed(rects):
        if words[k]:
            tags.append((pen.place(words[k], rects[k], [tag[0] for tag in tags]), words[k], hues[k]))
    for where, text, color in reversed(tags):
        pen.tag(where, text, color)
    return canvas


def _texts(labels: Sequence[int], scores: Sequence[float] | None, names: Sequence[str] | None) -> list[str]:
    """Name and score of each detection."""
    known = [str(label) if names is None else names[label] for label in labels]
    return known if scores is None else [f"{n} {_percent(score)}" for n, score in zip(known, scores, strict=True)]


def _percent(score: float) -> str:
    return f"{score:.0%}" if math.isfinite(score) else "?"


def _visible(box: Sequence[float], factor: int, size: tuple[int, int]) -> Rect | None:
    """The part of a box inside the picture, in whole px of the enlarged picture; None where there is none."""
    x1, y1, x2, y2 = (float(side) * factor for side in box)
    if not all(abs(side) < 1e9 for side in (x1, y1, x2, y2)) or x2 < x1 or y2 < y1:
        return None  # NaN, infinite or inside out: nothing that could be drawn
    left, top, right, bottom = max(x1, 0.0), max(y1, 0.0), min(x2, size[0] - 1.0), min(y2, size[1] - 1.0)
    if right < left or bottom < top:
        return None
    return round(left), round(top), round(right), round(bottom)


@lru_cache(maxsize=64)
def _font(size: int, wide: bool = False) -> Any:
    """Pillow's own font, or (`wide`) the first installed one that knows more scripts."""
    for name in WIDE_FONTS if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except (OSError, ImportError):
            continue
    try:
        return ImageFont.load_default(size)
    except ImportError:  # a Pillow without FreeType: the small bitmap font
        return ImageFont.load_default()


def _font_for(text: str, size: int) -> Any:
    return _font(size, wide=any(ord(letter) > 0x7E for letter in text))


def _drawable(text: str, font: Any) -> str:
    """One line that `font` can draw: control characters and broken Unicode replaced."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    if isinstance(font, ImageFont.ImageFont):  # the bitmap font knows Latin-1 only
        return line.encode("latin-1", "replace").decode("latin-1")
    return line.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class _Pen:
    """Draws on one picture, with sizes that suit it (all in px)."""

    draw: ImageDraw.ImageDraw
    size: tuple[int, int]
    line: int
    font_size: int

    @classmethod
    def for_picture(cls, canvas: Image.Image) -> _Pen:
        mean_side = (canvas.width + canvas.height) / 2
        return cls(ImageDraw.Draw(canvas), canvas.size, max(2, round(mean_side / 320)), max(12, round(mean_side / 58)))

    def box(self, rect: Rect, color: Color) -> None:
        """Outline a box: its colour inside a thin dark line, so that it shows on any background."""
        left, top, right, bottom = rect
        edge = (left - 1, top - 1, right + 1, bottom + 1)
        self.draw.rectangle(edge, outline=(0, 0, 0), width=1)
        self.draw.rectangle(rect, outline=color, width=self.line)

    def place(self, text: str, rect: Rect, taken: Sequence[Rect]) -> Rect:
        """Find room for a label: above the box, below it, or in its corners; always inside the picture."""
        font = _font_for(text, self.font_size)
        box = self.draw.textbbox((0, 0), _drawable(text, font), font=font)
        pad = max(2, self.font_size // 5)
        wide, high = int(box[2] - box[0]) + 2 * pad, self.font_size + 2 * (pad // 2) + 2
        left, top, right, bottom = rect
        corners = [
            (left, top - high),
            (left + self.line, top + self.line),
            (left, bottom + 1),
            (right - wide, top - high),
            (right - wide - self.line, bottom - high - self.line),
            (right - wide, bottom + 1),
            (left + self.line, bottom - high - self.line),
        ]
        spots = [self._inside(x, y, wide, high) for x, y in corners]
        fitting = [spot for spot, corner in zip(spots, corners, strict=True) if spot[:2] == corner]
        spots = fitting + [spot for spot in spots if spot not in fitting]
        return min(spots, key=lambda spot: sum(_shared_area(spot, other) for other in taken))

    def _inside(self, x: int, y: int, wide: int, high: int) -> Rect:
        x = max(0, min(x, self.size[0] - wide))
        y = max(0, min(y, self.size[1] - high))
        return x, y, x + wide, y + high

    def tag(self, where: Rect, text: str, color: Color) -> None:
        """Write a label on a filled background."""
        font = _font_for(text, self.font_size)
        self.draw.rectangle((where[0], where[1], where[2] - 1, where[3] - 1), fill=color)
        x, y = where[0] + max(2, self.font_size // 5), (where[1] + where[3]) / 2
        line = _drawable(text, font)
        if isinstance(font, ImageFont.ImageFont):  # bitmap fonts have no anchors
            self.draw.text((x, where[1] + 1), line, fill=text_color(color), font=font)
        else:
            self.draw.text((x, y), line, fill=text_color(color), font=font, anchor="lm")


def _shared_area(a: Rect, b: Rect) -> int:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    *,
    color: Color = (27, 31, 36),
    width: float | None = None,
    anchor: str = "la",
) -> float:
    """Write text, broken into lines between words where a width is given.

    Args:
        draw: Of the picture.
        place: x, y px of the first line.
        text: May hold line breaks where a width is given.
        size: px.
        color: RGB.
        width: px that a line may have; a single word that is longer stays whole.
        anchor: What of the first line stands at `place`, as Pillow's anchors say: ``"la"`` its left top.

    Returns:
        The y where a next line would begin.
    """
    font, y = _font_for(text, size), place[1]
    for line in [text] if width is None else _lines(text, font, draw, width):
        # bitmap fonts have no anchors
        where = None if isinstance(font, ImageFont.ImageFont) else anchor
        draw.text((place[0], y), _drawable(line, font), fill=color, font=font, anchor=where)
        y += round(1.3 * size)
    return y


def text_width(text: str, size: int) -> float:
    """Width in px of a text in one line, as `write` draws it."""
    font = _font_for(text, size)
    return float(font.getlength(_drawable(text, font)))


def _lines(text: str, font: Any, draw: ImageDraw.ImageDraw, width: float) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and draw.textlength(_drawable(longer, font), font=font) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def contact_sheet(
    pictures: Sequence[Image.Image],
    titles: Sequence[str] = (),
    columns: int = 4,
    *,
    gap: int = 12,
    background: Color = (255, 255, 255),
) -> Image.Image:
    """Put pictures on one sheet, row by row, each centred in a cell as large as the largest picture.

    Args:
        pictures: At least one, of any sizes.
        titles: One per picture; or one per column, written above the first row; or none.
        columns: Cells per row.
        gap: Empty px around the cells.
        background: RGB of the paper.

    Returns:
        The sheet.

    Raises:
        ConfigError: If there is no picture, `columns` is below 1, or the number of titles fits neither rule.
    """
    if not pictures or columns < 1:
        raise ConfigError(f"A contact sheet needs pictures and columns; found {len(pictures)} and {columns}.")
    columns = min(columns, len(pictures))
    heads = len(titles) == columns and len(pictures) != columns
    if titles and not heads and len(titles) != len(pictures):
        raise ConfigError(
            f"A contact sheet takes one title per picture ({len(pictures)}) or per column ({columns}); "
            f"found {len(titles)}."
        )
    wide, high = max(p.width for p in pictures), max(p.height for p in pictures)
    size = max(13, round(wide / 24))
    room = round(size * 1.7) if titles else 0
    rows = -(-len(pictures) // columns)
    step = high + gap + (0 if heads else room)
    sheet = Image.new("RGB", (gap + columns * (wide + gap), gap + rows * step + (room if heads else 0)), background)
    draw = ImageDraw.Draw(sheet)
    for k, picture in enumerate(pictures):
        x, y = gap + k % columns * (wide + gap), gap + k // columns * step
        if titles and (not heads or k < columns):
            _title(draw, titles[k], (x, y, x + wide, y + room), size, text_color(background))
        y += room
        sheet.paste(picture.convert("RGB"), (x + (wide - picture.width) // 2, y + (high - picture.height) // 2))
    return sheet


def side_by_side(pictures: Sequence[Image.Image], titles: Sequence[str] = (), **options: Any) -> Image.Image:
    """One row of pictures; see `contact_sheet` for arguments and errors."""
    return contact_sheet(pictures, titles, columns=max(1, len(pictures)), **options)


def _title(draw: ImageDraw.ImageDraw, text: str, where: Rect, size: int, color: Color) -> None:
    """Write a title in the middle of its room; one that is too long is cut."""
    font = _font_for(text, size)
    line, kept = _drawable(text, font), len(text)
    while kept > 1 and draw.textlength(line, font=font) > where[2] - where[0]:
        kept -= 1
        line = _drawable(text[:kept].rstrip() + "...", font)
    x = where[0] + (where[2] - where[0] - draw.textlength(line, font=font)) / 2
    draw.text((x, where[1] + size * 0.2), line, fill=color, font=font)


def picture_format(path: str | Path) -> str:
    """The format that a path's suffix chooses, by Pillow's name.

    Raises:
        ConfigError: If no picture format has this suffix.
    """
    path = Path(path)
    form = Image.registered_extensions().get(path.suffix.lower())
    if form is None or form not in Image.SAVE:
        raise ConfigError(f"{path}: '{path.suffix}' is no picture format Pillow writes; use .png, .jpg or .webp.")
    return form


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Write a picture beside its final place, then move it there, so that a reader never sees half of it.

    Args:
        picture: What to write.
        path: Where to; the suffix chooses the format, missing directories are made.

    Returns:
        `path` as a Path.

    Raises:
        ConfigError: If no picture format has this suffix.
    """
    path, form = Path(path), picture_format(path)
    options = QUALITY.get(form, {})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem[:80]}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        with open(beside, "wb") as file:
            picture.save(file, format=form, **options)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
