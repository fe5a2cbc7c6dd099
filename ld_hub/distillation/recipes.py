"""Recipes: named sets of configured terms. A recipe is data; it prints itself and is stored with the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import ld_hub.distillation.general_instances  # noqa: F401  # registers the region "gi"
from ld_hub.catalog import recipe_table
from ld_hub.distillation.bins import BoxBinsKLConfig
from ld_hub.distillation.classes import ClassBCEConfig, ClassKLConfig
from ld_hub.distillation.correlation import CorrelationConfig
from ld_hub.distillation.cross_head import CrossBoxConfig, CrossClassConfig
from ld_hub.distillation.decoded_boxes import BoxIoUConfig
from ld_hub.distillation.features import (
    ChannelKLConfig,
    FeatureMSEConfig,
    MaskedGenerationConfig,
    PearsonFeatureConfig,
)
from ld_hub.distillation.focal_global import FocalGlobalConfig
from ld_hub.distillation.terms import TERMS, TermConfig
from ld_hub.errors import ConfigError, unknown_name
from ld_hub.registry import RECIPES


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
    """

    name: str
    terms: Mapping[str, TermConfig] = field(default_factory=dict)
    summary: str = ""
    reference: str | None = None
    family: str = "gfocal"
    paper: str = ""

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
        terms = {name: term.published(reference) for name, term in self.terms.items()}
        quirks = FAMILY_QUIRKS.get((reference, self.family), {})
        return replace(self, terms=_changed(terms, quirks), reference=reference)

    def for_family(self, family: str) -> Recipe:
        """The same recipe with the published settings of a family of detectors (`FAMILY_TERMS`).

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
        return cls(terms=terms, reference=data.get("reference"), **texts)


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

    def fitting(name: str, term: TermConfig) -> dict[str, Any]:
        return {key: value for key, value in changes.get(name, {}).items() if hasattr(term, key)}

    return {name: replace(term, **fitting(name, term)) for name, term in terms.items()}


def _preset(name: str, reference: str | None, family: str) -> Mapping[str, TermConfig]:
    """The terms of a registered recipe for a family and a reading; none for a recipe of the user's own."""
    if name not in _OURS:
        return {}
    registered = get_recipe(name)
    changed = _changed(registered.terms, FAMILY_TERMS.get(family, {}))
    recipe = replace(registered, terms=changed, family=family)
    return recipe.terms if reference is None else recipe.published(reference).terms


# What published configurations set differently from the GFocal ones, by family and term: LD's (reference SPEC 4 and 8),
# CrossKD's and PKD's.
# RetinaNet's weights are for the mean over 68 joint entries; a KL of one edge divided by 272 = 16 x 17 is as strong.
FAMILY_TERMS: dict[str, dict[str, dict[str, Any]]] = {
    "atss": {"ld_vlr": {"weight": 0.0375}, "cross_box": {"quality_weight": 1.0}, "cross_pkd": {"weight": 1.0}},
    "fcos": {
        "ld_vlr": {"region": "inside_gt", "exclude_positives": True},
        "cross_cls": {"weight": 0.4},
        "cross_box": {"weight": 0.75, "iou": "iou"},
        "cross_pkd": {"weight": 2.0},
    },
    "retinanet": {
        "cross_pkd": {"weight": 2.0},
        "ld": {"weight": 5.0, "kl_divisor": 272},
        "ld_vlr": {"weight": 0.15, "kl_divisor": 272},
        "kd": {"temperature": 8.0},
    },
}

# What of it is a fault, or an accident, and so belongs to the published reading alone.
FAMILY_QUIRKS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("ld", "retinanet"): {"ld": {"joint": True}, "ld_vlr": {"joint": True, "exclude_positives": True}},
}


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


_OURS: set[str] = set()  # recipes whose terms FAMILY_TERMS speaks of


def _register(name: str, summary: str, paper: str, **terms: TermConfig) -> None:
    _OURS.add(name)
    register_recipe(Recipe(name, terms, summary, paper=f"https://arxiv.org/abs/{paper}"))


_LD = "2102.12252"
_MAIN: dict[str, TermConfig] = {
    "kd": ClassKLConfig(),
    "ld": BoxBinsKLConfig(),
    "ld_vlr": BoxBinsKLConfig(weight=0.0625, region="vlr"),
}
_CROSS: dict[str, TermConfig] = {"cross_cls": CrossClassConfig(), "cross_box": CrossBoxConfig()}

_register("kd", "class KL on the positives", "1503.02531", kd=ClassKLConfig())
_register("ld", "box-edge KL on the positives (published 36.5 / 39.9 / 41.0 weights)", _LD, ld=BoxBinsKLConfig())
_register("vlr", "the LD paper's full method: main KD + main LD + VLR LD", _LD, **_MAIN)
_register(
    "vlr_gi", "vlr and imitation where the two disagree most", _LD, **_MAIN, feature=FeatureMSEConfig(region="gi")
)
_register(
    "vlr_fine_grained",
    "vlr and imitation near objects (LD's R-50 settings)",
    _LD,
    **_MAIN,
    feature=FeatureMSEConfig(region="fine_grained"),
)
_register(
    "bckd",
    "binary class distillation + IoU of boxes (BCKD, ICCV 2023)",
    "2308.14286",
    bckd_cls=ClassBCEConfig(),
    bckd_box=BoxIoUConfig(),
)
_register("bckd_cls", "BCKD's class term alone", "2308.14286", bckd_cls=ClassBCEConfig())
_register("bckd_box", "BCKD's box term alone; for images of any size", "2308.14286", bckd_box=BoxIoUConfig())

# Rows of the LD paper's table of feature imitation.
_register("fitnets", "imitation of the pyramid, every cell (FitNets)", "1412.6550", feature=FeatureMSEConfig())
_register("inside_gt", "imitation inside the boxes", _LD, feature=FeatureMSEConfig(region="inside_gt"))
_register("main_region", "imitation on the positives", _LD, feature=FeatureMSEConfig(region="main"))
_register(
    "fine_grained",
    "imitation near objects (CVPR 2019)",
    "1906.03609",
    feature=FeatureMSEConfig(region="fine_grained"),
)
_register(
    "defeat",
    "imitation, foreground and background apart (DeFeat, CVPR 2021)",
    "2103.14475",
    foreground=FeatureMSEConfig(region="inside_gt"),
    background=FeatureMSEConfig(region="outside_gt", weight=4.0),
)
_register("gi", "imitation where the two disagree most (GID)", "2103.02340", feature=FeatureMSEConfig(region="gi"))

# Rival methods.
_register("crosskd", "student's features through the teacher's head (CVPR 2024)", "2306.11369", **_CROSS)
_register("crosskd_pkd", "CrossKD and PKD together", "2306.11369", **_CROSS, cross_pkd=PearsonFeatureConfig())
_register("pkd", "correlation of pyramid channels (PKD, NeurIPS 2022)", "2207.02039", pkd=PearsonFeatureConfig())
_register(
    "cwd",
    "channels as distributions over the image (CWD, ICCV 2021)",
    "2011.13256",
    cwd=ChannelKLConfig(),
    cwd_cls=ChannelKLConfig(on="logits", weight=5.0),
)
_register("fgd", "focal and global features (FGD, CVPR 2022)", "2111.11837", fgd=FocalGlobalConfig())
_register("mgd", "teacher's map generated from masked cells (MGD)", "2205.01529", mgd=MaskedGenerationConfig())
_register("dist", "correlation of class scores (DIST, NeurIPS 2022)", "2205.10536", dist=CorrelationConfig())
