"""Text files as people and tools write them."""

from __future__ import annotations

from pathlib import Path

from ld_hub.errors import DataError


def read_lines(file: Path) -> list[str]:
    """The lines of a file without their ends; a byte order mark is no part of the first.

    Args:
        file: Text in UTF-8, with line ends of any system.

    Raises:
        DataError: If it is not text; names the file.
    """
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 ({error.reason}).") from None
