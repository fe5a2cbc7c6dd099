"""A store of tensors by key that only grows: shards of safetensors, each of them whole or not there.

A directory holds ``header.json``, which says what the store is of, and ``shard-*.safetensors``. A shard holds a number
of entries; a tensor of one is called ``KEY/FIELD``. Shards have random names and are written beside and renamed, so
several processes may append at the same time, and one that is killed leaves what it had finished.
"""

from __future__ import annotations

import json
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ld_hub.checked import Scalar, Source, read_fields
from ld_hub.errors import CacheError, CheckpointError
from ld_hub.hub.config_file import parse_json, write_json
from ld_hub.hub.weights_file import save_safetensors

Entry: TypeAlias = Mapping[str, Tensor]

FORMAT = 1  # of directories that this code writes
HEADER_NAME = "header.json"
SHARD_BYTES = 64 * 2**20  # of tensors, from which on a `ShardWriter` writes a shard
OPEN_SHARDS = 64  # that stay mapped into memory
ABANDONED_S = 3600.0  # age of an unfinished file from which on nobody is still writing it


@dataclass(frozen=True)
class Header:
    """Content of ``header.json``.

    Attributes:
        format: Of the directory.
        identity: What the store is of.
    """

    format: int
    identity: Mapping[str, Scalar]


class ShardStore:
    """Tensors by key on disk.

    Shards are mapped into memory where they are read: an entry costs the same however many there are.

    Args:
        directory: Where; made if it does not exist.
        identity: What the store is of, by names that a message can show.

    Raises:
        CacheError: If the directory holds a store of something else or of another format, or something that is no
            store; or if a shard is damaged.
    """

    def __init__(self, directory: str | Path, identity: Mapping[str, Scalar]) -> None:
        self.directory, self.identity = Path(directory).expanduser(), dict(identity)
        self._claim()
        self._shards: dict[str, str] = {}  # key -> name of its shard
        self._known: set[str] = set()  # names of shards
        self._open: OrderedDict[str, _Shard] = OrderedDict()
        self._checked: set[str] = set()  # keys whose content was compared with its checksum
        self.refresh()

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, key: object) -> bool:
        return key in self._shards

    def keys(self) -> list[str]:
        """Of all entries known, sorted; `refresh` finds those that others wrote since."""
        return sorted(self._shards)

    @property
    def size(self) -> int:
        """Bytes of all shards on disk."""
        return sum(path.stat().st_size for path in self._files())

    def refresh(self) -> None:
        """Look for shards that other processes have finished, and remove what killed ones left unfinished.

        Raises:
            CacheError: If a shard is damaged.
        """
        for left in self.directory.glob(".shard-*.tmp.safetensors"):
            try:
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    left.unlink()
            except FileNotFoundError:  # somebody has finished or removed it
                continue
        for path in self._files():
            if path.name not in self._known:
                self._add(path.name)

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of an entry, on the CPU; their memory is the file's, which must not be written to.

        Raises:
            KeyError: If there is no such entry.
            CacheError: If its shard is damaged or gone.
        """
        name = self._shards[key]
        shard = self._mapped(name)
        entry: dict[str, Tensor] = {}
        try:
            for part in shard.fields[key]:
                entry[part] = shard.file.get_tensor(f"{key}/{part}")
        except (SafetensorError, OSError, ValueError) as error:
            raise self._damaged(name, str(error)) from None
        if key not in self._checked:
            if checksum(entry) != shard.checks[key]:
                raise self._damaged(name, f"the content of {key} is not what was written")
            self._checked.add(key)
        return entry

    def append(self, entries: Mapping[str, Entry]) -> None:
        """Write entries as one shard; when this returns they are on disk, and before that nobody sees them.

        Args:
            entries: Tensors by key and field; the names of fields are without ``/``.

        Raises:
            CheckpointError: If a tensor holds NaN or infinity.
            OSError: If the disk refuses.
        """
        if not entries:
            return
        own = {key: {part: tensor.detach().cpu() for part, tensor in entry.items()} for key, entry in entries.items()}
        tensors = {f"{key}/{part}": tensor for key, entry in own.items() for part, tensor in entry.items()}
        checks = {key: checksum(entry) for key, entry in own.items()}
        name = f"shard-{secrets.token_hex(8)}.safetensors"
        save_safetensors(tensors, self.directory / name, {"checks": json.dumps(checks)})
        self._add(name)

    @contextmanager
    def writer(self, shard_bytes: int = SHARD_BYTES) -> Iterator[ShardWriter]:
        """Collect entries into shards of about this size; what is left is written when the block ends well.

        Args:
            shard_bytes: Of tensors.
        """
        writer = ShardWriter(self, shard_bytes)
        yield writer
        writer.flush()

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("shard-*.safetensors"))

    def _claim(self) -> None:
        """Make the directory this store's, or see that it is."""
        place = self.directory / HEADER_NAME
        if self.directory.exists() and not self.directory.is_dir():
            raise CacheError(f"'{self.directory}' is a file, and a cache is a directory: name another place.")
        if not place.is_file():
            if self.directory.exists() and any(not path.name.startswith(".") for path in self.directory.iterdir()):
                raise CacheError(
                    f"'{self.directory}' is not empty and no cache (it has no {HEADER_NAME}): name another place."
                )
            write_json(place, asdict(Header(FORMAT, self.identity)))
        try:
            content = parse_json(place, "the header of a cache")
            header = read_fields(Header, content, Source(f"'{place}'", CacheError, _AGAIN.format(self.directory)))
        except CheckpointError as error:
            raise CacheError(f"{error} {_AGAIN.format(self.directory)}") from None
        if header.format != FORMAT:
            raise CacheError(
                f"'{self.directory}' is a cache of format {header.format}, and this version reads format {FORMAT}. "
                f"{_AGAIN.format(self.directory)}"
            )
        names = [*self.identity, *(name for name in header.identity if name not in self.identity)]
        pairs = {name: (header.identity.get(name), self.identity.get(name)) for name in names}
        other = [f"{name}: {then} there, {now} now" for name, (then, now) in pairs.items() if then != now]
        if other:
            raise CacheError(
                f"'{self.directory}' is a cache of something else ({'; '.join(other)}). Name another directory, or "
                "delete this one."
            )

    def _add(self, name: str) -> None:
        """Take up the entries of a shard; one that is in several is read from the first that was found."""
        for key in self._mapped(name).fields:
            self._shards.setdefault(key, name)
        self._known.add(name)

    def _mapped(self, name: str) -> _Shard:
        """A shard, open; those that were not used for longest are closed."""
        shard = self._open.pop(name, None)
        if shard is None:
            try:
                shard = _Shard.open(self.directory / name)
            except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise self._damaged(name, str(error)) from None
        self._open[name] = shard
        while len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)
        return shard

    def _damaged(self, name: str, why: str) -> CacheError:
        return CacheError(
            f"'{self.directory / name}' is truncated or damaged ({why}). Delete this file: what was in it is made "
            "again at the next start, and all else is kept."
        )


