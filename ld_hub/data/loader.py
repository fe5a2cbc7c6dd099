"""Worker processes that turn rows into batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ld_hub.data.detection_set import DetectionSet, Records
from ld_hub.data.sampler import TrainBatches, eval_batches
from ld_hub.errors import LdHubError
from ld_hub.preprocessing import DataConfig, Preprocessor, Sample, TrainTransform, collate
from ld_hub.preprocessing.normalize import normalize_batch
from ld_hub.preprocessing.transforms import collate_layout
from ld_hub.structures import ImageBatch


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker process, which would otherwise wrap it in a traceback."""

    error: LdHubError


@dataclass(frozen=True, eq=False)
class _Packed:
    """A batch on its way from a worker process, in 8 bit: a quarter of the shared memory to fill and to read.

    Attributes:
        pixels: The images one after the other, uint8.
        layout: All the rest.
        config: How to normalise them.
    """

    pixels: Tensor
    layout: ImageBatch
    config: DataConfig

    def unpack(self) -> ImageBatch:
        """The batch as `collate` would have made it."""
        shapes = [(self.config.channels, height, width) for height, width in self.layout.image_sizes.tolist()]
        parts = self.pixels.split([math.prod(shape) for shape in shapes])
        images = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return replace(self.layout, images=normalize_batch(images, self.config))

    def pin_memory(self) -> ImageBatch:
        """Called by the loader's pinning thread, which thereby does the unpacking."""
        return self.unpack().pin_memory()


class _Loader(DataLoader[Any]):
    """Unpacks what workers send, and raises their errors as they were."""

    def __iter__(self) -> Iterator[ImageBatch]:  # type: ignore[override]  # batches, not samples
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch.unpack() if isinstance(batch, _Packed) else batch


class _TrainRows(Dataset[Sample | _Failure]):
    """Loads and augments row `index` for the epoch given with it."""

    def __init__(self, records: Records, transform: TrainTransform) -> None:
        self.records, self.transform = records, transform

    def __getitem__(self, key: tuple[int, int]) -> Sample | _Failure:
        epoch, index = key
        records = self.records
        rows = slice(int(records.offsets[index]), int(records.offsets[index + 1]))
        try:
            sample = self.transform(
                records.load(index),
                torch.from_numpy(records.boxes[rows].copy()),
                torch.from_numpy(records.labels[rows].copy()),
                torch.from_numpy(records.crowd[rows].copy()),
                key=(epoch, int(records.image_ids[index])),
            )
        except LdHubError as error:
            return _Failure(error)
        return replace(sample, file_hash=records.file_hash(index))


class _EvalRows(Dataset[Sample | _Failure]):
    """Loads row `index`, without boxes."""

    def __init__(self, records: Records, preprocess: Preprocessor) -> None:
        self.records, self.preprocess = records, preprocess

    def __getitem__(self, index: int) -> Sample | _Failure:
        try:
            sample = self.preprocess(self.records.load(index))
        except LdHubError as error:
            return _Failure(error)
        return replace(sample, image_id=int(self.records.image_ids[index]), file_hash=self.records.file_hash(index))


def train_loader(
    dataset: DetectionSet,
    transform: TrainTransform,
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    start_batch: int = 0,
    accumulation: int = 1,
    workers: int = 2,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Endless training batches with targets and image ids.

    The batches depend on the seeds alone, not on `workers`; see `TrainBatches` for ranks and resuming.

    Args:
        dataset: What to train on.
        transform: Resize and flip, keyed by (epoch, image id).
        batch_size: Images per rank and micro-batch.
        seed: Seed of the order.
        rank: This process.
        world: Number of processes.
        start_batch: Micro-batches of this rank already done.
        accumulation: Micro-batches per optimizer step.
        workers: Worker processes; 0 loads in this process.
        pin_memory: Copy batches to page-locked memory, for transfer to a GPU.

    Returns:
        A loader of `ImageBatch`; errors of workers are raised as they were.
    """
    batches = TrainBatches(
        dataset.sizes,
        batch_size,
        seed=seed,
        rank=rank,
        world=world,
        start_batch=start_batch,
        accumulation=accumulation,
    )
    return _loader(_TrainRows(dataset.records, transform), batches, workers, pin_memory)


def eval_loader(
    dataset: DetectionSet,
    config: DataConfig,
    batch_size: int,
    *,
    rank: int = 0,
    world: int = 1,
    workers: int = 2,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Each image once over all ranks, without targets, in batches of one padded size (see `eval_batches`).

    Args:
        dataset: What to evaluate on.
        config: Preprocessing of the model.
        batch_size: Images per batch, at most.
        rank: This process.
        world: Number of processes.
        workers: Worker processes; 0 loads in this process.
        pin_memory: Copy batches to page-locked memory.

    Returns:
        A loader of `ImageBatch` with image ids.
    """
    batches = eval_batches(dataset.sizes, batch_size, config.image_size, config.size_divisor, rank=rank, world=world)
    return _loader(_EvalRows(dataset.records, Preprocessor(config)), batches, workers, pin_memory)


def _loader(rows: Dataset[Any], batches: Iterable[list[Any]], workers: int, pin_memory: bool) -> _Loader:
    return _Loader(
        rows,
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # for worker seeds, which nothing uses; else drawn from the global generator
    )


def _collate(items: Sequence[Sample | _Failure]) -> ImageBatch | _Packed | _Failure:
    for item in items:
        if isinstance(item, _Failure):
            return item
    samples = [item for item in items if isinstance(item, Sample)]
    if get_worker_info() is None:
        return collate(samples)
    pixels = np.concatenate([sample.image.numpy().reshape(-1) for sample in samples])
    return _Packed(torch.from_numpy(pixels), collate_layout(samples), samples[0].config)
