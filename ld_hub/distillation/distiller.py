"""A recipe at work."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.recipes import Recipe, get_recipe
from ld_hub.distillation.terms import TERMS, Term
from ld_hub.errors import ConfigError
from ld_hub.structures import DetectorSpec


class Distiller(nn.Module):
    """The terms of a recipe, with whatever parameters they have.

    Args:
        recipe: Registered name or recipe.
        reference: ``"ld"`` or ``"bckd"`` for the published computation of that code base; None for the sound
            default, which does not depend on batch size or on how a batch is split.
    """

    def __init__(self, recipe: str | Recipe, reference: str | None = None) -> None:
        super().__init__()
        recipe = get_recipe(recipe)
        self._follow(recipe if reference is None else recipe.published(reference))

    def _follow(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.terms = nn.ModuleDict({name: TERMS[c.kind](c) for name, c in recipe.terms.items()})

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Adapt the recipe to the student's family, check the pair, make adapters; once, before the optimizer is made.

        Returns:
            Remarks for the user.

        Raises:
            ConfigError: If the recipe cannot run between these detectors.
        """
        self._follow(self.recipe.for_family(student.family))
        remarks = []
        for name, term in self._named():
            try:
                remarks += [f"{name}: {remark}" for remark in term.setup(student, teacher)]
            except ConfigError as error:
                raise ConfigError(f"Recipe '{self.recipe.name}', term '{name}': {error}") from None
        return remarks

    def _named(self) -> list[tuple[str, Term[Any]]]:
        return list(self.terms.items())  # type: ignore[arg-type]  # the values of a ModuleDict are modules to mypy

    def forward(self, inputs: TermInputs, step: int = 0) -> dict[str, Tensor]:
        """Weighted losses of the terms, ``distill_<term>``; a term outside its steps gives a connected 0."""
        losses = {}
        for name, term in self._named():
            active = self.recipe.terms[name].active(step)
            losses[f"distill_{name}"] = term(inputs) if active else 0 * inputs.student.box.sum()
        return losses
