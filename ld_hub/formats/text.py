"""Text files as people and tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ld_hub.errors import DataError

CLASSES_FILE = "classes.txt"  # one name per line: fixes the order of the classes


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


def read_classes(file: Path) -> list[str]:
    """The class names of a file with one per line.

    Args:
        file: Text in UTF-8.

    Raises:
        DataError: If there are none, or one is given twice.
    """
    names = [line.strip() for line in read_lines(file) if line.strip()]
    if not names or len(set(names)) != len(names):
        twice = next((name for name in names if names.count(name) > 1), "")
        fault = f"gives the class '{twice}' twice" if twice else "has no class names"
        raise DataError(f"{file} {fault}; expected one name per line.")
    return names


def read_json_file(file: Path) -> Any:
    """The content of a JSON file.

    Args:
        file: Text in UTF-8.

    Raises:
        DataError: If it is not text, or not JSON; names the file.
    """
    try:
        return json.loads("\n".join(read_lines(file)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is not valid JSON ({error}).") from None
