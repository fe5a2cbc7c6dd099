"""Objects on another image: their own pixels and no others, and boxes around what can be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ld_hub.preprocessing import AugmentedTransform, DataConfig, TrainTransform
from ld_hub.preprocessing.augmentation import PRESETS, Augmentation
from ld_hub.preprocessing.augmenting import labelled_image
from ld_hub.preprocessing.copy_paste import some_objects, with_objects
from ld_hub.preprocessing.labelled import cropped_to_objects, mirrored, mosaic, random_window, resized

CONFIG = DataConfig(image_size=(96, 160))
SHAPES = ("ellipse", "triangle", "rectangle")


def shape_of(kind, box, size):
    """``(h, w)`` pixels of a shape that touches all sides of a box of whole px."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[: size[0], : size[1]]
    u, v = (x + 0.5 - x1) / (x2 - x1), (y + 0.5 - y1) / (y2 - y1)
    whole = (u > 0) & (u < 1) & (v > 0) & (v < 1)
    if kind == "ellipse":
        return whole & ((u - 0.5) ** 2 + (v - 0.5) ** 2 <= 0.25)
    return whole & (u + v <= 1) if kind == "triangle" else whole


def extent(mask):
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def scene(seed, size, objects, ground, first_label, outlined=1.0):
    """An image of one grey level with objects of random pixels; boxes are the extents of their masks."""
    random = np.random.default_rng(seed)
    pixels = np.full((*size, 3), ground, dtype=np.uint8)
    masks, boxes = [], []
    for k in range(objects):
        x, y = random.integers(0, size[1] - 4), random.integers(0, size[0] - 4)
        box = x, y, min(size[1], x + random.integers(4, 50)), min(size[0], y + random.integers(4, 50))
        mask = shape_of(SHAPES[k % 3], box, size)
        pixels[mask] = random.integers(30, 200, 3, dtype=np.uint8) + random.integers(
            0, 30, (int(mask.sum()), 3), dtype=np.uint8
        )
        boxes.append(extent(mask))
        masks.append(mask if random.random() < outlined else np.zeros_like(mask))
    masks = torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *size))
    labels = torch.arange(objects) + first_label
    return (
        Image.fromarray(pixels),
        torch.tensor(boxes).reshape(-1, 4).float(),
        labels,
        torch.zeros(objects).bool(),
        masks,
    )


def pasted_in_numpy(ground, source, top, left):
    """The rule once more, pixel by pixel and object by object."""
    image, hidden = ground.image.numpy().copy(), np.zeros(ground.size, bool)
    boxes, labels = [], []
    for mask in source.masks.numpy():
        for row, column in np.argwhere(mask):
            image[:, row + top, column + left] = source.image[:, row, column]
            hidden[row + top, column + left] = True
    for box, label, mask in zip(ground.boxes.tolist(), ground.labels.tolist(), ground.masks.numpy(), strict=True):
        own = (
            mask
            if mask.any()
            else shape_of(
                "rectangle", [int(np.floor(b)) if k < 2 else int(np.ceil(b)) for k, b in enumerate(box)], ground.size
            )
        )
        if not (own & hidden).any():
            boxes.append(box)
            labels.append(label)
        elif (own & ~hidden).sum() >= 0.2 * own.sum() - 1e-9:
            seen = extent(own & ~hidden)
            new = [max(box[0], seen[0]), max(box[1], seen[1]), min(box[2], seen[2]), min(box[3], seen[3])]
            if new[2] - new[0] >= 1 and new[3] - new[1] >= 1:
                boxes.append(new)
                labels.append(label)
    for mask, label in zip(source.masks.numpy(), source.labels.tolist(), strict=True):
        if mask.any():
            x1, y1, x2, y2 = extent(mask)
            boxes.append([x1 + left, y1 + top, x2 + left, y2 + top])
            labels.append(label)
    return image, boxes, labels


@settings(max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    many=st.integers(0, 5),
    more=st.integers(0, 5),
    outlined=st.floats(0, 1),
    parts=st.booleans(),
)
def test_pasting_is_what_a_second_reading_of_the_rule_gives(seed, many, more, outlined, parts):
    random = np.random.default_rng(seed)
    size = tuple(random.integers(8, 70, 2).tolist())
    other = tuple(int(random.integers(6, side + 1)) for side in size)
    ground = labelled_image(CONFIG, *scene(seed, size, many, 0, 0, outlined))
    source = labelled_image(CONFIG, *scene(seed + 1, other, more, 255, 10, outlined))
    if parts:  # as after a resize
        shift = torch.from_numpy(random.uniform(-0.49, 0.49, ground.boxes.shape)).float()
        ground = replace(
            ground, boxes=(ground.boxes + shift).clamp(min=0).minimum(torch.tensor([size[1], size[0]] * 2))
        )
    top, left = (int(random.integers(0, a - b + 1)) for a, b in zip(size, other, strict=True))
    before = ground.image.clone()
    made = with_objects(ground, source, top, left)
    image, boxes, labels = pasted_in_numpy(ground, source, top, left)
    assert np.array_equal(made.image.numpy(), image) and torch.equal(ground.image, before)
    assert np.allclose(np.array(boxes).reshape(-1, 4), made.boxes.numpy(), rtol=0, atol=1e-4)
    assert made.labels.tolist() == labels and not made.crowd.any() and made.boxes.dtype == torch.float32


