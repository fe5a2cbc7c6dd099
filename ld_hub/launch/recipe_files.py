"""Recipes by name or from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub import catalog
from ld_hub.errors import ConfigError, LdHubError, MissingFileError, unknown_name
from ld_hub.fields import config_fields
from ld_hub.launch.flag_parser import RecipeFlags, TermFlags
from ld_hub.registry import RECIPES

if TYPE_CHECKING:
    from ld_hub.distillation import Recipe

BOXES_ALONE = "scored_targets"  # what a teacher teaches that only detects
SUFFIXES = (".yaml", ".yml", ".json")
FIELDS = ("name", "summary", "reference", "family", "paper", "terms")


def recipe_flags(recipe: str, family: str, reference: str | None = None) -> RecipeFlags:
    """The terms of a recipe as flags; those of a catalogued name without importing the method.

    Args:
        recipe: Name, or path of a file; as of `find_recipe`.
        family: Of the student.
        reference: Code base whose computation the terms follow, or None.

    Raises:
        UnknownNameError: If there is no such name; as `find_recipe`.
    """
    if recipe == BOXES_ALONE:
        return RecipeFlags(recipe, ())
    if recipe.endswith(SUFFIXES) or recipe in RECIPES:
        terms = {name: (term.kind, config_fields(type(term), vars(term)))
                 for name, term in find_recipe(recipe, family, reference).terms.items()}  # fmt: skip
        return RecipeFlags(recipe, tuple(TermFlags(name, *rest) for name, rest in terms.items()))
    require_recipe(recipe)
    values = catalog.recipes()[recipe].terms_for(family, reference)
    kinds = {name: str(term["kind"]) for name, term in values.items()}
    flags = (TermFlags(name, kind, catalog.term_fields(kind, values[name])) for name, kind in kinds.items())
    return RecipeFlags(recipe, tuple(flags))


def require_recipe(recipe: str) -> None:
    """Refuse what names no recipe, without reading one.

    Raises:
        UnknownNameError: If there is no such name.
        MissingFileError: If there is no such file.
    """
    if recipe.endswith(SUFFIXES):
        if not Path(recipe).is_file():
            raise MissingFileError(
                f"There is no recipe '{recipe}'. Registered ones go by name: `ld-hub recipes` lists them."
            )
    elif recipe not in RECIPES and recipe not in catalog.recipes():
        raise unknown_name("recipe", recipe, {*catalog.recipes(), *RECIPES}, RECIPES.hint)


def find_recipe(recipe: str, family: str | None = None, reference: str | None = None) -> Recipe:
    """A registered recipe, or one from a file.

    Args:
        recipe: Name, or path of a YAML or JSON file with the fields of `Recipe.to_dict`.
        family: Of the student, whose settings it gets; None leaves it as it is.
        reference: Code base whose computation its terms are to follow, or None.

    Raises:
        UnknownNameError: If there is no such name, kind of term or field.
        MissingFileError: If there is no such file.
        ConfigError: If the file is no recipe; names the file, the term and the field.
    """
    if recipe == BOXES_ALONE:
        from ld_hub.distillation.recipes import SCORED_TARGETS

        return SCORED_TARGETS
    require_recipe(recipe)

    from ld_hub.distillation import get_recipe

    found = _read(Path(recipe)) if recipe.endswith(SUFFIXES) else get_recipe(recipe)
    if family is not None:
        found = found.for_family(family)
    return found if reference is None else found.published(reference)


def _read(file: Path) -> Recipe:
    from jsonargparse import get_loader
    from yaml import YAMLError

    from ld_hub.distillation import Recipe

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
