"""Which images make up which batch: without state, so that any batch can be found again at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ld_hub.data.annotations import Ints
from ld_hub.errors import ConfigError
from ld_hub.preprocessing import padded_shape, resize_shape

_EPOCHS_KEPT = 4  # permutations remembered; a batch rarely spans more than two epochs


@dataclass(frozen=True, eq=False)
class _Epoch:
    """One permutation, by group: where in the epoch its images come, and which they are."""

    places: list[Ints]
    members: list[Ints]


class TrainBatches(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """Endless batches of ``(epoch, index)``, wide and tall images apart.

    Each epoch is a permutation of all images, a function of (`seed`, epoch). Wide and tall images form two queues in
    that order; whenever a queue holds enough images for an optimizer step, they leave as one step. So every image comes
    exactly once per epoch, none is repeated to fill a batch, and what is left over waits for the next epoch. A group
    with fewer images than one step is not kept apart: it would fill batches with copies of the same few images.

    The stream depends on the images of a step (`batch_size` x `world` x `accumulation`) alone, not on how they are
    split over ranks and micro-batches.

    Args:
        sizes: ``(I, 2)`` height, width of all images in px.
        batch_size: Images per rank and micro-batch.
        seed: Seed of the permutations.
        rank: This process.
        world: Number of processes.
        start_batch: Micro-batches of this rank already done; the stream continues behind them.
        accumulation: Micro-batches per optimizer step.

    Raises:
        ConfigError: If there are no images, or a number makes no sense.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[int]] | Ints | Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        start_batch: int = 0,
        accumulation: int = 1,
    ) -> None:
        shape = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
        if len(shape) == 0:
            raise ConfigError("There are no images to train on.")
        for name, value in (("batch_size", batch_size), ("world", world), ("accumulation", accumulation)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")
        if not 0 <= rank < world:
            raise ConfigError(f"rank must lie in 0..{world - 1}, got {rank}.")
        if seed < 0 or start_batch < 0:
            raise ConfigError(f"seed and start_batch must not be negative, got {seed} and {start_batch}.")
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.start_batch, self.accumulation = start_batch, accumulation
        self.step_size = batch_size * world * accumulation
        self.groups = _groups(shape, self.step_size)
        self.counts: list[int] = np.bincount(self.groups).tolist()
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()

    @property
    def images(self) -> int:
        """Images per epoch."""
        return len(self.groups)

    @property
    def batches_per_epoch(self) -> float:
        """Micro-batches of one rank per epoch; not a whole number, since batches run across the ends of epochs."""
        return self.images / self.step_size * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, first = divmod(self.start_batch, self.accumulation)
        for items in self.steps(step):
            for micro in range(first, self.accumulation):
                start = (micro * self.world + self.rank) * self.batch_size
                yield items[start : start + self.batch_size]
            first = 0

    def steps(self, start: int = 0) -> Iterator[list[tuple[int, int]]]:
        """All images of each optimizer step over all ranks, from `start` on, without going through earlier ones."""
        epoch = start * self.step_size // self.images  # a good guess: at most a few epochs off
        while epoch > 0 and self._complete(epoch) > start:
            epoch -= 1
        while self._complete(epoch + 1) <= start:
            epoch += 1
        skip = start - self._complete(epoch)
        while True:
            for group, number in self._order(epoch)[skip:]:
                yield self._step(group, number)
            skip, epoch = 0, epoch + 1

    def _complete(self, epoch: int) -> int:
        """Steps that are complete when `epoch` begins."""
        return sum(epoch * count // self.step_size for count in self.counts)

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """``(group, number)`` of the steps that become complete during `epoch`, in that order."""
        ends: list[tuple[int, int, int]] = []
        for group, count in enumerate(self.counts):
            places = self._epoch(epoch).places[group]
            for number in range(epoch * count // self.step_size, (epoch + 1) * count // self.step_size):
                last = (number + 1) * self.step_size - 1 - epoch * count
                ends.append((int(places[last]), group, number))
        return [(group, number) for _, group, number in sorted(ends)]

    def _step(self, group: int, number: int) -> list[tuple[int, int]]:
        items: list[tuple[int, int]] = []
        position, stop = number * self.step_size, (number + 1) * self.step_size
        while position < stop:
            epoch, offset = divmod(position, self.counts[group])
            members = self._epoch(epoch).members[group][offset : offset + stop - position].tolist()
            items += [(epoch, index) for index in members]
            position += len(members)
        return items

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            random = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch))))
            order = random.permutation(self.images)
            places = [np.flatnonzero(self.groups[order] == group) for group in range(len(self.counts))]
            self._epochs[epoch] = _Epoch(places, [order[p] for p in places])
            while len(self._epochs) > _EPOCHS_KEPT:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]


def eval_batches(
    sizes: Sequence[Sequence[int]] | Ints,
    batch_size: int,
    image_size: tuple[int, int],
    size_divisor: int,
    *,
    rank: int = 0,
    world: int = 1,
) -> list[list[int]]:
    """Batches of indices for evaluation: each image once over all ranks, and one padded size per batch.

    Padding to a neighbour's size changes a network's output at the border. Where all images of a batch are padded to
    the same size, each gets what it would get alone, so AP does not depend on the batch size.

    Args:
        sizes: ``(I, 2)`` height, width of all images in px.
        batch_size: Images per batch.
        image_size: `DataConfig.image_size`.
        size_divisor: `DataConfig.size_divisor`.
        rank: This process.
        world: Number of processes.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
    if not 0 <= rank < world:
        raise ConfigError(f"rank must lie in 0..{world - 1}, got {rank}.")
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(np.asarray(sizes).tolist()):
        shape = padded_shape(*resize_shape(height, width, image_size), size_divisor)
        groups.setdefault(shape, []).append(index)
    batches = [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]
    return batches[rank::world]


def _groups(sizes: Ints, smallest: int) -> NDArray[np.int64]:
    """0 for tall and square images, 1 for wide ones; all 0 where one group is smaller than a step."""
    wide: NDArray[np.int64] = (sizes[:, 1] > sizes[:, 0]).astype(np.int64)
    if min(wide.sum(), len(wide) - wide.sum()) < smallest:
        return np.zeros(len(wide), dtype=np.int64)
    return wide
