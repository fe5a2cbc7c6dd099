"""Names as data: what the registries hold, readable without importing what is registered.

``catalog.json`` is written from the registries by ``python -m ld_hub.publishing.snapshot``, and a test keeps the two
equal: the families and the methods are the source, the catalogue is their copy for those who only ask for names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ld_hub.checked import Scalar
from ld_hub.fields import ConfigField, parse_hint

FILE = Path(__file__).with_name("catalog.json")


@dataclass(frozen=True)
class Part:
    """A part of a detector.

    Attributes:
        name: ``backbone``, ``neck`` or ``head``.
        kind: Its class.
        parameters: Their number.
        multiply_adds: Of one image of `ModelFacts.size`.
        settings: Channels, strides, depth, in words.
    """

    name: str
    kind: str
    parameters: int
    multiply_adds: int
    settings: str


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, measured on the model itself (`ld_hub.benchmark.profile.facts_of`).

    Attributes:
        name: Of the model.
        family: Module of `ld_hub.models` that builds it.
        backbone: Short name or timm's, and timm's in brackets.
        classes: Their number and the first names.
        parameters: Number of parameters.
        trainable: Number of those that training changes.
        multiply_adds: Of one image of `size`, without decoding and NMS.
        size: Height and width in px.
        input: Order of the channels, mean and standard deviation.
        resize: Sides of the images in px.
        detections: How predictions become detections.
        parts: Its parts, in their order.
    """

    name: str
    family: str
    backbone: str
    classes: str
    parameters: int
    trainable: int
    multiply_adds: int
    size: tuple[int, int]
    input: str
    resize: str
    detections: str
    parts: tuple[Part, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFacts:
        """The inverse of `dataclasses.asdict`."""
        parts = tuple(Part(**part) for part in data["parts"])
        return cls(**{**data, "size": tuple(data["size"]), "parts": parts})


@dataclass(frozen=True)
class RecipeEntry:
    """A registered recipe.

    Attributes:
        name: Registered name.
        summary: One line.
        paper: Address of the paper.
        needs: What it asks of student and teacher, in words; empty where any two detectors will do.
        terms: Fields of each term by name, its ``kind`` among them, for GFocal.
        variants: Fields that differ for ``"family"`` or ``"family/reference"``.
    """

    name: str
    summary: str
    paper: str
    needs: tuple[str, ...]
    terms: Mapping[str, Mapping[str, Scalar]]
    variants: Mapping[str, Mapping[str, Mapping[str, Scalar]]] = field(default_factory=dict)

    def to_dict(self) -> Mapping[str, Any]:
        """As the file has it, under the name."""
        return {key: value for key, value in vars(self).items() if key != "name"}

    def terms_for(self, family: str, reference: str | None = None) -> dict[str, dict[str, Scalar]]:
        """Fields of each term, its kind among them, for a family of students.

        Args:
            family: A family of the catalogue; others have GFocal's settings.
            reference: ``"ld"`` or ``"bckd"``: as that code base computes them.
        """
        known = family if family in families() else "gfocal"
        changes = self.variants.get(variant(known, reference), {})
        return {name: {**values, **changes.get(name, {})} for name, values in self.terms.items()}


def variant(family: str, reference: str | None) -> str:
    """Key of `RecipeEntry.variants`."""
    return f"{family}/{reference}" if reference else family


@lru_cache(maxsize=1)
def content() -> dict[str, Any]:
    """All of the file, as it stands there; not to be changed."""
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def regions() -> list[str]:
    """Names of the catalogue's regions, and of those that somebody's own code has registered."""
    room = sys.modules.get("ld_hub.distillation.regions")  # above this floor: not imported for it
    return list(content()["regions"] if room is None else room.REGIONS)


def families() -> list[str]:
    """Families of the catalogue's models."""
    return sorted({entry["family"] for entry in content()["models"].values()})


def model_facts(name: str, tag: str = "") -> ModelFacts | None:
    """What a catalogued model is, with the classes and settings of a tag's weights; None for other names."""
    entry = content()["models"].get(name)
    if entry is None:
        return None
    facts = content()["facts"]
    structure = entry.get("distilled", {}).get("student", name)
    found = next((facts[key] for key in (f"{name}.{tag}", name, structure) if key in facts), None)
    return None if found is None else ModelFacts.from_dict({**found, "name": name})


@lru_cache(maxsize=1)
def recipes() -> dict[str, RecipeEntry]:
    """The catalogued recipes by name, sorted."""
    return {
        name: RecipeEntry(name, **{**entry, "needs": tuple(entry["needs"])})
        for name, entry in content()["recipes"].items()
    }


def term_fields(kind: str, values: Mapping[str, Any]) -> tuple[ConfigField, ...]:
    """The fields of a catalogued kind of term.

    Args:
        kind: As of `ld_hub.distillation.TERMS`.
        values: Of a recipe, taken for the defaults.
    """
    return tuple(
        ConfigField(name, parse_hint(entry["hint"]), values[name], entry["text"])
        for name, entry in content()["terms"][kind].items()
    )


def moment(value: float | None) -> str:
    """A step of a term's schedule as text: its number, or a share of the run in percent."""
    if value is None or (isinstance(value, float) and value == 1):
        return "end"
    return f"{100 * value:.3g}%" if isinstance(value, float) else str(value)


def _steps(term: Mapping[str, Any]) -> str:
    """When a term counts, e.g. ``30%-end fading``."""
    text = f"{moment(term['first_step'])}-{moment(term['last_step'])}"
    if term["decay"] == "none":
        return text
    begin = term.get("decay_from")
    return f"{text} fading" + ("" if begin is None else f" from {moment(begin)}")


def recipe_table(name: str, summary: str, terms: Mapping[str, Mapping[str, Any]], reference: str | None = None) -> str:
    """A recipe as a text table of at most 80 columns.

    Args:
        name: Of the recipe.
        summary: One line.
        terms: Fields of each term, its kind among them.
        reference: Code base whose computation the terms follow.
    """
    rows: list[tuple[str, ...]] = [("term", "kind", "weight", "T", "region", "steps")]
    for title, term in terms.items():
        region = f"vlr({term['criterion']}, {term['gamma']:g})" if term["region"] == "vlr" else term["region"]
        region += " w/o positives" if term["exclude_positives"] else ""
        temperature = term.get("temperature")
        cells = (title, term["kind"], f"{term['weight']:g}", "-" if temperature is None else f"{temperature:g}", region)
        rows.append((*cells, _steps(term)))
    shares = [term["share"] for term in terms.values()]
    if any(share is not None for share in shares):  # used where gradients are balanced
        texts = ["share", *("-" if share is None else f"{share:g}" for share in shares)]
        rows = [(*row, text) for row, text in zip(rows, texts, strict=True)]
    ways = [term.get("via", "own_head") for term in terms.values()]
    if any(way != "own_head" for way in ways):
        rows = [(*row, text) for row, text in zip(rows, ["via", *ways], strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"recipe {name}" + (f": {summary}" if summary else "")
    head += f" (computed as the code of '{reference}')" if reference else ""
    return "\n".join([head, lines[0], "-" * len(lines[0]), *lines[1:]])
