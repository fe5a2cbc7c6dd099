"""From an image to a network's input, to the last grey level as `ld_hub.preprocessing` does it with torch.

torch resizes 8-bit images in whole numbers: two taps per pixel with weights of as many bits as 16-bit numbers hold,
along x first and then along y, rounded after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ld_hub.runtime.exported_files import ExportedError, Preparation

Pixels: TypeAlias = NDArray[np.uint8]
Source: TypeAlias = "str | Path | Image.Image | NDArray[Any]"


class Batch(NamedTuple):
    """What a network takes.

    Attributes:
        images: ``(N, K, H, W)`` float32, normalised, zero-padded at the right and bottom.
        image_sizes: ``(N, 2)`` int64 height, width in px before padding.
        factors: ``(N, 4)`` float32: boxes divided by them are in px of the originals.
    """

    images: NDArray[np.float32]
    image_sizes: NDArray[np.int64]
    factors: NDArray[np.float32]


def read_pixels(source: Source, channels: int) -> Pixels:
    """An image as ``(h, w, K)`` 8-bit pixels, upright, RGB where K is 3.

    Args:
        source: File, Pillow image, or uint8 array ``(h, w)`` or ``(h, w, 1 | 3 | 4)`` in RGB order.
        channels: K, 1 or 3.

    Raises:
        ExportedError: If it is none of these, or cannot be read.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or not (source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (1, 3, 4))):
            raise ExportedError(
                f"An image array is uint8 of shape (h, w), (h, w, 3) or (h, w, 4); found {source.dtype} of shape "
                f"{source.shape}."
            )
        plain = (
            source if source.ndim == 2 else source[:, :, :3].squeeze(2) if source.shape[2] == 1 else source[:, :, :3]
        )
        image = Image.fromarray(np.ascontiguousarray(plain))
    elif isinstance(source, Image.Image):
        image = source
    else:
        try:
            with Image.open(Path(source).expanduser()) as opened:
                image = opened
                image.load()
        except FileNotFoundError:
            raise ExportedError(f"No image file '{source}'.") from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
            raise ExportedError(f"'{source}' cannot be read as an image ({error}).") from None
    upright = _to_rgb(ImageOps.exif_transpose(image))
    mode = "L" if channels == 1 else "RGB"
    pixels: Pixels = np.array(upright if upright.mode == mode else upright.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def _to_rgb(image: Image.Image) -> Image.Image:
    """8 bits per channel; Pillow would clip wide grey levels at 255."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image if image.mode == "RGB" else image.convert("RGB")
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode == "F" and values.max(initial=0) <= 1:
        values = values * 255
    elif image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray((values.clip(0, 255) + 0.5).astype(np.uint8)).convert("RGB")


def resized_size(height: int, width: int, preparation: Preparation, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width in px after the keep-ratio resize.

    Args:
        height: px.
        width: px.
        preparation: Of the model.
        size: What everything is padded to, if that is fixed; then nothing is larger.
    """
    short, long = preparation.image_size
    scale = min(long / max(height, width), short / min(height, width))
    if size is not None:
        scale = min(scale, size[0] / height, size[1] / width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """``(h, w, K)`` to ``(height, width, K)``, bilinear without antialiasing."""
    return _along(_along(pixels, width, 1), height, 0)


def padded_size(height: int, width: int, preparation: Preparation, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width in px that a resized image is padded to."""
    divisor = preparation.size_divisor
    return size or (-(-height // divisor) * divisor, -(-width // divisor) * divisor)


def prepare(images: Sequence[Pixels], preparation: Preparation, size: tuple[int, int] | None) -> Batch:
    """Resize, normalise and pad.

    Args:
        images: ``(h, w, K)``; all of one padded size, see `padded_size`.
        preparation: Of the model.
        size: What everything is padded to, if that is fixed.
    """
    sizes = [resized_size(image.shape[0], image.shape[1], preparation, size) for image in images]
    shape = padded_size(*sizes[0], preparation, size)
    scale = np.array([1.0 / each for each in preparation.std], np.float32)
    shift = np.array([-m / s for m, s in zip(preparation.mean, preparation.std, strict=True)], np.float32)
    batch = np.zeros((len(images), len(scale), *shape), np.float32)
    for corner, image, (height, width) in zip(batch, images, sizes, strict=True):
        small = resize(image, height, width)
        ordered = small[:, :, ::-1] if preparation.channel_order == "bgr" else small
        corner[:, :height, :width] = (ordered * scale + shift).transpose(2, 0, 1)
    new = np.array(sizes, np.int64)
    old = np.array([image.shape[:2] for image in images], np.int64)
    ratios: NDArray[np.float32] = np.divide(new, old, dtype=np.float64).astype(np.float32)
    return Batch(batch, new, ratios[:, [1, 0, 1, 0]])


def _along(pixels: Pixels, count: int, axis: int) -> Pixels:
    """Resize one axis to `count` px."""
    old = pixels.shape[axis]
    if old == count:
        return pixels
    place = np.maximum((np.arange(count) + 0.5) * (old / count) - 0.5, 0.0)
    low = np.minimum(np.floor(place), old - 1)
    share = np.minimum(place - low, 1.0)
    weights = (1.0 - share, share)
    largest = max(float(weight.max()) for weight in weights)
    bits = sum(int(0.5 + largest * 2 ** (bit + 1)) < 2**15 for bit in range(22))
    shape = [-1 if each == axis else 1 for each in range(3)]
    total: NDArray[np.int32] = np.full(1, 2 ** (bits - 1), np.int32)
    for at, weight in zip((low, np.minimum(low + 1, old - 1)), weights, strict=True):
        codes = np.floor(0.5 + weight * 2**bits).astype(np.int32).reshape(shape)
        total = total + pixels.take(at.astype(np.int64), axis).astype(np.int32) * codes
    grey: Pixels = (total >> bits).astype(np.uint8)
    return grey