def test_hidden_objects_shrink_or_go():
    """20 x 10 px objects, of which a square hides 0, 10, 16 and 17 columns."""
    square = torch.ones(1, 10, 20, dtype=torch.bool)
    for covered, expected in ((0, [40, 0, 60, 10]), (10, [50, 0, 60, 10]), (16, [56, 0, 60, 10]), (17, None)):
        ground = labelled_image(CONFIG, Image.new("RGB", (100, 10)), torch.tensor([[40.0, 0, 60, 10]]))
        source = labelled_image(CONFIG, Image.new("RGB", (20, 10), (9, 9, 9)), torch.tensor([[0.0, 0, 20, 10]]),
                                torch.tensor([1]), None, square)  # fmt: skip
        made = with_objects(ground, source, 0, 20 + covered)
        pasted = [20 + covered, 0, 40 + covered, 10]
        assert made.boxes.tolist() == ([pasted] if expected is None else [expected, pasted])


def test_any_part_of_the_objects_with_outlines_is_taken_but_no_crowd():
    image, boxes, labels, crowd, masks = scene(3, (60, 90), 5, 0, 0)
    crowd[1], masks[3] = True, False
    labelled = labelled_image(CONFIG, image, boxes, labels, crowd, masks)
    random = np.random.default_rng(0)
    taken = [some_objects(labelled, random) for _ in range(300)]
    assert {tuple(each.labels.tolist()) for each in taken} == {(0,), (2,), (4,), (0, 2), (0, 4), (2, 4), (0, 2, 4)}
    for each in taken[:20]:
        assert torch.equal(each.masks, masks[each.labels]) and torch.equal(each.boxes, boxes[each.labels])
    assert not len(some_objects(labelled.bare, random).boxes)
    assert not len(some_objects(labelled_image(CONFIG, image), random).boxes)


def partner(seed=11, objects=4):
    return labelled_image(CONFIG, *scene(seed, (96, 144), objects, 255, 10))


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_pixels_are_those_of_the_other_image_inside_the_masks_and_nowhere_else(flip):
    """Without a resize, exactly; the other image may be mirrored by itself."""
    image, boxes, labels, crowd, masks = scene(5, (96, 144), 4, 0, 0)
    plain = TrainTransform(CONFIG, flip, seed=2)
    transform = AugmentedTransform(CONFIG, Augmentation(flip=flip, copy_paste=1.0), seed=2)
    sides = set()
    for k in range(25):
        sample = transform(image, boxes, labels, crowd, key=(0, k), others=[partner()], masks=masks)
        before = plain(image, boxes, labels, crowd, key=(0, k))
        assert sample.mirrored == before.mirrored
        pasted = sample.labels[sample.labels >= 10]
        assert 1 <= len(pasted) <= 4
        cut = partner().masks[pasted - 10].any(dim=0)
        source, boxes_of = partner().image, partner().boxes[pasted - 10]
        found = []
        for turned in (False, True):
            pixels, where = (source.flip(2), cut.flip(1)) if turned else (source, cut)
            if torch.equal(sample.image, torch.where(where, pixels, before.image)):
                found.append(turned)
        assert len(found) == 1
        sides.add((found[0], sample.mirrored))
        expected = (
            boxes_of
            if not found[0]
            else torch.stack([144 - boxes_of[:, 2], boxes_of[:, 1], 144 - boxes_of[:, 0], boxes_of[:, 3]], 1)
        )
        assert torch.equal(sample.boxes[sample.labels >= 10], expected)
    assert len(sides) == (1 if flip == 0 else 4)


