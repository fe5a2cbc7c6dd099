"""Assignment, losses and terms are one graph: no host synchronisation, no data-dependent shapes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ld_hub.distillation import Distiller, TermInputs, get_recipe
from ld_hub.layers.coders import DistributionCoder
from ld_hub.models.atss import ATSSCriterion
from ld_hub.models.fcos import FCOSCriterion
from ld_hub.models.gfocal import GFocalCriterion
from ld_hub.models.retinanet import RetinaNetCriterion
from ld_hub.structures import Targets
from tests.support import build

CRITERIA = {
    "gfocal": GFocalCriterion,
    "atss": ATSSCriterion,
    "fcos": FCOSCriterion,
    "retinanet": RetinaNetCriterion,
}


@pytest.mark.parametrize("recipe", ["vlr", "bckd"])
@pytest.mark.parametrize("family", build.FAMILIES)
def test_whole_criterion_compiles_without_a_break_and_gives_the_same(family: str, recipe: str) -> None:
    student, teacher = (build.output(2, seed, dtype=torch.float32, family=family) for seed in (1, 2))
    truth = build.targets(2, 3, dtype=torch.float32)
    criterion = CRITERIA[family](DistributionCoder(16))
    distiller = Distiller(get_recipe(recipe).for_family(family))

    def losses(cls_logits: Tensor, box: Tensor, boxes: Tensor) -> Tensor:
        output = dataclasses.replace(student, cls_logits=cls_logits, box=box)
        targets = Targets(boxes, truth.labels, truth.valid, truth.crowd, truth.image_sizes)
        assignment = build.assign(output.priors, targets)
        found = criterion(output, assignment) | distiller(TermInputs(output, teacher, assignment, targets))
        return torch.stack(list(found.values()))

    def run(function: object) -> list[Tensor]:
        leaves = [student.cls_logits.detach().clone().requires_grad_(), student.box.detach().clone().requires_grad_()]
        values = function(*leaves, truth.boxes)  # type: ignore[operator]
        values.sum().backward()
        return [values.detach(), *(leaf.grad for leaf in leaves)]

    eager = run(losses)
    compiled = run(torch.compile(losses, fullgraph=True, backend="aot_eager"))
    for expected, found in zip(eager, compiled, strict=True):
        assert torch.allclose(expected, found, rtol=1e-5, atol=1e-7)
    assert eager[0].min() > 0


@pytest.mark.parametrize(("student", "teacher"), [("gfocal", "retinanet"), ("retinanet", "fcos")])
def test_pairs_of_families_compile_without_a_break_and_give_the_same(student: str, teacher: str) -> None:
    mine, theirs = (build.output(2, seed, dtype=torch.float32, family=f) for seed, f in ((1, student), (2, teacher)))
    truth = build.targets(2, 3, dtype=torch.float32)
    rows = {family: 9 if family == "retinanet" else 1 for family in (student, teacher)}
    distiller = Distiller("vlr")
    labels = {student: tuple("abcde"), teacher: tuple("xcbay")}
    distiller.setup(*(build.spec(family=f, anchors_per_cell=rows[f], label_names=labels[f]) for f in rows))

    def losses(cls_logits: Tensor, box: Tensor) -> Tensor:
        output = dataclasses.replace(mine, cls_logits=cls_logits, box=box)
        assignment = build.assign(output.priors, truth)
        return torch.stack(list(distiller(TermInputs(output, theirs, assignment, truth)).values()))

    eager = losses(mine.cls_logits, mine.box)
    compiled = torch.compile(losses, fullgraph=True, backend="aot_eager")(mine.cls_logits, mine.box)
    assert torch.allclose(eager, compiled, rtol=1e-5)
    assert eager.min() > 0
