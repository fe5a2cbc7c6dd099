"""The ideas of distillation on one photograph as one picture, with Pillow alone.

From top to bottom: the photograph, who answers for what and where terms look, level by level, and an object's edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ld_hub.analysis.edge_pictures import panel, view_of
from ld_hub.analysis.ideas import Ideas, Level
from ld_hub.distillation import REGIONS
from ld_hub.drawing import Color, draw_detections, text_width, write
from ld_hub.structures.targets import BACKGROUND, IGNORED

Floats = npt.NDArray[np.float64]
Mark = tuple[int, int, Color, float]  # row and column of a cell, its colour and opacity 0..1

WIDTH, EDGE, GAP = 1200, 28, 8  # px: the picture, its margin, between small pictures
TITLE, BODY, SMALL = 27, 19, 17  # px of letters
PHOTO = (520, 400)  # px that the photograph may have
INK, QUIET, PAPER = (27, 31, 36), (89, 99, 110), (255, 255, 255)
# Told apart with any colour vision (Okabe and Ito); the number beside an object says the same.
OBJECTS: tuple[Color, ...] = (
    (230, 159, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
)  # fmt: skip
STUDENT, TEACHER = (0, 114, 178), (213, 94, 0)
RAMP = ((255, 226, 140), (246, 128, 44), (150, 0, 38))  # from little to much importance; lightness falls all along
IGNORED_COLOR = (120, 126, 132)

_REGION_WORDS = {
    "main": "cells that answer for an object",
    "vlr": "valuable localization region: cells a little too far off to answer, which still see an object's edges",
    "main+vlr": "main and vlr together",
    "all": "every cell of the photograph",
    "inside_gt": "cells whose centre lies in a box, on every level",
    "outside_gt": "cells whose centre lies in no box",
    "fine_grained": "cells that overlap a box at least half as well as the best one does",
    "confident": "cells where the teacher sees an object, with a score of at least 0.5",
    "gi": "general instances: up to ten cells of each level where student and teacher disagree most",
    "gi_batch": "the same as LD's code takes them, over a whole batch",
}


def draw_ideas(ideas: Ideas) -> Image.Image:
    """All panels, one below the other, on a sheet of `WIDTH` px."""
    parts = [_head(ideas), _owners(ideas)]
    if ideas.regions or ideas.left_out:
        parts.append(_regions(ideas))
    parts.append(_edges(ideas))
    return _stack([Image.new("RGB", (WIDTH, EDGE), PAPER), *parts])


def color_of_object(index: int) -> Color:
    """The colour of object number `index` in the photograph and in the cells that answer for it."""
    return OBJECTS[index % len(OBJECTS)]


def _head(ideas: Ideas) -> Image.Image:
    """The photograph with its objects, and how to read the rest."""
    one = ideas.photograph
    factor = min(PHOTO[0] / one.image.width, PHOTO[1] / one.image.height)
    small = _resized(one.image, factor)
    shown = draw_detections(
        small,
        (one.boxes * factor).tolist(),
        [0] * len(one),
        [float(-k) for k in range(len(one))],  # the first one is drawn last, on top
        scale=1,
        colors=[color_of_object(k) for k in range(len(one))],
        texts=[f"{k + 1} {name}" for k, name in enumerate(one.names)],
        font_size=SMALL,
    )
    sheet = Image.new("RGB", (WIDTH, 4 * PHOTO[1]), PAPER)
    sheet.paste(shown, (EDGE, 0))
    draw, x = ImageDraw.Draw(sheet), EDGE + shown.width + EDGE
    room = WIDTH - EDGE - x
    title = f"What {ideas.student} learns" + (f" from {ideas.teacher}" if ideas.teacher else "")
    y = write(draw, (x, 0), title, TITLE, width=room) + GAP
    size = (
        f"Photograph of {one.image.width} x {one.image.height} px; the detector sees it at {ideas.size[0]} x "
        f"{ideas.size[1]} px, in which cells are measured."
    )
    y = write(draw, (x, y), f"{size} {one.origin}", SMALL, width=room, color=QUIET) + GAP
    for text in _guide(ideas):
        y = write(draw, (x, y), text, BODY, width=room) + GAP
    return sheet.crop((0, 0, WIDTH, round(max(shown.height, y)) + EDGE))


def _guide(ideas: Ideas) -> list[str]:
    last = "3  How sure is each edge? The probabilities from which an edge is computed"
    return [
        "The detector predicts at each cell of some grids over the photograph: fine ones for small objects, coarse "
        "ones for large objects. Below, grid by grid:",
        "1  Who answers? Cells that are trained to detect an object",
        "2  Where does a teacher speak? Cells at which a distillation term compares student and teacher",
        f"{last}, student and teacher side by side" if ideas.teacher else last,
    ]


def _heading(title: str, text: str) -> Image.Image:
    """Title and sentence of a section."""
    sheet = Image.new("RGB", (WIDTH, 400), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.line((EDGE, 0, WIDTH - EDGE, 0), fill=(212, 218, 224), width=2)
    y = write(draw, (EDGE, 14), title, TITLE, width=WIDTH - 2 * EDGE) + 2
    y = write(draw, (EDGE, y), text, BODY, width=WIDTH - 2 * EDGE)
    return sheet.crop((0, 0, WIDTH, round(y) + GAP))


def _owners(ideas: Ideas) -> Image.Image:
    """Who answers for what."""
    text = "A coloured cell is trained to detect the object of its colour; all others are trained to see nothing there."
    if any((level == IGNORED).any() for level in ideas.owners):
        text += " Grey cells are too close to call, and take no part."
    colors = {k: (color_of_object(k), 0.85) for k in range(len(ideas.photograph))}
    colors[IGNORED] = (IGNORED_COLOR, 0.5)
    marks: list[list[Mark]] = [
        [(int(y), int(x), *colors[int(level[y, x])]) for y, x in np.argwhere(level != BACKGROUND)]
        for level in ideas.owners
    ]
    counts = [int((level >= 0).sum()) for level in ideas.owners]
    words = f"{sum(counts)} of {sum(level.size for level in ideas.owners)} cells answer for an object"
    return _stack([_heading("1  Who answers?", text), _row(ideas, "assignment", words, marks, counts)])


def _regions(ideas: Ideas) -> Image.Image:
    """Where terms look, one row of small pictures per region."""
    text = "The darker a cell, the more it counts in its row. A recipe says which of its terms looks where."
    rows = [_heading("2  Where does a teacher speak?", text), _scale()]
    for region in ideas.regions:
        largest = max(float(level.max(initial=0)) for level in region.importance)
        marks: list[list[Mark]] = []
        for members, importance in zip(region.members, region.importance, strict=True):
            places = [(int(y), int(x)) for y, x in np.argwhere(members > 0)]
            shares = [float(importance[place]) / largest if largest > 0 else 0.0 for place in places]
            marks.append([(*p, ramp(share), 0.62 + 0.3 * share) for p, share in zip(places, shares, strict=True)])
        rows.append(_row(ideas, region.name, _words(region.name), marks, [len(one) for one in marks]))
    rows += [_remark(f"Not shown: {', '.join(names)}. {why}") for why, names in ideas.reasons.items()]
    return _stack(rows)


def _words(region: str) -> str:
    """What a region is, in plain words; of one registered elsewhere, what its function says first."""
    if region in _REGION_WORDS:
        return _REGION_WORDS[region]
    return (REGIONS[region].__doc__ or "").strip().partition("\n")[0]


def _row(ideas: Ideas, title: str, words: str, marks: Sequence[Sequence[Mark]], counts: Sequence[int]) -> Image.Image:
    """Words, and the photograph once per level with cells marked.

    Args:
        ideas: For photograph and levels.
        title: Of the row.
        words: What it shows.
        marks: By level.
        counts: Cells to be told below each picture.
    """
    one, sheet = ideas.photograph, Image.new("RGB", (WIDTH, 2 * WIDTH), PAPER)
    wide = (WIDTH - 2 * EDGE + GAP) // len(ideas.levels) - GAP
    factor = min(wide / one.image.width, 1.3 * wide / one.image.height)
    faded, draw = _faded(_resized(one.image, factor)), ImageDraw.Draw(sheet)
    write(draw, (EDGE, 0), title, BODY)
    x = EDGE + text_width(title, BODY) + GAP
    top = write(draw, (x, 2), words, SMALL, width=WIDTH - EDGE - x, color=QUIET) + GAP / 2
    for k, level in enumerate(ideas.levels):
        x, picture = EDGE + k * (wide + GAP), faded.copy()
        _paint(picture, level, factor, marks[k])
        _outline(picture, (one.boxes * factor).tolist())
        sheet.paste(picture, (x, round(top)))
        told = f"{counts[k] or 'no'} cell{'' if counts[k] == 1 else 's'} of {level.stride} px"
        write(draw, (x, top + picture.height + 2), told, SMALL, color=QUIET)
    return sheet.crop((0, 0, WIDTH, round(top + faded.height + 1.5 * SMALL) + GAP))


def _paint(picture: Image.Image, level: Level, factor: float, marks: Sequence[Mark]) -> None:
    """Fill cells of a level around the points they count from, with a gap between them where there is room."""
    wide, high = (side * factor for side in level.cell)
    left, top = (middle * factor - side / 2 for middle, side in zip(level.first, (wide, high), strict=True))
    gap = 1 if min(wide, high) >= 5 else 0
    cover = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(cover)
    for y, x, color, opacity in marks:
        low = (round(left + x * wide), round(top + y * high))
        high_ = (round(left + (x + 1) * wide) - 1 - gap, round(top + (y + 1) * high) - 1 - gap)
        # a cell of the finest level may be smaller than a px of the picture
        draw.rectangle((*low, *np.maximum(low, high_).tolist()), fill=(*color, round(255 * opacity)))
    picture.paste(cover, (0, 0), cover)


def _outline(picture: Image.Image, boxes: Sequence[Sequence[float]]) -> None:
    """Boxes as thin dark lines between light ones, which are seen on any cell."""
    draw = ImageDraw.Draw(picture)
    for box in boxes:
        draw.rectangle(tuple(box), outline=PAPER, width=3)
    for x1, y1, x2, y2 in boxes:
        draw.rectangle((x1 + 1, y1 + 1, max(x1 + 1, x2 - 1), max(y1 + 1, y2 - 1)), outline=INK)


def ramp(share: float) -> Color:
    """The colour of an importance from 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    red, green, blue = (round(a + (place - low) * (b - a)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True))
    return red, green, blue


