"""QFL and DFL: derivatives, extremes, and the fused sum against the plain form."""

from __future__ import annotations

import math

import torch

from ld_hub.losses import distribution_focal_loss, quality_focal_loss, quality_focal_loss_sum


def naive(x: float, target: float) -> float:
    p = 1 / (1 + math.exp(-x))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p)) * (target - p) ** 2


def test_value_of_each_entry() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0], [1.0, 0.0, -3.0]], dtype=torch.float64)
    loss = quality_focal_loss(logits, torch.tensor([1, 3]), torch.tensor([0.7, 0.0], dtype=torch.float64))
    rows = [naive(0.3, 0) + naive(-1.2, 0.7) + naive(2.0, 0), naive(1.0, 0) + naive(0.0, 0) + naive(-3.0, 0)]
    assert torch.allclose(loss, torch.tensor(rows, dtype=torch.float64), rtol=1e-12)


def test_gradient_is_the_derivative() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    quality = torch.rand(6, dtype=torch.float64)
    labels = torch.tensor([0, 4, 5, 5, 2, 5])
    assert torch.autograd.gradcheck(lambda x: quality_focal_loss(x, labels, quality), (logits,))


def test_sum_over_known_positives_is_the_sum_over_all_rows() -> None:
    torch.manual_seed(0)
    logits = torch.randn(40, 7, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.randint(0, 12, (40,)).clamp(max=7), (torch.rand(40) > 0.2).double()
    quality = torch.rand(40, dtype=torch.float64)
    whole = (quality_focal_loss(logits, labels, quality) * weights).sum()
    rows = (labels < 7).nonzero().squeeze(1)
    filled, fill = torch.cat([rows, torch.zeros(3, dtype=torch.int64)]), torch.tensor([1.0] * len(rows) + [0.0] * 3)
    fused = quality_focal_loss_sum(logits, weights, filled, fill.double(), labels[filled].clamp(max=6), quality[filled])
    assert torch.allclose(whole, fused, rtol=1e-12)
    (first,) = torch.autograd.grad(whole, logits)
    (second,) = torch.autograd.grad(fused, logits)
    assert torch.allclose(first, second, atol=1e-14)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = quality_focal_loss(logits, torch.tensor([0, 2]), torch.tensor([0.5, 0.0]))
    loss.sum().backward()
    assert loss.tolist() == [0.25 * 1e4 * 0.5, 1e4]  # BCE(1e4, .5) = 5e3 times |.5 - 1|^2; BCE(1e4, 0) = 1e4
    assert logits.grad.isfinite().all()


def test_dfl_is_smallest_where_the_two_bins_share_by_distance() -> None:
    target = torch.tensor([3.3], dtype=torch.float64)
    best = torch.full((1, 17), -1e3, dtype=torch.float64)
    best[0, 3], best[0, 4] = math.log(0.7), math.log(0.3)
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert math.isclose(distribution_focal_loss(best, target).item(), entropy, rel_tol=1e-9)
    worse = best.clone()
    worse[0, 3] = math.log(0.6)
    assert distribution_focal_loss(worse.log_softmax(-1), target) > entropy
    logits = torch.randn(3, 4, 9, dtype=torch.float64, requires_grad=True)
    distances = torch.rand(3, 4, dtype=torch.float64) * 7.9
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, distances), (logits,))
