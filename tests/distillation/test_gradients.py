"""Gradients of every recipe and term: how a batch is split, how rows are picked, finite differences."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from ld_hub.distillation import TERMS, Distiller, Recipe, TermInputs, get_recipe
from ld_hub.distillation.regions import OF_OVERLAPS
from tests.distillation.sides import (
    CHANNELS,
    DEFAULT_REGIONS,
    KINDS,
    RECIPES,
    ROW_TERMS,
    WIDTH,
    Kind,
    distiller_of,
    gradients,
    inputs_of,
    leaves,
    moved,
    parts_of,
    total,
)
from tests.support import build

FAMILIES = pytest.mark.parametrize("family", build.FAMILIES)
PAIRS = [*((kind, kind) for kind in KINDS), (("gfocal", False), ("retinanet", False))]
PAIRS += [
    (("retinanet", False), ("fcos", False)),
    (("fcos", True), ("gfocal", False)),
    (("atss", True), ("fcos", True)),
]


def check_split(distiller: Distiller, inputs: TermInputs, split: list[list[int]]) -> None:
    wrt = leaves(inputs.student) + list(distiller.parameters())
    expected = gradients(distiller, inputs, wrt)
    assert any(g.any() for g in expected)
    losses = [total(distiller, part) for part in parts_of(inputs, split)]
    found = torch.autograd.grad(torch.stack(losses).mean(), wrt, allow_unused=True)
    for mine, other in zip(found, expected, strict=True):
        assert torch.allclose(torch.zeros_like(other) if mine is None else mine, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("student", "teacher"), PAIRS, ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_gradient_does_not_depend_on_the_split(recipe: str, student: Kind, teacher: Kind) -> None:
    """On student, adapters and generators; MGD without its random cells, the one thing in which splits differ."""
    narrow = {"feature_channels": CHANNELS - 1, "tower_channels": WIDTH - 1}
    distiller = distiller_of(recipe, student, teacher, trained=True, **narrow)
    if distiller is None:
        return
    inputs = inputs_of(student, teacher, number=4, seed=8, objects=1, channels=CHANNELS - 1, width=WIDTH - 1)
    check_split(distiller, inputs, [[0], [1, 2, 3]] if student[1] else [[0, 2], [3], [1]])


@pytest.mark.parametrize("region", DEFAULT_REGIONS)
@pytest.mark.parametrize("name", ROW_TERMS)
def test_no_term_depends_on_the_split_in_any_region(name: str, region: str) -> None:
    for family in build.FAMILIES:
        kind = (family, False)
        config = dataclasses.replace(ROW_TERMS[name], region=region, min_score=0.7)
        distiller = distiller_of(Recipe("x", {"x": config}), kind, kind)
        if distiller is None:
            assert family == "fcos" and region in OF_OVERLAPS
            continue
        check_split(distiller, inputs_of(kind, kind, number=4, seed=5, objects=1), [[0, 3], [1], [2]])


@FAMILIES
@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_in_place_or_padded_to_a_capacity_give_the_same(
    recipe: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU and in compiled graphs the number of rows of a region may not depend on the data."""
    kind = (family, False)
    distiller = distiller_of(recipe, kind, kind, trained=True)
    if distiller is None:
        return
    inputs = inputs_of(kind, kind, seed=7)
    expected = gradients(distiller, inputs, leaves(inputs.student))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    again = build.term_inputs(inputs.student, inputs.teacher, inputs.targets)
    again = dataclasses.replace(again, teacher_head=inputs.teacher_head)
    assert len(again.assignment.rows.weight) > int(again.assignment.rows.weight.sum())
    for mine, other in zip(gradients(distiller, again, leaves(inputs.student)), expected, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-13)


def test_every_registered_term_is_in_a_recipe_and_says_what_it_reaches() -> None:
    assert {term.kind for recipe in RECIPES for term in get_recipe(recipe).terms.values()} == set(TERMS)
    for kind in TERMS:
        assert TERMS[kind].learns and {*TERMS[kind].learns} <= {"box", "cls", "features", "towers"}


def check_gradient(distiller: Distiller, inputs: TermInputs, reached: tuple[str, ...]) -> None:
    student = inputs.student
    groups: dict[str, list[Tensor]] = {
        "box": [student.box],
        "cls": [student.cls_logits],
        "features": list(student.features or ()),
        "towers": [m for pair in student.towers or () for m in pair],
    }
    others = [leaf for group, made in groups.items() if group not in reached for leaf in made]
    assert not any(g.any() for g in gradients(distiller, inputs, others))

    def loss(*values: Tensor) -> Tensor:
        given = iter(values)
        made = {group: tuple(next(given) for _ in groups[group]) for group in reached}
        change: dict[str, Any] = {"cls_logits": student.cls_logits, "box": student.box} | made
        for group, name in (("cls", "cls_logits"), ("box", "box")):
            if group in made:
                change[name] = made[group][0]
        change.pop("cls", None)
        if "towers" in made:
            change["towers"] = tuple(zip(made["towers"][::2], made["towers"][1::2], strict=True))
        return total(distiller, moved(inputs, "student", **change))

    assert torch.autograd.gradcheck(
        loss, [leaf for group in reached for leaf in groups[group]], fast_mode=True, rtol=1e-4, atol=1e-6
    )


@FAMILIES
@pytest.mark.parametrize("kind", TERMS)
def test_gradients_are_those_of_the_loss(kind: str, family: str) -> None:
    """In float64, of each differently configured term of the registered recipes, against finite differences."""
    configs = [config for recipe in RECIPES for config in get_recipe(recipe).for_family(family).terms.values()]
    different = dict.fromkeys(config for config in configs if config.kind == kind)
    for config, of_family in itertools.product(different, [kind for kind in KINDS if kind[0] == family]):
        distiller = distiller_of(Recipe("x", {"x": config}), of_family, of_family, trained=True)
        if distiller is not None:
            inputs = inputs_of(of_family, of_family, number=2, seed=3, objects=1)
            check_gradient(distiller, inputs, ("towers",) if config.crossing else TERMS[kind].learns)
