"""Citations are made of the papers that stand beside methods and families."""

from __future__ import annotations

import re

import pytest

from ld_hub.distillation import TERMS, ClassKLConfig, Recipe, get_recipe, list_recipes, make_teaching
from ld_hub.models.factory import create_model
from ld_hub.papers import PAPERS
from ld_hub.publishing.cards import citation_section
from ld_hub.registry import MODELS
from ld_hub.structures import Teaching
from tests.support import build


def keys_of(text: str) -> list[str]:
    return re.findall(r"^@\w+{(\w+),$", text, re.MULTILINE)


def test_every_method_and_family_has_a_paper() -> None:
    assert {get_recipe(name).paper for name in list_recipes()} <= {PAPERS[number].address for number in PAPERS}
    papers = [TERMS[kind].paper for kind in TERMS] + [MODELS[family].build.paper for family in build.FAMILIES]
    assert all(paper is not None and PAPERS[paper.arxiv] is paper for paper in papers)
    assert len({PAPERS[number].key for number in PAPERS}) == len(PAPERS) >= 18


def test_entries_are_bibtex() -> None:
    for number in PAPERS:
        entry = PAPERS[number].bibtex()
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number)
        assert entry.count("{") == entry.count("}") and keys_of(entry) == [PAPERS[number].key]
        assert " and " in PAPERS[number].authors and ", " in PAPERS[number].authors


@pytest.mark.parametrize(
    ("model", "recipe", "keys"),
    [
        ("gfocal", "bckd", ["yang2023bckd", "li2020gfl"]),
        ("gfocal", "crosskd_pkd", ["wang2024crosskd", "cao2022pkd", "li2020gfl"]),
        ("gfocal", "crossld", ["wang2024crosskd", "yang2023bckd", "zheng2022ld", "li2020gfl"]),
        ("gfocalv2", "vlr", ["zheng2022ld", "hinton2015distilling", "li2020gfl", "li2021gflv2"]),
        ("retinanet", "", ["lin2017focal"]),
        ("atss", "", ["zhang2020atss"]),
        ("fcos", "pkd", ["cao2022pkd", "tian2019fcos"]),
    ],
)
def test_a_card_cites_the_method_its_terms_and_the_detector(model: str, recipe: str, keys: list[str]) -> None:
    made = create_model(model, backbone="test_resnet", fpn_channels=16, head_width=16, head_depth=1)
    text = citation_section(made, make_teaching(recipe) if recipe else None)
    assert keys_of(text) == keys


def test_the_way_through_the_teachers_head_is_cited() -> None:
    made = create_model("atss", backbone="test_resnet", fpn_channels=16, head_width=16, head_depth=1)
    own = Recipe("own", {"kd": ClassKLConfig(via="cross_head")})
    assert keys_of(citation_section(made, make_teaching(own))) == [
        "hinton2015distilling",
        "wang2024crosskd",
        "zhang2020atss",
    ]


def test_strange_recipes_of_others_are_no_error() -> None:
    made = create_model("atss", backbone="test_resnet", fpn_channels=16, head_width=16, head_depth=1)
    for strange in (Teaching(), Teaching(terms={"y": {"kind": "theirs"}, "z": {}})):  # Teaching refuses all else
        assert keys_of(citation_section(made, strange, "https://arxiv.org/abs/2102.12252")) == [
            "zheng2022ld",
            "zhang2020atss",
        ]