class ShardWriter:
    """Collects entries, and writes them as shards; see `ShardStore.writer`."""

    def __init__(self, store: ShardStore, shard_bytes: int) -> None:
        self.store, self.shard_bytes = store, shard_bytes
        self._entries: dict[str, Entry] = {}
        self._bytes = 0

    def add(self, key: str, entry: Entry) -> None:
        """Take an entry; on disk with the next `flush`.

        Args:
            key: Any text.
            entry: Its tensors by field; not to be written to any more.
        """
        self._entries[key] = entry
        self._bytes += sum(tensor.nbytes for tensor in entry.values())
        if self._bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        self.store.append(self._entries)
        self._entries, self._bytes = {}, 0


@dataclass
class _Shard:
    """A shard that is mapped into memory: its file, the fields of each key, and the keys' checksums."""

    file: Any  # safetensors has no types
    checks: Mapping[str, int]
    fields: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> _Shard:
        """Of a whole file; safetensors refuses one whose length is not what its header says."""
        file: Any = safe_open(str(path), framework="pt")
        shard = cls(file, json.loads(file.metadata()["checks"]))
        shard.fields.update({key: [] for key in shard.checks})  # an entry may have no tensors
        for name in file.keys():
            key, _, part = name.rpartition("/")
            shard.fields[key].append(part)
        return shard


def checksum(entry: Entry) -> int:
    """CRC-32 of an entry's tensors, in the order of their fields' names."""
    value = 0
    for name in sorted(entry):
        content: Any = entry[name].contiguous().flatten().view(torch.uint8).numpy()
        value = zlib.crc32(content, value)
    return value


_AGAIN = "Delete '{}', it is made again; or name another directory."
