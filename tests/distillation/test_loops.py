"""Every registered term equals its second version in plain loops, with every one of its own fields changed."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import nn

from ld_hub.distillation import TERMS, Recipe, Term, TermConfig, plain
from ld_hub.distillation.regions import RegionConfig
from ld_hub.distillation.terms import PredictionConfig, WholeConfig
from tests.distillation.sides import CHANNELS, KINDS, WIDTH, Kind, distiller_of, inputs_of, total

GFOCAL = ("gfocal", False)
SCHEDULE = {field.name for base in (TermConfig, RegionConfig) for field in dataclasses.fields(base)} - {"weight"}


def changes_of(config: TermConfig) -> list[dict[str, Any]]:
    """Another value of each field that is the term's own, one at a time, and other regions."""
    found: list[dict[str, Any]] = []
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if field.name in SCHEDULE:
            continue
        if get_origin(hint) is Literal:
            found += [{field.name: other} for other in get_args(hint) if other != value]
        elif isinstance(value, bool):
            found.append({field.name: not value})
        elif isinstance(value, float):
            found.append({field.name: 1.3 * value or 0.7})
        elif isinstance(value, int):
            found += [{field.name: value + 3}, *([{field.name: None}] if type(None) in get_args(hint) else [])]
    if not isinstance(config, WholeConfig):
        found += [{"region": region} for region in ("main", "all", "vlr") if region != config.region]
    return found


def through_head(kind: str) -> TermConfig:
    """A kind of term, through the teacher's head if it may look so."""
    config = TERMS[kind].config_class()
    return dataclasses.replace(config, via="cross_head") if isinstance(config, PredictionConfig) else config


CROSSING = [config for config in map(through_head, TERMS) if config.crossing]


def compare(config: TermConfig, kind: Kind, **spec: Any) -> bool:
    """Of a term between two detectors, with parameters far from the first ones; False if it does not fit them."""
    distiller = distiller_of(Recipe("x", {"x": config}), kind, kind, **spec)
    if distiller is None:
        return False
    term: Term[Any] = distiller.terms["x"]  # type: ignore[assignment]
    torch.manual_seed(0)
    for parameter in distiller.parameters():
        nn.init.normal_(parameter, std=0.3)
    widths = {"channels": spec.get("feature_channels", CHANNELS), "width": spec.get("tower_channels", WIDTH)}
    inputs = inputs_of(kind, kind, number=2, seed=5, objects=3, **widths)
    torch.manual_seed(1)
    found = total(distiller, inputs).item()
    torch.manual_seed(1)
    expected = term.loops(
        plain.seen(distiller.cross_head, term, dataclasses.replace(inputs))
    )  # with regions found anew
    assert found == pytest.approx(expected, rel=1e-7)
    assert expected > 0
    return True


CASES = [(kind, changes) for kind in TERMS for changes in changes_of(TERMS[kind].config_class())]


@pytest.mark.parametrize("detectors", KINDS, ids=lambda kind: f"{kind[0]}-{'plain' if kind[1] else 'bins'}")
@pytest.mark.parametrize("kind", TERMS)
def test_a_term_equals_its_loops(kind: str, detectors: Kind) -> None:
    plain = detectors[1]  # heads without bins: the only ones that a term may not fit
    assert compare(TERMS[kind].config_class(), detectors) or plain


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_each_field_means_the_same_to_both(kind: str, changes: dict[str, Any]) -> None:
    config = TERMS[kind].config_class(**changes)
    assert [compare(config, detectors) for detectors in (GFOCAL, ("atss", True))].count(True) > 0  # bins, plain boxes


@pytest.mark.parametrize("kind", [kind for kind in TERMS if "features" in TERMS[kind].needs])
def test_narrow_students_are_adapted_alike(kind: str) -> None:
    assert compare(TERMS[kind].config_class(), GFOCAL, feature_channels=3)


@pytest.mark.parametrize("detectors", [GFOCAL, ("atss", True)], ids=["bins", "plain"])
@pytest.mark.parametrize("config", CROSSING, ids=lambda config: config.kind)
def test_narrow_towers_are_adapted_alike(config: TermConfig, detectors: Kind) -> None:
    assert compare(config, detectors, tower_channels=3) or detectors[1]
