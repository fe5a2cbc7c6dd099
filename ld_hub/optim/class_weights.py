"""Which classes count how much, from a flag or a file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.hub.card_file import read_yaml

FILES = (".json", ".yaml", ".yml")


def read_class_weights(given: str | Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Factors of classes by name.

    Args:
        given: ``"person=2,car=0.5"``, the path of a JSON or YAML file with a mapping, or the mapping.
        names: The classes that there are.

    Raises:
        ConfigError: If a name is unknown or a weight is no number above 0; names it.
        MissingFileError: If there is no such file.
    """
    where = "class_weights"
    if isinstance(given, Mapping):
        content: Mapping[str, object] = given
    elif given.lower().endswith(FILES):
        where = f"class_weights '{given}'"
        content = _read_file(Path(given).expanduser())
    else:
        content = _read_pairs(given)
    weights = {}
    for name, value in content.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3) or list(names[:8])
            raise ConfigError(f"{where}: there is no class '{name}' in the data; did you mean {' or '.join(close)}?")
        weights[name] = _weight(value, f"{where}: the weight of '{name}'")
    return weights


def _read_file(file: Path) -> Mapping[str, object]:
    try:
        return read_yaml(file.read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        raise MissingFileError(f"class_weights: '{file}' cannot be read ({error.strerror}).") from None
    except ConfigError as error:
        raise ConfigError(f"class_weights: the contents of '{file}' {error}") from None


def _read_pairs(text: str) -> dict[str, object]:
    pairs = [entry.rpartition("=") for entry in text.split(",")]
    if any(not name.strip() or not value.strip() for name, _, value in pairs):
        raise ConfigError(
            f"class_weights is {text!r}; expected NAME=WEIGHT,NAME=WEIGHT ... or a {', '.join(FILES)} file (names with "
            "commas: in a file)."
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


def _weight(value: object, what: str) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"{what} is {value!r}; expected a number above 0.")
    return number
