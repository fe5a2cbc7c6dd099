"""Eight bits of a group of numbers, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ld_hub.ops.quantize import quantize

GROUPS = st.lists(st.lists(st.floats(-5e4, 5e4, width=32), min_size=3, max_size=3), min_size=1, max_size=4)


@given(GROUPS, st.sampled_from([1.0, 1e-3, 1e-6]))
def test_each_number_is_off_by_half_a_step_at_most(groups, size):
    values = np.array(groups, dtype=np.float32) * np.float32(size)
    kept = quantize(torch.from_numpy(values))
    assert kept.codes.dtype == torch.uint8 and kept.scale.dtype == kept.top.dtype == torch.float16
    restored = kept.restore().numpy()
    for row, back in zip(values, restored, strict=True):
        reach, largest = float(row.max() - row.min()), float(np.abs(row).max())
        rounding = max(largest / 2048, 1e-7)  # of float16 in `top`
        assert np.abs(row - back).max() <= reach * (1 + 2**-9) / 510 + rounding + 255 * 6e-8


def test_groups_are_the_last_dimension_and_their_tops_stay():
    values = torch.randn(2, 5, 4, 9) * 4
    kept = quantize(values)
    assert kept.codes.shape == (2, 5, 4, 9) and kept.scale.shape == kept.top.shape == (2, 5, 4)
    largest = values.amax(-1)
    assert torch.equal(kept.restore().amax(-1), largest.half().float())
    assert torch.equal(kept.restore()[1, 2], quantize(values[1, 2]).restore())
    assert torch.equal(quantize(values, softmax=True).restore().amax(-1), torch.zeros(2, 5, 4))


@given(GROUPS, st.sampled_from([1e-3, 1e-4]))
def test_logits_of_a_softmax_are_finest_at_the_top(groups, size):
    values = np.array(groups, dtype=np.float32) * np.float32(size)
    kept = quantize(torch.from_numpy(values), softmax=True)
    assert kept.top is None
    for row, back in zip(values.astype(np.float64), kept.restore().double().numpy(), strict=True):
        reach = row.max() - row.min()
        for number, found in zip(row - row.max(), back, strict=True):
            assert abs(number - found) <= np.sqrt(-number * reach) / 255 + reach * (1 / 260_000 + 2**-9) + 1e-5


@pytest.mark.parametrize("temperature", [1, 2, 4, 10])
def test_distributions_stay_what_they_are(temperature):
    """At every temperature less than a 10,000th of a nat is lost, where even steps lose twice as much at T = 1."""
    torch.manual_seed(0)
    logits = torch.randn(500, 17, dtype=torch.float64) * 5
    lost = []
    for softmax in (True, False):
        one = (logits / temperature).softmax(-1)
        other = (quantize(logits, softmax=softmax).restore().double() / temperature).softmax(-1)
        lost.append(float((one * (one / other).log()).sum(-1).mean()))
    assert 0 < lost[0] < 2e-5 and (temperature > 1 or lost[0] < lost[1] / 2)


@pytest.mark.parametrize("value", [0.0, 3.25, -7.5, 1e-9])
def test_equal_numbers_are_exact(value):
    values = torch.full((2, 6), value)
    assert torch.allclose(quantize(values).restore(), values, rtol=0, atol=1e-8)
    assert torch.equal(quantize(values, softmax=True).restore(), torch.zeros(2, 6))


def test_what_float16_cannot_hold_is_cut_off():
    restored = quantize(torch.tensor([[1e9, 0.0, -1e9]])).restore()
    assert torch.isfinite(restored).all() and restored[0].tolist() == pytest.approx([6e4, 0, -6e4], abs=300)
