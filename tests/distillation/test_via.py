"""``via="cross_head"``: terms on predictions, on what the teacher's head makes of the student's towers."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ld_hub.distillation import (
    BoxBinsKLConfig,
    BoxIoUConfig,
    ClassBCEConfig,
    ClassKLConfig,
    CorrelationConfig,
    Distiller,
    Recipe,
    TermConfig,
    TermInputs,
    get_recipe,
)
from ld_hub.distillation.methods.ddf import DecoupledBinsKLConfig
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from tests.distillation.sides import Kind, distiller_of, inputs_of, leaves, spec
from tests.distillation.test_cross_head import batch, detector, terms

GFOCAL, RETINANET = ("gfocal", False), ("retinanet", False)
CROSS = {"via": "cross_head"}
TERMS: dict[str, TermConfig] = {
    "ld": BoxBinsKLConfig(**CROSS),
    "vlr": BoxBinsKLConfig(region="vlr", **CROSS),
    "kd": ClassKLConfig(**CROSS),
    "bce": ClassBCEConfig(**CROSS),
    "iou": BoxIoUConfig(**CROSS),
    "dist": CorrelationConfig(**CROSS),
    "ddf": DecoupledBinsKLConfig(**CROSS),
}
ALL = Recipe("x", TERMS)


def losses_of(recipe: Recipe, student: Kind, teacher: Kind, inputs: TermInputs) -> dict[str, float]:
    distiller = distiller_of(recipe, student, teacher)
    assert distiller is not None
    return {name: loss.item() for name, loss in distiller(inputs).items()}


def plain_crossed(inputs: TermInputs) -> tuple[np.ndarray, np.ndarray]:
    """Class and bin logits of the teacher's head on the student's maps, standardised image by image with numpy."""
    priors = inputs.teacher.priors
    valid = priors.valid(inputs.targets.image_sizes)[:, :: priors.anchors_per_cell].numpy()
    towers, start = [], 0
    for mine, theirs in zip(inputs.student.towers or (), inputs.teacher.towers or (), strict=True):
        size, pair = mine[0].shape[2] * mine[0].shape[3], []
        for s, t in zip(mine, theirs, strict=True):
            out = s.detach().clone().numpy()
            for n, c in itertools.product(range(out.shape[0]), range(out.shape[1])):
                inside = valid[n, start : start + size].reshape(out.shape[2:])
                a, b = out[n, c][inside], t[n, c].detach().numpy()[inside]
                out[n, c] = (out[n, c] - a.mean()) / max(a.std(), 1e-6) * max(b.std(), 1e-6) + b.mean()
            pair.append(torch.tensor(out))
        towers.append((pair[0], pair[1]))
        start += size
    assert inputs.teacher_head is not None
    output = inputs.teacher_head(tuple(towers))
    return output.cls_logits.detach().numpy(), output.box.detach().numpy()


def soft(logits: np.ndarray, temperature: float) -> np.ndarray:
    power = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(power / power.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(("student", "teacher"), [(RETINANET, GFOCAL), (GFOCAL, RETINANET), (("fcos", True), GFOCAL)])
def test_heads_with_other_rows_in_a_cell_against_loops(student: Kind, teacher: Kind) -> None:
    """Positives are the student's; on a cell the best of its rows is taught, by the best of the teacher's."""
    inputs = inputs_of(student, teacher, number=2, seed=7, objects=3)
    found = losses_of(Recipe("x", {"ld": BoxBinsKLConfig(temperature=2.0, **CROSS)}), student, teacher, inputs)
    mine, theirs = (9 if kind == RETINANET else 1 for kind in (student, teacher))
    own, seen = (o.cls_logits.detach().numpy().max(axis=2) for o in (inputs.student, inputs.teacher))
    _, box = plain_crossed(inputs)
    target, expected = inputs.teacher.box.numpy(), 0.0
    for n, positive in enumerate(inputs.assignment.positive.numpy()):
        for cell in sorted({a // mine for a in positive.nonzero()[0]}):
            rows = [a for a in range(cell * mine, (cell + 1) * mine) if positive[a]]
            best = max(rows, key=lambda a: own[n, a])
            b = max(range(cell * theirs, (cell + 1) * theirs), key=lambda a: seen[n, a])
            p, q = soft(target[n, b], 2.0), soft(box[n, b], 2.0)
            importance = 1 / (1 + np.exp(-own[n, best]))
            expected += 0.25 / 4 * importance * 4 * float((p * np.log(p / q)).sum()) / 17
    assert found["distill_ld"] == pytest.approx(expected * 2 / 2, rel=1e-9) and expected > 0


def test_all_terms_share_one_pass_of_the_head_and_their_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, calls = inputs_of(GFOCAL, GFOCAL), []
    assert inputs.teacher_head is not None
    head = inputs.teacher_head
    counted = dataclasses.replace(inputs, teacher_head=lambda towers: calls.append(1) or head(towers))
    beside = Recipe(
        "x", {**TERMS, **{f"{name}_own": dataclasses.replace(c, via="own_head") for name, c in TERMS.items()}}
    )  # type: ignore[call-arg]
    together = losses_of(Recipe("x", {**beside.terms, **get_recipe("crosskd").terms}), GFOCAL, GFOCAL, counted)
    assert len(calls) == 1
    for names in (list(beside.terms), list(beside.terms)[::-1]):  # who asks for a region first does not matter
        found = losses_of(Recipe("x", {n: beside.terms[n] for n in names}), GFOCAL, GFOCAL, dataclasses.replace(inputs))
        assert found == {name: together[name] for name in found}
    assert all(together[f"distill_{name}"] != together[f"distill_{name}_own"] for name in TERMS)


def test_only_the_towers_learn() -> None:
    inputs = inputs_of(GFOCAL, GFOCAL)
    distiller = distiller_of(ALL, GFOCAL, GFOCAL)
    assert distiller is not None
    torch.stack(list(distiller(inputs).values())).sum().backward()
    towers = [m for pair in inputs.student.towers or () for m in pair]
    reached = [leaf for leaf in leaves(inputs.student) if leaf.grad is not None and bool(leaf.grad.any())]
    # a map of few cells is little more than its mean, which is replaced by the teacher's
    assert {id(m) for m in towers[:4]} <= {id(leaf) for leaf in reached} <= {id(m) for m in towers}


def test_classes_are_the_teachers() -> None:
    """No name is in common: both sides are the teacher's head's, so all of its classes are compared."""
    inputs = inputs_of(GFOCAL, GFOCAL)
    recipe = Recipe("x", {name: TERMS[name] for name in ("kd", "bce", "iou", "dist")})
    named = losses_of(recipe, GFOCAL, GFOCAL, inputs)
    distiller = Distiller(recipe)
    distiller.setup(spec(GFOCAL, label_names=tuple("vwxyz")), spec(GFOCAL, "teacher"))
    assert {name: loss.item() for name, loss in distiller(inputs).items()} == named
    gi = Recipe("x", {"bce": dataclasses.replace(TERMS["bce"], region="gi")})
    with pytest.raises(ConfigError, match="class name in common"):  # the region is of the student's own scores
        Distiller(gi).setup(spec(GFOCAL, label_names=tuple("vwxyz")), spec(GFOCAL, "teacher"))


def test_the_students_bins_do_not_matter_and_the_teachers_do() -> None:
    student = detector("fcos", 1)
    losses = terms(DistillationTask(student, detector("gfocal", 2), Distiller("crossld").double()).train()(batch()))
    assert set(losses) == {"distill_bckd_cls", "distill_ld", "distill_ld_vlr"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    with pytest.raises(ConfigError, match=r"term 'ld'.*'fcos' has none.*boxes='bins'.*crosskd"):
        DistillationTask(detector("gfocal", 2), student, Distiller("crossld"))


def test_stored_recipes_of_before_are_read_as_they_were() -> None:
    recipe = get_recipe("vlr")
    stored = recipe.to_dict()
    assert all(term.pop("via") == "own_head" for term in stored["terms"].values())
    assert Recipe.from_dict(stored) == recipe
    with pytest.raises(ConfigError, match="via is 'head'; expected 'own_head' or 'cross_head'"):
        recipe.with_terms(ld={"via": "head"})


def test_individual_ld_needs_a_term_that_teaches_the_boxes_themselves() -> None:
    with pytest.raises(ConfigError, match="none on the student's own head"):
        DistillationTask(detector("gfocal", 1), detector("gfocal", 2), Distiller("crossld"), individual_ld=True)
