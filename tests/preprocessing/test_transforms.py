from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.errors import ConfigError
from ld_hub.preprocessing import (
    DataConfig,
    Preprocessor,
    TrainTransform,
    collate,
    create_transform,
    resolve_data_config,
)

CONFIG = DataConfig(image_size=(24, 60), size_divisor=16)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
BOXES = torch.tensor([[4.0, 3.0, 20.0, 30.0]])


def test_preprocessor_and_collate():
    tall = IMAGE.transpose(Image.Transpose.ROTATE_90)
    batch = collate([Preprocessor(CONFIG)(IMAGE), Preprocessor(CONFIG)(tall)])
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.image_sizes.tolist() == [[24, 32], [32, 24]]
    assert batch.original_sizes.tolist() == [[30, 40], [40, 30]]
    assert torch.allclose(batch.scale_factors, torch.full((2, 2), 0.8))
    assert batch.targets is None
    assert batch.image_ids == ()


def test_scale_factors_are_x_then_y():
    wide = IMAGE.resize((41, 30))
    sample = Preprocessor(CONFIG)(wide)
    factors = collate([sample]).scale_factors[0].tolist()
    assert factors == pytest.approx([sample.image.shape[2] / 41, sample.image.shape[1] / 30])
    assert factors[0] != factors[1]


def test_targets_are_padded_and_crowds_kept():
    transform = TrainTransform(CONFIG, flip=0)
    two = torch.cat([BOXES, BOXES + 1])
    a = transform(IMAGE, two, torch.tensor([3, 1]), torch.tensor([False, True]), key=(0, 7))
    b = transform(IMAGE, None, key=(0, 9))
    batch = collate([a, b])
    assert batch.image_ids == (7, 9)
    assert batch.targets.labels.tolist() == [[3, 1], [0, 0]]
    assert batch.targets.valid.tolist() == [[True, True], [False, False]]
    assert batch.targets.crowd.tolist() == [[False, True], [False, False]]
    assert batch.targets.boxes[0, 0].tolist() == pytest.approx([3.2, 2.4, 16.0, 24.0])


def test_batches_of_different_kinds_are_refused():
    sample = Preprocessor(CONFIG)(IMAGE)
    with pytest.raises(ConfigError, match="at least one"):
        collate([])
    with pytest.raises(ConfigError, match="DataConfig"):
        collate([sample, replace(sample, config=DataConfig())])
    with pytest.raises(ConfigError, match="all have boxes"):
        collate([sample, TrainTransform(CONFIG)(IMAGE, BOXES)])


def test_draws_depend_on_the_key_alone():
    transform = TrainTransform(CONFIG, short_sides=(16, 48), seed=3)
    keys = [(epoch, image) for epoch in range(20) for image in range(30)]
    drawn = [transform.draw(key) for key in keys]
    again = TrainTransform(CONFIG, short_sides=(16, 48), seed=3)
    assert [again.draw(key) for key in reversed(keys)] == drawn[::-1]
    assert [TrainTransform(CONFIG, short_sides=(16, 48), seed=4).draw(key) for key in keys] != drawn
    assert {short for _, short in drawn} == set(range(16, 49))  # both ends come up among 600 draws of 33 values
    assert 0.4 < np.mean([mirrored for mirrored, _ in drawn]) < 0.6


def test_flipping_is_independent_of_the_scale_range():
    fixed, ranged = TrainTransform(CONFIG), TrainTransform(CONFIG, short_sides=(16, 48))
    keys = [(0, image) for image in range(50)]
    assert [fixed.draw(k)[0] for k in keys] == [ranged.draw(k)[0] for k in keys]


@pytest.mark.parametrize("image_id", [-5, 0, 2**63 - 1])
def test_any_image_id_is_a_key(image_id):
    assert TrainTransform(CONFIG, flip=1.0).draw((0, image_id)) == (True, 24)


def test_flip_probability_at_its_ends():
    mirrored = TrainTransform(CONFIG, flip=1.0)(IMAGE, BOXES)
    plain = TrainTransform(CONFIG, flip=0.0)(IMAGE, BOXES)
    assert torch.equal(mirrored.image, plain.image.flip(2))
    assert (mirrored.mirrored, plain.mirrored) == (True, False)
    assert mirrored.boxes[0].tolist() == pytest.approx([32 - 16.0, 2.4, 32 - 3.2, 24.0])


def test_the_short_side_follows_the_draw():
    transform = TrainTransform(CONFIG, short_sides=(16, 44), seed=1)
    for image_id in range(5):
        _, short = transform.draw((2, image_id))
        sample = transform(IMAGE, BOXES, key=(2, image_id))
        assert min(sample.image_size) == short


@pytest.mark.parametrize(
    "arguments", [{"flip": 1.5}, {"short_sides": (48, 16)}, {"short_sides": (16, 61)}, {"seed": -1}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        TrainTransform(CONFIG, **arguments)


def test_create_transform_equals_the_batch_of_one():
    transform = create_transform(**resolve_data_config(CONFIG))
    batch = collate([Preprocessor(CONFIG)(IMAGE)])
    assert torch.equal(transform(IMAGE), batch.images[0, :, :24, :32])
    assert torch.equal(create_transform(**CONFIG.to_dict(), pad=True)(IMAGE), batch.images[0])


def test_create_transform_takes_whatever_an_image_can_be(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    transform = create_transform(**CONFIG.to_dict())
    expected, pixels = transform(IMAGE), np.asarray(IMAGE)
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), pixels]
    for source in [*sources, torch.from_numpy(pixels.copy()).permute(2, 0, 1)]:
        assert torch.equal(transform(source), expected)


def test_one_channel_models_see_grey():
    config = DataConfig((128.0,), (2.0,), image_size=(30, 40))
    out = create_transform(**config.to_dict())(IMAGE)
    assert torch.allclose(out[0], torch.from_numpy((np.asarray(IMAGE.convert("L")) - 128.0) / 2.0).float(), atol=1e-5)
    with pytest.raises(ConfigError, match="5 channels"):
        Preprocessor(DataConfig((0.0,) * 5, (1.0,) * 5))(IMAGE)
