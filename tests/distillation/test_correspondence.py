"""Any teacher to any student: the right rows, levels, classes and origins, and clear words where it cannot be."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import pytest
import torch
from torch import Tensor

from ld_hub.distillation import (
    REGIONS,
    BoxBinsKLConfig,
    BoxIoUConfig,
    Committee,
    Distiller,
    Recipe,
    TermInputs,
    get_recipe,
)
from ld_hub.distillation.correspondence import Matching, as_seen, common_classes
from ld_hub.distillation.inputs import Pairs
from ld_hub.distillation.terms import WholeConfig
from ld_hub.errors import ConfigError
from ld_hub.ops.distribution import expectation, rebin
from ld_hub.structures import DenseOutput, Rows
from tests.support import build
from tests.support.build import PREDICTIONS


@cache
def output_of(family: str, plain: bool = False, seed: int = 3, scale: int = 1) -> DenseOutput:
    return build.output(2, seed, family=family, plain=plain, scale=scale)


def fresh(output: DenseOutput) -> DenseOutput:
    leaves = {k: getattr(output, k).detach().clone().requires_grad_() for k in ("cls_logits", "box")}
    return dataclasses.replace(output, **leaves)


def spec_of(family: str, plain: bool = False, name: str = "student", **changes: object):
    rows = 9 if family == "retinanet" else 1
    values = {"family": family, "anchors_per_cell": rows, "reg_max": None if plain else 16}
    return build.spec(name, **{**values, **changes})


def inputs_of(student: tuple[str, bool], teacher: tuple[str, bool], scale: int = 1) -> TermInputs:
    mine, theirs = fresh(output_of(*student)), fresh(output_of(*teacher, seed=4, scale=scale))
    return build.term_inputs(mine, theirs, build.targets(2, seed=2))


def all_pairs(student: str, teacher: str, scale: int = 1) -> tuple[TermInputs, Pairs]:
    inputs = inputs_of((student, False), (teacher, False), scale)
    seen = as_seen(spec_of(teacher, name="teacher"), scale)
    inputs = inputs.matched(Matching(spec_of(student), seen, scale))
    return inputs, inputs.pairs(Rows.find(torch.ones(inputs.student.cls_logits.shape[:2], dtype=torch.bool)))


@pytest.mark.parametrize("teacher", ["atss", "fcos"])
def test_heads_with_as_many_rows_correspond_as_they_are(teacher: str) -> None:
    inputs, pairs = all_pairs("gfocal", teacher)
    assert inputs.partners is None
    assert pairs.partners is pairs.rows


def test_the_teachers_best_row_of_a_cell_teaches() -> None:
    inputs, pairs = all_pairs("gfocal", "retinanet")
    logits, box = (x.flatten(0, 1) for x in (inputs.teacher.cls_logits, inputs.teacher.box))
    mine, theirs = pairs.classes()
    decoded = inputs.teacher.decode().flatten(0, 1)
    for k in range(0, len(mine), 7):  # one row per cell: row k of the student is cell k of the batch
        of_cell = range(9 * k, 9 * k + 9)
        best = max(of_cell, key=lambda row: float(logits[row].max()))
        assert torch.equal(theirs[k], logits[best])
        assert torch.equal(pairs.outputs()[1][k], box[best])
        assert torch.equal(pairs.boxes()[1][k], decoded[best])
    assert torch.equal(mine, inputs.student.cls_logits.flatten(0, 1))
    assert pairs.weight.all()


def test_the_students_best_row_of_a_cell_is_taught() -> None:
    inputs, pairs = all_pairs("retinanet", "gfocal")
    logits = inputs.student.cls_logits.detach().flatten(0, 1)
    taught = pairs.weight.view(-1, 9)
    assert torch.equal(taught.sum(dim=1), torch.ones(len(taught)))
    for cell in range(0, len(taught), 5):
        best = max(range(9), key=lambda row: float(logits[9 * cell + row].max()))
        assert taught[cell, best] == 1
    expected = inputs.teacher.cls_logits.flatten(0, 1).repeat_interleave(9, dim=0)
    assert torch.equal(pairs.classes()[1], expected)


def test_of_the_rows_that_are_looked_at_the_best_is_taught() -> None:
    """Where the best of a cell has weight 0, the next one learns in its place."""
    inputs, pairs = all_pairs("retinanet", "gfocal")
    assert inputs.partners is not None
    looked_at = torch.arange(len(pairs.weight)) % 3 > 0  # six of nine
    rows = Rows(pairs.rows.index, 0.5 * looked_at, pairs.rows.per_image)
    taught = inputs.partners.of(rows).weight.view(-1, 9)
    scores = inputs.student.cls_logits.detach().amax(dim=2).view(-1, 9).masked_fill(~looked_at.view(-1, 9), -torch.inf)
    expected = torch.zeros_like(taught).scatter_(1, scores.argmax(dim=1, keepdim=True), 0.5)
    assert torch.equal(taught, expected)


def _best_of_each_cell(inputs: TermInputs, recipe: Recipe) -> Tensor:
    """``(N, A)``: the best-scoring of the nine rows of a cell that are in a term's region, for any of the terms."""
    scores = inputs.student.cls_logits.detach().amax(dim=2).flatten()
    taught = torch.zeros(len(scores), dtype=torch.bool)
    for config in recipe.terms.values():
        whole = isinstance(config, WholeConfig)  # compares all rows on the images
        mask = inputs.assignment.valid if whole else REGIONS[config.region](inputs, config).mask
        mask = (mask & ~inputs.assignment.positive if config.exclude_positives else mask).flatten().tolist()
        for cell in range(0, len(scores), 9):
            rows = [row for row in range(cell, cell + 9) if mask[row]]
            if rows:
                taught[max(rows, key=lambda row: float(scores[row]))] = True
    return taught.view(inputs.assignment.positive.shape)


