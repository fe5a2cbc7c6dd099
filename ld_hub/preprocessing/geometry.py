"""Where pixels and boxes go: the published keep-ratio resize, the horizontal flip, padded sizes.

Images here are ``(K, h, w)`` uint8 tensors, K channels; boxes are ``(G, 4)`` xyxy px.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resize_shape(height: int, width: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Size of an image after the keep-ratio resize (reference SPEC 7).

    Args:
        height: px.
        width: px.
        image_size: ``(short, long)`` px the sides have to fit into.

    Returns:
        Height and width in px, at least 1.
    """
    short, long = image_size
    scale = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def padded_shape(height: int, width: int, divisor: int) -> tuple[int, int]:
    """Height and width in px, rounded up to multiples of `divisor`."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bilinear resize without antialiasing, in uint8 from end to end.

    Differs from OpenCV's ``INTER_LINEAR``, which the published models were trained with, by at most one grey level.

    Args:
        image: ``(K, h, w)`` uint8.
        shape: New height and width in px.

    Returns:
        ``(K, *shape)`` uint8; the input itself where it already has that size.
    """
    if tuple(image.shape[1:]) == tuple(shape):
        return image
    # Decoded images have the channels of a pixel side by side already, and torch's uint8 kernel is fastest on them; on
    # the other layout it fails where the result is 1 x 1 px.
    pixels = image[None].contiguous(memory_format=torch.channels_last)
    return functional.interpolate(pixels, size=shape, mode="bilinear", align_corners=False, antialias=False)[0]


def resize_boxes(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Scale boxes by the ratios the image really got (rounding included) and clip them to it.

    Args:
        boxes: ``(G, 4)`` xyxy px of the image of size `before`.
        before: Height and width in px.
        after: Height and width in px.
    """
    ratio_x, ratio_y = after[1] / before[1], after[0] / before[0]
    scaled = boxes * torch.tensor([ratio_x, ratio_y, ratio_x, ratio_y], dtype=boxes.dtype)
    limit = torch.tensor([after[1], after[0], after[1], after[0]], dtype=boxes.dtype)
    return torch.minimum(scaled.clamp(min=0), limit)


def flip_image(image: Tensor) -> Tensor:
    """Mirror ``(K, h, w)`` left to right."""
    return image.flip(2)


def flip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Mirror boxes ``(G, 4)`` left to right in an image of `width` px."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
