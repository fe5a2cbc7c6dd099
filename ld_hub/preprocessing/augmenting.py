"""The training transform with everything that `Augmentation` names: one image, and others mixed in, to a sample.

All of it is done image by image in the workers; a collated batch is only normalised (`ld_hub.data.loader`). Every image
has its own draw, and torchvision's colour operators take one factor for a batch. Measured on one core at 480 x 640 px:
other light takes 7 ms of an image that gets it, 3 of the 10 ms of `standard` and 6 of the 24 ms of `strong`; the same
three operators on a collated batch of 8 bit take 11 ms an image there, in the one process that trains; a mirror takes
0.1 ms either way. After collation a mosaic's tiles would share one light, and padding would count for contrast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ld_hub.errors import ConfigError
from ld_hub.preprocessing.augmentation import Augmentation
from ld_hub.preprocessing.bands import pixels_of
from ld_hub.preprocessing.copy_paste import some_objects, with_objects
from ld_hub.preprocessing.data_config import DataConfig
from ld_hub.preprocessing.geometry import resize_shape
from ld_hub.preprocessing.labelled import (
    Labelled,
    blended,
    canvas,
    cropped_to_objects,
    fit_shape,
    in_other_light,
    mirrored,
    mosaic,
    pasted,
    random_window,
    resized,
)
from ld_hub.preprocessing.transforms import Sample, TrainTransform

ZOOMED_OUT = (0.33, 1.0)  # of its sides, what an image is shrunk to
TILE = (0.4, 0.8)  # of its usual size, what an image of a mosaic has
CENTER = (0.3, 0.7)  # of the canvas, where the images of a mosaic meet
BETA = 8.0  # both parameters of the beta distribution of mixup's shares: most lie between 0.25 and 0.75


def train_transform(config: DataConfig, augmentation: Augmentation, seed: int = 0) -> TrainTransform:
    """The transform that an augmentation asks for; the published one where that is resize and mirror alone.

    Args:
        config: Preprocessing of the model.
        augmentation: What is done.
        seed: Seed of all draws.

    Raises:
        ConfigError: If a value cannot work.
    """
    if set(augmentation.parts) <= {"flip", "short_sides"}:
        return TrainTransform(config, augmentation.flip, augmentation.short_sides, seed)
    return AugmentedTransform(config, augmentation, seed)


@dataclass(frozen=True)
class _Draw:
    """What an image gets: the parts by chance, and the size of everything."""

    crop: bool
    color: bool
    mosaic: bool
    mixup: bool
    scale: float


class AugmentedTransform(TrainTransform):
    """Crop, scale, light, mosaic, copy-paste, mixup, then the mirror; its first draws are those of `TrainTransform`.

    The result is never larger than what `TrainTransform` makes of the image. Objects of which less than a fifth is
    left are no objects any more. What an image gets depends on (`seed`, epoch, image id) alone, and on the number of
    images that others are drawn from.

    Args:
        config: Preprocessing of the model.
        augmentation: What is done.
        seed: Seed of all draws.

    Raises:
        ConfigError: If a value cannot work.
    """

    def __init__(self, config: DataConfig, augmentation: Augmentation, seed: int = 0) -> None:
        super().__init__(config, augmentation.flip, augmentation.short_sides, seed)
        if augmentation.color and config.channels not in (1, 3):
            raise ConfigError(
                f"The model takes {config.channels} bands, and color changes grey or RGB: --color 0 leaves it out."
            )
        self.augmentation = augmentation
        mean = config.mean[::-1] if config.channel_order == "bgr" else config.mean
        self.fill = tuple(min(255, max(0, round(level))) for level in mean)  # as padding looks to the network

    @property
    def mixes(self) -> bool:
        """See `TrainTransform.mixes`."""
        return self.augmentation.mixes

    @property
    def pastes(self) -> bool:
        """See `TrainTransform.pastes`."""
        return self.augmentation.copy_paste > 0

    def __call__(
        self,
        image: Image.Image,
        boxes: Tensor | None = None,
        labels: Tensor | None = None,
        crowd: Tensor | None = None,
        *,
        key: tuple[int, int] = (0, 0),
        others: Sequence[Labelled] = (),
        masks: Tensor | None = None,
    ) -> Sample:
        """See `TrainTransform.__call__`; without `others` there is neither mosaic nor mixup nor copy-paste."""
        random = self.generator(key)
        flipped, short = self.first_draws(random)
        source = labelled_image(self.config, image, boxes, labels, crowd, masks)
        room = resize_shape(*source.size, (short, self.config.image_size[1]))
        draw, seed = self._draw(random), int(random.integers(2**63))
        with _seeded(seed):
            made = self._made(source, room, draw, random, others, self._pasting(key))
        if flipped:
            made = mirrored(made)
        return Sample(
            made.image, source.size, self.config, made.boxes, made.labels, made.crowd, image_id=key[1], mirrored=flipped
        )

    def _draw(self, random: np.random.Generator) -> _Draw:
        """Always as many numbers, in one order, so that a part does not change what the others do."""
        wanted = self.augmentation
        crop, color, mixed, blend, zoom = random.random(5)
        low, high = wanted.scale_jitter or (1.0, 1.0)
        scale, margin = random.uniform(low, high), random.uniform(*ZOOMED_OUT)
        if zoom < wanted.zoom_out:
            scale *= margin
        return _Draw(crop < wanted.crop, color < wanted.color, mixed < wanted.mosaic, blend < wanted.mixup, scale)

    def _pasting(self, key: tuple[int, int]) -> np.random.Generator | None:
        """Random numbers of copy-paste, of which no other part takes any; None where nothing is pasted."""
        if not self.pastes:
            return None
        random = self.generator(key, 1)
        return random if random.random() < self.augmentation.copy_paste else None

    def _made(
        self,
        source: Labelled,
        room: tuple[int, int],
        draw: _Draw,
        random: np.random.Generator,
        others: Sequence[Labelled],
        pasting: np.random.Generator | None,
    ) -> Labelled:
        """The image of a sample, not yet mirrored, that fits into a room of height and width px."""
        parts = [source, *_chosen(others, 3, random)] if draw.mosaic and others else [source]
        if pasting is None or not others:  # masks would be moved for nothing
            parts = [part.bare for part in parts]
        made = (
            self._single(parts[0], room, draw, random) if len(parts) == 1 else self._mosaic(parts, room, draw, random)
        )
        if pasting is not None and others:
            made = self._with_objects(made, _chosen(others, 1, pasting)[0], pasting)
        if draw.mixup and others:
            (other,) = _chosen(others, 1, random)
            partner = resized(other.bare, fit_shape(other.size, room))
            made = blended(made, partner, float(random.beta(BETA, BETA)), self.fill)
        return made

    def _single(self, source: Labelled, room: tuple[int, int], draw: _Draw, random: np.random.Generator) -> Labelled:
        """Crop, scale and light. Above 1 a scale shows a part of the image, below 1 the image on a canvas."""
        part = cropped_to_objects(source) if draw.crop else source
        if draw.scale > 1:
            part = random_window(part, fit_shape(part.size, part.size, 1 / draw.scale))
        whole = fit_shape(part.size, room)
        made = self._resized(part, fit_shape(part.size, room, min(1.0, draw.scale)), draw.color)
        if made.size == whole:
            return made
        top, left = (
            int(random.integers(0, most - own, endpoint=True)) for most, own in zip(whole, made.size, strict=True)
        )
        return pasted(canvas(whole, self.fill), made, top, left)

    def _with_objects(self, made: Labelled, other: Labelled, random: np.random.Generator) -> Labelled:
        """Some objects of another image, which went its own way, at a random place."""
        objects = some_objects(other, random)
        if not len(objects.boxes):
            return made.bare
        source = self._single(objects, made.size, self._draw(random), random)
        if random.random() < self.flip:
            source = mirrored(source)
        top, left = (
            int(random.integers(0, most - own, endpoint=True)) for most, own in zip(made.size, source.size, strict=True)
        )
        return with_objects(made, source, top, left)

    def _mosaic(
        self, sources: Sequence[Labelled], room: tuple[int, int], draw: _Draw, random: np.random.Generator
    ) -> Labelled:
        scales = random.uniform(*TILE, size=len(sources))
        shapes = [fit_shape(each.size, room, scale) for each, scale in zip(sources, scales, strict=True)]
        tiles = [self._resized(each, shape, draw.color) for each, shape in zip(sources, shapes, strict=True)]
        order = random.permutation(len(tiles))
        row, column = (round(side * share) for side, share in zip(room, random.uniform(*CENTER, size=2), strict=True))
        return mosaic([tiles[place] for place in order], room, (row, column), self.fill)

    def _resized(self, source: Labelled, shape: tuple[int, int], color: bool) -> Labelled:
        """Resize, and change the light where there are fewer pixels: before or after."""
        first = color and source.size[0] * source.size[1] <= shape[0] * shape[1]
        made = resized(in_other_light(source) if first else source, shape)
        return in_other_light(made) if color and not first else made


def labelled_image(
    config: DataConfig,
    image: Image.Image,
    boxes: Tensor | None = None,
    labels: Tensor | None = None,
    crowd: Tensor | None = None,
    masks: Tensor | None = None,
) -> Labelled:
    """An image with its objects, as transforms take it.

    Args:
        config: Says how many channels the model takes.
        image: RGB.
        boxes: ``(G, 4)`` float32 xyxy px; None means no boxes.
        labels: ``(G,)`` int64; None means class 0 for all.
        crowd: ``(G,)`` bool; None means no crowds.
        masks: ``(G, h, w)`` bool; None where nobody needs them.
    """
    boxes = torch.zeros(0, 4) if boxes is None else boxes
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else labels
    crowd = torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else crowd
    return Labelled(pixels_of(image, config), boxes, labels, crowd, masks)


def _chosen(others: Sequence[Labelled], number: int, random: np.random.Generator) -> list[Labelled]:
    return [others[int(index)] for index in random.integers(len(others), size=number)]


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers on the CPU, from a seed, and afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed accelerators
        yield
