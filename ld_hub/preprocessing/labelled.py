"""An image with its objects, and what moves both together: crops, sizes, places on a canvas, blending, light.

Everything stays in uint8, and a photograph is resized once: crops come before (they are views), canvases after it.
Random numbers are torch's own; `ld_hub.preprocessing.augmenting` seeds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ld_hub.preprocessing.geometry import flip_boxes, flip_image, resize, resize_boxes

VISIBLE = 0.2  # share of an object's box that has to be left for it to count
LIGHT = 0.4  # largest change of brightness, contrast and saturation

# A part with the centre of an object in it. The published list asks for overlaps that small objects never have with a
# part of 0.3 of a side, and tries forty times each; one in eight stays whole, which also ends the search on panoramas.
_CROP = v2.RandomIoUCrop(sampler_options=[0.0] * 7 + [1.0], trials=20)
_LIGHT = v2.ColorJitter(LIGHT, LIGHT, LIGHT)


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image in 8 bit with its objects.

    Attributes:
        image: ``(K, h, w)`` uint8, RGB where K = 3.
        boxes: ``(G, 4)`` float32 xyxy px.
        labels: ``(G,)`` int64.
        crowd: ``(G,)`` bool.
        masks: ``(G, h, w)`` bool, pixels of the objects, all False for those without outline; None where nobody needs
            them.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    masks: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def bare(self) -> Labelled:
        """Without masks."""
        return self if self.masks is None else replace(self, masks=None)

    def chosen(self, objects: Tensor) -> Labelled:
        """The image with some of its objects.

        Args:
            objects: ``(G,)`` bool, or their numbers.
        """
        masks = None if self.masks is None else self.masks[objects]
        return Labelled(self.image, self.boxes[objects], self.labels[objects], self.crowd[objects], masks)

    def moved(self, image: Tensor, boxes: Tensor, areas: Tensor, masks: Tensor | None) -> Labelled:
        """The same objects elsewhere, without those of which too little is left.

        Args:
            image: ``(K, h', w')`` uint8.
            boxes: ``(G, 4)`` px of it, clipped to it.
            areas: ``(G,)`` px² of the boxes before they were clipped, at the scale of `boxes`.
            masks: ``(G, h', w')`` bool, where there are any.
        """
        sides = boxes[:, 2:] - boxes[:, :2]
        kept = (sides.prod(dim=1) >= VISIBLE * areas) & (sides >= 1).all(dim=1)
        return replace(self, image=image, boxes=boxes, masks=masks).chosen(kept)


def fit_shape(size: tuple[int, int], room: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """Height and width in px, at least 1, of the largest image of the same ratio in a room, times a factor.

    Args:
        size: Height and width in px.
        room: Height and width in px.
        scale: The factor.
    """
    factor = scale * min(room[0] / size[0], room[1] / size[1])
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def resized(labelled: Labelled, shape: tuple[int, int]) -> Labelled:
    """Resize to height and width in px."""
    boxes = resize_boxes(labelled.boxes, labelled.size, shape)
    masks = None if labelled.masks is None else _nearest(labelled.masks, shape)
    return replace(labelled, image=resize(labelled.image, shape), boxes=boxes, masks=masks)


def mirrored(labelled: Labelled) -> Labelled:
    """Mirror left to right."""
    boxes = flip_boxes(labelled.boxes, labelled.size[1])
    masks = None if labelled.masks is None else labelled.masks.flip(2)
    return replace(labelled, image=flip_image(labelled.image), boxes=boxes, masks=masks)


def cropped_to_objects(labelled: Labelled) -> Labelled:
    """Cut out a part at random, 0.3 to 1 of each side, with the centre of an object in it (SSD, arXiv 1512.02325, 2.2).

    Objects whose centre lies outside are left out. An image without objects stays whole, and one of a few px.
    """
    divisible = min(labelled.size) >= 4  # 0.3 of a side has to be a pixel
    return _through(_CROP, labelled) if len(labelled.boxes) and divisible else labelled


def random_window(labelled: Labelled, shape: tuple[int, int]) -> Labelled:
    """Cut out a part of this height and width in px, at a random place."""
    return _through(v2.RandomCrop(shape), labelled)


def in_other_light(labelled: Labelled) -> Labelled:
    """Change brightness, contrast and saturation at random."""
    pixels = labelled.image.permute(1, 2, 0).numpy()
    # Pillow's arithmetic is several times as fast as torch's on 8 bit
    picture = _LIGHT(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    changed = torch.from_numpy(np.array(picture).reshape(pixels.shape)).permute(2, 0, 1)
    return replace(labelled, image=changed)


def canvas(shape: tuple[int, int], fill: Sequence[int]) -> Labelled:
    """An image of one colour without objects.

    Args:
        shape: Height and width in px.
        fill: K grey levels.
    """
    pixels = np.empty((*shape, len(fill)), dtype=np.uint8)
    pixels[:] = fill
    none = torch.zeros(0, dtype=torch.int64)
    return Labelled(torch.from_numpy(pixels).permute(2, 0, 1), torch.zeros(0, 4), none, none.bool())


def pasted(ground: Labelled, labelled: Labelled, top: int, left: int) -> Labelled:
    """Put an image on another one, whose pixels are overwritten; what reaches beyond it is cut off.

    Args:
        ground: What it is put on. Its objects stay, so they should lie elsewhere.
        labelled: What is put there.
        top: Row of its first row in px; may be negative.
        left: Column of its first column in px; may be negative.
    """
    (height, width), (tall, wide) = ground.size, labelled.size
    first, last = (max(0, top), max(0, left)), (min(height, top + tall), min(width, left + wide))
    part = labelled.image[:, first[0] - top : last[0] - top, first[1] - left : last[1] - left]
    ground.image[:, first[0] : last[0], first[1] : last[1]] = part
    shifted = labelled.boxes + torch.tensor([left, top, left, top], dtype=labelled.boxes.dtype)
    limit = torch.tensor([width, height, width, height], dtype=shifted.dtype)
    masks = None
    if labelled.masks is not None:
        masks = torch.zeros(len(shifted), height, width, dtype=torch.bool)
        masks[:, first[0] : last[0], first[1] : last[1]] = labelled.masks[
            :, first[0] - top : last[0] - top, first[1] - left : last[1] - left
        ]
    placed = labelled.moved(ground.image, torch.minimum(shifted.clamp(min=0), limit), _areas(shifted), masks)
    return _joined(ground.image, [ground, placed])


def blended(one: Labelled, other: Labelled, share: float, fill: Sequence[int]) -> Labelled:
    """Both images in one, with the objects of both (mixup for detection, arXiv 1902.04103, section 3.1).

    Args:
        one: Stands in the upper left corner.
        other: As well; where one of them ends, the canvas goes on.
        share: Of the pixels of `one`, 0..1.
        fill: Colour of the canvas, K grey levels.
    """
    shape = max(one.size[0], other.size[0]), max(one.size[1], other.size[1])
    first, second = (pasted(canvas(shape, fill), each, 0, 0) for each in (one, other))
    mixed = first.image.float().mul_(share).add_(second.image, alpha=1 - share).add_(0.5).to(torch.uint8)
    return _joined(mixed, [first, second])


def mosaic(tiles: Sequence[Labelled], shape: tuple[int, int], center: tuple[int, int], fill: Sequence[int]) -> Labelled:
    """Four images around a point (arXiv 2004.10934, section 3.3), each with a corner on it and cut off by the canvas.

    Args:
        tiles: Upper left, upper right, lower left and lower right image.
        shape: Height and width of the canvas in px.
        center: Row and column of the point in px.
        fill: Colour where no image is, K grey levels.
    """
    made = canvas(shape, fill)
    for place, tile in enumerate(tiles):
        top = center[0] - (tile.size[0] if place < 2 else 0)
        left = center[1] - (tile.size[1] if place % 2 == 0 else 0)
        made = pasted(made, tile, top, left)
    return made


def _through(transform: v2.Transform, labelled: Labelled) -> Labelled:
    """One of torchvision's transforms that cuts out a part."""
    boxes = tv_tensors.BoundingBoxes(labelled.boxes, format="XYXY", canvas_size=labelled.size)
    masks = None if labelled.masks is None else tv_tensors.Mask(labelled.masks)
    image, moved, seen = transform(tv_tensors.Image(labelled.image), boxes, masks)
    pixels = None if seen is None else seen.as_subclass(Tensor)
    return labelled.moved(image.as_subclass(Tensor), moved.as_subclass(Tensor), _areas(labelled.boxes), pixels)


def _nearest(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pixels at the middle of those of another size, height and width in px."""
    if shape == tuple(masks.shape[1:]):
        return masks
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long() for new, old in zip(shape, masks.shape[1:], strict=True)
    )
    return masks.index_select(1, rows).index_select(2, columns)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)


def _joined(image: Tensor, parts: Sequence[Labelled]) -> Labelled:
    """An image with the objects of several, which are of its size where they have masks."""
    boxes, labels, crowd = (torch.cat([getattr(part, name) for part in parts]) for name in ("boxes", "labels", "crowd"))
    masks = None
    if any(part.masks is not None for part in parts):
        none = [torch.zeros(len(part.boxes), *image.shape[1:], dtype=torch.bool) for part in parts]
        masks = torch.cat([a if part.masks is None else part.masks for part, a in zip(parts, none, strict=True)])
    return Labelled(image, boxes, labels, crowd, masks)
