"""Worker processes that turn rows into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ld_hub.data.dataset import DetectionSet, Records
from ld_hub.data.sampler import TrainBatches, eval_batches
from ld_hub.errors import LdHubError
from ld_hub.preprocessing import DataConfig, Preprocessor, Sample, TrainTransform, collate, load_image
from ld_hub.structures import ImageBatch


@dataclass(frozen=True)
class _Failure:
    """An error on its way from a worker process, which would otherwise wrap it in a traceback."""

    error: LdHubError


class _Loader(DataLoader[Any]):
    """Raises a worker's error as it was."""

    def __iter__(self) -> Iterator[ImageBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch


class _TrainRows(Dataset[Sample | _Failure]):
    """Loads and augments row `index` for the epoch given with it."""

    def __init__(self, records: Records, transform: TrainTransform) -> None:
        self.records, self.transform = records, transform

    def __getitem__(self, key: tuple[int, int]) -> Sample | _Failure:
        epoch, index = key
        records = self.records
        rows = slice(int(records.offsets[index]), int(records.offsets[index + 1]))
        try:
            return self.transform(
                records.load(index),
                torch.from_numpy(records.boxes[rows].copy()),
                torch.from_numpy(records.labels[rows].copy()),
                torch.from_numpy(records.crowd[rows].copy()),
                key=(epoch, int(records.image_ids[index])),
            )
        except LdHubError as error:
            return _Failure(error)


class _EvalRows(Dataset[Sample | _Failure]):
    """Loads row `index`, without boxes."""

    def __init__(self, records: Records, preprocess: Preprocessor) -> None:
        self.records, self.preprocess = records, preprocess

    def __getitem__(self, index: int) -> Sample | _Failure:
        try:
            sample = self.preprocess(self.records.load(index))
        except LdHubError as error:
            return _Failure(error)
        return replace(sample, image_id=int(self.records.image_ids[index]))


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
    filter_empty: bool = False,
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
        filter_empty: Leave out images without boxes, as published training does.

    Returns:
        A loader of `ImageBatch`; errors of workers are raised as they were.
    """
    if filter_empty:
        dataset = dataset.without_empty()
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
    batches = eval_batches(
        dataset.sizes, batch_size, config.image_size, config.size_divisor, rank=rank, world=world
    )
    return _loader(_EvalRows(dataset.records, Preprocessor(config)), batches, workers, pin_memory)


def _loader(rows: Dataset[Any], batches: Iterable[list[Any]], workers: int, pin_memory: bool) -> _Loader:
    return _Loader(
        rows,
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # worker seeds, which nothing uses; else they would be drawn from the global generator
    )


def _collate(samples: Sequence[Sample | _Failure]) -> ImageBatch | _Failure:
    for sample in samples:
        if isinstance(sample, _Failure):
            return sample
    return collate([s for s in samples if isinstance(s, Sample)])
