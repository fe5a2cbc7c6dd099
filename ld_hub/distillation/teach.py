"""A recipe with its options as plain data (`Teaching`), and the recipe again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ld_hub.distillation.recipes import Recipe, get_recipe
from ld_hub.errors import LdHubError
from ld_hub.registry import AUTO
from ld_hub.structures import Balance, Teaching, Unlabeled


def make_teaching(
    recipe: str | Recipe = AUTO,
    *,
    reference: str | None = None,
    individual_ld: bool = False,
    balance: Balance = "none",
    teacher_scale: float = 1.0,
    class_map: Mapping[str, str] | None = None,
    teacher_weights: Mapping[str, float] | None = None,
    unlabeled: Unlabeled | None = None,
) -> Teaching:
    """What a trainer takes; who teaches is not in it yet.

    Args:
        recipe: Registered name (`list_recipes`) or recipe; the same for all teachers.
        reference: ``"ld"`` or ``"bckd"`` for the published computation of that code base in every loss; None takes the
            recipe as it is, by default the sound one, which does not depend on how a batch is split.
        individual_ld: See `Teaching`, also for all other arguments.
        balance: See there.
        teacher_scale: See there.
        class_map: See there; with several teachers an entry counts for those that have the class.
        teacher_weights: See there; 1 for those that are not named.
        unlabeled: See there.

    Raises:
        UnknownNameError: If there is no such recipe.
        ConfigError: If there is no such reference.
    """
    found = get_recipe(recipe)
    if reference is not None:
        found = found.published(reference)
    return Teaching(
        recipe=found.name,
        summary=found.summary,
        reference=found.reference,
        family=found.family,
        paper=found.paper,
        terms=found.to_dict()["terms"],
        individual_ld=individual_ld,
        balance=balance,
        teacher_scale=teacher_scale,
        class_map=dict(class_map or {}),
        teacher_weights=dict(teacher_weights or {}),
        unlabeled=unlabeled,
    )


def recipe_of(teaching: Teaching) -> Recipe:
    """The recipe of a teaching, to be run.

    Raises:
        ConfigError: If a field of a term has a value of the wrong type.
        UnknownNameError: If a term's kind or field is not known here.
    """
    return Recipe.from_dict(teaching.to_dict())


def up_to_date(teaching: Teaching) -> Teaching:
    """The same with the fields that terms did not have yet when it was written, at their defaults.

    Args:
        teaching: Of a file; terms that are not known here stay as they are.
    """
    try:
        return replace(teaching, terms=recipe_of(teaching).to_dict()["terms"])
    except LdHubError:
        return teaching
