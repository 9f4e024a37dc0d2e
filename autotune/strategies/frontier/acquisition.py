"""The acquisition function: the expected hypervolume improvement of a candidate.

It is exact: every objective but the score is known or predicted, so that only the score is random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.pareto import hypervolume
from autotune.metrics import Direction

Array = NDArray[np.float64]
_erf = np.frompyfunc(math.erf, 1, 1)


def expected_excess(mean: Array, deviation: Array, level: Array) -> Array:
    """Return E[max(0, X - level)] of normal X, element by element; deviations must be positive.

    Source: the expected improvement of Jones, Schonlau and Welch, J. Global Optim. 13 (1998), 455-492.
    """
    z = (mean - level) / deviation
    below = 0.5 * (1 + np.asarray(_erf(z / math.sqrt(2)), dtype=np.float64))
    return np.asarray((mean - level) * below + deviation * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))


class HypervolumeImprovement:
    """A front, and how much a candidate is expected to add to its hypervolume.

    `points`: (score, which is maximised; footprint, the values of the other objectives) of what was measured. `floor` and
    `bound` are the reference point, in the score and in the footprint, whose `directions` are given.
    """

    def __init__(
        self,
        points: Sequence[tuple[float, Sequence[float]]],
        floor: float,
        bound: Sequence[float],
        directions: Sequence[Direction],
    ) -> None:
        self._points = [(score, footprint) for score, footprint in points if score > floor]
        self._levels = np.array(sorted({floor, *(score for score, _ in self._points)}))
        self._bound, self._directions = list(bound), list(directions)
        self._above = [[other for score, other in self._points if score > level] for level in self._levels]
        """The footprints of the points above each level."""
        self._covered = [self._area(higher) for higher in self._above]
        """The area that these cover."""
        self._slope_changes: dict[tuple[float, ...], Array] = {}
        """What `_slope_change` returned, by footprint."""

    def _area(self, footprints: Sequence[Sequence[float]]) -> float:
        if not self._directions:
            return float(bool(footprints))
        return hypervolume(footprints, self._bound, self._directions)

    def _slope_change(self, footprint: Sequence[float]) -> Array:
        """Return how much the slope of the improvement over the score changes at each level: (levels,).

        The slope between two levels is the area of the footprint that no point above them covers.
        """
        key = tuple(footprint)
        if key not in self._slope_changes:
            both = zip(self._above, self._covered, strict=True)
            slopes = np.array([self._area([*higher, footprint]) - covered for higher, covered in both])
            self._slope_changes[key] = np.diff(slopes, prepend=0.0)
        return self._slope_changes[key]

    def expected(self, footprint: Sequence[float], mean: Array, deviation: Array) -> Array:
        """Return the expected hypervolume improvement of models with one footprint whose scores are normal.

        `mean` and `deviation` (positive): (models,). Returns (models,).
        """
        # The improvement is piecewise linear in the score: a sum of hinges, one at each level.
        excess = expected_excess(mean[:, None], deviation[:, None], self._levels[None, :])
        return np.asarray(excess @ self._slope_change(footprint))
