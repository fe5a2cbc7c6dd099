"""How fast images come: reading, augmenting and batching by worker processes, as training does it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from itertools import islice

from ld_hub.benchmark.steps import Workload
from ld_hub.data import DetectionSet, train_loader
from ld_hub.preprocessing import Augmentation, DataConfig, train_transform

ROUND = 4  # batches of each worker in a measured round


@dataclass(frozen=True)
class DataRate:
    """Speed of a loader.

    Attributes:
        augmentation: What is done to the images, in words.
        workers: Processes that load them; 0 is the training process itself.
        images_per_second: Median over the rounds.
        slowest: Images per second of the slowest round.
        of_step: `images_per_second` over those of a training step without data; None where no step was measured.
            Below 1 training waits for its images.
    """

    augmentation: str
    workers: int
    images_per_second: float
    slowest: float
    of_step: float | None = None


def measure_rate(
    dataset: DetectionSet,
    augmentation: Augmentation,
    work: Workload,
    workers: int,
    *,
    step: float | None = None,
    pin_memory: bool = False,
) -> DataRate:
    """Time the batches of a training that does nothing with them.

    Args:
        dataset: Whose images are read.
        augmentation: What is done to them.
        work: Size of images and batches, and rounds; one more comes first and is not counted.
        workers: Processes that load images.
        step: Images per second of a training step, for `DataRate.of_step`.
        pin_memory: Copy batches to page-locked memory, as for a GPU.
    """
    config = DataConfig(image_size=(min(work.height, work.width), max(work.height, work.width)))
    transform = train_transform(config, augmentation, work.seed)
    number, rates = ROUND * max(1, workers), []
    batches = iter(train_loader(dataset, transform, work.batch_size, workers=workers, pin_memory=pin_memory))
    for _ in range(work.repeats + 1):
        started = time.perf_counter()
        for _ in islice(batches, number):
            pass
        rates.append(number * work.batch_size / (time.perf_counter() - started))
    rate = statistics.median(rates[1:])
    described = augmentation.describe()
    return DataRate(described, workers, rate, min(rates[1:]), None if step is None else rate / step)
