"""A recipe at work: one teacher's, or those of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from ld_hub.distillation.correspondence import Matching, as_seen
from ld_hub.distillation.cross_head import CrossHead, spec_through_head
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, get_recipe
from ld_hub.distillation.regions import require_region
from ld_hub.distillation.terms import TERMS, Term
from ld_hub.errors import ConfigError
from ld_hub.registry import RECIPES
from ld_hub.structures import DetectorSpec, EncoderSpec


class Distiller(nn.Module):
    """The terms of a recipe, with whatever parameters they have.

    Args:
        recipe: Registered name or recipe.
        reference: ``"ld"`` or ``"bckd"`` for the published computation of that code base; None for the sound
            default, which does not depend on batch size or on how a batch is split.
        teacher_scale: Size of the images that the teacher sees over the student's; 2 lets its level l + 1 teach the
            student's level l.
        class_map: The teacher's name of classes that the student calls otherwise.

    Attributes:
        matching: Which of the teacher's rows and classes belong to the student's; made by `setup`.
        cross_head: The teacher's head on the student's towers, for terms that look through it; may have adapters.
    """

    def __init__(
        self,
        recipe: str | Recipe,
        reference: str | None = None,
        *,
        teacher_scale: float = 1.0,
        class_map: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < teacher_scale < float("inf"):
            raise ConfigError(f"teacher_scale is {teacher_scale!r}; expected a number above 0, e.g. 2.")
        self.teacher_scale, self.class_map = teacher_scale, dict(class_map or {})
        self.matching: Matching | None = None
        recipe = get_recipe(recipe)
        self._follow(recipe if reference is None else recipe.published(reference))

    def _follow(self, recipe: Recipe) -> None:
        self.recipe, self._schedules = recipe, recipe.terms
        self.terms = nn.ModuleDict({name: TERMS[c.kind](c) for name, c in recipe.terms.items()})
        self.cross_head = CrossHead()

    @property
    def needs(self) -> frozenset[str]:
        """Maps that the terms ask both detectors for: ``"features"``, ``"towers"``."""
        towers = {"towers"} if self._crosses else set[str]()
        return frozenset(towers).union(*(term.needs for _, term in self._named()))

    @property
    def _crosses(self) -> bool:
        return any(config.crossing is not None for config in self.recipe.terms.values())

    def setup(self, student: DetectorSpec, teacher: DetectorSpec | EncoderSpec) -> list[str]:
        """Adapt the recipe to the student's family, check the pair, make adapters; once, before the optimizer is made.

        Returns:
            Remarks for the user.

        Raises:
            ConfigError: If the recipe cannot run between these two.
        """
        self._follow(self.recipe.for_family(student.family))
        seen = self._seen(teacher)
        self.matching = None if isinstance(seen, EncoderSpec) else Matching(student, seen, self.teacher_scale)
        remarks = [] if self.matching is None else list(self.matching.remarks)
        for name, term in self._named():
            try:
                remarks += [f"{name}: {remark}" for remark in _set_up(term, student, seen)]
            except ConfigError as error:
                fitting = ", ".join(fitting_recipes(student, seen)) or "none"
                raise ConfigError(
                    f"Recipe '{self.recipe.name}', term '{name}': {error} Recipes that fit this pair: {fitting}."
                ) from None
        if self._crosses and isinstance(seen, DetectorSpec):
            remarks += self.cross_head.setup(student, seen)
        return remarks

    def _seen(self, teacher: DetectorSpec | EncoderSpec) -> DetectorSpec | EncoderSpec:
        """A teacher in the student's terms."""
        if isinstance(teacher, DetectorSpec):
            return as_seen(teacher, self.teacher_scale, self.class_map)
        if self.class_map:
            raise ConfigError(f"class_map has {self.class_map}; '{teacher.name}' is an image encoder without classes.")
        return teacher.seen_at(self.teacher_scale)

    def shares(self, default: float) -> dict[str, float]:
        """Each term's share of the detection loss's gradient, by name of its loss (`TermConfig.share`)."""
        terms = self.recipe.terms.items()
        return {f"distill_{name}": default if config.share is None else config.share for name, config in terms}

    def begin(self, steps: int) -> None:
        """Tell the length of the run, of which terms may count for a share only; after `setup`.

        `recipe` stays as it was given.

        Args:
            steps: Optimizer steps.

        Raises:
            ConfigError: If a term's steps do not fit in; names the term.
        """
        schedules = {}
        for name, config in self.recipe.terms.items():
            try:
                schedules[name] = config.at_length(steps)
            except ConfigError as error:
                raise ConfigError(f"Term '{name}': {error}") from None
        self._schedules = schedules

    def factors(self, step: int) -> dict[str, float]:
        """How much of each term counts at an optimizer step, from 0 to 1, by name of its loss.

        Raises:
            ConfigError: If a term counts for a share of a run whose length was not told (`begin`).
        """
        return {f"distill_{name}": config.factor(step) for name, config in self._schedules.items()}

    def _named(self) -> list[tuple[str, Term[Any]]]:
        return list(cast("Iterable[tuple[str, Term[Any]]]", self.terms.items()))  # to mypy they are modules

    def forward(self, inputs: MapInputs, step: int = 0) -> dict[str, Tensor]:
        """Weighted losses of the terms, ``distill_<term>``; a term outside its steps gives a connected 0.

        Args:
            inputs: A batch.
            step: 0-based optimizer step.
        """
        if isinstance(inputs, TermInputs) and self.matching is not None:
            inputs = inputs.matched(self.matching)
        losses = {}
        for (_, term), (name, factor) in zip(self._named(), self.factors(step).items(), strict=True):
            losses[name] = factor * term(self.seen(term, inputs)) if factor else 0 * inputs.student.box.sum()
        return losses

    def seen(self, term: Term[Any], inputs: MapInputs) -> MapInputs:
        """A batch as a term sees it: as it is, or through the teacher's head."""
        over = term.config.crossing
        return self.cross_head(inputs, over) if isinstance(inputs, TermInputs) and over is not None else inputs


