"""`ld-hub recipes`: which distillation methods there are, what they are made of, what they need of two detectors."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ld_hub import catalog
from ld_hub.errors import unknown_name
from ld_hub.models.names import list_modules
from ld_hub.registry import RECIPES


def add_parser(subparsers: Any) -> None:
    """Add the verb's arguments to the frame's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "recipes",
        help="list distillation recipes",
        description="List the distillation recipes, or show the terms of one.",
        epilog="example: ld-hub recipes vlr --family retinanet",
    )
    parser.add_argument("recipe", nargs="?", help="show its terms, weights, regions and needs")
    parser.add_argument("--family", choices=list_modules(), default="gfocal", help="of the student; decides settings")
    parser.add_argument("--reference", choices=("ld", "bckd"), help="as that code base computes it, faults included")
    parser.add_argument("--markdown", action="store_true", help="the list as a table, with papers")


def run(args: argparse.Namespace) -> int:
    """Print the recipes.

    Raises:
        UnknownNameError: If there is no such recipe.
    """
    if args.recipe is None:
        print(markdown() if args.markdown else listing())
        return 0
    print(describe(args.recipe, args.family, args.reference))
    return 0


def known() -> dict[str, catalog.RecipeEntry]:
    """The catalogued recipes, and those that somebody's own code has registered."""
    own = [name for name in RECIPES if name not in catalog.recipes()]
    if not own:
        return catalog.recipes()
    from ld_hub.publishing.snapshot import recipe_entry

    return {**catalog.recipes(), **{name: recipe_entry(RECIPES[name], catalog.families()) for name in own}}


def listing() -> str:
    """One line per recipe: its name and what it is."""
    recipes = known()
    width = max(map(len, recipes))
    return "\n".join(f"{name:<{width}}  {recipe.summary}" for name, recipe in recipes.items())


def describe(name: str, family: str = "gfocal", reference: str | None = None) -> str:
    """The terms of a recipe, what it needs and its paper, in lines of at most 80 columns.

    Args:
        name: Registered name.
        family: Of the student.
        reference: Code base whose computation is shown.

    Raises:
        UnknownNameError: If there is no such recipe.
    """
    recipes = known()
    if name not in recipes:
        raise unknown_name("recipe", name, recipes, RECIPES.hint)
    recipe = recipes[name]
    wanted = "; ".join(recipe.needs) or "nothing: any two detectors"
    facts = textwrap.wrap(f"needs: {wanted}", 80, subsequent_indent="       ")
    table = catalog.recipe_table(name, recipe.summary, recipe.terms_for(family, reference), reference)
    return "\n".join([table, "", *facts, *([f"paper: {recipe.paper}"] if recipe.paper else [])])


def markdown() -> str:
    """A table of all recipes, as examples/methods.md shows it."""
    rows = ["| recipe | what a student learns | terms | needs | paper |", "|---|---|---|---|---|"]
    for name, recipe in known().items():
        terms = ", ".join(f"`{term}`" for term in recipe.terms)
        paper = f"[{recipe.paper.rpartition('/')[2]}]({recipe.paper})"
        rows.append(f"| `{name}` | {recipe.summary} | {terms} | {', '.join(recipe.needs) or 'nothing'} | {paper} |")
    return "\n".join(rows)
