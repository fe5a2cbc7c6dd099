"""`ld-hub recipes`: which distillation methods there are, what they are made of, what they need of two detectors."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import replace
from typing import Any

from ld_hub.distillation import Distiller, Recipe, get_recipe, list_recipes
from ld_hub.errors import ConfigError
from ld_hub.models.names import list_modules
from ld_hub.structures import DetectorSpec


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
    recipe = get_recipe(args.recipe).for_family(args.family)
    if args.reference is not None:
        recipe = recipe.published(args.reference)
    print(describe(recipe))
    return 0


def listing() -> str:
    """One line per recipe: its name and what it is."""
    recipes = [get_recipe(name) for name in list_recipes()]
    width = max(len(recipe.name) for recipe in recipes)
    return "\n".join(f"{recipe.name:<{width}}  {recipe.summary}" for recipe in recipes)


def describe(recipe: Recipe) -> str:
    """The terms of a recipe, what it needs and its paper, in lines of at most 80 columns."""
    wanted = "; ".join(needs(recipe)) or "nothing: any two detectors"
    facts = textwrap.wrap(f"needs: {wanted}", 80, subsequent_indent="       ")
    return "\n".join([recipe.table(), "", *facts, *([f"paper: {recipe.paper}"] if recipe.paper else [])])


def markdown() -> str:
    """A table of all recipes, as README.md shows it."""
    rows = ["| recipe | what a student learns | terms | needs | paper |", "|---|---|---|---|---|"]
    for name in list_recipes():
        recipe = get_recipe(name)
        terms = ", ".join(f"`{term}`" for term in recipe.terms)
        paper = f"[{recipe.paper.rpartition('/')[2]}]({recipe.paper})"
        rows.append(f"| `{name}` | {recipe.summary} | {terms} | {', '.join(needs(recipe)) or 'nothing'} | {paper} |")
    return "\n".join(rows)


def needs(recipe: Recipe) -> list[str]:
    """What a recipe asks of student and teacher, found by setting it up for pairs that differ in one thing.

    Returns:
        In words; empty where any two detectors will do.
    """
    return [what for what, changes in _PAIRS.items() if not _fits(recipe, *changes)]


_SPEC = DetectorSpec(
    name="", family="gfocal", num_classes=2, label_names=("a", "b"), reg_max=16, strides=(8, 16, 32, 64, 128),
    anchors_per_cell=1, feature_channels=256, tower_channels=256, mean=(0.0,) * 3, std=(1.0,) * 3,
)  # fmt: skip
_PLAIN: dict[str, Any] = {"reg_max": None}
_POINTS: dict[str, Any] = {"family": "fcos", "points": True}
# What is missing in a pair: fields of the student, fields of the teacher
_PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bins in both": (_PLAIN, _PLAIN),
    "heads of one width": ({"tower_channels": 64}, {}),
    "pyramids of one width": ({"feature_channels": 64}, {}),
    "common classes": ({"label_names": ("c", "d")}, {}),
    "a student with anchors": (_POINTS, _POINTS),
}


def _fits(recipe: Recipe, student: dict[str, Any], teacher: dict[str, Any]) -> bool:
    try:
        Distiller(recipe).setup(replace(_SPEC, name="student", **student), replace(_SPEC, name="teacher", **teacher))
    except ConfigError:
        return False
    return True
