"""What verbs read from and write to, looked at before the work, and before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from ld_hub.errors import ConfigError, MissingFileError


def check_directory(place: str | Path, flag: str = "--out") -> None:
    """Make sure that a directory can be written to, or made.

    Args:
        place: As the user gave it.
        flag: Where.

    Raises:
        ConfigError: If it, or what it is to be made in, is a file.
    """
    path = Path(place)
    for each in (path, *path.parents):
        if each.is_dir():
            return
        if each.exists():
            raise ConfigError(f"{flag} {place}: {each} is a file; name a directory.")


def check_file(place: str | Path, flag: str) -> None:
    """Make sure that a file can be written.

    Args:
        place: As the user gave it.
        flag: Where.

    Raises:
        ConfigError: If it is a directory, or what it is to lie in is a file.
    """
    if Path(place).is_dir():
        raise ConfigError(f"{flag} {place} is a directory; name a file.")
    check_directory(Path(place).parent, flag)


def require_directory(place: str | Path, what: str) -> None:
    """Refuse a directory that does not exist.

    Args:
        place: As the user gave it.
        what: Kind of directory, for the message.

    Raises:
        MissingFileError: If there is none.
    """
    if not Path(place).expanduser().is_dir():
        raise MissingFileError(f"No {what} '{place}'.")


def require_file(place: str | Path, what: str) -> None:
    """Refuse a file that does not exist; as `require_directory`."""
    if not Path(place).expanduser().is_file():
        raise MissingFileError(f"No {what} '{place}'.")
