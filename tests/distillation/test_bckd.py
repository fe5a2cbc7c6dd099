"""BCKD against loops, at its edges, and between heads without bins."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ld_hub.distillation import BoxIoUConfig, ClassBCEConfig, Distiller, Recipe, TermInputs, get_recipe
from ld_hub.distillation.classes import binary_divergence
from ld_hub.errors import ConfigError
from ld_hub.structures import StepCounts
from tests.support import build


def inputs_of(number: int = 2, seed: int = 20, family: str = "gfocal", plain: bool = False, objects: int = 1):
    student, teacher = (build.output(number, seed + k, family=family, plain=plain) for k in range(2))
    return build.term_inputs(student, teacher, build.targets(number, objects))


def losses(inputs: TermInputs, reference: str | None = None, **changes: dict[str, object]) -> dict[str, Tensor]:
    return Distiller(get_recipe("bckd").with_terms(**changes), reference)(inputs)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _iou(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    wide, high = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "giou":
        return both / union - (wide * high - union) / (wide * high)
    far = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    return both / union - (far / (wide**2 + high**2) if kind == "diou" else 0)


@pytest.mark.parametrize(("iou", "beta"), [("giou", 1.0), ("iou", 2.0), ("diou", 0.0)])
@pytest.mark.parametrize(("family", "plain"), [("gfocal", False), ("atss", True), ("fcos", True), ("retinanet", True)])
def test_against_loops(family: str, plain: bool, iou: str, beta: float) -> None:
    inputs = inputs_of(family=family, plain=plain)
    found = losses(inputs, bckd_cls={"beta": beta}, bckd_box={"beta": beta, "iou": iou})
    s, t = (x.cls_logits.detach().numpy() for x in (inputs.student, inputs.teacher))
    mine, theirs = (x.decode().detach().numpy() for x in (inputs.student, inputs.teacher))
    stride = inputs.student.priors.strides.numpy()
    positives = inputs.assignment.positive.sum(dim=1).tolist()
    samples = sum(max(p, 1) for p in positives)
    cls = box = 0.0
    for n in range(2):
        for a in range(len(stride)):
            if not inputs.assignment.weights[n, a]:
                continue
            gaps = []
            for x, y in zip(s[n, a], t[n, a], strict=True):
                p, q = _sigmoid(x), _sigmoid(y)
                gaps.append(abs(q - p) ** beta)
                cls += gaps[-1] * -(q * math.log(p) + (1 - q) * math.log(1 - p))
            box += 4 * max(gaps) * (1 - _iou(mine[n, a] / stride[a], theirs[n, a] / stride[a], iou))
    assert sum(positives) > 2
    assert math.isclose(found["distill_bckd_cls"].item(), cls / samples, rel_tol=1e-7)
    assert math.isclose(found["distill_bckd_box"].item(), box / samples, rel_tol=1e-5)  # DIoU adds eps to areas


def test_rows_that_the_assigner_ignores_and_padding_take_no_part() -> None:
    inputs = inputs_of(family="retinanet")
    weights = inputs.assignment.weights * (torch.arange(inputs.assignment.weights.shape[1]) % 3 == 0)
    some = dataclasses.replace(inputs, assignment=dataclasses.replace(inputs.assignment, weights=weights))
    sum(losses(some).values()).backward()
    for leaf in (inputs.student.cls_logits, inputs.student.box):
        assert torch.equal(leaf.grad.flatten(2).abs().sum(dim=2) > 0, weights > 0)


def test_levels_without_positives_are_left_out_as_published() -> None:
    inputs = inputs_of(seed=30)
    counts = StepCounts.local(inputs.assignment).positives
    assert (counts == 0).any()
    assert (counts > 0).any()
    sum(losses(inputs, "bckd").values()).backward()
    reached = torch.zeros(5).scatter_add(
        0, inputs.student.priors.levels, inputs.student.cls_logits.grad.abs().sum(dim=(0, 2)).float()
    )
    assert torch.equal(reached > 0, counts > 0)
    published, sound = losses(inputs, "bckd"), losses(inputs)
    gated = losses(inputs, bckd_cls={"levels": "with_positives"}, bckd_box={"levels": "with_positives"})
    for name, value in published.items():
        assert value < sound[name]
        assert math.isclose(value.item(), gated[name].item(), rel_tol=1e-6)


def test_images_without_objects_teach() -> None:
    inputs = inputs_of(number=1, objects=0)
    assert not inputs.targets.usable.any()
    found = losses(inputs)
    sum(found.values()).backward()
    assert all(value.isfinite() and value > 0 for value in found.values())
    assert inputs.student.cls_logits.grad.abs().sum() > 0
    assert inputs.student.box.grad.abs().sum() > 0
    assert not any(value.item() for value in losses(inputs, "bckd").values())  # no positive, no level


def test_each_term_runs_alone_and_is_named() -> None:
    inputs = inputs_of()
    whole = losses(inputs)
    for name, config in get_recipe("bckd").terms.items():
        assert Distiller(Recipe("one", {name: config}))(inputs) == {f"distill_{name}": whole[f"distill_{name}"]}
    assert list(whole) == ["distill_bckd_cls", "distill_bckd_box"]
    double = losses(inputs, bckd_cls={"weight": 2.0}, bckd_box={"weight": 8.0})
    assert all(math.isclose(double[k].item(), 2 * v.item(), rel_tol=1e-12) for k, v in whole.items())
    assert losses(inputs, bckd_cls={"region": "main"})["distill_bckd_cls"] < whole["distill_bckd_cls"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 2.0, 3.5]), st.booleans())
def test_gradient_of_the_class_term(seed: int, beta: float, detach: bool) -> None:
    random = torch.Generator().manual_seed(seed)
    student = torch.randn(3, 4, generator=random, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(3, 4, generator=random, dtype=torch.float64)
    binary_divergence(student, teacher, beta, detach).sum().backward()
    s, t = student.detach().sigmoid(), teacher.sigmoid()
    gap, entropy = (t - s).abs(), -(t * s.log() + (1 - t) * (1 - s).log())
    expected = gap**beta * (s - t)  # of the cross-entropy alone
    if not detach and beta:
        expected = expected + beta * gap ** (beta - 1) * torch.sign(s - t) * s * (1 - s) * entropy
    assert torch.allclose(student.grad, expected, rtol=1e-8, atol=1e-12)


def test_the_box_terms_weight_is_a_constant() -> None:
    inputs = inputs_of()
    losses(inputs)["distill_bckd_box"].backward()
    assert inputs.student.cls_logits.grad is None
    assert inputs.teacher.box.grad is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ClassBCEConfig(beta=0.5), ["beta", "0.5", "detach_factor"]),
        (lambda: ClassBCEConfig(beta=float("inf")), ["beta", "inf"]),
        (lambda: BoxIoUConfig(beta=-1), ["beta", "-1"]),
        (lambda: BoxIoUConfig(iou="ciou"), ["iou", "ciou", "giou"]),
        (lambda: BoxIoUConfig(levels="some"), ["levels", "some", "with_positives"]),
    ],
)
def test_mistakes_are_answered(make: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words)
    assert ClassBCEConfig(beta=0.5, detach_factor=True).beta == 0.5