def _scale() -> Image.Image:
    """What the colours of regions mean."""
    sheet = Image.new("RGB", (WIDTH, 2 * SMALL + 2), PAPER)
    draw, x = ImageDraw.Draw(sheet), EDGE
    write(draw, (x, 0), "counts little", SMALL, color=QUIET)
    x += round(text_width("counts little", SMALL)) + GAP
    for k in range(160):
        draw.line((x + k, 2, x + k, SMALL + 1), fill=ramp(k / 159))
    write(draw, (x + 160 + GAP, 0), "counts most", SMALL, color=QUIET)
    return sheet


def _edges(ideas: Ideas) -> Image.Image:
    """One object's edges, student and teacher beside each other."""
    if ideas.chosen is None or not ideas.edges:
        which = "an object" if ideas.chosen is None else f"object {ideas.chosen + 1}"
        return _heading("3  How sure is each edge?", f"No cell answers for {which}, so there is nothing to read.")
    one, k = ideas.photograph, ideas.chosen
    title = f"3  How sure is each edge of object {k + 1}, {one.names[k]}?"
    text = (
        "Counted from one cell (+). Bars: how probable it is that the edge lies there. A black line marks the edge "
        "that follows, their mean, in px of the photograph; dashed: the object's box. Few high bars: a sure edge."
    )
    if all(edges.bins is None for edges in ideas.edges):
        text = "Counted from one cell (+). Dashed: the object's box."
    box = one.boxes[k].astype(np.float64)
    view = view_of(box, ideas.edges, one.image.size)
    sheet, y = Image.new("RGB", (WIDTH, 700), PAPER), round(1.9 * BODY)
    draw = ImageDraw.Draw(sheet)
    for index, (edges, color) in enumerate(zip(ideas.edges, (STUDENT, TEACHER), strict=False)):
        x = EDGE + index * (WIDTH - EDGE) // 2
        draw.rectangle((x, 2, x + BODY, BODY + 2), fill=color)
        role = ("student", "teacher")[index]
        who = edges.name if ideas.teacher is None or role in edges.name else f"{edges.name} ({role})"
        write(draw, (x + BODY + GAP, 0), f"{who}: IoU {edges.iou:.2f} with the object's box", BODY)
        picture = panel(one.image, box, edges, view, color)
        sheet.paste(picture, (x, y))
    return _stack([_heading(title, text), sheet.crop((0, 0, WIDTH, y + picture.height))])


def _resized(image: Image.Image, factor: float) -> Image.Image:
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _faded(image: Image.Image) -> Image.Image:
    """Grey and light, so that colours on it are seen."""
    return Image.blend(image.convert("L").convert("RGB"), Image.new("RGB", image.size, PAPER), 0.35)


def _remark(text: str) -> Image.Image:
    sheet = Image.new("RGB", (WIDTH, 200), PAPER)
    y = write(ImageDraw.Draw(sheet), (EDGE, 0), text, SMALL, width=WIDTH - 2 * EDGE, color=QUIET)
    return sheet.crop((0, 0, WIDTH, round(y) + 2))


def _stack(parts: Sequence[Image.Image]) -> Image.Image:
    """One below the other, with room below."""
    sheet = Image.new("RGB", (WIDTH, sum(part.height for part in parts) + EDGE // 2), PAPER)
    y = 0
    for part in parts:
        sheet.paste(part, (0, y))
        y += part.height
    return sheet
