"""Fit how much longer or shorter this machine takes than the prior says, separately for each part of a job.

A job takes the sum over its parts of `exp(level) * seconds by the prior`. The levels are normal around those of the next
wider group, and a job's seconds lognormal around their sum; the most probable levels are found by Gauss-Newton steps
(a nonlinear least-squares fit with a penalty), an outlier counting less (Huber 1964, Robust Estimation of a Location
Parameter).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOISE_SD = 0.25
"""Standard deviation of the logarithm of a job's seconds when it is repeated."""
_STEPS, _HUBER, _MOST_STEP = 12, 1.5, 1.5
"""The most steps of the fit; the number of standard deviations above which a job counts less; the longest step of a level."""
_TINY = 1e-9


@dataclass(frozen=True)
class Levels:
    """The distribution of the levels of a group: mean [parts] and covariance [parts, parts]."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def spread(self, sd: float) -> Levels:
        """Return the prior of a group inside this one, whose levels differ from this one's by `sd` (standard deviation)."""
        return Levels(self.mean, self.covariance + sd**2 * np.eye(len(self.mean)))

    def seconds(self, parts: Sequence[float]) -> tuple[float, float]:
        """Return the expected seconds of one job, and the standard deviation of their logarithm, with the job's own noise.

        `parts`: the job's seconds by the prior [parts].
        """
        terms = np.exp(self.mean) * np.asarray(parts, dtype=float)
        total = float(terms.sum())
        share = terms / max(total, _TINY)
        return total, float(np.sqrt(share @ self.covariance @ share + NOISE_SD**2))


def unknown(parts: int, sd: float) -> Levels:
    """Return the levels before any measurement: mean 0, and the standard deviation `sd` for each part."""
    return Levels(np.zeros(parts), sd**2 * np.eye(parts))


def fitted(around: Levels, parts: Sequence[Sequence[float]], seconds: Sequence[float]) -> Levels:
    """Return the posterior of the levels: jobs with these `parts` [job, part] took these `seconds` [job]; `around`: the
    prior.
    """
    x, y = np.asarray(parts, dtype=float), np.log(np.maximum(np.asarray(seconds, dtype=float), _TINY))
    precision = np.linalg.inv(around.covariance)
    mean, hessian = around.mean.copy(), precision
    for _ in range(_STEPS):
        terms = np.exp(mean) * x
        total = np.maximum(terms.sum(axis=1), _TINY)
        slope, left = terms / total[:, None], y - np.log(total)
        deviation = np.abs(left) / NOISE_SD
        weight = np.where(deviation > _HUBER, _HUBER / np.maximum(deviation, _TINY), 1.0) / NOISE_SD**2
        hessian = precision + (slope * weight[:, None]).T @ slope
        step = np.linalg.solve(hessian, slope.T @ (weight * left) - precision @ (mean - around.mean))
        mean = mean + np.clip(step, -_MOST_STEP, _MOST_STEP)
        if np.abs(step).max() < 1e-3:
            break
    return Levels(mean, np.linalg.inv(hessian))
