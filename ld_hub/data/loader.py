"""Worker processes that turn rows into batches."""

from __future__ import annotations

import math
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ld_hub.data.detection_set import DetectionSet, Records
from ld_hub.data.sampler import TrainBatches, eval_batches
from ld_hub.errors import LdHubError
from ld_hub.preprocessing import DataConfig, Preprocessor, Sample, TrainTransform, collate
from ld_hub.preprocessing.augmenting import labelled_image
from ld_hub.preprocessing.labelled import Labelled
from ld_hub.preprocessing.normalize import normalize_batch
from ld_hub.preprocessing.transforms import collate_layout
from ld_hub.structures import ImageBatch

Item = TypeVar("Item")


@dataclass(frozen=True)
class Failure:
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
            if isinstance(batch, Failure):
                raise batch.error
            yield batch.unpack() if isinstance(batch, _Packed) else batch


class _Pool(Sequence[Labelled]):
    """All images with their objects, for transforms that mix several.

    Args:
        records: Of the data set.
        config: Preprocessing of the model.
        masks: With the pixels of the objects.
    """

    def __init__(self, records: Records, config: DataConfig, *, masks: bool = False) -> None:
        self.records, self.config, self.masks = records, config, masks

    def __len__(self) -> int:
        return len(self.records.image_ids)

    def __getitem__(self, index: Any) -> Any:
        masks = _masks(self.records, index) if self.masks else None
        return labelled_image(self.config, self.records.load(index), *_objects(self.records, index), masks)


class TrainRows(Dataset[Sample | Failure]):
    """Samples by ``(epoch, index, whether others may be mixed in)``; what cannot be read is a `Failure`.

    Args:
        records: Of the data set.
        transform: What is done to the images.
    """

    def __init__(self, records: Records, transform: TrainTransform) -> None:
        self.records, self.transform = records, transform
        self.pool: Sequence[Labelled] = _Pool(records, transform.config, masks=transform.pastes)

    def __getitem__(self, key: tuple[int, int, bool]) -> Sample | Failure:
        epoch, index, mixed = key
        records = self.records
        try:
            sample = self.transform(
                records.load(index),
                *_objects(records, index),
                key=(epoch, int(records.image_ids[index])),
                others=self.pool if mixed else (),
                masks=_masks(records, index) if mixed and self.transform.pastes else None,
            )
        except LdHubError as error:
            return Failure(error)
        return replace(sample, file_hash=records.file_hash(index))


def _objects(records: Records, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and crowds of a row."""
    rows = slice(int(records.offsets[index]), int(records.offsets[index + 1]))
    boxes, labels, crowd = (
        torch.from_numpy(each[rows].copy()) for each in (records.boxes, records.labels, records.crowd)
    )
    return boxes, labels, crowd


def _masks(records: Records, index: int) -> Tensor | None:
    """Pixels of the objects of a row, where there are outlines."""
    masks = records.masks(index)
    return None if masks is None else torch.from_numpy(masks)


class _MixedUntil:
    """The batches of a sampler, each image with whether others may be mixed into it.

    Args:
        batches: Of the sampler.
        steps: Optimizer steps from the start of the run in which they may.
    """

    def __init__(self, batches: TrainBatches, steps: float) -> None:
        self.batches, self.steps = batches, steps

    def __iter__(self) -> Iterator[list[tuple[int, int, bool]]]:
        for number, items in enumerate(self.batches, self.batches.start_batch):
            mixed = number // self.batches.accumulation < self.steps
            yield [(epoch, index, mixed) for epoch, index in items]


class _EvalRows(Dataset[Sample | Failure]):
    """Loads row `index`, without boxes."""

    def __init__(self, records: Records, preprocess: Preprocessor) -> None:
        self.records, self.preprocess = records, preprocess

    def __getitem__(self, index: int) -> Sample | Failure:
        try:
            sample = self.preprocess(self.records.load(index))
        except LdHubError as error:
            return Failure(error)
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
    mixed_steps: float = math.inf,
    skip_broken: bool = False,
    workers: int = 2,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Endless training batches with targets and image ids.

    The batches depend on the seeds alone, not on `workers`; see `TrainBatches` for ranks and resuming.

    Args:
        dataset: What to train on.
        transform: What is done to images, keyed by (epoch, image id).
        batch_size: Images per rank and micro-batch.
        seed: Seed of the order.
        rank: This process.
        world: Number of processes.
        start_batch: Micro-batches of this rank already done.
        accumulation: Micro-batches per optimizer step.
        mixed_steps: Optimizer steps, counted from the run's start, that mix images where `transform` does.
        skip_broken: Leave out images that cannot be read, and say which.
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
    items = _MixedUntil(batches, mixed_steps)
    return make_loader(TrainRows(dataset.records, transform), items, workers, pin_memory, skip_broken=skip_broken)


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
    return make_loader(_EvalRows(dataset.records, Preprocessor(config)), batches, workers, pin_memory)


def make_loader(
    rows: Dataset[Any],
    batches: Iterable[list[Any]],
    workers: int,
    pin_memory: bool,
    *,
    skip_broken: bool = False,
) -> DataLoader[Any]:
    """A loader of what a data set of samples has for the keys of each batch.

    Args:
        rows: Samples, or `Failure`.
        batches: Keys.
        workers: Worker processes; 0 loads in this process.
        pin_memory: Copy batches to page-locked memory.
        skip_broken: Leave out what cannot be read, and say so, instead of stopping; where nothing of a batch can be
            read, it stops.
    """
    return _Loader(
        rows,
        batch_sampler=batches,
        collate_fn=partial(_collate, skip_broken=skip_broken),
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # for worker seeds, which nothing uses; else drawn from the global generator
        worker_init_fn=_leave_signals_to_the_parent,
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a cluster's signals reach every process; workers go on until the one that they serve ends."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))  # the second one counts


def _collate(items: Sequence[Sample | Failure], skip_broken: bool = False) -> ImageBatch | _Packed | Failure:
    samples = [item for item in items if isinstance(item, Sample)]
    for item in items:
        if isinstance(item, Failure):
            if not (skip_broken and samples):
                return item
            warnings.warn(f"{item.error} It is left out.", stacklevel=2)
    if get_worker_info() is None:
        return collate(samples)
    pixels = np.concatenate([sample.image.numpy().reshape(-1) for sample in samples])
    return _Packed(torch.from_numpy(pixels), collate_layout(samples), samples[0].config)


def read_ahead(read: Callable[[int], Item], rows: Iterable[int], workers: int) -> Iterator[Item]:
    """What is read of each row, in order, by threads that stay as many rows ahead as they are.

    For images as files hold them, which are decoded outside Python and too large to be sent from process to process.

    Args:
        read: Reads a row.
        rows: Which ones.
        workers: Threads; 0 reads a row when it is asked for.
    """
    if workers == 0:
        yield from map(read, rows)
        return
    waiting: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for row in rows:
            waiting.append(pool.submit(read, row))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
