"""Weighted class losses against sums over entries written out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ld_hub.losses import WeightedClasses, focal_loss_sum, quality_focal_loss_sum
from ld_hub.losses.negatives import _BLOCK

WEIGHTS = (2.0, 0.5, 1.0)
LABELS = {1: 0, 4: 2}  # rows with an object
QUALITY = {1: 0.7, 4: 0.2}


def entry(x: float, quality: float | None) -> float:
    """Quality focal loss of one entry (GFL, eq. 5), of background where there is no quality."""
    p, y = 1 / (1 + math.exp(-x)), quality or 0.0
    return abs(y - p) ** 2 * -((1 - y) * math.log(1 - p) + y * math.log(p))


def focal_entry(x: float, positive: bool, alpha: float = 0.25) -> float:
    """Focal loss of one entry (arXiv 1708.02002, eq. 5, gamma = 2)."""
    p = 1 / (1 + math.exp(-x))
    return -alpha * (1 - p) ** 2 * math.log(p) if positive else -(1 - alpha) * p**2 * math.log(1 - p)


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor(list(LABELS))
    labels, quality = torch.tensor(list(LABELS.values())), torch.tensor(list(QUALITY.values()), dtype=torch.float64)
    weights = torch.tensor([1.0, 1, 1, 0, 1, 0.5], dtype=torch.float64)
    return logits, weights, rows, torch.ones(2, dtype=torch.float64), labels, quality


@pytest.mark.parametrize("kind", ["quality", "focal"])
def test_every_entry_counts_by_the_weight_of_its_class(kind):
    logits, weights, rows, ones, labels, quality = inputs()
    factors = torch.tensor(WEIGHTS, dtype=torch.float64)
    if kind == "quality":
        loss = quality_focal_loss_sum(logits, weights, rows, ones, labels, quality, class_weights=factors)
    else:
        loss = focal_loss_sum(logits, weights, rows, ones, labels, class_weights=factors)
    expected = 0.0
    for row in range(6):
        for c in range(3):
            x, positive = logits[row, c].item(), LABELS.get(row) == c
            one = entry(x, QUALITY[row] if positive else None) if kind == "quality" else focal_entry(x, positive)
            expected += float(weights[row]) * WEIGHTS[c] * one
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    arguments = (weights, rows, ones, labels)

    def again(x: Tensor) -> Tensor:
        if kind == "quality":
            return quality_focal_loss_sum(x, *arguments, quality, class_weights=factors)
        return focal_loss_sum(x, *arguments, class_weights=factors)

    assert torch.autograd.gradcheck(again, (logits,))


def test_weights_of_one_are_none_at_all_also_over_several_blocks():
    torch.manual_seed(0)
    number = _BLOCK // 3 + 100
    logits, weights = torch.randn(number, 3), torch.rand(number)
    nothing = (torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    plain = focal_loss_sum(logits, weights, *nothing)
    ones = focal_loss_sum(logits, weights, *nothing, class_weights=torch.ones(3))
    double = focal_loss_sum(logits, weights, *nothing, class_weights=torch.tensor([2.0, 2.0, 2.0]))
    assert torch.equal(plain, ones) and double.item() == pytest.approx(2 * plain.item(), rel=1e-6)


@pytest.mark.parametrize("family", ["gfocal", "atss", "retinanet"])
def test_a_criterion_weighs_its_class_loss_alone(family):
    from ld_hub.models.factory import create_model
    from ld_hub.structures import Targets

    torch.manual_seed(0)
    small = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 1}
    model = create_model(family, label_names=("a", "b", "c"), **small)
    images = torch.randn(1, 3, 64, 64)
    truth = Targets.pad([torch.tensor([[8.0, 8, 40, 48]])], [torch.tensor([1])], torch.tensor([[64.0, 64.0]]))
    plain = model.loss(model(images), truth)
    model.criterion = model.criterion.weighing({"a": 3.0, "b": 3.0, "c": 3.0}, model.label_names)
    weighted = model.loss(model(images), truth)
    assert weighted["loss_cls"].item() == pytest.approx(3 * plain["loss_cls"].item(), rel=1e-5)
    assert {n: v.item() for n, v in weighted.items() if n != "loss_cls"} == {
        n: v.item() for n, v in plain.items() if n != "loss_cls"
    }
    model.criterion = model.criterion.weighing({"b": 5.0}, model.label_names)
    assert model.criterion == replace(model.criterion, class_weights=(1.0, 5.0, 1.0))


def test_weights_are_made_once_wherever_they_are_asked_for_first():
    criterion = WeightedClasses(class_weights=(1.0, 2.5))
    logits = torch.zeros(3, 2, requires_grad=True)
    with torch.inference_mode():
        first = criterion.class_factors(logits)
    again = criterion.class_factors(logits)
    assert again is first and again.tolist() == [1.0, 2.5]
    (logits * again).sum().backward()
    assert logits.grad.tolist() == [[1.0, 2.5]] * 3
    assert criterion.class_factors(logits.double()).dtype == torch.float64
