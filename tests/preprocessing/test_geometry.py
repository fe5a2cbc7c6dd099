from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from ld_hub.preprocessing.geometry import flip_boxes, flip_image, padded_shape, resize, resize_boxes, resize_shape

SIDE = st.integers(1, 3000)


def test_published_sizes():
    assert resize_shape(480, 640, (800, 1333)) == (800, 1067)
    assert resize_shape(640, 480, (800, 1333)) == (1067, 800)
    assert resize_shape(427, 640, (800, 1333)) == (800, 1199)
    assert resize_shape(300, 900, (800, 1333)) == (444, 1333)  # the long side decides
    assert resize_shape(5, 10, (5, 5)) == (3, 5)  # 2.5 px are rounded up, not to even


@given(SIDE, SIDE, st.integers(16, 900), st.integers(0, 700))
def test_resized_sides_fit_and_one_of_them_is_met(height, width, short, more):
    long = short + more
    new = resize_shape(height, width, (short, long))
    assert min(new) >= 1
    assert max(new) <= long
    assert min(new) <= short
    assert max(new) == long or min(new) == short
    # The ratio is kept up to the rounding of each side to a whole px.
    scale = min(long / max(height, width), short / min(height, width))
    assert abs(new[0] - max(1, height * scale)) <= 0.5 + 1e-6
    assert abs(new[1] - max(1, width * scale)) <= 0.5 + 1e-6


@given(SIDE, SIDE, st.sampled_from([1, 2, 32, 128]))
def test_padded_shape_is_the_next_multiple(height, width, divisor):
    for before, after in zip((height, width), padded_shape(height, width, divisor), strict=True):
        assert after % divisor == 0
        assert before <= after < before + divisor


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_resize_is_bilinear_to_a_grey_level(height, width, new_height, new_width, seed):
    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    out = resize(image, (new_height, new_width))
    assert out.shape == (3, new_height, new_width)
    assert out.dtype == torch.uint8
    exact = functional.interpolate(
        image[None].double(), size=(new_height, new_width), mode="bilinear", align_corners=False
    )
    assert (out.double() - exact[0]).abs().max() <= 1.01  # one rounding per direction


def test_resize_to_the_same_size_copies_nothing():
    image = torch.zeros(3, 5, 6, dtype=torch.uint8)
    assert resize(image, (5, 6)) is image


def test_boxes_follow_the_image_and_stay_inside():
    boxes = torch.tensor([[0.0, 0.0, 100.0, 50.0], [-10.0, 10.0, 20.0, 90.0]])
    out = resize_boxes(boxes, (50, 100), (25, 150))
    assert out.tolist() == [[0.0, 0.0, 150.0, 25.0], [0.0, 5.0, 30.0, 25.0]]


@given(st.integers(2, 30), st.integers(2, 30), st.data())
def test_flip_moves_boxes_with_their_pixels(height, width, data):
    x1, x2 = sorted(data.draw(st.lists(st.integers(0, width), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(data.draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y1:y2, x1:x2] = 9
    flipped = flip_image(image)
    a, b, c, d = flip_boxes(torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32), width)[0].int().tolist()
    assert (flipped[:, b:d, a:c] == 9).all()
    assert int(flipped.sum()) == int(image.sum()) == 27 * (d - b) * (c - a)
    assert torch.equal(flip_image(flipped), image)
