"""Moving distributions between bins."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.ops.distribution import expectation, rebin


def logits(seed: int, bins: int = 9) -> torch.Tensor:
    return torch.randn(5, bins, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 24), st.floats(-3, 3))
def test_rebin_against_loops(seed: int, bins: int, shift: float) -> None:
    given = logits(seed)
    found = rebin(given, bins, torch.full((5,), shift, dtype=torch.float64)).exp()
    for row, mass in zip(found, given.softmax(dim=1).tolist(), strict=True):
        expected = [0.0] * bins
        for distance, part in enumerate(mass):
            place = min(max(distance + shift, 0), bins - 1)
            low = math.floor(place)
            expected[low] += part * (1 - (place - low))
            expected[min(low + 1, bins - 1)] += part * (place - low)
        assert torch.allclose(row, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)
        assert math.isclose(row.sum().item(), 1, rel_tol=1e-12)


def test_rebin_keeps_what_fits() -> None:
    given = logits(1)
    assert torch.allclose(rebin(given, 9), given.log_softmax(dim=1), rtol=1e-12)
    wider = rebin(given, 13)
    assert torch.allclose(wider[:, :9], given.log_softmax(dim=1), rtol=1e-12)
    assert (wider[:, 9:] == -math.inf).all()
    assert torch.allclose(expectation(wider), expectation(given), rtol=1e-12)
    narrower = rebin(given, 4).exp()
    assert torch.allclose(narrower[:, 3], given.softmax(dim=1)[:, 3:].sum(dim=1), rtol=1e-12)


def test_the_mean_moves_by_the_shift() -> None:
    given = torch.cat([torch.full((5, 3), -1e4, dtype=torch.float64), logits(2)], dim=1)  # room on both sides
    shift = torch.tensor([-2.5, -0.5, 0.0, 0.25, 1.75], dtype=torch.float64)
    assert torch.allclose(expectation(rebin(given, 16, shift)), expectation(given) + shift, rtol=1e-9)
