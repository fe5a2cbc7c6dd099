"""Boxes stay with what they enclose, whatever is done to an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ld_hub.errors import ConfigError
from ld_hub.preprocessing import AugmentedTransform, DataConfig, TrainTransform, train_transform
from ld_hub.preprocessing.augmentation import PRESETS, Augmentation
from ld_hub.preprocessing.augmenting import labelled_image
from ld_hub.preprocessing.labelled import VISIBLE, canvas, pasted

CONFIG = DataConfig(image_size=(96, 160))
PAINTS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))  # of the classes 0, 1, 2; the ground is black
SLACK = 1.01  # px; whole pixels
PARTS = {
    "crop": Augmentation(flip=0.5, crop=1.0),
    "zoom_out": Augmentation(flip=0.5, zoom_out=1.0),
    "larger": Augmentation(flip=0.5, scale_jitter=(1.0, 2.5)),
    "jitter": Augmentation(flip=0.5, scale_jitter=(0.3, 2.0)),
    "mosaic": Augmentation(flip=0.5, mosaic=1.0),
    "mixup": Augmentation(flip=0.0, mixup=1.0),
    "all": Augmentation(crop=0.5, zoom_out=0.5, scale_jitter=(0.3, 2.0), mosaic=0.3, mixup=0.3, short_sides=(50, 90)),
}

sides = st.integers(1, 130)
rects = st.tuples(*[st.floats(0, 1)] * 4)
painted_things = st.tuples(sides, sides, st.lists(rects, max_size=3))


def painted(height, width, shares):
    """A black image with a filled rectangle in each class's colour, at whole px; boxes are the rectangles."""
    pixels, boxes, labels = np.zeros((height, width, 3), np.uint8), [], []
    for label, (a, b, c, d) in enumerate(shares):
        (x1, x2), (y1, y2) = (
            sorted((round(a * width), round(b * width))),
            sorted((round(c * height), round(d * height))),
        )
        if x2 > x1 and y2 > y1:
            pixels[y1:y2, x1:x2] += np.array(PAINTS[label], np.uint8)  # where two overlap, both channels shine
            boxes.append([x1, y1, x2, y2])
            labels.append(label)
    return Image.fromarray(pixels), torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(labels, dtype=torch.int64)


def where(pixels, level):
    """``x1, y1, x2, y2`` of the pixels above a grey level; None where there are none."""
    rows, columns = np.nonzero(pixels > level)
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


def assert_sound(sample, room):
    height, width = sample.image_size
    boxes = sample.boxes
    assert sample.image.dtype == torch.uint8 and height <= room[0] and width <= room[1]
    assert len(boxes) == len(sample.labels) == len(sample.crowd) and boxes.dtype == torch.float32
    assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("part", sorted(PARTS))
@settings(max_examples=120)
@given(thing=painted_things, key=st.integers(0, 10**6))
def test_a_painted_object_stays_in_its_box(part, thing, key):
    height, width, shares = thing
    image, boxes, labels = painted(height, width, shares)
    empty = labelled_image(CONFIG, Image.new("RGB", (90, 70)))
    transform = AugmentedTransform(CONFIG, PARTS[part], seed=3)
    transform.fill = (0, 0, 0)
    sample = transform(image, boxes, labels, key=(0, key), others=[empty])
    whole = TrainTransform(CONFIG, short_sides=PARTS[part].short_sides, seed=3)(image, key=(0, key))
    assert_sound(sample, whole.image_size)
    assert len(set(sample.labels.tolist())) == len(sample.labels)  # each object once
    for box, label in zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True):
        channel = sample.image[label].numpy()
        found = where(channel, channel.max() / 2)  # between two pixels, half of the paint lies on the edge
        if found is None or channel.max() < 20:  # thin things may lie between the points that a resize looks at
            assert min(box[2] - box[0], box[3] - box[1]) < 2
            continue
        assert np.allclose(found, box, rtol=0, atol=SLACK), (found, box)  # inside, and the box is not too large


def test_a_painted_object_is_usually_kept():
    """The law above would also hold for a transform that keeps nothing."""
    image, boxes, labels = painted(100, 140, [(0.1, 0.4, 0.2, 0.6), (0.5, 0.9, 0.3, 0.9)])
    for part, augmentation in PARTS.items():
        transform = AugmentedTransform(CONFIG, augmentation)
        others = [labelled_image(CONFIG, image, boxes, labels)]
        kept = [len(transform(image, boxes, labels, key=(0, k), others=others).boxes) for k in range(40)]
        assert np.mean(kept) > (2 if part in ("mosaic", "mixup") else 1), part


def test_what_is_left_of_an_object_decides():
    ground = canvas((10, 20), (7, 8, 9))
    thing = labelled_image(CONFIG, Image.new("RGB", (10, 10)), torch.tensor([[0.0, 0, 10, 10], [0, 0, 8, 8]]))
    made = pasted(ground, thing, 0, 18)  # two columns of ten, and of eight, are on the canvas
    assert VISIBLE == 0.2 and made.boxes.tolist() == [[18, 0, 20, 10], [18, 0, 20, 8]]
    assert pasted(canvas((10, 20), (7, 8, 9)), thing, 0, 19).boxes.shape == (0, 4)
    assert made.image[:, 0, 17].tolist() == [7, 8, 9] and made.image[:, 0, 18:].sum() == 0
    corner = pasted(canvas((10, 20), (7, 8, 9)), thing, -4, -4)
    assert corner.boxes.tolist() == [[0, 0, 6, 6], [0, 0, 4, 4]]


