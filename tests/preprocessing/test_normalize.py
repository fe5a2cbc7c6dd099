from __future__ import annotations

import pytest
import torch

from ld_hub.errors import ConfigError
from ld_hub.preprocessing import DataConfig, Sample, collate, renormalize

RGB = DataConfig(size_divisor=16)
CAFFE = DataConfig((102.9801, 115.9465, 122.7717), (1.0, 2.0, 3.0), "bgr", size_divisor=16)
OTHER_STD = DataConfig(std=(1.0, 1.0, 1.0), size_divisor=16)


def batch(config, seed=0):
    random = torch.Generator().manual_seed(seed)
    sizes = ((20, 30), (33, 17))
    images = [torch.randint(0, 256, (3, *size), generator=random, dtype=torch.uint8) for size in sizes]
    return collate([Sample(image, size, config) for image, size in zip(images, sizes, strict=True)]), images


@pytest.mark.parametrize("config", [RGB, CAFFE])
def test_normalisation_by_hand(config):
    made, images = batch(config)
    for out, image in zip(made.images, images, strict=True):
        height, width = image.shape[1:]
        pixels = image.flip(0) if config.channel_order == "bgr" else image
        mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (config.mean, config.std))
        expected = (pixels.double() - mean) / std
        assert torch.allclose(out[:, :height, :width].double(), expected, atol=1e-4, rtol=1e-5)
        outside = out.clone()
        outside[:, :height, :width] = 0
        assert not outside.any()


@pytest.mark.parametrize("source", [RGB, CAFFE, OTHER_STD])
@pytest.mark.parametrize("target", [RGB, CAFFE, OTHER_STD])
def test_renormalised_is_normalised_for_the_other_model(source, target):
    given, wanted = batch(source)[0], batch(target)[0]
    out = renormalize(given.images, given.image_sizes, source, target)
    assert torch.allclose(out, wanted.images, atol=2e-4, rtol=1e-5)
    assert not out[0, :, 20:].any()
    assert not out[0, :, :, 30:].any()


def test_renormalize_leaves_equal_scales_alone():
    images = batch(RGB)[0].images
    other_size = DataConfig(image_size=(100, 200))
    assert renormalize(images, torch.tensor([[20, 30], [33, 17]]), RGB, other_size) is images


def test_renormalize_refuses_other_channel_counts():
    grey = DataConfig((0.0,), (1.0,))
    with pytest.raises(ConfigError, match="3 channels"):
        renormalize(torch.zeros(1, 3, 8, 8), torch.tensor([[8, 8]]), RGB, grey)
