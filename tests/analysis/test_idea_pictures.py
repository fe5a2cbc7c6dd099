"""What the pictures of the ideas show: colours at places that are computed by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from ld_hub.analysis import idea_pictures
from ld_hub.analysis.edge_pictures import BARS, BETWEEN, CUT, panel, view_of
from ld_hub.analysis.idea_pictures import EDGE, GAP, STUDENT, TEACHER, WIDTH, color_of_object, draw_ideas, ramp
from ld_hub.analysis.ideas import Edges, Ideas, Level, RegionMap
from ld_hub.analysis.photograph import Photograph

BLUE = (0, 0, 255)
BOX = np.array([20.0, 30, 80, 70])
SMALL_SIDE = (WIDTH - 2 * EDGE - GAP) // 2  # px of the small photographs of two levels


def one_hot(*bins: int) -> np.ndarray:
    return np.eye(9)[list(bins)]


def edges(bins: np.ndarray | None = None, name: str = "small") -> Edges:
    """Counted from (50, 50) with bins of 10 px; the bins give the box (20, 30, 90, 70)."""
    return Edges(name, (50.0, 50.0), (10.0, 10.0), bins, np.array([20.0, 30, 90, 70]), 0.86)


def ideas(**changes: object) -> Ideas:
    """A white photograph of 100 x 100 px with two objects; levels of 10 and 50 px."""
    boxes = np.array([BOX, [0, 0, 30, 20]], np.float32)
    photograph = Photograph(Image.new("RGB", (100, 100), "white"), boxes, (0, 1), ("cup", "can"), "Here.")
    levels = [Level(8, (10.0, 10.0), (5.0, 5.0)), Level(40, (50.0, 50.0), (25.0, 25.0))]
    owner = np.full((10, 10), -1)
    owner[4, 6], owner[1, 2], owner[9, 0] = 0, 1, -2
    members, weight = np.zeros((10, 10), np.int64), np.zeros((10, 10))
    members[3, 8], weight[3, 8] = 1, 0.5
    members[7, 7], weight[7, 7] = 2, 0.1
    none = np.zeros((2, 2))
    made = Ideas(
        photograph, "small", "big", (80, 80), levels, [owner, np.full((2, 2), -1)],
        [RegionMap("vlr", [members, none.astype(np.int64)], [weight, none])], {}, 0,
        [edges(one_hot(3, 2, 4, 2)), edges(one_hot(3, 2, 4, 2), "big")],
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_the_view_holds_boxes_and_bins_and_not_the_whole_photograph():
    plain = view_of(BOX, [edges()], (400, 300))
    margin = (0.12 * 70, 0.12 * 40)  # of the two boxes together
    assert plain == pytest.approx((20 - margin[0], 30 - margin[1], 90 + margin[0], 70 + margin[1]))
    # half a bin beyond the 4th to the left and right, the 2nd above; below no farther than the object is high
    wide = view_of(BOX, [edges(one_hot(4, 2, 4, 8))], (400, 300))
    low, high = (5.0, 25.0), (95.0, 110.0)
    assert wide == pytest.approx((0, low[1] - 0.12 * 85, high[0] + 0.12 * 90, high[1] + 0.12 * 85))
    assert view_of(BOX, [edges(one_hot(8, 8, 8, 8))], (100, 100)) == (0, 0, 100, 100)


def test_bars_stand_where_the_edges_are():
    """A bin of probability 1 at 20 px (left) and at 90 px (right): a bar of full length, a bin wide; else nothing."""
    view = (0.0, 0.0, 100.0, 100.0)
    picture = np.asarray(panel(Image.new("RGB", (100, 100), "white"), BOX, edges(one_hot(3, 2, 4, 2)), view, BLUE))
    scale = CUT / 100
    below, right = CUT + BETWEEN + 40, CUT + BETWEEN + 40  # where bars are
    blue = (picture == BLUE).all(axis=2)
    for x in range(100):
        inside = any(abs(x - middle) < 4 for middle in (20, 90))
        outside = all(abs(x - middle) > 6 for middle in (20, 90))
        seen = blue[below, round(x * scale)]
        assert not (outside and seen)
        if inside and abs(x - 20) > 1 and abs(x - 90) > 1 and abs(x - 80) > 1:  # lines stand in the middle
            assert seen
    for y in range(4, 100):
        seen = blue[round(y * scale), right]
        assert not (seen and all(abs(y - middle) > 6 for middle in (30, 70)))
        if 1 < abs(y - 30) < 4 or 1 < abs(y - 70) < 4:
            assert seen
    column = blue[CUT + BETWEEN :, round(23 * scale)]
    assert int(column.sum()) == BARS  # to the top; the base line is drawn over the last px


def test_half_a_probability_is_half_a_bar():
    bins = one_hot(3, 2, 4, 2)
    bins[0, 3] = bins[0, 1] = 0.5
    view = (0.0, 0.0, 100.0, 100.0)
    picture = np.asarray(panel(Image.new("RGB", (100, 100), "white"), BOX, edges(bins), view, BLUE))
    blue = (picture == BLUE).all(axis=2)
    for x in (23, 43):
        assert int(blue[CUT + BETWEEN :, round(x * CUT / 100)].sum()) == pytest.approx(BARS / 2, abs=1)


def test_plain_boxes_are_drawn_without_bars():
    view = (0.0, 0.0, 100.0, 100.0)
    picture = np.asarray(panel(Image.new("RGB", (100, 100), "white"), BOX, edges(None), view, BLUE))
    blue = (picture == BLUE).all(axis=2)
    assert picture.shape[0] == CUT and not blue[:, CUT + BETWEEN :].any()
    assert blue[CUT // 2, round(90 * CUT / 100)]  # the right side of the box
    assert (picture[:, CUT + BETWEEN :] < 100).any()  # the sentence


def first_level(picture: Image.Image, top: int) -> np.ndarray:
    """The small photograph of the first of two levels."""
    return np.asarray(picture.crop((EDGE, top, EDGE + SMALL_SIDE, top + SMALL_SIDE))).astype(int)


def near(pixel: np.ndarray, color: tuple[int, int, int], opacity: float) -> bool:
    """Whether a colour lies over white."""
    return bool(np.abs(pixel - (opacity * np.array(color) + (1 - opacity) * 255)).max() < 3)


def test_cells_have_the_colour_of_their_object_and_their_importance():
    whole = ideas()
    owners, regions = idea_pictures._owners(whole), idea_pictures._regions(whole)
    wide = SMALL_SIDE
    grey = (120, 126, 132)
    answering = {(4, 6): (color_of_object(0), 0.85), (1, 2): (color_of_object(1), 0.85), (9, 0): (grey, 0.5)}
    looked_at = {(3, 8): (ramp(1.0), 0.92), (7, 7): (ramp(0.2), 0.68)}
    for picture, expected in ((owners, answering), (regions, looked_at)):
        pixels = np.asarray(picture).astype(int)
        # the small photographs are white here: look for the row at which the cells are
        tops = [
            top
            for top in range(picture.height - wide)
            if all(
                near(pixels[top + int((y + 0.45) * wide / 10), EDGE + int((x + 0.45) * wide / 10)], *look)
                for (y, x), look in expected.items()
            )
        ]
        assert tops and len(tops) < 0.1 * wide  # at one place
        small = first_level(picture, tops[len(tops) // 2])
        for y in range(10):
            for x in range(10):
                middle = small[int((y + 0.45) * wide / 10), int((x + 0.45) * wide / 10)]
                assert ((y, x) in expected) != bool((middle > 250).all()), (y, x)


def test_colours_of_importance_darken_all_along():
    light = [sum(ramp(k / 50)) for k in range(51)]
    assert light == sorted(light, reverse=True)
    assert ramp(0) == idea_pictures.RAMP[0] and ramp(1) == idea_pictures.RAMP[2]
    assert len({color_of_object(k) for k in range(7)}) == 7 and color_of_object(7) == color_of_object(0)


def test_the_sheet_has_all_parts_and_says_what_is_missing():
    def has(picture: Image.Image, color: tuple[int, int, int]) -> bool:
        return bool((np.asarray(picture) == color).all(axis=2).any())

    both = draw_ideas(ideas())
    assert both.width == WIDTH and has(both, TEACHER)
    one = idea_pictures._edges(ideas(teacher=None, edges=[edges(one_hot(3, 2, 4, 2))]))
    assert has(one, STUDENT) and not has(one, TEACHER)
    nothing = draw_ideas(ideas(chosen=None, edges=[]))
    assert nothing.height < both.height - CUT
    longer = draw_ideas(ideas(left_out={"gi": "The region 'gi' compares with a teacher."}))
    assert both.height < longer.height < both.height + 60
    assert draw_ideas(ideas(regions=[])).height < both.height - 300


@pytest.mark.parametrize("size", [(2000, 60), (60, 2000), (1, 1), (4000, 3000)])
def test_photographs_of_any_shape(size):
    wide, high = size
    box = np.array([[0, 0, wide, high]], np.float32)
    names = ("ein sehr langer Name " * 4, "b")
    photograph = Photograph(Image.new("RGB", size, "grey"), np.concatenate([box, box]), (0, 0), names, "Here.")
    cell = (wide / 10, high / 10)
    far = Edges("small", (wide / 2, high / 2), cell, one_hot(0, 8, 2, 4), np.array([wide, 0, wide / 2, high]), 0.0)
    levels = [Level(8, cell, (0.0, 0.0)), Level(40, (wide / 2, high / 2), (0.0, 0.0))]
    whole = ideas(photograph=photograph, levels=levels, edges=[far, far], student="a name of many words " * 9)
    picture = draw_ideas(whole)
    assert picture.width == WIDTH and 400 < picture.height < 4000
    assert (np.asarray(picture)[:, [0, -1]] == 255).all()  # the margins are paper from top to bottom
