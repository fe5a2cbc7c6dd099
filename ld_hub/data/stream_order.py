"""In which order rows of a stream are trained on: dealt out to ranks, shuffled block by block, and found again.

Each epoch draws a new order of the stream's files. Its rows are dealt out to the ranks by
`datasets.distributed.split_dataset_by_node`, so that each is read by one rank, once. A rank reads blocks of rows and
shuffles each; while the rows of one are trained on, those of the next are read, one for one. A place in all this is
where `datasets` says that the block begins (`state_dict`), and how many of its rows are done: a run that is continued
reads that block again, and goes on with the next image.

Rows are read in the training process alone, and decoded in the loader's workers: the order does not depend on how many
there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ld_hub.data.annotations import Bools, Ints
from ld_hub.data.stream_set import StreamSet
from ld_hub.errors import CheckpointError, ConfigError, DataError, LdHubError
from ld_hub.preprocessing.loading import read_size


@dataclass(frozen=True)
class StreamPlace:
    """Where a rank stands.

    Attributes:
        epoch: Of the block.
        block: Number of it in its epoch.
        stream: State of the rows of the epoch where the block begins; None at the epoch's beginning.
        taken: Rows of the block that are done, in its own order.
        batches: Batches that are done since the run's start.
        world: Number of processes.
        rank: Which of them.
    """

    epoch: int = 0
    block: int = 0
    stream: Mapping[str, Any] | None = None
    taken: int = 0
    batches: int = 0
    world: int = 1
    rank: int = 0


@dataclass(frozen=True, eq=False)
class StreamRow:
    """A row on its way to be decoded.

    Attributes:
        epoch: Pass over the data in which it is looked at.
        where: What messages call it.
        key: Of its image, the same wherever and whenever it is read.
        content: All that the row holds.
    """

    epoch: int
    where: str
    key: int
    content: Mapping[str, Any]


@dataclass(eq=False)
class _Block:
    """Rows that are shuffled among each other.

    Attributes:
        start: Place of the first.
        rows: Those read so far.
        complete: Whether no more belong to it.
    """

    start: StreamPlace
    rows: list[StreamRow] = field(default_factory=list)
    complete: bool = False


class StreamBatches:
    """Endless batches of the rows of one rank.

    Wide and tall images are kept apart as far as a block allows, since a batch is padded to its largest.

    Args:
        dataset: The stream.
        batch_size: Images per rank and micro-batch.
        seed: Seed of the orders.
        start: Where to go on; the number of processes must be the same.

    Raises:
        ConfigError: If a number makes no sense.
    """

    def __init__(self, dataset: StreamSet, batch_size: int, *, seed: int = 0, start: StreamPlace | None = None) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.start = start or StreamPlace()
        self._places = {self.start.batches: self.start}

    def place(self, batches: int) -> StreamPlace:
        """Where the rank stands after so many batches since the run's start; earlier places are forgotten."""
        self._places = {number: place for number, place in self._places.items() if number >= batches}
        return self._places[batches]

    def __iter__(self) -> Iterator[list[StreamRow]]:
        reader, done, batches = _Reader(self.dataset, self.seed, self.start), self.start.taken, self.start.batches
        batch: list[StreamRow] = []
        while True:
            block = reader.take()
            head = (done or -len(batch)) % self.batch_size  # rows that fill up the batch of the block before
            order = self._order(block, head)
            for taken in range(done, len(order)):
                batch.append(block.rows[order[taken]])
                reader.read()
                if len(batch) == self.batch_size:
                    batches += 1
                    self._places[batches] = replace(block.start, taken=taken + 1, batches=batches)
                    yield batch
                    batch = []
            done = 0

    def _order(self, block: _Block, head: int) -> Ints:
        key = (self.seed, block.start.epoch, block.start.block, block.start.rank)
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        wide = np.array([_is_wide(self.dataset, row.content) for row in block.rows])
        return arrange(wide, head, self.batch_size, random)


