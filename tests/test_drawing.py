"""Drawing: what must be visible is, and nothing a label may contain breaks it."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ld_hub import drawing
from ld_hub.drawing import (
    class_color,
    contact_sheet,
    draw_detections,
    picture_format,
    save_picture,
    side_by_side,
    text_color,
    text_width,
    write,
)
from ld_hub.errors import ConfigError

GREY = (128, 128, 128)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


def test_colors_of_neighbouring_classes_are_far_apart():
    hues = [colorsys.rgb_to_hls(*(v / 255 for v in class_color(k)))[0] for k in range(80)]
    for start in range(80 - 4):
        for a in range(start, start + 5):
            for b in range(a + 1, start + 5):
                gap = abs(hues[a] - hues[b])
                assert min(gap, 1 - gap) > 0.08
    assert len({class_color(k) for k in range(80)}) == 80
    assert class_color(7) == class_color(7)


def test_text_contrasts_with_its_background():
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((0, 0, 160)) == (255, 255, 255)


def test_box_has_the_color_of_its_class_where_it_lies():
    image = Image.new("RGB", (500, 400), GREY)
    out = pixels(draw_detections(image, [[100, 150, 300, 350]], [3]))
    color = class_color(3)
    for x, y in ((100, 250), (300, 250), (200, 350)):
        assert tuple(out[y, x]) == color
    assert tuple(out[250, 200]) == GREY  # inside
    assert (out[380:, :] == GREY).all() and (out[:, 320:] == GREY).all()


def test_small_images_grow_by_a_whole_factor():
    image = Image.new("RGB", (128, 96), GREY)
    picture = draw_detections(image, [[10, 60, 40, 80]], [0])
    assert picture.size == (512, 384)
    assert tuple(pixels(picture)[300, 40]) == class_color(0)  # the box grew with it
    assert draw_detections(image, [], [], scale=1).size == (128, 96)
    assert draw_detections(image, [], [], scale=3).size == (384, 288)


@pytest.mark.parametrize("box", [[-50, -50, 30, 20], [480, 380, 900, 900], [200, 0, 260, 4], [490, 1, 499, 399]])
def test_label_stays_inside_the_picture(box):
    image = Image.new("RGB", (500, 400), GREY)
    name = "a long label name"
    tag = drawing._Pen.for_picture(image).place(f"{name} 50%", drawing._visible(box, 1, image.size), [])
    assert 0 <= tag[0] < tag[2] <= 500 and 0 <= tag[1] < tag[3] <= 400
    assert tag[2] - tag[0] >= drawing._font(12).getlength(f"{name} 50%")
    out = pixels(draw_detections(image, [box], [0], [0.5], label_names=[name]))
    assert (out[tag[1] : tag[3], tag[0]] == class_color(0)).all()  # its filled background lies there


def test_better_detection_is_on_top():
    image = Image.new("RGB", (500, 400), GREY)
    boxes = [[100, 100, 300, 300], [100, 100, 300, 300]]
    out = pixels(draw_detections(image, boxes, [0, 1], [0.9, 0.3]))
    assert tuple(out[250, 100]) == class_color(0)
    out = pixels(draw_detections(image, boxes, [0, 1], [0.3, 0.9]))
    assert tuple(out[250, 100]) == class_color(1)


def test_labels_of_the_same_box_do_not_cover_each_other():
    image = Image.new("RGB", (500, 400), GREY)
    pen = drawing._Pen.for_picture(image)
    rect = (100, 100, 300, 300)
    first = pen.place("one", rect, [])
    second = pen.place("two", rect, [first])
    assert drawing._shared_area(first, second) == 0


def test_boxes_outside_or_without_sense_are_left_out():
    image = Image.new("RGB", (500, 400), GREY)
    nan, inf = float("nan"), float("inf")
    boxes = [[600, 10, 700, 20], [nan, 1, 2, 3], [0, 0, inf, 10], [30, 30, 10, 10]]
    assert (pixels(draw_detections(image, boxes, [0, 1, 2, 3], [0.1, nan, 0.3, 0.4])) == GREY).all()


ODD_NAMES = ["Größe", "高楼大厦", "смайл 😀", "x\ny\tz", "\ud800 lone", "العربية", "", "a" * 300, "\x00", "e\u0301"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_label_can_be_drawn(name):
    image = Image.new("RGB", (500, 400), GREY)
    out = draw_detections(image, [[10, 50, 90, 90]], [0], [0.5], label_names=[name])
    assert not (pixels(out) == GREY).all()
    side_by_side([image, out], [name, name])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_pillow_without_freetype_draws_too(name, monkeypatch):
    monkeypatch.setattr(drawing, "_font", lambda size, wide=False: ImageFont.load_default_imagefont())
    image = Image.new("RGB", (500, 400), GREY)
    out = draw_detections(image, [[10, 50, 90, 90]], [0], [0.5], label_names=[name])
    assert not (pixels(out) == GREY).all()
    side_by_side([image, out], [name, name])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_any_mode_becomes_rgb(mode):
    assert draw_detections(Image.new(mode, (30, 20)), [[1, 1, 9, 9]], [0]).mode == "RGB"


def test_numbers_must_agree():
    with pytest.raises(ConfigError, match="1 boxes, 2 labels"):
        draw_detections(Image.new("RGB", (9, 9)), [[1, 1, 2, 2]], [0, 1])
    with pytest.raises(ConfigError, match="scale"):
        draw_detections(Image.new("RGB", (9, 9)), [], [], scale=0)


def test_contact_sheet_places_pictures_in_rows():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    pictures = [Image.new("RGB", (40, 30), color) for color in colors]
    sheet = pixels(contact_sheet(pictures, columns=2, gap=10))
    assert sheet.shape == (10 + 2 * 40, 10 + 2 * 50, 3)
    assert tuple(sheet[25, 30]) == colors[0]
    assert tuple(sheet[25, 80]) == colors[1]
    assert tuple(sheet[65, 30]) == colors[2]
    assert tuple(sheet[65, 80]) == (255, 255, 255)


def test_contact_sheet_titles_per_picture_or_per_column():
    pictures = [Image.new("RGB", (200, 100)) for _ in range(4)]
    plain = contact_sheet(pictures, columns=2)
    heads = contact_sheet(pictures, ["left", "right"], columns=2)
    each = contact_sheet(pictures, list("abcd"), columns=2)
    assert plain.height < heads.height < each.height
    assert {plain.width, heads.width, each.width} == {plain.width}
    assert np.asarray(plain.convert("L"))[:12].min() == 255
    with pytest.raises(ConfigError, match="found 3"):
        contact_sheet(pictures, list("abc"), columns=2)
    with pytest.raises(ConfigError, match="needs pictures"):
        contact_sheet([])


def test_contact_sheet_centres_smaller_pictures():
    sheet = pixels(side_by_side([Image.new("RGB", (50, 50)), Image.new("RGB", (10, 10), (9, 9, 9))], gap=0))
    assert sheet.shape == (50, 100, 3)
    ys, xs = np.nonzero((sheet == 9).all(axis=2))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (20, 29, 70, 79)


def test_save_replaces_in_one_step(tmp_path):
    path = tmp_path / "deep" / "x.jpg"
    save_picture(Image.new("RGB", (8, 8), "red"), path)
    before = path.read_bytes()

    class Broken(Image.Image):
        def save(self, fp, format=None, **params):
            fp.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_picture(Broken(), path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["x.jpg"]
    with pytest.raises(ConfigError, match=r"'\.nope'"):
        save_picture(Image.new("RGB", (8, 8)), tmp_path / "x.nope")


def test_colours_and_texts_of_the_callers_own():
    paper = Image.new("RGB", (200, 200), (255, 255, 255))
    boxes, labels = [[20.0, 60.0, 80.0, 120.0], [110.0, 60.0, 180.0, 120.0]], [0, 1]
    drawn = np.asarray(
        draw_detections(paper, boxes, labels, scale=1, colors=[(1, 200, 3), (250, 0, 9)], texts=["", "x"])
    )
    assert tuple(drawn[60, 50]) == (1, 200, 3) and tuple(drawn[90, 110]) == (250, 0, 9)
    assert (drawn[:58, :100] == 255).all()  # nothing is written above the first box
    assert (drawn[40:58, 110:125] == (250, 0, 9)).all(axis=2).any()
    names = draw_detections(paper, boxes, labels, [0.5, 0.25], label_names=["a", "b"], scale=1)
    same = draw_detections(paper, boxes, labels, [0.5, 0.25], scale=1, texts=["a 50%", "b 25%"])
    assert np.array_equal(np.asarray(names), np.asarray(same))


def test_letters_of_the_size_that_was_asked_for():
    image = Image.new("RGB", (500, 400), GREY)
    heights = []
    for size in (None, 24, 48):
        out = pixels(draw_detections(image, [[100, 200, 300, 350]], [3], texts=["word"], font_size=size))
        heights.append(int((out[:199, 101] == class_color(3)).all(axis=1).sum()))  # of the label above the box
    assert heights[0] < 24 < heights[1] < 40 < 48 < heights[2] < 70


def test_text_is_broken_between_words_and_says_where_it_ends():
    def written(text: str, width: float | None) -> tuple[np.ndarray, float, np.ndarray]:
        picture = Image.new("RGB", (400, 300), "white")
        before = pixels(picture.copy())
        return before, write(ImageDraw.Draw(picture), (10, 20), text, 20, width=width), pixels(picture)

    words = "one two three four"
    before, end, alone = written(words, None)
    assert (before == 255).all() and end == 20 + 26
    dark = np.argwhere((alone < 128).all(axis=2))
    assert dark[:, 0].min() >= 20 and dark[:, 0].max() < end and dark[:, 1].min() >= 10
    assert dark[:, 1].max() == pytest.approx(10 + text_width(words, 20), abs=3)
    wide = text_width("one two", 20) + 1
    _, end, broken = written(words, wide)
    assert end == 20 + 3 * 26  # "one two", "three", "four"
    assert np.argwhere((broken < 128).all(axis=2))[:, 1].max() <= 10 + wide
    _, end, _ = written("verylongword next\nlast", 30)
    assert end == 20 + 3 * 26  # a word stays whole, and a line break is one


def test_the_format_of_a_picture_is_its_suffix():
    assert [picture_format(f"a/b{suffix}") for suffix in (".png", ".JPG", ".webp")] == ["PNG", "JPEG", "WEBP"]
    for name in ("a", "a.txt", "a.psd"):
        with pytest.raises(ConfigError, match="no picture format"):
            picture_format(name)
