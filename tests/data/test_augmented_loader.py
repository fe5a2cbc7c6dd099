"""Batches of augmented images: the same for any workers and after any break, mixed until the step that is asked for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ld_hub.data import load_coco, train_loader
from ld_hub.data.loader import TrainRows
from ld_hub.data.training_sheet import training_sheet
from ld_hub.errors import ConfigError, DataError
from ld_hub.preprocessing import AugmentedTransform, DataConfig
from ld_hub.preprocessing.augmentation import PRESETS, Augmentation
from ld_hub.preprocessing.geometry import flip_boxes
from tests.data.test_loader import assert_equal

CONFIG = DataConfig(image_size=(48, 64))
PARTS = {"crop": 0.5, "scale_jitter": (0.5, 1.5), "color": 0.5}


def batches(dataset, count, augmentation=PRESETS["strong"], **arguments):
    transform = AugmentedTransform(CONFIG, augmentation, seed=1)
    return list(
        itertools.islice(train_loader(dataset, transform, **{"batch_size": 2, "workers": 0, **arguments}), count)
    )


def same(a, b):
    return a.images.shape == b.images.shape and torch.equal(a.images, b.images)


def test_workers_and_breaks_do_not_change_what_comes(coco):
    dataset = load_coco(coco.root)
    whole = batches(dataset, 8, mixed_steps=6)
    for a, b in zip(whole, batches(dataset, 8, mixed_steps=6, workers=2), strict=True):
        assert_equal(a, b)
    for a, b in zip(whole[3:], batches(dataset, 5, mixed_steps=6, start_batch=3), strict=True):
        assert_equal(a, b)


def with_triangles(coco):
    for row in coco.content["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x, y + h]]
    coco.write()
    return load_coco(coco.root, outlines=True)


def test_pasted_objects_do_not_depend_on_workers_batches_or_breaks(coco):
    dataset, pasting = with_triangles(coco), replace(PRESETS["strong"], copy_paste=0.7)
    whole = batches(dataset, 8, pasting, mixed_steps=6)
    for a, b in zip(whole, batches(dataset, 8, pasting, mixed_steps=6, workers=2), strict=True):
        assert_equal(a, b)
    for a, b in zip(whole[3:], batches(dataset, 5, pasting, mixed_steps=6, start_batch=3), strict=True):
        assert_equal(a, b)
    plain = batches(load_coco(coco.root), 8, mixed_steps=6)
    assert [same(a, b) for a, b in zip(whole, plain, strict=True)] == [False] * 6 + [True] * 2


def test_pasted_objects_come_from_other_images(coco):
    """One image has no objects of its own; all others lend it some, but for the crowd."""
    dataset = with_triangles(coco)
    empty = int(np.flatnonzero(np.diff(dataset.records.offsets) == 0)[0])
    rows = TrainRows(dataset.records, AugmentedTransform(CONFIG, Augmentation(copy_paste=1.0), seed=1))
    samples = [rows[epoch, empty, True] for epoch in range(40)]
    assert {label for sample in samples for label in sample.labels.tolist()} == {0, 1, 2}
    assert not any(sample.crowd.any() for sample in samples)
    assert all(rows[epoch, empty, False].labels.tolist() == [] for epoch in range(5))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_images_are_mixed_until_the_step_that_is_asked_for(coco, accumulation):
    dataset, steps = load_coco(coco.root), 3
    options = {"accumulation": accumulation, "batch_size": 1}
    mixed = batches(dataset, 12, Augmentation(**PARTS, mosaic=1.0), mixed_steps=steps, **options)
    never = batches(dataset, 12, Augmentation(**PARTS), **options)
    always = batches(dataset, 12, Augmentation(**PARTS, mosaic=1.0), **options)
    for number, (some, none, every) in enumerate(zip(mixed, never, always, strict=True)):
        assert same(some, every) == (number < steps * accumulation)
        assert same(some, none) == (number >= steps * accumulation)


def test_other_images_come_with_their_own_objects(coco):
    """A mosaic has classes of images that are not its own."""
    dataset = load_coco(coco.root)
    own = {row["image_id"]: set(row["labels"]) for row in dataset.rows}
    foreign = 0
    for batch in batches(dataset, 10, Augmentation(mosaic=1.0)):
        for n, image_id in enumerate(batch.image_ids):
            labels = set(batch.targets.labels[n][batch.targets.valid[n]].tolist())
            foreign += bool(labels - own[image_id])
            assert (
                batch.original_sizes[n].tolist()
                == dataset.sizes[dataset.records.image_ids.tolist().index(image_id)].tolist()
            )
    assert foreign > 5


def test_a_damaged_image_is_named_where_it_is_mixed_in(coco):
    path = coco.images / "3.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"3\.png: the image is damaged"):
        batches(load_coco(coco.root), 8, Augmentation(mosaic=1.0), workers=1)


def test_the_sheet_shows_what_the_loader_gives(coco, monkeypatch):
    import ld_hub.data.training_sheet as room

    drawn, draw = [], room.draw_detections

    def watch(image, boxes, labels, **options):
        drawn.append((image.size, boxes, options["texts"]))
        return draw(image, boxes, labels, **options)

    monkeypatch.setattr(room, "draw_detections", watch)
    dataset = load_coco(coco.root)
    sheet = training_sheet(dataset, CONFIG, Augmentation(flip=1.0), images=5, columns=2, seed=1)
    assert sheet.width > 2 * 448 and sheet.height > 3 * 448
    loaded = batches(dataset, 5, Augmentation(flip=1.0, color=1e-9), batch_size=1, seed=1)
    assert len(drawn) == 5
    for (size, boxes, texts), batch in zip(drawn, loaded, strict=True):
        valid = batch.targets.valid[0]
        scale = 448 / max(batch.image_sizes[0].tolist())
        assert size == tuple(round(side * scale) for side in reversed(batch.image_sizes[0].tolist()))
        assert torch.allclose(torch.tensor(boxes).reshape(-1, 4), batch.targets.boxes[0][valid] * scale)
        assert sum("(crowd)" in text for text in texts) == int(batch.targets.crowd[0].sum())
    first = dataset.rows[dataset.records.image_ids.tolist().index(loaded[0].image_ids[0])]
    factor = 448 / max(first["width"], first["height"])
    plain = flip_boxes(torch.tensor(first["boxes"]).reshape(-1, 4), first["width"]) * factor
    assert torch.allclose(torch.tensor(drawn[0][1]).reshape(-1, 4), plain, atol=4.0)  # sizes are whole px
    with pytest.raises(ConfigError, match="images is 0"):
        training_sheet(dataset, CONFIG, PRESETS["none"], images=0)
