"""From pictures to detections: what `DenseDetector.predict` and `ld-hub predict` do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.layers.postprocess import NmsKind, PostprocessConfig
from ld_hub.models.tiled import candidates, merge_views
from ld_hub.preprocessing import DataConfig, ImageSource, Preprocessor, Sample, collate, load_image, padded_shape
from ld_hub.preprocessing.loading import find_images, is_directory, is_pattern, match_images
from ld_hub.structures import DenseOutput, Detections
from ld_hub.tiling import Tiling

Images: TypeAlias = "ImageSource | Iterable[ImageSource]"

READ_AHEAD = 2  # batches of images read at once, to find some of one shape among them


class Predictor(Protocol):
    """What is asked of a model here, so that `DenseDetector` may call this room and not the other way round."""

    data_config: DataConfig
    postprocess_config: PostprocessConfig

    def __call__(self, images: Tensor, /) -> DenseOutput:
        """Rows of a batch."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights; the first one tells device and type."""

    def modules(self) -> Iterator[nn.Module]:
        """The model and all its parts."""

    def eval(self) -> Any:
        """Leave training mode."""

    def postprocess(
        self,
        output: DenseOutput,
        image_sizes: Tensor,
        scale_factors: Tensor | None = None,
        *,
        config: PostprocessConfig | None = None,
    ) -> list[Detections]:
        """Detections of each image."""


def predict(
    model: Predictor,
    images: Images,
    *,
    threshold: float | None = None,
    nms: NmsKind | None = None,
    batch_size: int = 8,
    keep_images: bool = True,
    tiling: Tiling | None = None,
) -> Detections | list[Detections]:
    """Detect objects on one image or on many.

    Args:
        model: Stays on its device and, afterwards, in its mode.
        images: A path, URL, Pillow image, array, tensor or encoded bytes; or several of them; or a directory, whose
            image files (not those of its subdirectories) are taken sorted by name; or a pattern such as
            ``photos/**/*.jpg``.
        threshold: Least score, exclusive, 0..1; by default the model's own ``postprocess_config.score_threshold``.
        nms: Kind of suppression, see `ld_hub.layers.postprocess.PostprocessConfig`; by default the model's own.
        batch_size: Most images in one forward pass. Does not change the result.
        keep_images: Whether each result keeps its image, so that ``.draw()`` needs no argument.
        tiling: Look at images larger than a tile piece by piece; ``max_detections`` then counts for each piece.

    Returns:
        `Detections` (on the CPU, px of the upright original image) of the single image, or a list of them.

    Raises:
        MissingFileError: If a file does not exist, or a directory has no images.
        DataError: If an image cannot be read; it is named.
        ConfigError: If `images` is none of these, `threshold` or `batch_size` no number in range, or `nms` unknown.
        EvaluationError: If the model's scores are not numbers.
    """
    sources, single = _sources(images)
    found = list(
        iter_predict(
            model,
            sources,
            threshold=threshold,
            nms=nms,
            batch_size=batch_size,
            keep_images=keep_images,
            tiling=tiling,
        )
    )
    return found[0] if single else found


def iter_predict(
    model: Predictor,
    sources: Iterable[ImageSource],
    *,
    threshold: float | None = None,
    nms: NmsKind | None = None,
    batch_size: int = 8,
    keep_images: bool = True,
    tiling: Tiling | None = None,
    config: PostprocessConfig | None = None,
) -> Iterator[Detections]:
    """Detect on images one after the other, holding only a few in memory.

    Only images of the same padded size share a batch. More padding would change an image's features near its right
    and bottom edges (and the statistics of group norms), hence its detections: so a batch of one is as a batch of many.

    Args:
        model: See `predict`.
        sources: Images, without directories.
        threshold: See `predict`.
        nms: See `predict`.
        batch_size: See `predict`.
        keep_images: See `predict`.
        tiling: See `predict`.
        config: How boxes are chosen; by default the model's own ``postprocess_config``.

    Yields:
        The detections of each image, in the order of `sources`. Errors as in `predict`.
    """
    if threshold is not None and not (_is_a(Real, threshold) and 0 <= threshold <= 1):
        raise ConfigError(f"threshold is a score from 0 to 1; found {threshold!r}.")
    if not (_is_a(Integral, batch_size) and batch_size >= 1):
        raise ConfigError(f"batch_size is a whole number from 1; found {batch_size!r}.")
    config = config or model.postprocess_config
    if threshold is not None:
        config = config.letting_through(threshold)
    if nms is not None:
        config = replace(config, nms=nms)
    rest = iter(sources)
    ahead = READ_AHEAD * batch_size if tiling is None else 1  # a large image has batches of its own
    while window := [load_image(source) for source in islice(rest, ahead)]:
        if tiling is None:
            found = _detect_all(model, window, config, batch_size)
        else:
            found = [_detect_in_views(model, image, tiling, config, batch_size) for image in window]
        for image, each in zip(window, found, strict=True):
            kept = each if threshold is None else each.filter(threshold)
            yield replace(kept, image=image if keep_images else None)


