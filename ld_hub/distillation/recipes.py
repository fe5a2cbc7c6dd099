"""Recipes: named sets of configured terms. A recipe is data; it prints itself and is stored with the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ld_hub.catalog import recipe_table
from ld_hub.distillation.terms import TERMS, TermConfig
from ld_hub.errors import ConfigError, unknown_name
from ld_hub.registry import MODELS, RECIPES


@dataclass(frozen=True)
class Recipe:
    """A distillation method.

    Attributes:
        name: Registered name, or of the user's own.
        terms: Configured terms by name; the losses are logged as ``distill_<name>``.
        summary: One line for tables and cards.
        reference: Code base whose computation the terms follow, or None for the sound default; see `published`.
        family: Family of detectors whose published settings the terms have; see `for_family`.
        paper: Address of the paper.
        families: What published configurations set differently from GFocal's: family to term to fields. Of the
            registered recipe alone: it is not stored with a student.
    """

    name: str
    terms: Mapping[str, TermConfig] = field(default_factory=dict)
    summary: str = ""
    reference: str | None = None
    family: str = "gfocal"
    paper: str = ""
    families: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict, compare=False, repr=False)

    def with_terms(self, **changes: Mapping[str, Any]) -> Recipe:
        """A copy with fields of its terms changed: ``recipe.with_terms(ld={"weight": 2})``.

        Raises:
            UnknownNameError: If there is no such term or field.
        """
        terms = dict(self.terms)
        for name, values in changes.items():
            if name not in terms:
                raise unknown_name(f"term of recipe '{self.name}'", name, terms)
            known = [f.name for f in fields(terms[name])]
            for key in values:
                if key not in known:
                    raise unknown_name(f"field of term '{name}'", key, known)
            terms[name] = replace(terms[name], **values)
        return replace(self, terms=terms)

    def published(self, reference: str) -> Recipe:
        """The same recipe as a published code base computes it; a recipe that already is stays as it is.

        Args:
            reference: ``"ld"`` or ``"bckd"``.
        """
        if reference == self.reference:
            return self  # fields that were changed after the preset stay changed
        if reference not in {"ld", "bckd"}:
            raise ConfigError(f"reference is {reference!r}; expected 'ld', 'bckd' or None.")
        terms = {name: term.published(reference, self.family) for name, term in self.terms.items()}
        return replace(self, terms=terms, reference=reference)

    def for_family(self, family: str) -> Recipe:
        """The same recipe with the published settings of a family of detectors (`families` of the registered recipe).

        Only fields that are still as registered are changed, so what a user has set stays, and a recipe of the user's
        own is taken as it is.

        Args:
            family: ``"gfocal"``, ``"atss"``, ...
        """
        before = _preset(self.name, self.reference, self.family)
        after = _preset(self.name, self.reference, family)
        changes = {
            name: {
                item.name: getattr(after[name], item.name)
                for item in fields(term)
                if type(term) is type(before.get(name))
                and getattr(term, item.name) == getattr(before[name], item.name) != getattr(after[name], item.name)
            }
            for name, term in self.terms.items()
        }
        return replace(self, terms=_changed(self.terms, changes), family=family)

    def table(self) -> str:
        """The terms as a text table of at most 80 columns."""
        return recipe_table(self.name, self.summary, self.to_dict()["terms"], self.reference)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of `from_dict`."""
        terms = {name: {"kind": term.kind, **asdict(term)} for name, term in self.terms.items()}
        head = {name: getattr(self, name) for name in ("name", "summary", "reference", "family", "paper")}
        return {**head, "terms": terms}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Build a recipe from plain data.

        Raises:
            ConfigError: If a part is missing or of the wrong type.
            UnknownNameError: If a kind or field is unknown.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("terms", {}), Mapping):
            raise ConfigError("A recipe is a mapping with 'name' and 'terms'; each term is a mapping with 'kind'.")
        terms = {str(name): _term(str(name), values) for name, values in data.get("terms", {}).items()}
        texts = {"name": "custom", "summary": "", "family": "gfocal", "paper": ""}
        texts = {key: str(data.get(key, default)) for key, default in texts.items()}
        reference = data.get("reference")
        return cls(texts["name"], terms, texts["summary"], reference, texts["family"], texts["paper"])


SCORED_TARGETS = Recipe(
    "scored_targets", summary="a teacher's boxes on images without labels as targets, weighted by their scores"
)  # what a teacher teaches that only detects: it has no terms, so it is registered nowhere


def _term(name: str, values: Any) -> TermConfig:
    """A term from plain data; see `Recipe.from_dict`."""
    if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
        raise ConfigError(f"Term '{name}' of the recipe has no 'kind'; known kinds: {', '.join(TERMS)}.")
    config_class = TERMS[values["kind"]].config_class
    hints = get_type_hints(config_class)
    known = [f.name for f in fields(config_class)]
    given = {key: value for key, value in values.items() if key != "kind"}
    for key, value in given.items():
        if key not in known:
            raise unknown_name(f"field of term '{name}'", key, known)
        allowed = [part for part in get_args(hints[key]) if get_origin(hints[key]) is not Literal] or [hints[key]]
        if not any(_is(value, hint) for hint in allowed):
            shown = " or ".join(
                ", ".join(map(repr, get_args(hint))) or ("None" if hint is type(None) else hint.__name__)
                for hint in allowed
            )
            raise ConfigError(f"Term '{name}': {key} is {value!r}; expected {shown}.")
    try:
        return config_class(**given)
    except ConfigError as error:
        raise type(error)(f"Term '{name}': {error}") from None


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is of a simple type; others are left to the configuration itself."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return type(value) in (int, float)
    return hint not in (bool, int, str, type(None)) or type(value) is hint


def _changed(terms: Mapping[str, TermConfig], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, TermConfig]:
    """The terms with the fields that `changes` names changed, as far as they have them.

    A user's term may have the name of one of ours, and other fields.
    """
    return {
        name: replace(term, **{key: value for key, value in changes.get(name, {}).items() if hasattr(term, key)})
        for name, term in terms.items()
    }


def _preset(name: str, reference: str | None, family: str) -> Mapping[str, TermConfig]:
    """The terms of a registered recipe for a family and a reading; none for a recipe of the user's own."""
    if name not in RECIPES:
        return {}
    registered = get_recipe(name)
    of_family = MODELS[family].terms if family in MODELS else {}
    terms = _changed(registered.terms, registered.families.get(family, of_family))
    recipe = replace(registered, terms=terms, family=family)
    return recipe.terms if reference is None else recipe.published(reference).terms


def register_recipe(recipe: Recipe, *, replace: bool = False) -> Recipe:
    """Make a recipe available by name."""
    RECIPES.register(recipe.name, recipe, replace=replace)
    return recipe


def get_recipe(recipe: str | Recipe) -> Recipe:
    """A registered recipe, or the given one.

    Raises:
        UnknownNameError: With close matches.
    """
    if isinstance(recipe, Recipe):
        return recipe
    found: Recipe = RECIPES[recipe]
    return found


def list_recipes() -> list[str]:
    """Names of all registered recipes."""
    return list(RECIPES)
