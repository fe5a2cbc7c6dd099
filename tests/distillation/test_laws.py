"""The laws of distillation, over every registered recipe between detectors of every family."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ld_hub.distillation import (
    BoxBinsKLConfig,
    ChannelKLConfig,
    ClassKLConfig,
    CorrelationConfig,
    PearsonFeatureConfig,
    Recipe,
    TermConfig,
    get_recipe,
)
from ld_hub.distillation.methods.crosskd import CrossBoxConfig
from ld_hub.distillation.regions import OF_OVERLAPS
from ld_hub.structures import DenseOutput
from tests.distillation.sides import (
    CHANNELS,
    DEFAULT_REGIONS,
    KINDS,
    RECIPES,
    ROW_TERMS,
    WIDTH,
    Kind,
    distiller_of,
    fresh,
    gradients,
    inputs_of,
    leaves,
    moved,
    total,
)
from tests.support import build

FAMILIES = pytest.mark.parametrize("family", build.FAMILIES)
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 10**6)


def few(examples: int) -> Any:
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


def of_family(family: str) -> st.SearchStrategy[Kind]:
    return st.sampled_from([kind for kind in KINDS if kind[0] == family])


@FAMILIES
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "mgd"])  # a generator is no divergence
def test_equal_detectors_have_nothing_to_teach(recipe: str, family: str) -> None:
    @few(3)
    @given(of_family(family), seeds, st.sampled_from([None, "ld", "bckd"]))
    def law(kind: Kind, seed: int, reference: str | None) -> None:
        distiller = distiller_of(get_recipe(recipe).for_family(family), kind, kind, reference)
        if distiller is None:
            return
        if "cross_box" in distiller.recipe.terms:  # the entropy of centerness stays
            distiller = distiller_of(distiller.recipe.with_terms(cross_box={"quality_weight": 0.0}), kind, kind)
            assert distiller is not None
        inputs = inputs_of(kind, kind, seed=seed, same=True)
        assert abs(total(distiller, inputs).item()) < 1e-9
        # |p - t| and 1 - IoU have kinks where the two are the same but for rounding
        smooth = {n: c for n, c in distiller.recipe.terms.items() if not c.crossing or c.kind == "box_bins_kl"}
        alone = distiller_of(Recipe("x", smooth), kind, kind) if smooth else None
        wrt = leaves(inputs.student)
        assert alone is None or all(g.abs().max() < 1e-9 for g in gradients(alone, inputs, wrt))

    law()


@FAMILIES
@pytest.mark.parametrize("recipe", RECIPES)
def test_others_teach_and_the_teacher_never_learns(recipe: str, family: str) -> None:
    @few(3)
    @given(of_family(family), kinds, seeds, st.integers(1, 3))
    def law(student: Kind, teacher: Kind, seed: int, number: int) -> None:
        distiller = distiller_of(recipe, student, teacher)
        if distiller is None:
            return
        inputs = inputs_of(student, teacher, number=number, seed=seed)
        theirs = fresh(inputs.teacher)
        inputs = dataclasses.replace(inputs, teacher=theirs)
        losses = distiller(inputs)
        torch.stack(list(losses.values())).sum().backward()
        assert all(leaf.grad is None for leaf in leaves(theirs))
        found = [leaf.grad for leaf in leaves(inputs.student) if leaf.grad is not None]
        assert all(g.isfinite().all() for g in found)
        if "retinanet" in student and "retinanet" not in teacher:  # no positive need be the best row of its cell
            assert all(loss.isfinite() and loss >= 0 for loss in losses.values()), losses
        else:
            assert all(loss.isfinite() and loss > 0 for loss in losses.values()), losses
            assert any(g.abs().max() > 0 for g in found)

    law()


@FAMILIES
@pytest.mark.parametrize("recipe", RECIPES)
def test_extremes_and_bfloat16_stay_finite(recipe: str, family: str) -> None:
    """Logits and maps of 1e4, or all zero, in float32 and bfloat16; plain regression is in strides, no logit."""

    @few(4)
    @given(
        of_family(family), of_family(family), st.sampled_from([1e4, 1.0, 0.0]), st.sampled_from("sbt"), st.booleans()
    )
    def law(student: Kind, teacher: Kind, size: float, who: str, half: bool) -> None:
        distiller = distiller_of(recipe, student, teacher)
        if distiller is None:
            return
        inputs = inputs_of(student, teacher)

        def extreme(x: Tensor) -> Tensor:
            bins, maps = x.ndim == 4 and x.shape[2:] == (4, 17), x.ndim == 4 and x.shape[1] in {CHANNELS, WIDTH}
            plain = x.ndim == 3 and x.shape[-1] == 4
            regressed = maps and x.shape[1] == WIDTH and teacher == ("fcos", True)  # exp() of what a head makes of it
            x = x if plain or regressed or size == 1 else x.sign() * size
            return x.float().bfloat16() if half and maps and not bins else x.float()

        def usual(x: Tensor) -> Tensor:
            return x.float()

        mine = fresh(inputs.student, extreme if who in "sb" else usual)
        theirs = fresh(inputs.teacher, extreme if who in "tb" else usual)
        grids = [build.grid(kind[0], torch.float32) for kind in (student, teacher)]
        mine, theirs = (dataclasses.replace(o, priors=g) for o, g in zip((mine, theirs), grids, strict=True))
        truth = build.targets(3, 2, dtype=torch.float32)
        inputs = dataclasses.replace(build.term_inputs(mine, theirs, truth), teacher_head=inputs.teacher_head)
        losses = distiller.float()(inputs)
        assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values()), losses
        torch.stack(list(losses.values())).sum().backward()
        assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves(mine))

    law()


@FAMILIES
@pytest.mark.parametrize("region", [r for r in DEFAULT_REGIONS if r not in {"all", "outside_gt", "gi"}])
@pytest.mark.parametrize("name", ROW_TERMS)
def test_an_empty_region_is_an_exact_zero_in_the_graph(name: str, region: str, family: str) -> None:
    config = dataclasses.replace(ROW_TERMS[name], region=region, min_score=1.0)
    kind = (family, False)
    distiller = distiller_of(Recipe("x", {"x": config}), kind, kind)
    if distiller is None:
        assert family == "fcos" and region in OF_OVERLAPS
        return
    inputs = inputs_of(kind, kind, number=1, objects=0)  # an image without objects
    assert not inputs.targets.usable.any()
    loss = total(distiller, inputs)
    assert loss.item() == 0
    loss.backward()
    assert not any(leaf.grad is not None and leaf.grad.any() for leaf in leaves(inputs.student))


@FAMILIES
@pytest.mark.parametrize("recipe", RECIPES)
def test_images_without_objects_train(recipe: str, family: str) -> None:
    of_family = [kind for kind in KINDS if kind[0] == family]
    for kind, reference in itertools.product(of_family, [None, "ld"]):
        distiller = distiller_of(get_recipe(recipe).for_family(family), kind, kind, reference)
        if distiller is None:
            continue
        inputs = inputs_of(kind, kind, number=1, objects=0)
        regions = {term.region for term in distiller.recipe.terms.values()}
        of_objects = regions <= {"main", "vlr", "inside_gt", "fine_grained"}
        loss = total(distiller, inputs).item()
        assert (loss == 0) == of_objects or reference  # as published, levels without positives are left out
        assert all(g.isfinite().all() for g in gradients(distiller, inputs, leaves(inputs.student)))


@FAMILIES
@pytest.mark.parametrize("recipe", RECIPES)
def test_what_stands_on_the_padding_does_not_count(recipe: str, family: str) -> None:
    kind = (family, False)
    distiller = distiller_of(recipe, kind, kind, trained=True)
    if distiller is None:
        return
    inputs = inputs_of(kind, kind)
    outside, priors = ~inputs.assignment.valid[0], inputs.student.priors  # the first image is smaller
    per_level = outside[:: priors.anchors_per_cell].split([h * w for h, w in priors.level_shapes])
    assert outside.any() and not outside.all()

    def spoiled(output: DenseOutput) -> DenseOutput:
        rows = [None if x is None else x.detach().clone() for x in (output.cls_logits, output.box, output.quality)]
        for x in rows:
            if x is not None:
                x[0, outside] = 9.0

        def spoil(m: Tensor, cells: Tensor) -> Tensor:
            return torch.where(cells.view(m.shape[2:]) & (torch.arange(3) == 0)[:, None, None, None], 1e3, m.detach())

        features = tuple(spoil(m, cells) for m, cells in zip(output.features or (), per_level, strict=True))
        towers = zip(output.towers or (), per_level, strict=True)
        maps = {"features": features, "towers": tuple((spoil(a, c), spoil(b, c)) for (a, b), c in towers)}
        return fresh(dataclasses.replace(output, cls_logits=rows[0], box=rows[1], quality=rows[2], **maps))

    wrt = leaves(inputs.student)
    expected = gradients(distiller, inputs, wrt)
    theirs = dataclasses.replace(inputs, teacher=spoiled(inputs.teacher))
    mine = dataclasses.replace(inputs, student=spoiled(inputs.student))
    assert total(distiller, mine).item() == pytest.approx(total(distiller, inputs).item(), rel=1e-9)
    for changed, of in ((theirs, wrt), (mine, leaves(mine.student))):
        for g, other in zip(gradients(distiller, changed, of), expected, strict=True):
            assert torch.allclose(g, other, rtol=1e-7, atol=1e-12)


@few(15)
@given(
    st.sampled_from([BoxBinsKLConfig(), BoxBinsKLConfig(joint=True), ClassKLConfig(region="all"), CrossBoxConfig()]),
    st.sampled_from([kind for kind in KINDS if not kind[1]]),
    seeds,
    st.floats(-50, 50),
    st.sampled_from(["student", "teacher"]),
)
def test_a_kl_does_not_see_a_constant_on_a_locations_logits(
    config: TermConfig, kind: Kind, seed: int, shift: float, side: str
) -> None:
    distiller = distiller_of(Recipe("x", {"x": config}), kind, kind)
    assert distiller is not None
    inputs = inputs_of(kind, kind, seed=seed)
    random = torch.Generator().manual_seed(seed)
    output = getattr(inputs, side)
    name = "cls_logits" if isinstance(config, ClassKLConfig) else "box"
    logits = getattr(output, name).detach()
    per = (2, 3) if getattr(config, "joint", False) else (logits.ndim - 1,)
    size = [1 if d in per else n for d, n in enumerate(logits.shape)]
    changed = logits + shift * torch.randn(size, generator=random, dtype=logits.dtype)
    other = moved(inputs, side, **{name: changed})
    if isinstance(config, CrossBoxConfig) and side == "student":  # whose part the teacher's head plays
        crossed = inputs.teacher_head
        assert crossed is not None
        constant = changed - logits
        other = dataclasses.replace(
            inputs, teacher_head=lambda towers: dataclasses.replace(o := crossed(towers), box=o.box + constant)
        )
    expected = total(distiller, inputs).item()
    assert expected > 0
    assert math.isclose(total(distiller, other).item(), expected, rel_tol=1e-9)


@few(15)
@given(
    st.sampled_from(["features", "logits"]), kinds, seeds, st.floats(-50, 50), st.sampled_from(["student", "teacher"])
)
def test_a_channels_distribution_does_not_see_a_constant_on_its_map(
    on: Any, kind: Kind, seed: int, shift: float, side: str
) -> None:
    distiller = distiller_of(Recipe("x", {"x": ChannelKLConfig(on=on)}), kind, kind)
    assert distiller is not None
    inputs = inputs_of(kind, kind, seed=seed)
    output = getattr(inputs, side)
    change: dict[str, Any] = {"cls_logits": output.cls_logits + shift * torch.arange(output.num_classes)}
    if on == "features":
        per_channel = shift * torch.arange(CHANNELS)[:, None, None]
        change = {"features": tuple(m + per_channel for m in output.features)}
    expected = total(distiller, inputs).item()
    assert expected > 0
    assert math.isclose(total(distiller, moved(inputs, side, **change)).item(), expected, rel_tol=1e-9)


@few(15)
@given(kinds, seeds, st.floats(0.1, 10), st.floats(-5, 5), st.sampled_from(["student", "teacher"]), st.booleans())
def test_pearsons_r_does_not_see_scale_and_shift(
    kind: Kind, seed: int, scale: float, shift: float, side: str, per_batch: bool
) -> None:
    inputs = inputs_of(kind, kind, seed=seed)
    output = getattr(inputs, side)
    pkd = PearsonFeatureConfig(over="batch" if per_batch else "image")
    channel = torch.arange(1, CHANNELS + 1)[:, None, None]
    maps = {"features": tuple(scale * channel * m + shift * channel for m in output.features)}
    scores = output.cls_logits.sigmoid()
    score_shift, score_scale = (shift + 6) / 40, scale / 20  # of scores, that stay between 0 and 1
    each = torch.arange(1, scores.shape[2] + 1) / scores.shape[2]
    changes = {
        "pkd": (pkd, maps),
        "all": (CorrelationConfig(), {"cls_logits": (score_shift + score_scale * scores).logit()}),
        "class": (
            CorrelationConfig(inter=0),
            {"cls_logits": (score_shift * each + score_scale * each * scores).logit()},
        ),
    }
    for config, change in changes.values():
        distiller = distiller_of(Recipe("x", {"x": config}), kind, kind)
        assert distiller is not None
        expected = total(distiller, inputs).item()
        assert expected > 0
        assert math.isclose(total(distiller, moved(inputs, side, **change)).item(), expected, rel_tol=1e-8)


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "mgd"])
def test_a_step_towards_the_teacher_lowers_the_loss(recipe: str) -> None:
    kind = ("gfocal", False)
    distiller = distiller_of(recipe, kind, kind)
    assert distiller is not None
    inputs = inputs_of(kind, kind, seed=4)
    theirs, values = inputs.teacher, []
    for share in (0.0, 0.5, 0.9):
        mine = [torch.lerp(a, b, share) for a, b in zip(leaves(inputs.student), leaves(theirs), strict=True)]
        size = len(theirs.features or ())
        student = dataclasses.replace(
            theirs, cls_logits=mine[0], box=mine[1], features=tuple(mine[2 : 2 + size]),
            towers=tuple(zip(mine[2 + size :: 2], mine[3 + size :: 2], strict=True)),
        )  # fmt: skip
        values.append(total(distiller, dataclasses.replace(inputs, student=student)).item())
    assert values[0] > values[1] > values[2] > 0