def _detect_all(
    model: Predictor, images: Sequence[Image.Image], config: PostprocessConfig, batch_size: int
) -> list[Detections]:
    """The detections of each image, in as few forward passes as their padded sizes allow."""
    preprocess = Preprocessor(model.data_config)
    samples = [preprocess(image) for image in images]
    found: dict[int, Detections] = {}
    for group in _groups(samples, batch_size):
        found.update(zip(group, _detect(model, [samples[k] for k in group], config), strict=True))
    return [found[k] for k in range(len(samples))]


def _detect_in_views(
    model: Predictor, image: Image.Image, tiling: Tiling, config: PostprocessConfig, batch_size: int
) -> Detections:
    """The detections of a large image from those of its tiles."""
    views = tiling.views(*image.size)
    if len(views) == 1:
        return _detect_all(model, [image], config, batch_size)[0]
    crops = [image.crop(view) for view in views]
    return merge_views(_detect_all(model, crops, candidates(config), batch_size), views, config)


def _sources(images: Any) -> tuple[Iterable[Any], bool]:
    """What to read one after the other, and whether a single image was meant."""
    if isinstance(images, (str, Path)) and is_directory(images):
        return find_images(images), False
    if isinstance(images, str) and is_pattern(images):
        return match_images(images), False
    if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4:
        return list(images), False
    if isinstance(images, (str, Path, bytes, io.BytesIO, Image.Image, np.ndarray, Tensor)):
        return [images], True
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return images, False
    kind = type(images).__name__
    raise ConfigError(f"Cannot detect on a {kind}; give a path, image, array, tensor or a list of them.")


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _groups(samples: list[Sample], batch_size: int) -> Iterator[list[int]]:
    """Indices of samples that share a padded size, at most `batch_size` at a time."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for k, sample in enumerate(samples):
        by_shape.setdefault(padded_shape(*sample.image_size, sample.config.size_divisor), []).append(k)
    for indices in by_shape.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


@contextlib.contextmanager
def evaluating(model: nn.Module | Predictor) -> Iterator[None]:
    """Eval mode without gradients; afterwards every submodule is in the mode it was in.

    Not `torch.inference_mode`: the model keeps its priors, and those made there could not be used in training.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _detect(model: Predictor, samples: list[Sample], config: PostprocessConfig) -> list[Detections]:
    """One forward pass."""
    weight = next(model.parameters())
    batch = collate(samples).to(weight.device)
    with evaluating(model):
        output = model(batch.images.to(weight.dtype))
        require_numbers(output, [f"An image of {w} x {h} px" for h, w in batch.original_sizes.tolist()])
        found = model.postprocess(output, batch.image_sizes, batch.scale_factors, config=config)
    return [detections.to("cpu") for detections in found]


def require_numbers(output: DenseOutput, images: Sequence[str]) -> None:
    """Refuse predictions that no threshold lets through, so that a broken model would merely find little.

    Args:
        output: Of the network.
        images: What to call each image.

    Raises:
        EvaluationError: If a class or quality score is NaN, naming the image.
    """
    best = output.cls_logits.amax(dim=(1, 2))
    broken = (best if output.quality is None else best + output.quality.amax(dim=1)).isnan()
    if broken.any():
        raise EvaluationError(
            f"{images[int(broken.nonzero()[0])]}: the model's scores are not numbers (NaN). Did it diverge, or is the "
            "precision too low for it?"
        )
