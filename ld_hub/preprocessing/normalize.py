"""From grey levels to what a network sees, and from one network's scale to another's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ld_hub.errors import ConfigError
from ld_hub.preprocessing.data_config import DataConfig
from ld_hub.preprocessing.geometry import padded_shape


def normalize_into(out: Tensor, image: Tensor, config: DataConfig) -> None:
    """Write a normalised image into a corner of a batch.

    Args:
        out: ``(K, h, w)`` float view, overwritten.
        image: ``(K, h, w)`` uint8; RGB where K = 3.
        config: Mean, std and channel order.
    """
    last = config.channels - 1
    for channel, (scale, shift) in enumerate(zip(*config.scale_and_shift, strict=True)):
        plane = image[last - channel if config.channel_order == "bgr" else channel]
        # shift + scale * plane: convert, multiply and add in one pass.
        torch.add(torch.tensor(shift, dtype=out.dtype), plane, alpha=scale, out=out[channel])


def normalize_batch(images: Sequence[Tensor], config: DataConfig) -> Tensor:
    """Normalise images and zero-pad them at the right and bottom to one size, a multiple of ``size_divisor``.

    Args:
        images: N tensors ``(K, h_i, w_i)`` uint8; RGB where K = 3.
        config: Mean, std, channel order and divisor.

    Returns:
        ``(N, K, H, W)`` float32.
    """
    largest = max(image.shape[1] for image in images), max(image.shape[2] for image in images)
    shape = (len(images), config.channels, *padded_shape(*largest, config.size_divisor))
    # NumPy asks the system for huge pages, torch does not: fresh memory costs more than all the arithmetic here.
    out = torch.from_numpy(np.zeros(shape, dtype=np.float32))
    for corner, image in zip(out, images, strict=True):
        normalize_into(corner[:, : image.shape[1], : image.shape[2]], image, config)
    return out


def renormalize(images: Tensor, image_sizes: Tensor, source: DataConfig, target: DataConfig) -> Tensor:
    """Turn a batch normalised for one model into the batch another model expects.

    A teacher whose mean, std or channel order differ from the student's sees its own scale. Padding stays 0, as it
    would be had the images been normalised for `target` in the first place.

    Args:
        images: ``(N, K, H, W)`` normalised with `source`, zero-padded at the right and bottom.
        image_sizes: ``(N, 2)`` height, width in px before padding.
        source: What `images` were normalised with.
        target: What is wanted.

    Returns:
        ``(N, K, H, W)``; `images` itself where nothing differs.

    Raises:
        ConfigError: If the two models take different numbers of channels, or bands of other ranges.
    """
    if source.channels != target.channels:
        raise ConfigError(
            f"Cannot turn images of {source.channels} channels into images of {target.channels} channels."
        )
    if target.band_ranges and source.band_ranges != target.band_ranges:
        raise ConfigError(
            f"The images' bands are stretched from {source.band_ranges} to 0..255, and the other model wants them from "
            f"{target.band_ranges}: train both on the same data, or give both the same band_ranges (`DataConfig`)."
        )
    swap = source.channel_order != target.channel_order
    if not swap and (source.mean, source.std) == (target.mean, target.std):
        return images
    mean, std = (v[::-1] if swap else v for v in (source.mean, source.std))
    scale = [s / t for s, t in zip(std, target.std, strict=True)]
    shift = [(m - tm) / ts for m, tm, ts in zip(mean, target.mean, target.std, strict=True)]
    planes = images.flip(1) if swap else images
    out = torch.empty_like(planes)
    for channel, (factor, offset) in enumerate(zip(scale, shift, strict=True)):
        # numbers, not tensors: a tensor made here would be copied to the device, and the host would wait for it
        torch.mul(planes[:, channel], factor, out=out[:, channel]).add_(offset)
    sizes = image_sizes.to(images.device)
    rows = torch.arange(images.shape[2], device=images.device) < sizes[:, :1]  # (N, H)
    columns = torch.arange(images.shape[3], device=images.device) < sizes[:, 1:]  # (N, W)
    return out * (rows[:, None, :, None] & columns[:, None, None, :])
