"""Sums and means over the ranks of a distributed run, and what they agree on; identities in a single process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, distributed

from ld_hub.structures import StepCounts

Value = TypeVar("Value")


_alone: list[bool] = []  # not empty within `alone`


@contextmanager
def alone() -> Iterator[None]:
    """Let this rank compute as if there were no others, whatever they do meanwhile: a trial that may fail on one."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def is_distributed() -> bool:
    """Whether a process group of more than one rank is up."""
    up = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    return up and not _alone


def world_size() -> int:
    """Number of ranks."""
    return distributed.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Index of this process."""
    return distributed.get_rank() if is_distributed() else 0


def leave() -> None:
    """End this rank's part in the run; without it a process may abort at its exit, with the work done."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def from_first_rank(value: Value) -> Value:
    """A plain value of the first rank, on every rank; for what each of them may have measured otherwise."""
    if not is_distributed():
        return value
    shared = [value]
    distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of a tensor without gradient over all ranks; the same on every rank."""
    if not is_distributed():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor without gradient over all ranks; the same on every rank."""
    return sum_over_ranks(value) / world_size()


def reduce_counts(parts: Sequence[StepCounts]) -> StepCounts:
    """Normalisers of a whole optimizer step from its micro-batches on this rank.

    Args:
        parts: `StepCounts.local` of each micro-batch.

    Returns:
        Means over micro-batches and ranks, by a single reduction; the same on every rank.
    """
    mean = StepCounts.mean(parts)
    packed = mean_over_ranks(torch.cat([torch.stack([mean.images, mean.samples, mean.centerness]), mean.positives]))
    return StepCounts(images=packed[0], samples=packed[1], centerness=packed[2], positives=packed[3:])
