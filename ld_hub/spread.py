"""How a number spreads over the seeds of a training: mean, standard deviation, and paired differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

Seed = TypeVar("Seed")
LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class Spread:
    """What several numbers of one kind say, a number for each seed.

    Attributes:
        mean: Arithmetic mean.
        std: Sample standard deviation (divided by n - 1); None of a single number.
        number: How many they are, n.
    """

    mean: float
    std: float | None
    number: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one number."""
        several = len(values) > 1
        return cls(statistics.fmean(values), statistics.stdev(values) if several else None, len(values))

    def text(self, digits: int = 1, *, factor: float = 1.0, sign: str = "") -> str:
        """``11.9 ± 0.8``, or the mean alone of a single number.

        Args:
            digits: After the point.
            factor: Numbers are shown times this: 100 for fractions.
            sign: ``"+"`` to show the sign of a mean above 0.
        """
        mean = f"{factor * self.mean:{sign}.{digits}f}"
        return mean if self.std is None else f"{mean} ± {factor * self.std:.{digits}f}"


@dataclass(frozen=True)
class Difference(Spread):
    """What one training is above another, seed by seed.

    Attributes:
        low: Where the 95 % interval of the mean begins: Student's t with n - 1 degrees of freedom. None of one seed.
        high: Where it ends.
    """

    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def paired(ones: Mapping[Seed, float], others: Mapping[Seed, float]) -> Difference | None:
    """The differences of two trainings, seed by seed, so that what a seed does to both is gone from their spread.

    Args:
        ones: By seed.
        others: What is taken from them.

    Returns:
        Of the seeds that both have; None where there is none.
    """
    values = [value - others[seed] for seed, value in ones.items() if seed in others]
    if not values:
        return None
    found = Spread.of(values)
    if found.std is None:
        return Difference(found.mean, None, 1, None, None)
    half = t_quantile(found.number - 1) * found.std / math.sqrt(found.number)
    return Difference(found.mean, found.std, found.number, found.mean - half, found.mean + half)


@lru_cache(maxsize=256)
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """Half the width of Student's t: |T| stays below it with a probability.

    Args:
        freedom: Degrees of freedom, a whole number from 1 on.
        level: The probability, between 0 and 1.

    Returns:
        The quantile, to the last digits of a float; 12.706 for one degree of freedom at 0.95.
    """
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(freedom)
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|T| <= t), where t is sqrt(freedom) x the tangent: Abramowitz & Stegun, 26.7.3 and 26.7.4, finite series."""
    sine, cosine, odd = math.sin(angle), math.cos(angle), freedom % 2
    total, part = 0.0, cosine if odd else 1.0
    for k in range(1 + odd, freedom, 2):  # the powers of the cosine are k - 1
        total += part
        part *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
