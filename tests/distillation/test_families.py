"""Recipes on the grids of all families: laws, and second versions in loops of what only some families have."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from ld_hub.distillation import (
    RECIPES,
    BoxBinsKLConfig,
    Distiller,
    FeatureMSEConfig,
    Recipe,
    TermInputs,
    get_recipe,
    register_recipe,
)
from ld_hub.distillation.regions import RegionConfig, select, vlr_weights
from ld_hub.errors import ConfigError
from tests.support import build

OTHERS = [f for f in build.FAMILIES if f != "gfocal"]


def inputs_of(family: str, number: int = 3, seed: int = 1) -> TermInputs:
    student, teacher = (build.output(number, seed + k, family=family) for k in range(2))
    return build.term_inputs(student, teacher, build.targets(number, seed=2))


def test_inside_region_against_loops() -> None:
    inputs = inputs_of("fcos", seed=4)
    region = select(inputs, RegionConfig(region="inside_gt", exclude_positives=True))
    scores = inputs.student.cls_logits.detach().sigmoid().amax(dim=2)
    expected = {}
    for n in range(3):
        for a, (x, y) in enumerate(inputs.student.priors.centers.tolist()):
            boxes = inputs.targets.boxes[n][inputs.targets.usable[n]].tolist()
            within = any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in boxes)
            if within and inputs.assignment.gt_index[n, a] < 0:
                expected[n * len(inputs.student.priors) + a] = float(scores[n, a])
    assert len(expected) > 50
    assert dict(zip(region.rows.index.tolist(), region.importance.tolist(), strict=True)) == pytest.approx(expected)


def test_vlr_without_positives() -> None:
    inputs = inputs_of("retinanet", seed=4)
    weights = vlr_weights(inputs.assignment, inputs.targets)
    overlap = (weights > 0) & inputs.assignment.positive
    assert overlap.any()
    region = select(inputs, RegionConfig(region="vlr", exclude_positives=True))
    expected = (weights * ~inputs.assignment.positive).flatten()
    assert torch.equal(region.rows.index, expected.nonzero().squeeze(1))
    assert torch.equal(region.importance, expected[region.rows.index])


def test_joint_softmax_against_loops() -> None:
    inputs = inputs_of("retinanet", number=2, seed=7)
    found = Distiller(Recipe("x", {"ld": BoxBinsKLConfig(joint=True, kl_divisor=None, normalizer="none")}))(inputs)
    student, teacher = (x.box.detach().flatten(2).numpy() / 10 for x in (inputs.student, inputs.teacher))
    scores = inputs.student.cls_logits.detach().sigmoid().amax(dim=2).numpy()
    expected = 0.0
    for n, a in inputs.assignment.positive.nonzero().tolist():
        t = np.exp(teacher[n, a]) / np.exp(teacher[n, a]).sum()
        s = np.exp(student[n, a]) / np.exp(student[n, a]).sum()
        expected += 0.25 / 4 * scores[n, a] * 100 * float((t * np.log(t / s)).sum()) / 68
    assert math.isclose(found["distill_ld"].item(), expected, rel_tol=1e-9)


def test_retinanet_edges_are_as_strong_as_the_joint_softmax_where_edges_agree() -> None:
    """With equal logits at all four edges the joint KL is the KL of one edge, and both readings give the same."""
    inputs = inputs_of("retinanet", number=2, seed=7)
    same = {k: getattr(inputs, k) for k in ("student", "teacher")}
    same = {k: dataclasses.replace(v, box=v.box[:, :, :1].expand(-1, -1, 4, -1)) for k, v in same.items()}
    inputs = dataclasses.replace(inputs, **same)
    recipe = get_recipe("ld").for_family("retinanet")
    sound, published = Distiller(recipe)(inputs), Distiller(recipe, reference="ld")(inputs)
    assert math.isclose(
        sound["distill_ld"].item(), published["distill_ld"].item(), rel_tol=1e-12
    )  # 2 images: 2 / N = 1


def test_recipes_adapt_to_a_family_and_keep_what_the_user_set() -> None:
    vlr = get_recipe("vlr")
    assert vlr.for_family("gfocal") == vlr
    assert vlr.for_family("atss").terms["ld_vlr"].weight == 0.15 * 0.25
    assert vlr.for_family("fcos").terms["ld_vlr"].region == "inside_gt"
    assert "inside_gt w/o positives" in vlr.for_family("fcos").table()
    retina = vlr.for_family("retinanet")
    assert (retina.terms["ld"].weight, retina.terms["ld_vlr"].weight) == (5.0, 0.15)
    assert retina.for_family("retinanet") == retina
    assert retina.for_family("atss").terms == vlr.for_family("atss").terms  # back and forth
    assert Recipe.from_dict(retina.to_dict()) == retina

    mine = vlr.with_terms(ld={"weight": 1.0}).for_family("retinanet")
    assert (mine.terms["ld"].weight, mine.terms["ld_vlr"].weight) == (1.0, 0.15)
    own = Recipe("own", {"ld": BoxBinsKLConfig()})
    assert own.for_family("retinanet").terms == own.terms

    first, last = retina.published("ld"), vlr.published("ld").for_family("retinanet")
    assert first.terms == last.terms
    assert (first.terms["ld"].joint, first.terms["ld"].kl_divisor) == (True, None)
    changed = vlr.published("ld").with_terms(ld={"normalizer": "images"}).for_family("retinanet")
    assert changed.terms["ld"].normalizer == "images"
    assert changed.terms["ld"].joint


def test_a_registered_recipe_of_ones_own_may_use_our_names_for_other_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPES, "_entries", dict(RECIPES._entries))
    mine = register_recipe(Recipe("mine", {"ld": FeatureMSEConfig(), "kd": BoxBinsKLConfig(temperature=3.0)}))
    for family in build.FAMILIES:
        assert get_recipe("mine").for_family(family).terms == mine.terms
        published = mine.for_family(family).published("ld").terms
        assert (published["ld"].mean, published["kd"].normalizer) == ("batch", "none")


@pytest.mark.parametrize("family", build.FAMILIES)
def test_setup_adapts(family: str) -> None:
    distiller = Distiller("vlr", reference="ld")
    rows = 9 if family == "retinanet" else 1
    specs = [build.spec(name, family=family, anchors_per_cell=rows) for name in ("student", "teacher")]
    distiller.setup(*specs)
    assert distiller.recipe == get_recipe("vlr").for_family(family).published("ld")
    configs = {name: term.config for name, term in distiller._named()}
    assert configs == dict(distiller.recipe.terms)


def test_points_have_no_overlaps_and_plain_boxes_no_bins() -> None:
    with pytest.raises(ConfigError, match=r"anchors.*'inside_gt'"):
        Distiller("vlr")(inputs_of("fcos"))
    plain = build.spec("atss_r50", family="atss", reg_max=None)
    with pytest.raises(ConfigError, match=r"bins.*atss_r50_bins"):
        Distiller("ld").setup(plain, plain)
