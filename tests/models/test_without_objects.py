"""Batches that the official heads of ATSS, FCOS and RetinaNet cannot train on, or drop from training (SPEC 2 and 4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ld_hub.distillation import Distiller, TermInputs, get_recipe
from ld_hub.models.atss import ATSSCriterion
from ld_hub.models.fcos import FCOSCriterion
from ld_hub.models.gfocal import GFocalCriterion
from ld_hub.models.retinanet import RetinaNetCriterion
from ld_hub.structures import DenseOutput, Targets
from tests.support import build

CRITERIA: dict[str, Any] = {
    "gfocal": GFocalCriterion,
    "atss": ATSSCriterion,
    "fcos": FCOSCriterion,
    "retinanet": RetinaNetCriterion,
}
BOX = torch.tensor([[20.0, 12, 60, 50]], dtype=torch.float64)
PREDICTIONS = ("cls_logits", "box", "quality")


def batch(*boxes: Tensor, crowd: bool = False) -> Targets:
    labels = [torch.zeros(len(box), dtype=torch.int64) for box in boxes]
    crowds = [torch.full((len(box),), crowd) for box in boxes]
    return Targets.pad(list(boxes), labels, torch.tensor([build.SIZE] * len(boxes), dtype=torch.float64), crowds)


def losses_and_gradients(
    family: str, student: DenseOutput, teacher: DenseOutput, truth: Targets, reference: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Detection losses and the terms of the recipe vlr."""
    criterion = CRITERIA[family](student.coder)
    if reference is not None:
        criterion = CRITERIA[family].published(student.coder, reference, distilling=True)
    assignment = build.assign(student.priors, truth)
    losses = criterion(student, assignment)
    distiller = Distiller(get_recipe("vlr").for_family(family), reference=reference)
    losses |= distiller(TermInputs(student, teacher, assignment, truth))
    leaves = {name: getattr(student, name) for name in PREDICTIONS if getattr(student, name) is not None}
    total = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    gradients = {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(leaves.items(), found, strict=True)}
    return losses, gradients


@pytest.mark.parametrize("reference", [None, "ld"])
@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("family", build.FAMILIES)
def test_no_object_in_the_batch(family: str, crowd: bool, reference: str | None) -> None:
    """RetinaNet's and ATSS's heads raise, GFocal's gives NaN; an ignored crowd is no object either."""
    student, teacher = (build.output(2, seed, family=family) for seed in (1, 2))
    truth = batch(BOX, BOX[:0], crowd=True) if crowd else batch(BOX[:0], BOX[:0])
    losses, gradients = losses_and_gradients(family, student, teacher, truth, reference)
    assert losses.pop("loss_cls") > 0
    assert all(loss == 0 for loss in losses.values()), losses
    assert gradients["cls_logits"].isfinite().all() and gradients["cls_logits"].all()
    assert not gradients["box"].any()
    assert "quality" not in gradients or not gradients["quality"].any()


@pytest.mark.parametrize("reference", [None, "ld"])
@pytest.mark.parametrize("family", build.FAMILIES)
def test_one_image_without_objects(family: str, reference: str | None) -> None:
    """It is background: the other image's box losses are what they are without it."""
    student, teacher = (build.output(2, seed, family=family) for seed in (3, 4))
    truth = batch(BOX, BOX[:0])
    losses, gradients = losses_and_gradients(family, student, teacher, truth, reference)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values()), losses
    assert all(grad.isfinite().all() for grad in gradients.values())
    assert gradients["cls_logits"][1].all() and not gradients["box"][1].any() and gradients["box"][0].any()

    alone = build.parts_of(student, truth, [[0]])[0][0], build.parts_of(teacher, truth, [[0]])[0][0]
    expected, _ = losses_and_gradients(family, *alone, batch(BOX), reference)
    halved = {"loss_bbox"} if family == "retinanet" else set()  # divided by the sum of max(positives, 1)
    halved |= {"loss_centerness"} if family == "atss" else set()
    positives = int(build.assign(student.priors, truth).positive.sum())
    for name in losses.keys() - {"loss_cls"}:
        share = positives / (positives + 1) if name in halved else 1.0
        if reference is None and name.startswith("distill_ld"):  # 2 / images times the sum
            share = 0.5
        assert torch.allclose(losses[name], expected[name] * share, rtol=1e-9), name


@pytest.mark.parametrize("reference", [None, "ld"])
@pytest.mark.parametrize("family", build.FAMILIES)
def test_levels_without_positives(family: str, reference: str | None) -> None:
    """They are background for the class loss and give no detection loss to boxes."""
    student, teacher = (build.output(2, seed, family=family) for seed in (5, 6))
    truth = batch(BOX, BOX + 24)
    assignment = build.assign(student.priors, truth)
    levels = student.priors.levels
    empty = [level for level in range(5) if not assignment.positive[:, levels == level].any()]
    assert 0 < len(empty) < 5
    losses, gradients = losses_and_gradients(family, student, teacher, truth, reference)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values()), losses
    assert all(grad.isfinite().all() for grad in gradients.values())
    detection = CRITERIA[family](student.coder)(student, assignment)
    grad = torch.autograd.grad(torch.stack(list(detection.values())).sum(), [student.cls_logits, student.box])
    for level in empty:
        here = levels == level
        assert torch.equal(grad[0][:, here].all(dim=2), assignment.weights[:, here] > 0)  # RetinaNet ignores some rows
        assert not grad[1][:, here].any()
