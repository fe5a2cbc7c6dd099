"""The range of values of each band, found on training images."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from ld_hub.data.detection_set import DetectionSet
from ld_hub.errors import DataError
from ld_hub.preprocessing.bands import BandImage, needs_ranges
from ld_hub.preprocessing.data_config import DataConfig

PERCENTILES = (1.0, 99.0)
_IMAGES, _PIXELS = 200, 20_000  # looked at: of the data, of an image


class TakesBands(Protocol):
    """A model that is told how its images become input."""

    data_config: DataConfig


def fit_bands(model: TakesBands, dataset: DetectionSet) -> bool:
    """Tell a model the ranges of its bands, if it takes the bands of the data and does not know any.

    Args:
        model: Before it is trained.
        dataset: What it is trained on; its first image says whether there are bands of more than 8 bits.

    Returns:
        Whether there was something to tell.

    Raises:
        DataError: As of `find_ranges`.
    """
    config = model.data_config
    if config.band_ranges or not len(dataset) or not needs_ranges(dataset.records.load(0), config.channels):
        return False
    model.data_config = replace(config, band_ranges=find_ranges(dataset, config.channels))
    return True


def find_ranges(
    dataset: DetectionSet, bands: int, percentiles: tuple[float, float] = PERCENTILES
) -> tuple[tuple[float, float], ...]:
    """Percentiles of each band over up to 200 images at equal distances, of which up to 20 000 px each.

    Args:
        dataset: Training images.
        bands: K.
        percentiles: The lower and the upper one.

    Returns:
        K pairs. Of a band with one value alone the upper end is one more than the lower.

    Raises:
        DataError: If an image does not have K bands of more than 8 bits.
    """
    records, many = dataset.records, len(dataset)
    parts = []
    for index in sorted({int(k) for k in np.linspace(0, many - 1, min(many, _IMAGES))}):
        image = records.load(index)
        if not isinstance(image, BandImage) or not needs_ranges(image, bands):
            path = records.paths[index].as_py()
            raise DataError(f"{path} does not have {bands} bands of more than 8 bits, as other images of the data do.")
        pixels = image.bands.reshape(-1, bands)
        parts.append(pixels[:: max(1, len(pixels) // _PIXELS)].astype(np.float64))
    values = np.concatenate(parts)
    low, high = np.nanpercentile(values[np.isfinite(values).all(axis=1)], percentiles, axis=0)
    return tuple((float(a), float(b) if b > a else float(a) + 1) for a, b in zip(low, high, strict=True))
