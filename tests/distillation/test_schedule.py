"""Terms that begin, end and fade."""

from __future__ import annotations

import math

import pytest

from ld_hub.distillation import Committee, Distiller, get_recipe
from ld_hub.errors import ConfigError
from tests.support import build


def test_a_term_fades_along_a_cosine() -> None:
    inputs = build.term_inputs(build.output(2, 14), build.output(2, 15), build.targets(2, 1))
    whole = Distiller("vlr")(inputs)
    fading = Distiller(get_recipe("vlr").with_terms(ld={"first_step": 10, "last_step": 30, "decay": "cosine"}))
    for step in (0, 9, 10, 15, 20, 29, 30, 31, 99):
        share = math.cos(math.pi * (step - 10) / 40) ** 2 if 10 <= step <= 30 else 0  # (1 + cos 2x) / 2
        found = fading(inputs, step)
        assert found["distill_ld"].item() == pytest.approx(share * whole["distill_ld"].item(), rel=1e-9, abs=1e-12)
        assert all(found[name].item() == whole[name].item() for name in ("distill_kd", "distill_ld_vlr"))
        assert fading.factors(step) == {
            "distill_kd": 1, "distill_ld": pytest.approx(share, abs=1e-12), "distill_ld_vlr": 1,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": "cosine"}, "decay is 'cosine' and last_step None; expected a step after first_step"),
        ({"decay": "cosine", "first_step": 4, "last_step": 4}, "last_step 4"),
        ({"decay": "linear"}, "decay is 'linear'; expected 'none' or 'cosine'"),
        ({"first_step": 5, "last_step": 4}, "first_step is 5 and last_step 4"),
        ({"first_step": -1}, "first_step is -1"),
        ({"share": -0.1}, "share is -0.1"),
        ({"share": float("inf")}, "share is inf"),
    ],
)
def test_schedules_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_recipe("ld").with_terms(ld=changes)


def test_the_table_says_what_fades_and_who_has_a_share() -> None:
    recipe = get_recipe("vlr")
    assert "share" not in recipe.table()
    changed = recipe.with_terms(ld={"share": 0.5, "last_step": 90000, "decay": "cosine"}, kd={"first_step": 7})
    lines = {line.split()[0]: line.split() for line in changed.table().splitlines()}
    assert lines["term"][-2:] == ["steps", "share"]
    assert lines["ld"][-3:] == ["0-90000", "fading", "0.5"]
    assert lines["kd"][-2:] == ["7-end", "-"]
    assert max(map(len, changed.table().splitlines())) <= 80


def test_shares_of_terms_and_of_several_teachers() -> None:
    recipe = get_recipe("vlr").with_terms(ld={"share": 0.5})
    assert Distiller(recipe).shares(0.3) == {"distill_kd": 0.3, "distill_ld": 0.5, "distill_ld_vlr": 0.3}
    committee = Committee({"a": Distiller("ld"), "b": Distiller(recipe)}, {"b": 0.5})
    assert committee.shares(0.25) == {
        "distill_ld@a": 0.25, "distill_kd@b": 0.125, "distill_ld@b": 0.25, "distill_ld_vlr@b": 0.125,
    }  # fmt: skip
    assert committee.factors(0).keys() == committee.shares(1).keys()