@pytest.mark.parametrize("recipe", PREDICTIONS)
def test_rows_without_a_partner_learn_nothing(recipe: str) -> None:
    distiller = Distiller(recipe)
    distiller.setup(spec_of("retinanet"), spec_of("gfocal"))
    inputs = inputs_of(("retinanet", False), ("gfocal", False))
    sum(distiller(inputs).values()).backward()
    taught = _best_of_each_cell(inputs, distiller.recipe)
    grads = [leaf.grad for leaf in (inputs.student.cls_logits, inputs.student.box) if leaf.grad is not None]
    for grad in grads:
        reached = grad.flatten(2).any(dim=2)
        assert reached.any()
        assert not (reached & ~taught).any()


def test_rows_without_a_partner_are_no_general_instances() -> None:
    inputs, _ = all_pairs("retinanet", "gfocal")
    assert inputs.partners is not None
    found = REGIONS["gi"](inputs, BoxBinsKLConfig(region="gi")).mask
    taught = inputs.everywhere().weight.view(found.shape).bool()
    assert found.sum() > 20 and not (found & ~taught).any()


def test_the_best_row_is_the_best_for_the_common_classes() -> None:
    inputs = inputs_of(("gfocal", False), ("retinanet", False))
    seen = spec_of("retinanet", label_names=("a", "v", "w", "e", "x"))
    pairs = inputs.matched(Matching(spec_of("gfocal"), seen)).pairs(Rows.find(inputs.assignment.valid))
    logits = inputs.teacher.cls_logits.flatten(0, 1)[:, [0, 3]].view(-1, 9, 2)
    expected = torch.stack([cell[cell.amax(dim=1).argmax()] for cell in logits])
    assert torch.equal(pairs.classes()[1], expected)


def test_boxes_keep_their_own_centres() -> None:
    inputs, pairs = all_pairs("gfocal", "fcos")
    mine, theirs = pairs.boxes()
    assert torch.equal(mine, inputs.student.decode().flatten(0, 1))
    assert torch.equal(theirs, inputs.teacher.decode().flatten(0, 1))


def _some(rows: Rows, weight: Tensor) -> Rows:
    chosen = weight.bool()
    return Rows(rows.index[chosen], rows.weight[chosen], rows.per_image)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(("student", "teacher", "half"), [("gfocal", "fcos", -0.5), ("fcos", "retinanet", 0.5)])
def test_bins_are_moved_to_the_students_centre(student: str, teacher: str, half: float, scale: int) -> None:
    inputs, pairs = all_pairs(student, teacher, scale)
    pairs = dataclasses.replace(
        pairs, rows=_some(pairs.rows, pairs.weight), partners=_some(pairs.partners, pairs.weight)
    )
    shift = pairs.edge_shifts()
    assert torch.equal(shift, shift.new_tensor([half, half, -half, -half]).expand_as(shift))
    distance = expectation(rebin(pairs.outputs()[1], 17, shift))
    priors = inputs.student.priors
    center, stride = (x[pairs.rows.priors] for x in (priors.centers, priors.strides[:, None]))
    expected = pairs.boxes()[1]
    found = torch.cat([center - distance[:, :2] * stride, center + distance[:, 2:] * stride], dim=1)
    lost = pairs.outputs()[1].softmax(dim=2)[..., [0, -1]].amax(dim=2) * stride / 2  # what the outer bins hold back
    assert ((found - expected).abs() <= lost + 1e-9).all()
    assert (found - expected).abs().median() < 1