@pytest.mark.parametrize("part", ["crop", "zoom_out", "scale_jitter", "all"])
def test_boxes_enclose_what_is_visible_of_painted_objects(part):
    """Each object has a colour channel of its own: red ones on the ground, a green and a blue one are pasted."""
    parts = {
        "crop": {"crop": 1.0},
        "zoom_out": {"zoom_out": 1.0},
        "scale_jitter": {"scale_jitter": (0.4, 1.8)},
        "all": {"crop": 0.5, "scale_jitter": (0.4, 1.8), "zoom_out": 0.5},
    }[part]
    transform = AugmentedTransform(CONFIG, Augmentation(flip=0.5, copy_paste=1.0, **parts), seed=1)
    transform.fill, size, seen = (0, 0, 0), (120, 170), {0: 0, 1: 0, 2: 0}

    def painted(shapes):
        pixels, masks = np.zeros((*size, 3), np.uint8), []
        for channel, kind, box in shapes:
            masks.append(shape_of(kind, box, size))
            pixels[masks[-1]] = [255 * (channel == k) for k in range(3)]
        boxes = torch.tensor([extent(mask) for mask in masks]).float()
        labels = torch.tensor([channel for channel, *_ in shapes])
        return Image.fromarray(pixels), boxes, labels, None, torch.from_numpy(np.array(masks))

    image, boxes, labels, crowd, masks = painted([(0, "rectangle", (10, 20, 130, 110))])
    other = labelled_image(CONFIG, *painted([(1, "ellipse", (5, 5, 70, 60)), (2, "ellipse", (80, 40, 165, 115))]))
    for k in range(60):
        sample = transform(image, boxes, labels, crowd, key=(0, k), others=[other], masks=masks)
        assert len(set(sample.labels.tolist())) == len(sample.labels)
        for box, label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
            visible = sample.image[label].numpy() > 127
            assert np.allclose(extent(visible), box, rtol=0, atol=2.01), (label, extent(visible), box)
            seen[label] += 1
    assert min(seen.values()) > 10, seen


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_masks_move_with_the_pixels_of_their_objects(seed):
    """Every pixel of a whole colour is in the mask of its object and no other, whatever was done."""
    random = np.random.default_rng(seed)
    tiles = []
    for label in range(4):
        size = tuple(random.integers(20, 60, 2).tolist())
        mask = shape_of(SHAPES[label % 3], (3, 2, size[1] - 1, size[0]), size)
        pixels = np.where(mask, np.uint8(10 * label + 10), np.uint8(0))[..., None].repeat(3, axis=2)
        tile = labelled_image(CONFIG, Image.fromarray(pixels), torch.tensor([extent(mask)]).float(),
                              torch.tensor([label]), None, torch.from_numpy(mask)[None])  # fmt: skip
        torch.manual_seed(seed + label)
        if label == 1:
            tile = random_window(tile, (size[0] // 2 + 1, size[1] // 2 + 1))
        tiles.append(cropped_to_objects(mirrored(tile)) if label == 2 else tile)
    made = mosaic(tiles, (90, 100), (int(random.integers(90)), int(random.integers(100))), (0, 0, 0))
    assert made.masks.shape == (len(made.boxes), 90, 100)
    for label, mask in zip(made.labels.tolist(), made.masks, strict=True):
        assert torch.equal(mask, made.image[0] == 10 * label + 10)


def test_resized_masks_are_where_the_paint_is():
    image, boxes, labels, crowd, masks = scene(2, (50, 70), 1, 0, 0)
    pixels = np.array(image)
    pixels[masks[0].numpy()] = 255
    labelled = labelled_image(CONFIG, Image.fromarray(pixels), boxes, labels, crowd, masks)
    for shape in ((50, 70), (93, 131), (31, 40), (1, 1)):
        made = resized(labelled, shape)
        wrong = made.masks[0] != (made.image[0] > 127)
        near = (made.image[0] > 20) & (made.image[0] < 235)  # on the edge a resize blends
        assert made.masks.shape == (1, *shape) and not (wrong & ~near).any()


def test_draws_depend_on_the_key_and_leave_those_of_other_parts_alone():
    image, boxes, labels, crowd, masks = scene(7, (90, 130), 3, 0, 0)
    others = [partner(seed) for seed in range(6)]
    strong = replace(PRESETS["strong"], mixup=0.5)

    def made(augmentation, keys, given=masks):
        transform = AugmentedTransform(CONFIG, augmentation, seed=4)
        return {k: transform(image, boxes, labels, crowd, key=(0, k), others=others, masks=given) for k in keys}

    with_it = replace(strong, copy_paste=0.5)
    one, two, without = made(with_it, range(16)), made(with_it, reversed(range(16))), made(strong, range(16))
    for k in range(16):
        assert torch.equal(one[k].image, two[k].image) and torch.equal(one[k].boxes, two[k].boxes)
    same = [k for k in range(16) if torch.equal(one[k].image, without[k].image)]
    assert 3 <= len(same) <= 13
    assert all(torch.equal(one[k].boxes, without[k].boxes) for k in same)
    for a, b in zip(made(strong, range(16), None).values(), without.values(), strict=True):
        assert torch.equal(a.image, b.image)
    bare = AugmentedTransform(CONFIG, with_it, seed=4)  # the end of a run
    last = [bare(image, boxes, labels, crowd, key=(0, k)) for k in range(8)]
    plain = AugmentedTransform(CONFIG, replace(with_it, mosaic=0.0, mixup=0.0, copy_paste=0.0), seed=4)
    for k, sample in enumerate(last):
        assert torch.equal(sample.image, plain(image, boxes, labels, crowd, key=(0, k)).image)


def test_images_without_outlined_objects_paste_nothing():
    image, boxes, labels, crowd, masks = scene(7, (90, 130), 3, 0, 0)
    pasting = AugmentedTransform(CONFIG, Augmentation(copy_paste=1.0, color=1e-9), seed=4)
    plain = AugmentedTransform(CONFIG, Augmentation(color=1e-9), seed=4)
    for other in (labelled_image(CONFIG, image, boxes, labels), labelled_image(CONFIG, image), partner().bare):
        a = pasting(image, boxes, labels, crowd, key=(0, 1), others=[other], masks=masks)
        b = plain(image, boxes, labels, crowd, key=(0, 1))
        assert torch.equal(a.image, b.image) and torch.equal(a.boxes, b.boxes)
