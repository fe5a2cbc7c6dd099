"""Every registered recipe obeys the laws; every term equals a second version in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ld_hub.distillation import BoxBinsKLConfig, ClassKLConfig, Distiller, Recipe, get_recipe, list_recipes
from ld_hub.distillation.regions import vlr_weights
from ld_hub.errors import ConfigError, LdHubError
from tests.support import build


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def _kl(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    t, s = _softmax(teacher / temperature), _softmax(student / temperature)
    return float(temperature**2 * (t * (np.log(t) - np.log(s))).sum())


@pytest.mark.parametrize("classes", [1, 3, 8])
def test_vlr_recipe_against_loops(classes: int) -> None:
    student, teacher = build.output(3, 10, classes), build.output(3, 11, classes)
    inputs = build.term_inputs(student, teacher, build.targets(3, 2, classes))
    weights = vlr_weights(inputs.assignment, inputs.targets, 0.25, "iof").numpy()
    positive, levels = inputs.assignment.positive.numpy(), student.priors.levels.numpy()
    s_box, t_box = student.box.detach().numpy(), teacher.box.detach().numpy()
    s_cls, t_cls = student.cls_logits.detach().numpy(), teacher.cls_logits.detach().numpy()
    per_level = [positive[:, levels == level].sum() for level in range(5)]
    ld = vlr = kd = 0.0
    for n in range(3):
        for a in range(len(levels)):
            edges = [_kl(s_box[n, a, e], t_box[n, a, e], 10.0) / 17 for e in range(4)]
            if positive[n, a]:
                ld += 0.25 / 4 * sum(edges) / (1 + math.exp(-s_cls[n, a].max()))
                kd += 10 * _kl(s_cls[n, a], t_cls[n, a], 2.0) / 80 / per_level[levels[a]]
            vlr += 0.25 / 16 * sum(edges) * weights[n, a]
    found = Distiller("vlr")(inputs)
    assert math.isclose(found["distill_ld"].item(), ld * 2 / 3, rel_tol=1e-9)
    assert math.isclose(found["distill_ld_vlr"].item(), vlr * 2 / 3, rel_tol=1e-9)
    assert math.isclose(found["distill_kd"].item(), kd, rel_tol=1e-9, abs_tol=1e-12)
    assert (weights > 0).sum() > 10


def test_the_published_reading_is_bare_sums_and_means_over_entries() -> None:
    inputs = build.term_inputs(build.output(3, 10), build.output(3, 11), build.targets(3, 2))
    sound, published = Distiller("vlr")(inputs), Distiller("vlr", reference="ld")(inputs)
    assert math.isclose(published["distill_ld"].item(), sound["distill_ld"].item() * 3 / 2, rel_tol=1e-9)
    assert math.isclose(published["distill_kd"].item(), sound["distill_kd"].item() * 80 / 5, rel_tol=1e-9)


def test_regions_all_and_diou() -> None:
    student, teacher = build.output(2, 12), build.output(2, 13)
    inputs = build.term_inputs(student, teacher, build.targets(2, 1))
    everywhere = Distiller(Recipe("x", {"ld": BoxBinsKLConfig(region="all"), "kd": ClassKLConfig(region="all")}))(
        inputs
    )
    main = Distiller(Recipe("x", {"ld": BoxBinsKLConfig()}))(inputs)
    assert everywhere["distill_ld"] > main["distill_ld"]
    s_cls, t_cls = (x.cls_logits.detach().numpy() for x in (student, teacher))
    levels = student.priors.levels.numpy()
    kd = sum(
        10
        * np.mean([_kl(s_cls[n, a], t_cls[n, a], 2.0) / 80 for n in range(2) for a in np.flatnonzero(levels == level)])
        for level in range(5)
    )
    assert math.isclose(everywhere["distill_kd"].item(), kd, rel_tol=1e-9)
    iof, diou = (vlr_weights(inputs.assignment, inputs.targets, 0.25, c) for c in ("iof", "diou"))
    assert not torch.equal(iof > 0, diou > 0)
    assert (vlr_weights(inputs.assignment, inputs.targets, 0.5, "iof") > 0).sum() < (iof > 0).sum()


def test_steps() -> None:
    inputs = build.term_inputs(build.output(2, 14), build.output(2, 15), build.targets(2, 1))
    recipe = get_recipe("ld").with_terms(ld={"first_step": 3, "last_step": 5})
    values = [Distiller(recipe)(inputs, step)["distill_ld"].item() for step in range(8)]
    assert [v > 0 for v in values] == [False, False, False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("ld", {"reg_max": 8}, ["reg_max", "16", "8"]),
        ("ld", {"reg_max": None}, ["bin", "Recipes that fit this pair", "bckd", "kd"]),
        ("ld", {"strides": (5, 10, 20, 40, 80)}, ["strides", "5, 10", "teacher_scale"]),
        ("bckd", {"strides": (8, 16, 64, 128)}, ["strides", "8, 16, 64", "teacher_scale"]),
        ("kd", {"num_classes": 3, "label_names": tuple("xyz")}, ["class name", "a, b, c", "x, y, z", "class_map"]),
        ("bckd", {"label_names": tuple("vwxyz")}, ["class name", "class_map", "weighting='region'", "this pair"]),
    ],
)
def test_pairs_that_do_not_fit_are_refused_before_the_first_step(recipe: str, changes: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Distiller(recipe).setup(build.spec("small"), build.spec("big", **changes))
    assert all(word in str(caught.value) for word in [*words, "big", recipe])


def test_a_void_class_term_is_said() -> None:
    one = build.spec(num_classes=1, label_names=("a",))
    assert "void" in Distiller("kd").setup(one, one)[0]
    assert Distiller("kd").setup(build.spec(), build.spec()) == []


def test_recipes_are_data() -> None:
    for name in list_recipes():
        recipe = get_recipe(name)
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert max(map(len, recipe.table().splitlines())) <= 80
        assert all(term in recipe.table() for term in recipe.terms)
    assert get_recipe("vlr").terms["ld_vlr"].weight == 0.0625
    changed = get_recipe("vlr").with_terms(ld={"weight": 2.0, "temperature": 5.0})
    assert (changed.terms["ld"].weight, changed.terms["ld"].temperature) == (2.0, 5.0)
    assert get_recipe("vlr").terms["ld"].weight == 0.25


def test_a_term_changed_after_the_published_preset_stays_changed() -> None:
    recipe = get_recipe("ld").published("ld").with_terms(ld={"kl_divisor": 17, "normalizer": "images"})
    assert Distiller(recipe, reference="ld").recipe.terms["ld"] == get_recipe("ld").terms["ld"]
    assert Distiller("ld", reference="ld").recipe.terms["ld"].normalizer == "none"
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert "'ld'" in recipe.table()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: get_recipe("vrl"), ["vrl", "vlr"]),
        (lambda: get_recipe("ld").with_terms(ldd={"weight": 1}), ["ldd", "ld"]),
        (lambda: get_recipe("ld").with_terms(ld={"wieght": 1}), ["wieght", "weight"]),
        (lambda: Recipe.from_dict({"terms": {"x": {"kind": "box_bins"}}}), ["box_bins", "box_bins_kl"]),
        (lambda: Recipe.from_dict({"terms": {"x": {"weight": 1}}}), ["x", "kind"]),
        (lambda: BoxBinsKLConfig(region="mian"), ["mian", "main"]),
        (lambda: BoxBinsKLConfig(weight=float("nan")), ["weight", "nan"]),
        (lambda: BoxBinsKLConfig(gamma=2), ["gamma", "2"]),
        (lambda: Distiller("ld", reference="mmdet"), ["mmdet", "bckd"]),
    ],
)
def test_mistakes_are_answered(action: object, words: list[str]) -> None:
    with pytest.raises(LdHubError) as caught:
        action()  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words)
