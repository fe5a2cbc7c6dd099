"""Code of the user's own that runs before names are looked up: ``--import FILE.py|MODULE``, and installed plugins.

Importing it registers terms, recipes, regions, families, backbones, readers. Only what somebody types or installs is
imported: no model, card or configuration file can name any.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from ld_hub.errors import ConfigError, LdHubError, MissingFileError

FLAG = "--import"
GROUP = "ld_hub.plugins"  # of entry points: ``my_package = "my_package.detection"``

_imported: dict[str, ModuleType] = {}


def load_plugins(argv: Sequence[str]) -> list[str]:
    """Import installed plugins and what ``--import`` names, and return the arguments without it.

    Args:
        argv: Arguments after the program's name. The flag may be repeated; its names are separated by commas.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If there is no such module, or the code fails; names its line.
    """
    rest, names = _split(argv)
    for point in entry_points(group=GROUP):
        _load(point.value.partition(":")[0], f"the installed plugin '{point.name}'")
    for name in names:
        _load(name, f"{FLAG} {name}")
    return rest


def imported_files() -> dict[str, Path]:
    """Files that were imported so far by ``--import`` or as plugins, by the name of their module."""
    return {name: Path(module.__file__) for name, module in _imported.items() if module.__file__ is not None}


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The other arguments, and the names behind the flag."""
    rest: list[str] = []
    names: list[str] = []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != FLAG:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or value.startswith("-"):
            raise ConfigError(f"{FLAG} needs a file or the name of a module behind it: {FLAG} my_method.py.")
        names += [name.strip() for name in value.split(",") if name.strip()]
    return rest, names


def _load(name: str, who: str) -> None:
    """Import a file or a module once."""
    file = Path(name).expanduser() if name.endswith(".py") else None
    if file is not None and not file.is_file():
        raise MissingFileError(f"{who}: there is no file '{file}'.")
    key = name if file is None else str(file.resolve())
    if any(key in (known, module.__file__) for known, module in _imported.items()):
        return
    try:
        module = importlib.import_module(name) if file is None else _import_file(file.resolve())
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"{who} imports '{error.name}', which is not installed.") from error
        raise ConfigError(f"{who}: there is no module of that name; a file is named with its ending .py.") from None
    except LdHubError as error:
        raise type(error)(f"{who}: {error}") from error
    except Exception as error:  # whatever somebody's code may raise
        line = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{who} failed with {type(error).__name__}: {reason} ({line.filename}, line {line.lineno})."
        ) from error
    _imported[module.__name__] = module


def _import_file(file: Path) -> ModuleType:
    """A file as a module of its stem's name, or of another one where that is taken."""
    name = file.stem if importlib.util.find_spec(file.stem) is None else f"ld_hub_import_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:  # pragma: no cover  # a file that ends in .py has a loader
        raise ConfigError(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look for it there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
