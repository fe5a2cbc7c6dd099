"""The training images on which the ranges of int8 are measured: which they are, and what the network sees of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ld_hub.data import DetectionSet
from ld_hub.export.program import DetectorRows, Size, network_inputs
from ld_hub.export.quantizing import Inputs


@dataclass(frozen=True)
class Calibration:
    """What config.json says of the images.

    Attributes:
        images: Their names, below the data set's directory of images where they lie there.
        sha256: Over the content of their files, one after the other: ``cat`` of them through ``sha256sum``.
        float32_layers: Weights of the convolutions that stayed float32 because int8 cost too much AP there.
    """

    images: tuple[str, ...]
    sha256: str
    float32_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Images of a data set, evenly over it.

    Attributes:
        dataset: To train on.
        number: Of images; all where it has fewer.
    """

    dataset: DetectionSet
    number: int

    @property
    def indices(self) -> list[int]:
        """Rows of the data set."""
        number = min(self.number, len(self.dataset))
        return [index * len(self.dataset) // number for index in range(number)]

    def inputs(self, rows: DetectorRows, size: Size | None) -> Iterator[Inputs]:
        """What a network is given for each image.

        Args:
            rows: The network, with its preprocessing.
            size: Height and width in px that images are padded to; None for the least that fits.

        Raises:
            DataError: If an image is damaged; names it.
            MissingFileError: If one is gone.
        """
        for index in self.indices:
            images, image_sizes = network_inputs(rows, self.dataset.records.load(index), size)
            yield {"images": images.numpy(), "image_sizes": image_sizes.numpy()}

    def described(self, float32_layers: tuple[str, ...]) -> Calibration:
        """Names and hash of the images, beside the layers that their ranges were not used for."""
        digest, names, root = hashlib.sha256(), [], self.dataset.image_dir
        for index in self.indices:
            file = Path(self.dataset.records.paths[index].as_py())
            inside = root and file.is_relative_to(root)
            names.append(file.relative_to(root).as_posix() if inside else file.name)
            digest.update(file.read_bytes())
        return Calibration(tuple(names), digest.hexdigest(), float32_layers)
