"""Recipes: named sets of configured terms. A recipe is data; it prints itself and is stored with the student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import ld_hub.distillation.general_instances  # noqa: F401  # registers the region "gi"
from ld_hub.distillation.bins import BoxBinsKLConfig
from ld_hub.distillation.boxes import BoxIoUConfig
from ld_hub.distillation.classes import ClassBCEConfig, ClassKLConfig
from ld_hub.distillation.correlation import CorrelationConfig
from ld_hub.distillation.cross_head import CrossBoxConfig, CrossClassConfig
from ld_hub.distillation.features import (
    ChannelKLConfig,
    FeatureMSEConfig,
    MaskedGenerationConfig,
    PearsonFeatureConfig,
)
from ld_hub.distillation.focal_global import FocalGlobalConfig
from ld_hub.distillation.terms import TERMS, TermConfig
from ld_hub.errors import ConfigError, unknown_name
from ld_hub.registry import Registry


@dataclass(frozen=True)
class Recipe:
    """A distillation method.

    Attributes:
        name: Registered name, or of the user's own.
        terms: Configured terms by name; the losses are logged as ``distill_<name>``.
        summary: One line for tables and cards.
        reference: Code base whose computation the terms follow, or None for the sound default; see `published`.
        family: Family of detectors whose published settings the terms have; see `for_family`.
    """

    name: str
    terms: Mapping[str, TermConfig] = field(default_factory=dict)
    summary: str = ""
    reference: str | None = None
    family: str = "gfocal"

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
        header = ("term", "kind", "weight", "T", "region", "steps")
        rows = [header]
        for name, term in self.terms.items():
            region = f"vlr({term.criterion}, {term.gamma:g})" if term.region == "vlr" else term.region
            region += " w/o positives" if term.exclude_positives else ""
            last = "end" if term.last_step is None else str(term.last_step)
            temperature = getattr(term, "temperature", None)
            cells = (name, term.kind, f"{term.weight:g}", "-" if temperature is None else f"{temperature:g}", region)
            rows.append((*cells, f"{term.first_step}-{last}"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        title = f"recipe {self.name}" + (f": {self.summary}" if self.summary else "")
        title += f" (computed as the code of '{self.reference}')" if self.reference else ""
        return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of `from_dict`."""
        terms = {name: {"kind": term.kind, **asdict(term)} for name, term in self.terms.items()}
        head = {"name": self.name, "summary": self.summary, "reference": self.reference, "family": self.family}
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
        terms: dict[str, TermConfig] = {}
        for name, values in data.get("terms", {}).items():
            if not isinstance(values, Mapping) or "kind" not in values:
                raise ConfigError(f"Term '{name}' of the recipe has no 'kind'; known kinds: {', '.join(TERMS)}.")
            config_class = TERMS[values["kind"]].config_class
            known = [f.name for f in fields(config_class)]
            for key in values:
                if key not in known and key != "kind":
                    raise unknown_name(f"field of term '{name}'", key, known)
            terms[name] = config_class(**{k: v for k, v in values.items() if k != "kind"})
        name, summary = str(data.get("name", "custom")), str(data.get("summary", ""))
        return cls(name, terms, summary, data.get("reference"), str(data.get("family", "gfocal")))


def _changed(terms: Mapping[str, TermConfig], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, TermConfig]:
    """The terms with fields of those among them changed that `changes` names."""
    return {name: replace(term, **changes.get(name, {})) for name, term in terms.items()}


def _preset(name: str, reference: str | None, family: str) -> Mapping[str, TermConfig]:
    """The terms of a registered recipe for a family and a reading; none for a recipe of the user's own."""
    if name not in RECIPES:
        return {}
    changed = _changed(RECIPES[name].terms, FAMILY_TERMS.get(family, {}))
    recipe = replace(RECIPES[name], terms=changed, family=family)
    return recipe.terms if reference is None else recipe.published(reference).terms


RECIPES: Registry[Recipe] = Registry("recipe")

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
    return RECIPES.register(recipe.name, recipe, replace=replace)


def get_recipe(recipe: str | Recipe) -> Recipe:
    """A registered recipe, or the given one.

    Raises:
        UnknownNameError: With close matches.
    """
    return recipe if isinstance(recipe, Recipe) else RECIPES[recipe]


def list_recipes() -> list[str]:
    """Names of all registered recipes."""
    return list(RECIPES)


register_recipe(Recipe("kd", {"kd": ClassKLConfig()}, "class KL on the positives"))
register_recipe(
    Recipe("ld", {"ld": BoxBinsKLConfig()}, "box-edge KL on the positives (published 36.5 / 39.9 / 41.0 weights)")
)
register_recipe(
    Recipe(
        "vlr",
        {"kd": ClassKLConfig(), "ld": BoxBinsKLConfig(), "ld_vlr": BoxBinsKLConfig(weight=0.0625, region="vlr")},
        "the LD paper's full method: main KD + main LD + VLR LD",
    )
)
register_recipe(
    Recipe(
        "bckd",
        {"bckd_cls": ClassBCEConfig(), "bckd_box": BoxIoUConfig()},
        "binary class distillation + IoU of boxes (BCKD, ICCV 2023)",
    )
)

# Rows of the LD paper's table of feature imitation.
register_recipe(Recipe("fitnets", {"feature": FeatureMSEConfig()}, "imitation of the pyramid, every cell (FitNets)"))
register_recipe(Recipe("inside_gt", {"feature": FeatureMSEConfig(region="inside_gt")}, "imitation inside the boxes"))
register_recipe(Recipe("main_region", {"feature": FeatureMSEConfig(region="main")}, "imitation on the positives"))
register_recipe(
    Recipe("fine_grained", {"feature": FeatureMSEConfig(region="fine_grained")}, "imitation near objects (CVPR 2019)")
)
register_recipe(
    Recipe(
        "defeat",
        {
            "foreground": FeatureMSEConfig(region="inside_gt"),
            "background": FeatureMSEConfig(region="outside_gt", weight=4.0),
        },
        "imitation, foreground and background apart (DeFeat, CVPR 2021)",
    )
)
register_recipe(Recipe("gi", {"feature": FeatureMSEConfig(region="gi")}, "imitation where the two disagree most (GID)"))

# Rival methods.
CROSS = {"cross_cls": CrossClassConfig(), "cross_box": CrossBoxConfig()}
register_recipe(Recipe("crosskd", CROSS, "student's features through the teacher's head (CVPR 2024)"))
register_recipe(Recipe("crosskd_pkd", {**CROSS, "cross_pkd": PearsonFeatureConfig()}, "CrossKD and PKD together"))
register_recipe(Recipe("pkd", {"pkd": PearsonFeatureConfig()}, "correlation of pyramid channels (PKD, NeurIPS 2022)"))
register_recipe(
    Recipe(
        "cwd",
        {"cwd": ChannelKLConfig(), "cwd_cls": ChannelKLConfig(on="logits", weight=5.0)},
        "channels as distributions over the image (CWD, ICCV 2021)",
    )
)
register_recipe(Recipe("fgd", {"fgd": FocalGlobalConfig()}, "focal and global features (FGD, CVPR 2022)"))
register_recipe(Recipe("mgd", {"mgd": MaskedGenerationConfig()}, "teacher's map generated from masked cells (MGD)"))
register_recipe(Recipe("dist", {"dist": CorrelationConfig()}, "correlation of class scores (DIST, NeurIPS 2022)"))
