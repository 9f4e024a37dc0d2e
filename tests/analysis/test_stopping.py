"""An interval holds what it says, also where measuring went on until it was narrow."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.analysis.statistics import t_interval
from autotune.analysis.stopping import stretch


def coverage(least: int, most: int, spread: float, wider: float, runs: int = 3000) -> float:
    """Return how often the interval of a mean of 1 holds it, with sampling until it is known to 3 %."""
    held = 0
    for number in range(runs):
        samples = 1 + spread * np.random.default_rng((7, number)).standard_normal(most)
        for n in range(least, most + 1):
            low, high = t_interval(samples[:n], stretch=wider)
            if high - low <= 2 * 0.03 * samples[:n].mean():
                break
        held += low <= 1 <= high
    return held / runs


@pytest.mark.parametrize(("least", "most"), [(5, 12), (2, 12), (4, 20)])
def test_stopping_when_narrow_costs_no_coverage(least: int, most: int) -> None:
    """At every spread, those where stopping does most harm among them."""
    wider = stretch(least, most)
    for spread in (0.01, 0.03, 0.05, 0.1):
        assert coverage(least, most, spread, wider) > 0.94
    assert coverage(least, most, 0.045, 1.0) < 0.935  # which is why


def test_a_fixed_number_of_samples_is_not_stretched() -> None:
    assert stretch(5, 5) == stretch(7, 3) == 1.0
    assert 1.0 < stretch(5, 6) < stretch(5, 12) < stretch(2, 12)
    assert stretch(5, 1000) == pytest.approx(stretch(5, 64), rel=0.02)
    with pytest.raises(ValueError, match="least >= 2"):
        stretch(1, 12)
