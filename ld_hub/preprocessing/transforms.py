"""From a Pillow image to a batch: resize, flip, and one place where pixels become floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ld_hub.errors import ConfigError
from ld_hub.preprocessing.bands import pixels_of
from ld_hub.preprocessing.data_config import DataConfig
from ld_hub.preprocessing.geometry import flip_boxes, flip_image, resize, resize_boxes, resize_shape
from ld_hub.preprocessing.loading import ImageSource, load_image
from ld_hub.preprocessing.normalize import normalize_batch
from ld_hub.structures import ImageBatch, Targets

if TYPE_CHECKING:
    from ld_hub.preprocessing.labelled import Labelled


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on its way into a batch, still in 8 bit.

    Attributes:
        image: ``(K, h, w)`` uint8, resized, RGB where K = 3.
        original_size: Height and width of the source in px.
        config: How `collate` will normalise it.
        boxes: ``(G, 4)`` float32 xyxy px of `image`, or None at inference.
        labels: ``(G,)`` int64 in 0..C-1, or None.
        crowd: ``(G,)`` bool, or None where no box is a crowd.
        image_id: Id in the dataset, or None.
        mirrored: Whether `image` was flipped left to right.
        file_hash: Of the file it was read from; empty where nobody asked.
    """

    image: Tensor
    original_size: tuple[int, int]
    config: DataConfig
    boxes: Tensor | None = None
    labels: Tensor | None = None
    crowd: Tensor | None = None
    image_id: int | None = None
    mirrored: bool = False
    file_hash: str = ""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of `image` in px."""
        return self.image.shape[1], self.image.shape[2]


class Preprocessor:
    """The inference transform: keep-ratio resize.

    Args:
        config: Preprocessing of the model.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    def __call__(self, image: Image.Image) -> Sample:
        """Resize an RGB image."""
        return _resized(image, self.config, self.config.image_size)


class TrainTransform:
    """The training transform: keep-ratio resize to a fixed or random size, then a random horizontal flip.

    What an image gets depends on (`seed`, epoch, image id) alone: not on the number of workers, the batch or the rank.

    Args:
        config: Preprocessing of the model.
        flip: Probability of the flip, 0..1.
        short_sides: ``(low, high)`` px: the short side is drawn from all integers in this range, both ends included;
            None takes it from `config`. The longest long side is always `config`'s.
        seed: Seed of all draws.

    Raises:
        ConfigError: If an argument has a value that cannot work.
    """

    def __init__(
        self, config: DataConfig, flip: float = 0.5, short_sides: tuple[int, int] | None = None, seed: int = 0
    ) -> None:
        if not 0 <= flip <= 1:
            raise ConfigError(f"flip is a probability in 0..1, got {flip}.")
        if short_sides is not None and not 1 <= short_sides[0] <= short_sides[1] <= config.image_size[1]:
            raise ConfigError(
                f"short_sides must be (low, high) px with 1 <= low <= high <= {config.image_size[1]} "
                f"(the longest long side), got {tuple(short_sides)}."
            )
        if seed < 0:
            raise ConfigError(f"seed must not be negative, got {seed}.")
        self.config, self.flip, self.short_sides, self.seed = config, flip, short_sides, seed

    @property
    def mixes(self) -> bool:
        """Whether it makes an image of several, so that it wants `others`."""
        return False

    @property
    def pastes(self) -> bool:
        """Whether it cuts objects out, so that it wants `masks`, of `others` as well."""
        return False

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
        """Transform one image.

        Args:
            image: RGB.
            boxes: ``(G, 4)`` float32 xyxy px of `image`; None means no boxes.
            labels: ``(G,)`` int64; None means class 0 for all.
            crowd: ``(G,)`` bool; None means no crowds.
            key: Epoch and image id.
            others: Images to mix in; this transform takes none, see `mixes`.
            masks: ``(G, h, w)`` bool pixels of the objects; this transform takes none, see `pastes`.
        """
        mirrored, short = self.draw(key)
        sample = _resized(image, self.config, (short, self.config.image_size[1]))
        boxes = torch.zeros(0, 4) if boxes is None else boxes
        boxes = resize_boxes(boxes, sample.original_size, sample.image_size)
        pixels = sample.image
        if mirrored:
            pixels, boxes = flip_image(pixels), flip_boxes(boxes, sample.image_size[1])
        if labels is None:
            labels = torch.zeros(len(boxes), dtype=torch.int64)
        return replace(
            sample, image=pixels, boxes=boxes, labels=labels, crowd=crowd, image_id=key[1], mirrored=mirrored
        )

    def draw(self, key: tuple[int, int]) -> tuple[bool, int]:
        """What the image of this epoch gets: whether it is mirrored, and its short side in px."""
        return self.first_draws(self.generator(key))

    def generator(self, key: tuple[int, int], part: int = 0) -> np.random.Generator:
        """The random numbers of an image in an epoch.

        Args:
            key: Epoch and image id.
            part: Of the augmentation; another one has numbers of its own.
        """
        epoch, image_id = key
        # Image ids may be negative in foreign files; a seed may not.
        sequence = np.random.SeedSequence(
            (self.seed, epoch, image_id & 0xFFFFFFFFFFFFFFFF), spawn_key=(part,) if part else ()
        )
        return np.random.Generator(np.random.Philox(sequence))

    def first_draws(self, random: np.random.Generator) -> tuple[bool, int]:
        """The first of these numbers: whether the image is mirrored, and its short side in px."""
        mirrored = bool(random.random() < self.flip)
        if self.short_sides is None:
            return mirrored, self.config.image_size[0]
        return mirrored, int(random.integers(self.short_sides[0], self.short_sides[1], endpoint=True))