@pytest.mark.parametrize("teacher", ["gfocal", "fcos", "retinanet"])
def test_a_teacher_of_images_twice_as_big_teaches_one_level_down(teacher: str) -> None:
    inputs, pairs = all_pairs("gfocal", teacher, scale=2)
    priors, theirs = inputs.student.priors, inputs.teacher.priors
    has = pairs.weight.bool()
    assert torch.equal(has, priors.levels[pairs.rows.priors] < 4)
    of_student, of_teacher = pairs.rows.priors[has], pairs.partners.priors[has]
    assert torch.equal(theirs.levels[of_teacher], priors.levels[of_student] + 1)
    mine, other = priors.centers[of_student], theirs.centers[of_teacher] / 2
    middle = priors.strides[of_student, None] / 2 if teacher == "fcos" else 0  # FCOS predicts from a cell's middle
    assert torch.equal(mine + middle, other)
    decoded = inputs.teacher.decode().flatten(0, 1)[pairs.partners.index[has]]
    assert torch.equal(pairs.boxes()[1][has], decoded / 2)
    distiller = Distiller("bckd", teacher_scale=2)
    remarks = distiller.setup(spec_of("gfocal"), spec_of(teacher))
    assert "stride 128" in remarks[0]
    losses = distiller(inputs_of(("gfocal", False), (teacher, False), scale=2))
    assert all(value.isfinite() and value > 0 for value in losses.values())


def test_the_images_have_to_have_the_size_that_was_said() -> None:
    distiller = Distiller("bckd", teacher_scale=2)
    distiller.setup(spec_of("gfocal"), spec_of("gfocal", name="big"))
    with pytest.raises(ConfigError, match=r"'big' have different cells.*2 times as big \(teacher_scale\)"):
        distiller(inputs_of(("gfocal", False), ("gfocal", False)))
    with pytest.raises(ConfigError, match=r"strides .*5\.33.*power of two.*'bckd_box'.*fit this pair: bckd_box\."):
        Distiller("bckd", teacher_scale=1.5).setup(spec_of("gfocal"), spec_of("gfocal"))
    with pytest.raises(ConfigError, match="teacher_scale is 0"):
        Distiller("bckd", teacher_scale=0)


def test_a_finer_pyramid_is_one_twice_as_big() -> None:
    """Strides 4..64 on an image: the same cells as strides 8..128 on an image twice as big."""
    strides = (4, 8, 16, 32, 64)
    matching = Matching(spec_of("gfocal"), as_seen(spec_of("gfocal", strides=strides)))
    doubled = Matching(spec_of("gfocal"), as_seen(spec_of("gfocal"), 2), 2)
    assert (matching.first, matching.levels) == (doubled.first, doubled.levels) == ((0, 1), 4)
    coarser = Matching(spec_of("gfocal", strides=strides), as_seen(spec_of("gfocal")))
    assert (coarser.first, coarser.levels) == ((1, 0), 4)
    big, small = output_of("gfocal", scale=2), output_of("gfocal")
    found = coarser.partners(big, small)
    finest = big.priors.level_sizes[0]
    assert not found.exists[:, :finest].any()
    cells = sum(small.priors.level_sizes[:4])
    assert torch.equal(found.row[1, finest:], torch.arange(cells) + len(small.priors))


def test_classes_correspond_by_name() -> None:
    student = spec_of("gfocal", label_names=tuple("abcde"))
    teacher = spec_of("gfocal", name="big", num_classes=4, label_names=("e", "x", "a", "cat"))
    assert common_classes(student, as_seen(teacher)) == [(0, 2), (4, 0)]
    seen = as_seen(teacher, class_map={"c": "cat"})
    assert common_classes(student, seen) == [(0, 2), (2, 3), (4, 0)]
    theirs = fresh(build.output(2, 9, classes=4))
    inputs = build.term_inputs(fresh(output_of("gfocal")), theirs, build.targets(2, 2))
    matched = inputs.matched(Matching(student, seen))
    mine, other = matched.pairs(Rows.find(inputs.assignment.valid)).classes()
    assert torch.equal(mine, inputs.student.cls_logits.flatten(0, 1)[:, [0, 2, 4]])
    assert torch.equal(other, theirs.cls_logits.flatten(0, 1)[:, [2, 3, 0]])

    distiller = Distiller("bckd", class_map={"c": "cat"})
    assert "3 of the student's 5 classes" in distiller.setup(student, teacher)[0]
    sum(distiller(inputs).values()).backward()
    assert torch.equal(inputs.student.cls_logits.grad.flatten(0, 1).any(dim=0), torch.tensor([1, 0, 1, 0, 1]).bool())
    with pytest.raises(ConfigError, match=r"class_map names 'dog'.*'big'.*e, x, a, cat"):
        Distiller("bckd", class_map={"c": "dog"}).setup(student, teacher)


