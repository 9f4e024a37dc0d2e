"""What an adapter's score will be, guessed from the scores of others and at lower rungs: a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Place = tuple[list[float], list[str]]
"""An adapter's place in the space: numbers as shares of their range, and choices as texts."""

_SHARED, _OWN, _ADAPTER, _LEVEL = 0.06, 0.04, 0.012, 0.5
"""Standard deviations: of what settings do alike at all rungs, at one rung, of an adapter's own luck, of a rung's level."""
_LENGTH, _OTHER = 0.35, 0.75
"""Length scale over a parameter's range, and the correlation between two choices that have no order."""
_MIDDLE, _LEAST = 0.5, 1e-8
"""A score that is as likely too high as too low before anything is known, and the least variance."""


class Surrogate:
    """A Gaussian process over adapters and rungs."""

    def __init__(self, places: Sequence[Place], prior: Sequence[float], last: int) -> None:
        """`places` of the adapters, what each is worth beforehand (in units of the score), and the number of the last rung."""
        self._numbers = np.array([numbers for numbers, _ in places], dtype=float).reshape(len(places), -1)
        choices = np.array([words for _, words in places], dtype=str).reshape(len(places), -1)
        codes = [np.unique(column, return_inverse=True)[1] for column in choices.T]
        self._choices = np.array(codes, dtype=np.intp).T.reshape(len(places), -1)
        self._prior = np.array(prior)
        self._last = last

    def _like(self, a: NDArray[np.intp], b: NDArray[np.intp]) -> Array:
        """Return how alike adapters' settings are: (a, b)."""
        distance = ((self._numbers[a, None, :] - self._numbers[None, b, :]) / _LENGTH) ** 2
        differing = (self._choices[a, None, :] != self._choices[None, b, :]).sum(axis=2)
        return np.asarray(np.exp(-0.5 * distance.sum(axis=2)) * _OTHER**differing, dtype=float)

    def _covariance(self, a: NDArray[np.intp], rungs_a: Array, b: NDArray[np.intp], rungs_b: Array) -> Array:
        like, same_rung = self._like(a, b), rungs_a[:, None] == rungs_b[None, :]
        same = a[:, None] == b[None, :]
        covariance: Array = (
            _SHARED**2 * like + _OWN**2 * like * same_rung + _ADAPTER**2 * same * (0.5 + 0.5 * same_rung)
            + _LEVEL**2 * same_rung
        )  # fmt: skip
        return covariance

    def posterior(self, observed: Sequence[tuple[int, int, float, float]]) -> tuple[Array, Array]:
        """Return mean and standard deviation of each adapter's score at the last rung: (adapters,).

        `observed`: adapter, rung, score, and the variance of its noise.
        """
        everyone = np.arange(len(self._prior))
        ends = np.full(len(everyone), float(self._last))
        prior = np.full(len(everyone), _SHARED**2 + _OWN**2 + _ADAPTER**2 + _LEVEL**2)
        if not observed:
            return _MIDDLE + self._prior, np.sqrt(prior)
        who, rungs, scores, noise = zip(*observed, strict=True)
        seen, at = np.array(who, dtype=np.intp), np.array(rungs, dtype=float)
        gram = self._covariance(seen, at, seen, at) + np.diag(np.array(noise))
        cross = self._covariance(everyone, ends, seen, at)
        solved = np.linalg.solve(gram, np.column_stack([np.array(scores) - _MIDDLE - self._prior[seen], cross.T]))
        variance = prior - np.einsum("ij,ji->i", cross, solved[:, 1:])
        return _MIDDLE + self._prior + cross @ solved[:, 0], np.sqrt(np.maximum(variance, _LEAST))