def collate(samples: Sequence[Sample]) -> ImageBatch:
    """Normalise images and zero-pad them to one size; pad their boxes to one number.

    Args:
        samples: At least one; all with boxes or all without, all of one `DataConfig`.

    Raises:
        ConfigError: If there are no samples, or they do not go together.
    """
    layout = collate_layout(samples)
    return replace(layout, images=normalize_batch([s.image for s in samples], samples[0].config))


def collate_layout(samples: Sequence[Sample]) -> ImageBatch:
    """Everything of a batch but its pixels: `images` is empty.

    Args:
        samples: As for `collate`.

    Raises:
        ConfigError: As for `collate`.
    """
    if not samples:
        raise ConfigError("collate needs at least one sample.")
    if any(s.config != samples[0].config for s in samples):
        raise ConfigError("The samples of one batch must share their DataConfig.")
    image_sizes = torch.tensor([s.image_size for s in samples])
    original_sizes = torch.tensor([s.original_size for s in samples])
    return ImageBatch(
        images=torch.empty(0),
        image_sizes=image_sizes,
        scale_factors=(image_sizes / original_sizes).flip(1),
        original_sizes=original_sizes,
        targets=_collate_targets(samples, image_sizes),
        image_ids=tuple(s.image_id for s in samples if s.image_id is not None),
        contents=tuple(content_key(s.file_hash, s.mirrored) for s in samples if s.file_hash),
    )


def content_key(file_hash: str, mirrored: bool) -> str:
    """What is on an image: its file's hash, marked where it was flipped left to right."""
    return f"{file_hash}-mirrored" if mirrored else file_hash


def create_transform(
    mean: Sequence[float] = DataConfig.mean,
    std: Sequence[float] = DataConfig.std,
    channel_order: str = DataConfig.channel_order,
    image_size: Sequence[int] = DataConfig.image_size,
    size_divisor: int = DataConfig.size_divisor,
    band_ranges: Sequence[Sequence[float]] = DataConfig.band_ranges,
    *,
    pad: bool = False,
    is_training: bool = False,
) -> Callable[[ImageSource], Tensor]:
    """A plain image-to-tensor function, for use by hand: ``model(transform(image)[None])``.

    Takes the keywords of `resolve_data_config`, as timm's function of this name does.

    Args:
        mean: See `DataConfig`.
        std: See `DataConfig`.
        channel_order: See `DataConfig`.
        image_size: See `DataConfig`.
        size_divisor: See `DataConfig`.
        band_ranges: See `DataConfig`.
        pad: Zero-pad to multiples of `size_divisor`, as a batch of this image alone would be. Without padding the
            tensor's own height and width are what `postprocess` needs as image size.
        is_training: timm's argument; only False works, since boxes must move with their image.

    Returns:
        A function from an image (anything `load_image` takes: Pillow, path, URL, array, ...) to a normalised
        ``(K, h, w)`` float32 tensor.

    Raises:
        ConfigError: If a value cannot work.
    """
    if is_training:
        raise ConfigError("create_transform is for inference; training images and boxes go through TrainTransform.")
    config = DataConfig.from_dict(
        {
            "mean": mean,
            "std": std,
            "channel_order": channel_order,
            "image_size": image_size,
            "size_divisor": size_divisor,
            "band_ranges": band_ranges,
        }
    )
    preprocess = Preprocessor(config)

    def transform(image: ImageSource) -> Tensor:
        sample = preprocess(load_image(image))
        padded = collate([sample]).images[0]
        return padded if pad else padded[:, : sample.image_size[0], : sample.image_size[1]]

    return transform


def _resized(image: Image.Image, config: DataConfig, image_size: tuple[int, int]) -> Sample:
    tensor = pixels_of(image, config)
    original = tensor.shape[1], tensor.shape[2]
    return Sample(resize(tensor, resize_shape(*original, image_size)), original, config)


def _collate_targets(samples: Sequence[Sample], image_sizes: Tensor) -> Targets | None:
    boxes = [s.boxes for s in samples if s.boxes is not None]
    labels = [s.labels for s in samples if s.labels is not None]
    if not boxes and not labels:
        return None
    if len(boxes) != len(samples) or len(labels) != len(samples):
        raise ConfigError("The samples of one batch must all have boxes and labels, or none of them.")
    crowd = [
        torch.zeros(len(b), dtype=torch.bool) if s.crowd is None else s.crowd
        for s, b in zip(samples, boxes, strict=True)
    ]
    return Targets.pad(boxes, labels, image_sizes, crowd)
