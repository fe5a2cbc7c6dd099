"""Spreads over seeds against numpy, and Student's t against its tables, its density and its limit."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from ld_hub.spread import Spread, paired, t_quantile

# two-sided, 95 %: any table of the distribution
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 10: 2.228, 19: 2.093, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("freedom", "quantile"), TABLE.items())
def test_quantiles_are_those_of_the_tables(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_density_between_the_quantiles_has_the_level(freedom, level):
    """The density of the distribution itself, summed up."""
    half = t_quantile(freedom, level)
    t = np.linspace(-half, half, 200_001)
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    density = scale * (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
    assert ((density[1:] + density[:-1]) / 2 * np.diff(t)).sum() == pytest.approx(level, abs=1e-6)


def test_many_degrees_of_freedom_are_nearly_normal():
    """The first two terms of the expansion in 1 / degrees of freedom."""
    z, freedom = NormalDist().inv_cdf(0.975), 4001
    assert t_quantile(freedom) == pytest.approx(z + (z**3 + z) / (4 * freedom), abs=1e-6)


def test_means_and_differences_are_numpys():
    ones, others = {0: 0.31, 1: 0.28, 2: 0.36, 7: 0.9}, {2: 0.29, 0: 0.25, 1: 0.27, 5: 0.1}
    found = Spread.of(list(ones.values()))
    assert (found.mean, found.std) == pytest.approx((np.mean([*ones.values()]), np.std([*ones.values()], ddof=1)))
    gaps = np.array([0.31 - 0.25, 0.28 - 0.27, 0.36 - 0.29])
    gain, half = paired(ones, others), 4.302653 * gaps.std(ddof=1) / np.sqrt(3)
    assert (gain.mean, gain.std, gain.number) == pytest.approx((gaps.mean(), gaps.std(ddof=1), 3))
    assert (gain.low, gain.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half), rel=1e-6)
    assert not gain.clear and gain.low < 0 < gain.high
    assert paired({0: 1.0, 1: 1.1}, {0: 0.0, 1: 0.1}).clear and paired({0: 0.0, 1: 0.1}, {0: 1.0, 1: 1.1}).clear


def test_one_number_has_no_spread():
    assert Spread.of([0.25]) == Spread(0.25, None, 1) and Spread.of([0.25]).text(factor=100) == "25.0"
    gain = paired({3: 0.5}, {3: 0.25})
    assert (gain.mean, gain.std, gain.low, gain.high, gain.clear) == (0.25, None, None, None, False)
    assert paired({3: 0.5}, {4: 0.25}) is None
    assert Spread.of([1.0, 2.0]).text(2, sign="+") == "+1.50 ± 0.71"