def test_numbers_are_no_names() -> None:
    few, many = (spec_of("gfocal", num_classes=n, label_names=tuple(f"class_{i}" for i in range(n))) for n in (3, 5))
    assert common_classes(few, few) == [(0, 0), (1, 1), (2, 2)]
    assert common_classes(few, many) == []


def test_without_a_common_class_boxes_alone_are_compared() -> None:
    student, teacher = spec_of("gfocal"), spec_of("atss", True, label_names=tuple("vwxyz"))
    recipe = Recipe("x", {"box": BoxIoUConfig(weighting="region")})
    distiller = Distiller(recipe)
    distiller.setup(student, teacher)
    inputs = inputs_of(("gfocal", False), ("atss", True))
    found = distiller(inputs)["distill_box"]
    score = inputs.student.cls_logits.detach().sigmoid().amax(dim=2)
    stride = inputs.student.priors.strides[:, None]
    one, two = (x.decode().detach() / stride for x in (inputs.student, inputs.teacher))
    expected = 0.0
    for n, a in inputs.assignment.valid.nonzero().tolist():
        (x1, y1, x2, y2), (u1, v1, u2, v2) = one[n, a].tolist(), two[n, a].tolist()
        both = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
        union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both
        hull = (max(x2, u2) - min(x1, u1)) * (max(y2, v2) - min(y1, v1))
        expected += 4 * float(score[n, a]) * (1 - both / union + (hull - union) / hull)
    samples = inputs.assignment.positive.sum(dim=1).clamp(min=1).sum().item()
    assert math.isclose(found.item(), expected / samples, rel_tol=1e-6)


def test_other_numbers_of_bins() -> None:
    student, teacher = build.output(2, 3), build.output(2, 4, reg_max=8)
    inputs = build.term_inputs(student, teacher, build.targets(2, 2))
    specs = spec_of("gfocal"), spec_of("gfocal", reg_max=8)
    with pytest.raises(ConfigError, match=r"reg_max is 16.*8.*rebin=True"):
        Distiller("ld").setup(*specs)
    distiller = Distiller(get_recipe("ld").with_terms(ld={"rebin": True}))
    distiller.setup(*specs)
    rows = inputs.assignment.rows
    s, t = (x.box.detach()[inputs.assignment.positive] / 10 for x in (student, teacher))
    t, log_s = t.softmax(dim=2), s.log_softmax(dim=2)[..., :9]  # empty bins add nothing to a KL
    kl = 100 * (t * (t.log() - log_s)).sum(dim=(1, 2)) / 17
    assert math.isclose(
        distiller(inputs)["distill_ld"].item(), 0.25 / 4 * (kl @ inputs.student_scores(rows)).item(), rel_tol=1e-9
    )


def test_several_teachers() -> None:
    names = {"gfocal_r50": "gfocal", "hf-hub:a/b.c": "retinanet"}
    committee = Committee({name: Distiller("vlr") for name in names}, {"gfocal_r50": 0.25})
    remarks = committee.setup(spec_of("gfocal"), {name: spec_of(family) for name, family in names.items()})
    assert len(remarks) == 1
    assert remarks[0].startswith("hf-hub:a/b.c: 1 row(s) per cell against 9")
    inputs = {name: inputs_of(("gfocal", False), (family, False)) for name, family in names.items()}
    found = committee(inputs)
    assert list(found) == [f"distill_{t}@{name}" for name in names for t in ("kd", "ld", "ld_vlr")]
    for (name, family), weight in zip(names.items(), (0.25, 1.0), strict=True):
        alone = Distiller("vlr")
        alone.setup(spec_of("gfocal"), spec_of(family))
        for loss, value in alone(inputs[name]).items():
            assert math.isclose(found[f"{loss}@{name}"].item(), weight * value.item(), rel_tol=1e-12)
    assert not any(value.item() for value in Committee({"a": Distiller("ld")}, {"a": 0})(
        {"a": inputs["gfocal_r50"]}).values())  # fmt: skip
    with pytest.raises(ConfigError, match=r"'b': 1.*teachers a"):
        Committee({"a": Distiller("ld")}, {"b": 1})


def test_bins_of_other_families_without_setup_are_taken_as_they_are() -> None:
    inputs = inputs_of(("gfocal", False), ("fcos", False))
    bare = Distiller(Recipe("x", {"ld": BoxBinsKLConfig()}))(inputs)["distill_ld"]
    ready = Distiller(Recipe("x", {"ld": BoxBinsKLConfig()}))
    ready.setup(spec_of("gfocal"), spec_of("fcos"))
    assert not math.isclose(bare.item(), ready(inputs)["distill_ld"].item(), rel_tol=1e-3)
