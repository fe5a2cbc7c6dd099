"""Formats of data directories by name: what recognises one, what reads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ld_hub.data
from ld_hub.data.source import Source
from ld_hub.registry import Registry


@dataclass(frozen=True)
class Reader:
    """One format of data directories.

    Attributes:
        finds: Whether a directory holds a split in this format.
        read: Reads a split of a directory, and of a file where there are `suffixes`. It goes on after faults of single
            files, which it hands over as `Source.problems`.
        looked_for: What `finds` looks for, in words for the message that there is no such data.
        suffixes: Of files that a user may name instead of a directory.
        tool: Whether it is a labelling tool's; messages name these last.
        read_outlined: As `read`, with the outlines of objects; None where the format has none.
    """

    finds: Callable[[Path, str], bool]
    read: Callable[[Path, str], Source]
    looked_for: Callable[[Path, str], str]
    suffixes: tuple[str, ...] = ()
    tool: bool = False
    read_outlined: Callable[[Path, str], Source] | None = None


READERS: Registry[Reader] = Registry("format")


def register_reader(name: str, reader: Reader) -> None:
    """Make a format known to `load_data` and all commands; where several find a split, the first name counts.

    Args:
        name: Of the format, in small letters.
        reader: What reads it.
    """
    READERS.register(name, reader)


def known_readers() -> list[Reader]:
    """All formats, by name.

    Every module of this room that registers one is imported, so that a format is known by its file and nothing else has
    to name it. The other modules stay: some bring torch, and what a directory holds is asked before that.
    """
    for file in (file for place in ld_hub.data.__path__ for file in Path(place).glob("*.py")):
        if file.stem != "readers" and "register_reader(" in file.read_text(encoding="utf-8"):
            importlib.import_module(f"ld_hub.data.{file.stem}")
    return [READERS[name] for name in READERS]
