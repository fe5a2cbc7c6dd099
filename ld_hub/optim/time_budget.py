"""How many optimizer steps fit into some time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ld_hub.errors import ConfigError

SKIPPED = 3  # first steps, which also fill caches
MEASURED = 20  # steps after them that tell the pace
SHARE = 0.1  # of the time, after which fewer have to do
FORWARD = 1 / 3  # of a training step's time is its forward pass; only for the first guess at an evaluation
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def budget_seconds(text: str) -> float:
    """Seconds of ``"30m"``, ``"1h30m"``, ``"90s"``, ``"1.5h"``.

    Raises:
        ConfigError: If it is no such time.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not seconds > 0:
        raise ConfigError(f"time_budget is {text!r}; expected a time as 30m, 1h30m, 90s or 1.5h.")
    return seconds


def steps_within(budget: float, done: int, spent: float, step: float, evaluation: float, every: int | None) -> int:
    """Steps of a whole run that ends in time: what is left, over what a step costs with its share of the evaluations.

    Args:
        budget: Seconds of the whole run.
        done: Steps made.
        spent: Seconds so far.
        step: Seconds of a step.
        evaluation: Seconds of an evaluation; one follows the last step.
        every: Steps between evaluations; None for the last one alone.

    Returns:
        At least one step more than are made.
    """
    cost = step + (evaluation / every if every else 0.0)
    return done + max(1, int((budget - spent - evaluation) / max(cost, 1e-9)))


@dataclass
class Pace:
    """How long steps and evaluations of this process take.

    Attributes:
        budget: Seconds of the whole run.
        evaluation: Seconds of the last evaluation; None before the first.
    """

    budget: float
    evaluation: float | None = None
    _marks: list[tuple[int, float]] = field(default_factory=list)  # steps made, seconds of training

    def tick(self, step: int, training: float) -> None:
        """After a step.

        Args:
            step: Its 1-based number.
            training: Seconds of training so far.
        """
        if len(self._marks) < SKIPPED:
            self._marks.append((step, training))
            return
        self._marks[SKIPPED:] = [(step, training)]

    def steps(self, done: int, spent: float, guess: Callable[[float], float], every: int | None) -> int | None:
        """`steps_within` the budget; None before the pace is known.

        Args:
            done: Steps made.
            spent: Seconds so far.
            guess: Seconds of an evaluation from those of a step, for as long as there was none.
            every: Steps between evaluations.
        """
        step = self.step
        if step is None:
            return None
        evaluation = guess(step) if self.evaluation is None else self.evaluation
        return steps_within(self.budget, done, spent, step, evaluation, every)

    @property
    def step(self) -> float | None:
        """Seconds of a step; None before enough of them are made."""
        if len(self._marks) < 2:
            return None
        last, first = self._marks[-1], self._marks[SKIPPED - 1 if len(self._marks) > SKIPPED else 0]
        if last[0] - first[0] < MEASURED and last[1] < SHARE * self.budget:
            return None
        return (last[1] - first[1]) / (last[0] - first[0])
