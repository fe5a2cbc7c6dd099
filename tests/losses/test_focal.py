"""Focal and centerness losses against torchvision, values by hand, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from ld_hub.losses import centerness_loss, focal_loss, focal_loss_sum

C = 4


def test_known_values() -> None:
    """At logit 0: a negative costs 3/4 x 1/4 x ln 2, the positive 1/4 x 1/4 x ln 2."""
    unit = math.log(2) / 16
    logits = torch.zeros(2, C, dtype=torch.float64)
    assert focal_loss(logits, torch.tensor([1, C])).tolist() == pytest.approx([(3 * 3 + 1) * unit, 4 * 3 * unit])
    sure = torch.full((1, 1), 1e4, dtype=torch.float64)
    assert focal_loss(sure, torch.tensor([0])).item() == 0
    assert focal_loss(-sure, torch.tensor([1])).item() == 0
    assert focal_loss(sure, torch.tensor([1])).item() == pytest.approx(0.75e4)
    target = torch.tensor([0.0, 0.5, 1.0]).double()
    assert centerness_loss(torch.zeros(3).double(), target).tolist() == pytest.approx([math.log(2)] * 3)
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    best = torch.tensor([math.log(0.2 / 0.8)]).double()
    assert centerness_loss(best, torch.tensor([0.2]).double()).item() == pytest.approx(entropy)


@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_against_torchvision(alpha: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = (torch.randn(60, C, generator=random, dtype=torch.float64) * 4).requires_grad_()
    labels = torch.randint(0, C + 1, (60,), generator=random)
    onehot = torch.nn.functional.one_hot(labels, C + 1)[:, :C].double()
    expected = sigmoid_focal_loss(logits, onehot, alpha=alpha).sum(dim=1)
    found = focal_loss(logits, labels, alpha)
    assert torch.allclose(found, expected, rtol=1e-12)
    weights = torch.rand(60, generator=random, dtype=torch.float64)
    gradients = [torch.autograd.grad((loss * weights).sum(), logits)[0] for loss in (found, expected)]
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-14)

    rows = (labels < C).nonzero().squeeze(1)
    rows = torch.cat([rows, torch.zeros(5, dtype=torch.int64)])  # filling rows
    filled = torch.cat([torch.ones(len(rows) - 5), torch.zeros(5)]).double()
    total = focal_loss_sum(logits, weights, rows, filled, labels[rows].clamp(max=C - 1), alpha)
    assert math.isclose(total.item(), float((expected * weights).sum().detach()), rel_tol=1e-12)
    assert torch.allclose(torch.autograd.grad(total, logits)[0], gradients[1], rtol=1e-10, atol=1e-14)


def test_gradient_by_finite_differences() -> None:
    logits = torch.randn(5, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, torch.tensor([0, 1, C, 3, C])), logits)