def arrange(wide: Bools, head: int, batch_size: int, random: np.random.Generator) -> Ints:
    """An order of a block's rows whose batches are of one orientation, as far as there are enough of each.

    Args:
        wide: ``(B,)`` which rows are wide.
        head: Rows that belong to a batch begun before.
        batch_size: Rows of a batch.
        random: Decides the order.
    """
    order = random.permutation(len(wide))
    first, rest = order[:head], order[head:]
    groups = [rest[wide[rest]], rest[~wide[rest]]]
    full = [len(group) // batch_size * batch_size for group in groups]
    batches = np.concatenate([group[:end].reshape(-1, batch_size) for group, end in zip(groups, full, strict=True)])
    left = [group[end:] for group, end in zip(groups, full, strict=True)]
    return np.concatenate([first, random.permutation(batches).reshape(-1), *left])


def place_of(places: tuple[StreamPlace, ...], rank: int, world: int, where: str) -> StreamPlace:
    """The place of a rank among those that a checkpoint holds.

    Args:
        places: Of each rank.
        rank: This process.
        world: Number of processes.
        where: The checkpoint, for messages.

    Raises:
        CheckpointError: If it was made with another number of processes, or without streaming.
    """
    if not places:
        raise CheckpointError(f"'{where}' is of a run that did not stream its data: leave --streaming out.")
    if len(places) != world:
        raise CheckpointError(
            f"'{where}' holds the places of {len(places)} processes in the stream, and there are {world} now: continue "
            f"with {len(places)}."
        )
    return places[rank]


class _Reader:
    """Reads the blocks of one rank, one after the other, a row at a time if so wished."""

    def __init__(self, dataset: StreamSet, seed: int, start: StreamPlace) -> None:
        self.dataset, self.seed, self.size = dataset, seed, dataset.buffer
        self._begin_epoch(start)
        self._block = _Block(replace(start, taken=0, batches=0))

    def read(self) -> None:
        """Read one row of the block in the making."""
        block = self._block
        if block.complete:
            return
        for content in self._rows:
            if self.dataset.with_objects and not self.dataset.schema.objects_of(content).boxes:
                continue
            block.rows.append(_named(self.dataset, block.start.epoch, content))
            block.complete = len(block.rows) == self.size
            return
        block.complete = True

    def take(self) -> _Block:
        """The next block that has rows, complete."""
        while True:
            while not self._block.complete:
                self.read()
            block, start = self._block, self._block.start
            if len(block.rows) < self.size:  # the epoch is over
                if not block.rows and start.block == 0:
                    raise DataError(f"{self.dataset.source} has no images for rank {start.rank} of {start.world}.")
                begin = StreamPlace(start.epoch + 1, world=start.world, rank=start.rank)
                self._begin_epoch(begin)
            else:
                place = (start.epoch, start.block + 1, self._stream.state_dict())
                begin = StreamPlace(*place, world=start.world, rank=start.rank)
            self._block = _Block(begin)
            if block.rows:
                return block

    def _begin_epoch(self, place: StreamPlace) -> None:
        self._stream = _epoch(self.dataset.rows, self.seed, place)
        if place.stream is not None:
            self._stream.load_state_dict(dict(place.stream))
        self._rows = iter(self._stream)


def _epoch(rows: Any, seed: int, place: StreamPlace) -> Any:
    """Rows of one rank in an epoch: of files in a new order."""
    from datasets import concatenate_datasets
    from datasets.distributed import split_dataset_by_node

    many = rows.num_shards
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, place.epoch))))
    files = [rows.shard(many, int(index)) for index in random.permutation(many)]
    return split_dataset_by_node(concatenate_datasets(files), place.rank, place.world)


def _named(dataset: StreamSet, epoch: int, content: Mapping[str, Any]) -> StreamRow:
    """A row with a key and a name that are the same on every rank and in every epoch."""
    image, schema = content[dataset.schema.image] or {}, dataset.schema
    told = image.get("bytes") or str(image.get("path") or "").encode()
    key = int.from_bytes(hashlib.blake2b(told, digest_size=7).digest(), "big")
    name = image.get("path") or (content.get(schema.image_id) if schema.image_id else None)
    return StreamRow(
        epoch, f"{dataset.source}: image {key:014x}" if name is None else f"{dataset.source}: {name}", key, content
    )


def _is_wide(dataset: StreamSet, content: Mapping[str, Any]) -> bool:
    """Whether an image is wider than tall, as far as that is known without fetching it."""
    width, height = content.get("width"), content.get("height")
    held = (content[dataset.schema.image] or {}).get("bytes")
    if not (isinstance(width, int) and isinstance(height, int)) and held is not None:
        try:
            width, height = read_size(held)
        except LdHubError:
            return False  # told where it is decoded
    return bool(width and height and width > height)
