"""The largest batch that fits, by trial."""

from __future__ import annotations

from collections.abc import Callable


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """Double until it does not fit, then halve the gap.

    Args:
        fits: Whether a batch of so many images fits; one that is larger than another which does not fit does not.
        most: The largest batch that is of use.

    Returns:
        Images; 0 where not even one fits.
    """
    good, bad = 0, most + 1
    trial = 1
    while trial < bad and fits(trial):
        good, trial = trial, 2 * trial
    bad = min(bad, trial)
    while bad - good > max(1, good // 8):  # within an eighth: batches need not be exact, and trials cost time
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good