@pytest.mark.parametrize("preset", ["standard", "strong"])
def test_crowds_and_labels_stay_with_their_boxes(preset):
    """Crowds are those of label 1 before, and afterwards."""
    image, boxes, labels = painted(90, 130, [(0.0, 0.5, 0.1, 0.7), (0.3, 0.8, 0.4, 1.0), (0.6, 1.0, 0.0, 0.3)])
    transform, others = AugmentedTransform(CONFIG, PRESETS[preset], seed=1), []
    others = [labelled_image(CONFIG, image, boxes, labels, labels == 1)]
    samples = [transform(image, boxes, labels, labels == 1, key=(0, k), others=others) for k in range(30)]
    assert sum(int(sample.crowd.sum()) for sample in samples) > 10
    for sample in samples:
        assert torch.equal(sample.crowd, sample.labels == 1)


def test_none_and_flip_are_the_published_transform():
    for preset, flip in (("none", 0.0), ("flip", 0.5)):
        transform = train_transform(CONFIG, PRESETS[preset], seed=4)
        assert type(transform) is TrainTransform and not transform.mixes
        assert (transform.flip, transform.short_sides, transform.seed) == (flip, None, 4)
    ranged = train_transform(CONFIG, Augmentation(short_sides=(40, 90)))
    assert type(ranged) is TrainTransform and ranged.short_sides == (40, 90)


def test_the_mirror_is_that_of_the_published_transform():
    """Whatever else is done: an augmented run sees the same images mirrored, at the same sizes."""
    image, boxes, labels = painted(80, 120, [(0.1, 0.4, 0.2, 0.6)])
    plain = TrainTransform(CONFIG, short_sides=(40, 90), seed=5)
    other = AugmentedTransform(CONFIG, Augmentation(short_sides=(40, 90), color=1.0), seed=5)
    for k in range(8):
        a, b = plain(image, boxes, labels, key=(1, k)), other(image, boxes, labels, key=(1, k))
        assert (a.mirrored, a.image_size, a.original_size) == (b.mirrored, b.image_size, b.original_size)
        assert torch.equal(a.boxes, b.boxes) and not torch.equal(a.image, b.image)


def test_draws_depend_on_the_key_alone_and_leave_no_trace():
    image, boxes, labels = painted(80, 120, [(0.1, 0.4, 0.2, 0.6)])
    others = [labelled_image(CONFIG, Image.new("RGB", (50, 60), (k, k, k))) for k in range(9)]

    def made(keys, seed=2):
        transform = AugmentedTransform(CONFIG, PRESETS["strong"], seed)
        return {k: transform(image, boxes, labels, key=(0, k), others=others) for k in keys}

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second, another = made(range(12)), made(reversed(range(12))), made(range(12), seed=3)
    assert torch.equal(torch.rand(3), expected)
    for k in range(12):
        assert torch.equal(first[k].image, second[k].image) and torch.equal(first[k].boxes, second[k].boxes)
    assert not all(torch.equal(first[k].image, another[k].image) for k in range(12))


def test_without_other_images_nothing_is_mixed_and_all_else_stays():
    """What the last steps of a run see."""
    image, boxes, labels = painted(80, 120, [(0.1, 0.4, 0.2, 0.6)])
    parts = {"crop": 0.5, "scale_jitter": (0.5, 1.5)}
    mixing = AugmentedTransform(CONFIG, Augmentation(**parts, mosaic=0.5, mixup=0.5), seed=6)
    single = AugmentedTransform(CONFIG, Augmentation(**parts), seed=6)
    for k in range(10):
        a, b = mixing(image, boxes, labels, key=(0, k)), single(image, boxes, labels, key=(0, k))
        assert torch.equal(a.image, b.image) and torch.equal(a.boxes, b.boxes)


def test_a_mosaic_holds_each_of_its_images_once():
    """Four plain colours meet in a point, and every object is of its image's colour."""
    tints = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0)]
    box = torch.tensor([[0.0, 0, 60, 40]])
    pictures = [labelled_image(CONFIG, Image.new("RGB", (60, 40), tint), box, torch.tensor([k]))
                for k, tint in enumerate(tints)]  # fmt: skip
    seen = set()
    for k in range(40):
        transform = AugmentedTransform(CONFIG, Augmentation(flip=0.5, mosaic=1.0), seed=k)
        sample = transform(
            Image.new("RGB", (60, 40), tints[3]), box, torch.tensor([3]), key=(0, 0), others=pictures[:3]
        )
        assert sample.image_size == (96, 144)
        for (x1, y1, x2, y2), label in zip(sample.boxes.round().int().tolist(), sample.labels.tolist(), strict=True):
            inside = sample.image[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].flatten(1).unique(dim=1)
            assert inside.T.tolist() == [list(tints[label])]
            seen.add(label)
    assert seen == {0, 1, 2, 3}


def test_grey_and_bgr_models_get_their_own_fill():
    grey = AugmentedTransform(DataConfig((100.0,), (2.0,), image_size=(60, 90)), PRESETS["strong"])
    image = Image.new("RGB", (80, 60), (10, 20, 30))
    assert grey.fill == (100,)
    for k in range(6):
        assert grey(image, key=(0, k), others=[labelled_image(grey.config, image)]).image.shape[0] == 1
    assert AugmentedTransform(DataConfig((1.0, 2.0, 3.0), (1.0,) * 3, "bgr"), PRESETS["strong"]).fill == (3, 2, 1)


def test_bands_have_no_light_to_change():
    bands = DataConfig(mean=(0.0,) * 4, std=(1.0,) * 4)
    with pytest.raises(ConfigError, match=r"4 bands.*--color 0"):
        train_transform(bands, PRESETS["standard"])
    assert train_transform(bands, replace(PRESETS["standard"], color=0.0)).augmentation.crop
