"""Terms that begin, end and fade."""

from __future__ import annotations

import math

import pytest

from ld_hub.distillation import BoxBinsKLConfig, Committee, Distiller, Recipe, get_recipe
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
        ({"first_step": 0.5, "last_step": 0.4}, "first_step is 0.5 and last_step 0.4"),
        ({"first_step": 1.0}, r"first_step is 1.0; expected int, or as a share .* above 0 and below 1\."),
        ({"last_step": 1.5}, r"last_step is 1.5; expected int or None, or as a share .* above 0 and up to 1\."),
        ({"last_step": 0.0}, "last_step is 0.0"),
        ({"last_step": float("nan")}, "last_step is nan"),
        ({"decay_from": 1.0, "last_step": 1.0, "decay": "cosine"}, "decay_from is 1.0"),
        ({"decay": "cosine", "first_step": 0.5, "last_step": 0.5}, "last_step 0.5; expected a step after first_step"),
        ({"decay": "cosine", "decay_from": 7, "last_step": 7}, r"last_step 7; expected a step after decay_from \(7\)"),
        ({"decay": "cosine", "decay_from": 2, "first_step": 3, "last_step": 7}, "decay_from is 2 and first_step 3"),
        ({"decay_from": 2, "last_step": 7}, "decay_from is 2.*with decay='cosine'"),
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


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 30, 90_000])
def test_a_share_of_a_run_holds_that_share_of_its_steps(steps: int) -> None:
    early, late = BoxBinsKLConfig(last_step=0.7), BoxBinsKLConfig(first_step=0.7)
    counts = [[one.at_length(steps).factor(step) for step in range(steps)] for one in (early, late)]
    assert {*counts[0], *counts[1]} <= {0.0, 1.0}
    assert counts[0] == sorted(counts[0], reverse=True) and counts[1] == sorted(counts[1])
    if steps >= 3:  # each has a step of its own
        assert counts[0] == [1 - other for other in counts[1]]
        assert sum(counts[0]) == pytest.approx(0.7 * steps, abs=0.5)
    assert sum(counts[0]) >= 1 and sum(counts[1]) >= 1


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 30, 90_000])
def test_a_term_fades_over_the_last_third_of_a_run_of_any_length(steps: int) -> None:
    config = BoxBinsKLConfig(decay="cosine", decay_from=2 / 3, last_step=1.0).at_length(steps)
    found = [config.factor(step) for step in range(steps)]
    whole = found.count(1.0)
    assert found == sorted(found, reverse=True) and whole >= 1
    assert found[-1] == pytest.approx(0 if steps > 1 else 1, abs=1e-12)
    if steps >= 30:
        assert whole == 2 * steps // 3 + 1  # at the first step of the last third it is still whole
        middle = (steps - 1 + 2 * steps // 3) // 2
        assert found[middle] == pytest.approx(0.5, abs=0.1)


def test_steps_stay_as_they_are_at_any_length() -> None:
    for changes in ({}, {"first_step": 3, "last_step": 9}, {"last_step": 9, "decay": "cosine"}):
        config = BoxBinsKLConfig(**changes)
        assert config.at_length(5) == config
        assert all(type(getattr(config.at_length(5), name)) is type(getattr(config, name)) for name in changes)
    mixed = BoxBinsKLConfig(first_step=5, last_step=0.5)
    assert (mixed.at_length(40).first_step, mixed.at_length(40).last_step) == (5, 19)
    with pytest.raises(ConfigError, match="In a run of 100 steps first_step is 50 and last_step 20"):
        BoxBinsKLConfig(first_step=0.5, last_step=20).at_length(100)


def test_a_share_of_an_unknown_length_is_refused_and_the_recipe_keeps_it() -> None:
    inputs = build.term_inputs(build.output(2, 14), build.output(2, 15), build.targets(2, 1))
    recipe = get_recipe("vlr").with_terms(ld={"last_step": 0.5})
    distiller = Distiller(recipe)
    with pytest.raises(ConfigError, match=r"last_step is 0.5, a share of a run whose length.*Distiller.begin"):
        distiller(inputs)
    committee = Committee({"a": distiller, "b": Distiller("ld")})
    committee.begin(20)
    assert [distiller(inputs, step)["distill_ld"].item() > 0 for step in (0, 9, 10, 19)] == [True, True, False, False]
    assert committee.factors(10) == {"distill_kd@a": 1, "distill_ld@a": 0, "distill_ld_vlr@a": 1, "distill_ld@b": 1}
    assert distiller.recipe == recipe and Recipe.from_dict(recipe.to_dict()) == recipe
    wrong = Distiller(get_recipe("ld").with_terms(ld={"first_step": 0.5, "last_step": 20}))
    with pytest.raises(ConfigError, match="Term 'ld': In a run of 100 steps"):
        wrong.begin(100)


def test_the_table_tells_shares_in_percent() -> None:
    fading = {"last_step": 1.0, "decay": "cosine", "decay_from": 2 / 3}
    changed = get_recipe("vlr").with_terms(ld=fading, kd={"first_step": 0.25}, ld_vlr={"last_step": 0.7})
    ends = {line.split()[0]: line.rpartition("  ")[2] for line in changed.table().splitlines()}
    assert (ends["ld"], ends["kd"], ends["ld_vlr"]) == ("0-end fading from 66.7%", "25%-end", "0-70%")


def test_shares_of_terms_and_of_several_teachers() -> None:
    recipe = get_recipe("vlr").with_terms(ld={"share": 0.5})
    assert Distiller(recipe).shares(0.3) == {"distill_kd": 0.3, "distill_ld": 0.5, "distill_ld_vlr": 0.3}
    committee = Committee({"a": Distiller("ld"), "b": Distiller(recipe)}, {"b": 0.5})
    assert committee.shares(0.25) == {
        "distill_ld@a": 0.25, "distill_kd@b": 0.125, "distill_ld@b": 0.25, "distill_ld_vlr@b": 0.125,
    }  # fmt: skip
    assert committee.factors(0).keys() == committee.shares(1).keys()
