from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.analysis.pareto import dominates, front, hypervolume
from autotune.metrics import Direction

BOTH: list[Direction] = ["maximize", "minimize"]
DOWN: list[Direction] = ["minimize"] * 3


@st.composite
def spaces(draw: st.DrawFn) -> tuple[list[list[float | None]], list[Direction]]:
    """Points on a small grid, so that ties, duplicates and missing values are common."""
    directions: list[Direction] = draw(st.lists(st.sampled_from(BOTH), min_size=1, max_size=4))
    value = st.none() | st.integers(0, 4).map(float)
    size = len(directions)
    return draw(st.lists(st.lists(value, min_size=size, max_size=size), max_size=10)), directions


def complete(points: Sequence[Sequence[float | None]]) -> dict[int, list[float]]:
    known = {index: [value for value in point if value is not None] for index, point in enumerate(points)}
    return {index: values for index, values in known.items() if len(values) == len(points[index])}


def by_inclusion_and_exclusion(boxes: Sequence[Sequence[float]]) -> float:
    """The union of boxes from the origin, from the volumes of all their intersections."""
    volume: float = sum(
        (1 if size % 2 else -1) * math.prod(map(min, zip(*chosen, strict=True)))
        for size in range(1, len(boxes) + 1)
        for chosen in combinations(boxes, size)
    )
    return volume


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0.9, 10.0), (0.8, 20.0), True),
        ((0.9, 10.0), (0.9, 20.0), True),
        ((0.9, 10.0), (0.9, 10.0), False),
        ((0.9, 20.0), (0.8, 10.0), False),
        ((0.8, 20.0), (0.9, 10.0), False),
    ],
)
def test_dominates(a: tuple[float, float], b: tuple[float, float], expected: bool) -> None:
    assert dominates(a, b, BOTH) is expected


def test_front_by_hand() -> None:
    points = [(0.9, 30.0), (0.8, 10.0), (0.8, 20.0), (None, 1.0), (0.9, 30.0), (0.95, math.nan)]
    assert front(points, BOTH) == [0, 1, 4]
    assert front([], BOTH) == []
    assert front([(None, None)], BOTH) == []


def test_a_point_must_fit_the_directions() -> None:
    with pytest.raises(ValueError, match="got 1 for 2"):
        dominates([1.0], [2.0], BOTH)
    with pytest.raises(ValueError, match="got 3 for 2"):
        front([(1.0, 2.0, 3.0)], BOTH)


@settings(deadline=None)
@given(spaces())
def test_no_point_of_the_front_is_dominated_and_every_other_is(
    space: tuple[list[list[float | None]], list[Direction]],
) -> None:
    points, directions = space
    known = complete(points)
    chosen = front(points, directions)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(known)
    for index, point in known.items():
        beaten = [other for other in chosen if dominates(known[other], point, directions)]
        assert bool(beaten) == (index not in chosen)


def test_hypervolume_in_one_and_two_dimensions_by_hand() -> None:
    assert hypervolume([(3.0,), (5.0,)], (7.0,), ["minimize"]) == 4.0
    # Two steps: 2 x 4 and, above it, 1 x 2 more.
    assert hypervolume([(1.0, 3.0), (2.0, 1.0), (2.0, 2.0)], (4.0, 5.0), ["minimize"] * 2) == 10.0
    assert hypervolume([(0.9, 30.0), (0.8, 10.0)], (0.5, 50.0), BOTH) == pytest.approx(0.4 * 20 + 0.3 * 20)


def test_hypervolume_in_three_dimensions_by_hand() -> None:
    # Boxes 1x2x3, 3x1x2 and 2x2x1 from the corner: 6 + 6 + 4 - 2 - 2 - 2 + 1.
    points = [(2.0, 1.0, 0.0), (0.0, 2.0, 1.0), (1.0, 1.0, 2.0)]
    assert hypervolume(points, (3.0, 3.0, 3.0), DOWN) == 11.0


def test_what_is_not_better_than_the_reference_adds_nothing() -> None:
    assert hypervolume([], (1.0, 1.0, 1.0), DOWN) == 0.0
    points = [(0.0, 0.0, 1.0), (0.0, 0.0, 2.0), (0.0, None, 0.0), (0.5, 0.5, 0.5)]
    assert hypervolume(points, (1.0, 1.0, 1.0), DOWN) == 0.125
    with pytest.raises(ValueError, match="reference must be finite"):
        hypervolume(points, (1.0, 1.0, math.inf), DOWN)


@settings(deadline=None)
@given(spaces())
def test_hypervolume_is_that_of_inclusion_and_exclusion(
    space: tuple[list[list[float | None]], list[Direction]],
) -> None:
    points, directions = space
    reference = [1.0 if direction == "maximize" else 3.0 for direction in directions]
    boxes = [
        [abs(bound - value) for bound, value in zip(reference, point, strict=True)]
        for point in complete(points).values()
        if all(
            value > bound if direction == "maximize" else value < bound
            for value, bound, direction in zip(point, reference, directions, strict=True)
        )
    ]
    volume = hypervolume(points, reference, directions)
    assert volume == pytest.approx(by_inclusion_and_exclusion(boxes))
    assert volume == pytest.approx(hypervolume([points[i] for i in front(points, directions)], reference, directions))


@pytest.mark.parametrize("size", [3, 4, 5])
def test_hypervolume_is_that_of_random_darts(size: int) -> None:
    generator = np.random.default_rng(size)
    points, darts = generator.random((12, size)), generator.random((40_000, size))
    share = (points[:, None, :] <= darts[None, :, :]).all(axis=2).any(axis=0).mean()
    assert hypervolume(points.tolist(), [1.0] * size, ["minimize"] * size) == pytest.approx(share, abs=0.01)
