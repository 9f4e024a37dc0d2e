"""How much a front is expected to grow: against many draws, and where it is known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from autotune.analysis.pareto import hypervolume
from autotune.metrics import Direction
from autotune.strategies.frontier.acquisition import HypervolumeImprovement, expected_excess

DIRECTIONS: list[Direction] = ["minimize", "minimize"]
POINTS = [(0.7, [5.0, 100.0]), (0.75, [9.0, 200.0]), (0.72, [6.0, 300.0]), (0.4, [1.0, 50.0])]


@pytest.mark.parametrize("footprint", [[5.0, 100.0], [4.0, 250.0], [20.0, 10.0], [7.0, 150.0]])
@pytest.mark.parametrize(("mean", "deviation"), [(0.74, 0.05), (0.6, 0.01), (0.9, 0.2)])
def test_the_expectation_is_that_of_many_draws(footprint: list[float], mean: float, deviation: float) -> None:
    floor, bound = 0.5, [10.0, 400.0]
    growth = HypervolumeImprovement(POINTS, floor, bound, DIRECTIONS)
    found = growth.expected(footprint, np.array([mean]), np.array([deviation]))[0]

    def volume(points: list[tuple[float, list[float]]]) -> float:
        flat = [[score, *other] for score, other in points]
        return hypervolume(flat, [floor, *bound], ["maximize", *DIRECTIONS])

    # The inverse of the normal distribution at even steps: no chance, so that no tolerance is a gamble.
    draws = [NormalDist(mean, deviation).inv_cdf((n + 0.5) / 400) for n in range(400)]
    true = np.mean([volume([*POINTS, (draw, footprint)]) for draw in draws]) - volume(POINTS)
    assert found == pytest.approx(true, rel=0.02, abs=0.02)


def test_without_other_objectives_only_a_better_score_counts() -> None:
    growth = HypervolumeImprovement([(0.7, []), (0.8, [])], 0.0, [], [])
    found = growth.expected([], np.array([0.9, 0.7]), np.array([1e-9, 1e-9]))
    assert found == pytest.approx([0.1, 0.0])


def test_the_first_point_is_worth_its_whole_box() -> None:
    growth = HypervolumeImprovement([], 0.5, [10.0], ["minimize"])
    assert growth.expected([4.0], np.array([0.7]), np.array([1e-9])) == pytest.approx([0.2 * 6.0])


def test_what_is_beyond_the_reference_adds_nothing() -> None:
    growth = HypervolumeImprovement(POINTS, 0.5, [10.0, 400.0], DIRECTIONS)
    assert growth.expected([11.0, 100.0], np.array([0.9]), np.array([0.1])) == pytest.approx([0.0])


def test_excess_is_the_difference_where_nothing_is_uncertain() -> None:
    excess = expected_excess(np.array([1.0, 3.0]), np.array([1e-9, 1e-9]), np.array([2.0, 2.0]))
    assert excess == pytest.approx([0.0, 1.0])