def _set_up(term: Term[Any], student: DetectorSpec, teacher: DetectorSpec | EncoderSpec) -> list[str]:
    """`Term.setup`, for terms that look through the teacher's head with what that makes of the student."""
    if isinstance(teacher, EncoderSpec):
        return term.setup_encoder(student, teacher)
    if term.config.crossing is None:
        return term.setup(student, teacher)
    require_region(term.config, student, teacher)
    return term.setup(spec_through_head(student, teacher), teacher)


def fitting_recipes(student: DetectorSpec, teacher: DetectorSpec | EncoderSpec) -> list[str]:
    """Registered recipes that can run between a student and a teacher.

    Args:
        student: Its description.
        teacher: In the student's terms (`ld_hub.distillation.correspondence.as_seen`, `EncoderSpec.seen_at`).
    """

    def fits(recipe: Recipe) -> bool:
        try:
            for config in recipe.for_family(student.family).terms.values():
                _set_up(TERMS[config.kind](config), student, teacher)
        except ConfigError:
            return False
        return True

    return [name for name in RECIPES if fits(RECIPES[name])]


class Committee(nn.Module):
    """Several teachers of one student.

    Args:
        distillers: What each teacher teaches, by its name.
        weights: Factor of each teacher's losses, and of its terms' shares where gradients are balanced; 1 for those
            that are not named.

    Raises:
        ConfigError: If a weight is of no teacher, or is no number of at least 0.
    """

    def __init__(self, distillers: Mapping[str, Distiller], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = {name: 1.0 for name in distillers} | dict(weights or {})
        for name, weight in self.weights.items():
            if name not in distillers or not 0 <= weight < float("inf"):
                raise ConfigError(
                    f"weights has {name!r}: {weight!r}; expected numbers of at least 0 for the teachers "
                    f"{', '.join(distillers)}."
                )
        self.names = list(distillers)
        self.distillers = nn.ModuleList(distillers.values())  # names may hold dots, which keys of modules may not

    def setup(self, student: DetectorSpec, teachers: Mapping[str, DetectorSpec | EncoderSpec]) -> list[str]:
        """Set up each distiller; see `Distiller.setup`."""
        remarks = []
        for name, distiller in self._named():
            remarks += [f"{name}: {remark}" for remark in distiller.setup(student, teachers[name])]
        return remarks

    def shares(self, default: float) -> dict[str, float]:
        """See `Distiller.shares`; a teacher's weight is a factor of its terms' shares."""
        return {
            f"{loss}@{name}": self.weights[name] * share
            for name, distiller in self._named()
            for loss, share in distiller.shares(default).items()
        }

    def begin(self, steps: int) -> None:
        """See `Distiller.begin`."""
        for _, distiller in self._named():
            distiller.begin(steps)

    def factors(self, step: int) -> dict[str, float]:
        """See `Distiller.factors`."""
        return {
            f"{loss}@{name}": factor
            for name, distiller in self._named()
            for loss, factor in distiller.factors(step).items()
        }

    @property
    def members(self) -> dict[str, Distiller]:
        """What each teacher teaches, by its name."""
        return dict(self._named())

    def _named(self) -> list[tuple[str, Distiller]]:
        return list(zip(self.names, cast("Iterable[Distiller]", self.distillers), strict=True))

    def forward(self, inputs: Mapping[str, MapInputs], step: int = 0) -> dict[str, Tensor]:
        """Weighted losses ``distill_<term>@<teacher>`` of all teachers.

        Args:
            inputs: The batch as the student and each teacher see it, by teacher.
            step: 0-based optimizer step.
        """
        return {
            f"{loss}@{name}": self.weights[name] * value
            for name, distiller in self._named()
            for loss, value in distiller(inputs[name], step).items()
        }
