"""Recipes by name or from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ld_hub.distillation import Recipe, get_recipe
from ld_hub.errors import ConfigError, LdHubError, MissingFileError

SUFFIXES = (".yaml", ".yml", ".json")
FIELDS = ("name", "summary", "reference", "family", "paper", "terms")


def find_recipe(recipe: str) -> Recipe:
    """A registered recipe, or one from a file.

    Args:
        recipe: Name, or path of a YAML or JSON file with the fields of `Recipe.to_dict`.

    Raises:
        UnknownNameError: If there is no such name, kind of term or field.
        MissingFileError: If there is no such file.
        ConfigError: If the file is no recipe; names the file, the term and the field.
    """
    return read_recipe(Path(recipe)) if recipe.endswith(SUFFIXES) else get_recipe(recipe)


def read_recipe(file: Path) -> Recipe:
    """Read a recipe; see `find_recipe`."""
    from jsonargparse import get_loader
    from yaml import YAMLError

    if not file.is_file():
        raise MissingFileError(f"There is no recipe '{file}'. Registered ones go by name: `ld-hub recipes` lists them.")
    try:
        content: Any = get_loader("yaml")(file.read_text(encoding="utf-8"))  # takes 1e-3 for a number
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Recipe '{file}' cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content.get("terms"):
        raise ConfigError(
            f"Recipe '{file}' has no terms. Expected e.g. "
            "{name: mine, terms: {ld: {kind: box_bins_kl, weight: 1.0}}}."
        )
    unknown = [key for key in content if key not in FIELDS]
    if unknown:
        raise ConfigError(f"Recipe '{file}' has the field '{unknown[0]}'; a recipe has {', '.join(FIELDS)}.")
    try:
        return Recipe.from_dict({"name": file.stem, **content})
    except LdHubError as error:
        raise type(error)(f"Recipe '{file}': {error}") from None
