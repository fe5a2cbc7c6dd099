from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ld_hub.data import eval_loader, load_coco, train_loader
from ld_hub.errors import DataError, MissingFileError
from ld_hub.preprocessing import DataConfig, TrainTransform
from ld_hub.structures import ImageBatch

CONFIG = DataConfig(image_size=(48, 64))


def batches(dataset, count, **arguments):
    transform = TrainTransform(CONFIG, short_sides=(30, 60), seed=1)
    return list(
        itertools.islice(train_loader(dataset, transform, **{"batch_size": 2, "workers": 0, **arguments}), count)
    )


def assert_equal(a, b):
    assert a.image_ids == b.image_ids
    for name in ("images", "image_sizes", "scale_factors", "original_sizes"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert (a.targets is None) == (b.targets is None)
    if a.targets is not None:
        for name in ("boxes", "labels", "valid", "crowd"):
            assert torch.equal(getattr(a.targets, name), getattr(b.targets, name))


def test_a_batch_holds_its_images_and_their_boxes(coco):
    dataset = load_coco(coco.root)
    seen = set()
    for batch in batches(dataset, 5):
        assert isinstance(batch, ImageBatch)
        assert batch.images.shape[0] == len(batch) == 2
        for i, image_id in enumerate(batch.image_ids):
            row = dataset.rows[dataset.records.image_ids.tolist().index(image_id)]
            assert batch.original_sizes[i].tolist() == [row["height"], row["width"]]
            own = batch.targets.valid[i]
            assert batch.targets.labels[i][own].tolist() == row["labels"]
            assert batch.targets.crowd[i][own].tolist() == row["crowd"]
            original = np.reshape(row["boxes"], (-1, 4))
            factor = batch.scale_factors[i].repeat(2).numpy()
            sides = (batch.targets.boxes[i][own].numpy() / factor)[:, 2:] - (
                batch.targets.boxes[i][own].numpy() / factor
            )[:, :2]
            assert np.allclose(sides, original[:, 2:] - original[:, :2], atol=1e-3)  # flipped or not
            seen.add(image_id)
    assert seen == set(dataset.records.image_ids.tolist())  # the image without boxes too


def test_workers_do_not_change_what_comes(coco):
    dataset = load_coco(coco.root)
    for a, b in zip(batches(dataset, 8), batches(dataset, 8, workers=2), strict=True):
        assert_equal(a, b)


def test_resuming_gives_the_same_pixels(coco):
    dataset = load_coco(coco.root)
    whole = batches(dataset, 9)
    for a, b in zip(whole[6:], batches(dataset, 3, start_batch=6), strict=True):
        assert_equal(a, b)


def test_augmentation_changes_with_the_epoch(coco):
    made = batches(load_coco(coco.root).select([0]), 10, batch_size=1)
    assert len({tuple(batch.image_sizes[0].tolist()) for batch in made}) > 2


def test_loading_draws_nothing_from_the_global_generator(coco):
    dataset = load_coco(coco.root)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    batches(dataset, 3)
    list(eval_loader(dataset, CONFIG, 2, workers=0))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_one_plain_error(coco, workers):
    path = coco.images / "3.png"
    path.write_bytes(path.read_bytes()[:300])
    dataset = load_coco(coco.root)
    with pytest.raises(DataError) as caught:
        batches(dataset, 5, workers=workers)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"3\.png"):
        list(eval_loader(dataset, CONFIG, 2, workers=workers))


def test_an_image_that_vanished_keeps_its_error_class(coco):
    dataset = load_coco(coco.root)
    (coco.images / "2.png").unlink()
    with pytest.raises(MissingFileError, match=r"2\.png"):
        batches(dataset, 5, workers=1)


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (3, 1), (2, 2)])
def test_evaluation_loads_each_image_as_it_would_be_alone(coco, batch_size, world):
    dataset = load_coco(coco.root)
    alone = {batch.image_ids[0]: batch.images[0] for batch in eval_loader(dataset, CONFIG, 1, workers=0)}
    found = {}
    for rank in range(world):
        loader = eval_loader(dataset, CONFIG, batch_size, rank=rank, world=world, workers=0)
        loaded = list(loader)
        assert len(loaded) == len(loader)
        for batch in loaded:
            assert batch.targets is None
            found.update(zip(batch.image_ids, batch.images, strict=True))
    assert set(found) == set(alone) == {100, 93, 86, 79, 72}
    for image_id, image in found.items():
        assert torch.equal(image, alone[image_id])
