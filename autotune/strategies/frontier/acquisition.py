"""By how much a front is expected to grow: exact, because all objectives but the score are known beforehand."""

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


class Growth:
    """A front, and by how much its hypervolume would grow.

    `points`: (score, to be maximised; footprint, whatever the other objectives are) of what was measured. `floor` and
    `bound` are the reference point: the score, and the footprint, whose `directions` are given.
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
        """Of each level the footprints of the points above it, and the area that they cover."""
        self._covered = [self._area(higher) for higher in self._above]
        self._known: dict[tuple[float, ...], Array] = {}
        """By footprint what `_steeper` returns."""

    def _area(self, footprints: Sequence[Sequence[float]]) -> float:
        if not self._directions:
            return float(bool(footprints))
        return hypervolume(footprints, self._bound, self._directions)

    def _steeper(self, footprint: Sequence[float]) -> Array:
        """Return by how much more a unit of score adds above each level than below it: what it adds is the area of the
        footprint that no point covers there.
        """
        key = tuple(footprint)
        if key not in self._known:
            both = zip(self._above, self._covered, strict=True)
            slopes = np.array([self._area([*higher, footprint]) - covered for higher, covered in both])
            self._known[key] = np.diff(slopes, prepend=0.0)
        return self._known[key]

    def expected(self, footprint: Sequence[float], mean: Array, deviation: Array) -> Array:
        """Return by how much the hypervolume is expected to grow for models of one footprint whose scores are normal.

        `mean` and `deviation` (positive): (models,). Returns (models,).
        """
        # The volume is linear in the score between two levels, and steeper from level to level.
        excess = expected_excess(mean[:, None], deviation[:, None], self._levels[None, :])
        return np.asarray(excess @ self._steeper(footprint))
