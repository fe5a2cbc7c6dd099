"""Times as people write them, and what fits into them."""

from __future__ import annotations

import pytest

from ld_hub.errors import ConfigError
from ld_hub.optim.time_budget import MEASURED, SKIPPED, Pace, budget_seconds, steps_within


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("1h0m1s", 3601)]
)
def test_times(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "", "0s", "30 m", "-5m", "1d", "1h30"])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match="expected a time as 30m"):
        budget_seconds(text)


@pytest.mark.parametrize("every", [None, 7, 50])
@pytest.mark.parametrize("evaluation", [0.0, 12.0, 400.0])
def test_a_run_of_so_many_steps_ends_in_time_and_uses_it(every, evaluation):
    """Counted step by step."""
    budget, step, done = 3600.0, 0.5, 200
    spent = done * step
    steps = steps_within(budget, done, spent, step, evaluation, every)
    seconds = spent
    for number in range(done + 1, steps + 1):
        seconds += step
        if number == steps or (every and number % every == 0):
            seconds += evaluation
    one_more = step + evaluation
    assert budget - one_more - step <= seconds <= budget + step + (evaluation if every else 0)


def test_too_late_is_one_step_more():
    assert steps_within(10.0, 5, 30.0, 1.0, 4.0, None) == 6


def test_the_pace_is_that_after_the_first_steps():
    pace, seconds = Pace(1e6), 0.0
    for number in range(1, SKIPPED + MEASURED + 1):
        assert pace.step is None
        seconds += 100.0 if number <= SKIPPED else 2.0  # caches fill
        pace.tick(number, seconds)
    assert pace.step == pytest.approx(2.0)
    assert pace.steps(23, seconds, lambda step: 10 * step, None) == 23 + int((1e6 - seconds - 20) / 2)
    pace.evaluation = 1000.0
    assert pace.steps(23, seconds, lambda step: 10 * step, None) == 23 + int((1e6 - seconds - 1000) / 2)


def test_slow_steps_are_measured_for_a_tenth_of_the_time_only():
    pace = Pace(100.0)
    pace.tick(1, 9.0)
    assert pace.step is None
    pace.tick(2, 18.0)
    assert pace.step == pytest.approx(9.0)
