"""Writing that never leaves half a file: write beside the target, sync to disk, rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ld_hub.errors import ConfigError, MissingFileError

WEIGHTS_NAME = "model.safetensors"


def atomic_write(path: str | Path, data: str | bytes) -> Path:
    """Write a whole file so that a reader sees the old one or the new one, never a part.

    Args:
        path: Target; missing parent directories are made, symbolic links are followed.
        data: The new content; text is written as UTF-8.

    Returns:
        `path` as a `Path`.

    Raises:
        OSError: If the disk refuses (full, read-only); the target is then as it was.
    """
    with atomic_file(path) as beside:
        beside.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(path)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, and put what was written in the place of `path` when the block ends well.

    For writers that want a file name (safetensors, ``torch.save``, Pillow). The name keeps the suffix of `path`.
    When the block raises, the temporary file is removed and `path` is as it was.

    Args:
        path: Target; missing parent directories are made, symbolic links are followed.

    Yields:
        The temporary path, in the directory of `path`.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(target)
    try:
        yield beside
        put_in_place(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def put_in_place(finished: Path, target: Path) -> None:
    """Sync a finished file to disk, then rename it to `target` in the same directory."""
    _sync(finished)
    finished.replace(target)
    _sync_directory(target.parent)


def sha256_of(path: str | Path) -> str:
    """Hex digits of a file's sha256."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory to fill, and put its content in the place of `path` when the block ends well.

    A new `path` appears in one rename. In a directory that exists already every file is written and synced
    first, then renamed over its namesake; files of other names stay (a README of the user's, for example).
    When the block raises, nothing of it remains.

    Args:
        path: Target directory; missing parents are made.

    Yields:
        The temporary directory, beside `path`.

    Raises:
        ConfigError: If `path` is a file.
    """
    target = Path(os.path.realpath(path))
    if target.is_file():
        raise ConfigError(f"'{path}' is a file, and a directory is to be written there: name another place.")
    with _draft_of(target) as beside:
        yield beside
        for file in _files_of(beside):
            _sync(file)
        _move_into_place(beside, target)
        _sync_directory(target.parent)


def require_new_directory(path: str | Path) -> Path:
    """Refuse a place where `new_directory` could not write; returns it.

    Args:
        path: Target, which must not exist, or be an empty directory.

    Raises:
        ConfigError: If there is something at `path`.
    """
    target = Path(path).expanduser()
    if target.is_dir() and any(target.iterdir()):
        raise ConfigError(f"{target} exists and is not empty: remove it, or name another place.")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file, and a directory is to be written there: name another place.")
    return target


@contextlib.contextmanager
def new_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory to fill, which becomes `path` in one rename when the block ends well.

    For directories of many files that can be made again: they are not synced one by one, which would take longer than
    making them, and links in them are left alone. `atomic_directory` is for what must survive a power cut.

    Args:
        path: Target; missing parents are made. It must not exist, or be an empty directory.

    Yields:
        The temporary directory, beside `path`. When the block raises, nothing of it remains.

    Raises:
        ConfigError: If there is something at `path`.
    """
    target = require_new_directory(path)
    with _draft_of(target) as beside:
        yield beside
        if target.exists():
            target.rmdir()  # empty, as checked above
        beside.rename(target)


@contextlib.contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """An empty directory beside `target`, gone afterwards unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(target)
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """The directory of what was fetched or derived and can be had again.

    Args:
        cache_dir: Another one than ``$LD_HUB_CACHE``, or else ``~/.cache/ld_hub``.
    """
    return Path(cache_dir or os.environ.get("LD_HUB_CACHE") or "~/.cache/ld_hub").expanduser()


def describe_bytes(path: str | Path) -> str:
    """Say what a file that is not what it should be seems to be, from its first bytes.

    Args:
        path: An existing file.

    Returns:
        A phrase for an error message, e.g. ``"a Git LFS pointer (the real file was never fetched)"``;
        the empty string where nothing is recognised.

    Raises:
        MissingFileError: If there is no such file.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"No file '{path}'.")
    with open(path, "rb") as stream:
        head = stream.read(256)
    if not head:
        return "an empty file"
    text = head.lstrip().lower()
    kinds = (
        (
            head.startswith(b"version https://git-lfs"),
            "a Git LFS pointer (the real file was never fetched: run `git lfs pull`, or download it again)",
        ),
        (
            text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")),
            "a web page (the download gave an error page or needs a login)",
        ),
        (head.startswith(b"PK\x03\x04"), "a zip archive, which is what torch.save writes"),
        (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"), "a Python pickle"),
        (head[8:9] == b"{", "a safetensors file"),
    )
    return next((name for fits, name in kinds if fits), "")


def _beside(target: Path) -> Path:
    """A fresh hidden name in the directory of `target`; not tempfile's, whose files only the owner may read."""
    return target.with_name(f".{target.stem[:80]}-{secrets.token_hex(4)}.tmp{target.suffix[:20]}")


def _files_of(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file())


def _move_into_place(beside: Path, target: Path) -> None:
    if not target.exists():
        try:
            beside.rename(target)
            return
        except OSError:
            if not target.is_dir():  # else another process was faster: treat it as a directory that existed
                raise
    for file in _files_of(beside):
        place = target / file.relative_to(beside)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    _sync_directory(target)


def _sync(path: Path) -> None:
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    """Make the rename itself durable; only POSIX systems can open a directory."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
