"""What an adapter's score will be, guessed from the scores of others and at lower rungs: a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Lora
from autotune.space import Choice, Space

Array = NDArray[np.float64]
Place = tuple[list[float], list[str]]
"""An adapter's place in the space: numbers as shares of their range, and choices as texts."""

_SHARED, _OWN, _ADAPTER = 0.06, 0.04, 0.012
"""Standard deviations: of what settings do alike at all rungs, at one rung, and of an adapter's own luck."""
_LEVEL, _RISE, _RISE_SPREAD = 0.5, 0.09, 0.08
"""Standard deviation of the level of all scores; by how much a rung's level is above that of the one before, and how sure
that is."""
_TILT, _BEND, _OWN_TILT = 0.06, 0.07, 0.03
"""Standard deviations of what a decade of learning rate adds, at all rungs, its square, and at one rung: what is seen at two
rates says something of a third beyond them."""
_LENGTH, _OTHER = 0.35, 0.75
"""Length scale over a parameter's range, and the correlation between two choices that have no order."""
SHARED_CHANCE = 0.5
"""The share of an item's chance that all adapters have in common: some items are hard for all."""
_MIDDLE, _LEAST = 0.5, 1e-8
"""A score that is as likely too high as too low before anything is known, and the least variance."""


def place_of(lora: Lora, space: Space) -> Place:
    """Return an adapter's place in the space: numbers as shares of their (logarithmic) range, and choices as texts."""
    numbers, choices = [], []
    settings = lora.model_dump()
    settings["alpha_over_r"] = lora.alpha / lora.r
    for name, domain in space.searched.items():
        value = settings.get(name)
        ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        ordered = [float(end) for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if len(ordered) < len(ends) or value is None:
            choices.append(str(value))
            continue
        low, high, here = min(ordered), max(ordered), float(value)
        if low > 0 and high / low > 3:
            low, high, here = math.log(low), math.log(high), math.log(max(here, 1e-300))
        numbers.append((here - low) / (high - low) if high > low else 0.0)
    return numbers, choices


class Seen(NamedTuple):
    """A score of an adapter."""

    adapter: int
    rung: int
    score: float
    items: int
    """It is the mean over the first so many items of one order."""


def variance(score: float) -> float:
    """Return the variance of one item's outcome, from the share of those that are right."""
    share = min(max(abs(score), 0.02), 0.98)
    return share * (1 - share)


class Surrogate:
    """A Gaussian process over adapters and rungs."""

    def __init__(self, places: Sequence[Place], rates: Sequence[float], prior: Sequence[float], last: int) -> None:
        """`places` of the adapters, their learning rates in decades from a usual one, what each is worth beforehand (in
        units of the score), and the number of the last rung.
        """
        self._rates = np.array(rates)
        numbers = np.array([numbers for numbers, _ in places], dtype=float).reshape(len(places), -1)
        words = np.array([words for _, words in places], dtype=str).reshape(len(places), -1)
        codes = [np.unique(column, return_inverse=True)[1] for column in words.T]
        names = np.array(codes, dtype=np.intp).T.reshape(len(places), -1)
        self._prior = np.array(prior)
        self._last = last
        distance = ((numbers[:, None, :] - numbers[None, :, :]) / _LENGTH) ** 2
        differing = (names[:, None, :] != names[None, :, :]).sum(axis=2)
        self._like: Array = np.exp(-0.5 * distance.sum(axis=2)) * _OTHER**differing
        """How alike adapters' settings are: (adapters, adapters)."""

    def __len__(self) -> int:
        """How many adapters there are."""
        return len(self._prior)

    def _covariance(self, a: NDArray[np.intp], rungs_a: Array, b: NDArray[np.intp], rungs_b: Array) -> Array:
        like, same_rung = self._like[np.ix_(a, b)], rungs_a[:, None] == rungs_b[None, :]
        same = a[:, None] == b[None, :]
        tilt = self._rates[a, None] * self._rates[None, b]
        # Levels rise by chance, as well, from rung to rung: those below the same rung have all rises above it in common.
        below = self._last - np.maximum(rungs_a[:, None], rungs_b[None, :])
        covariance: Array = (
            _SHARED**2 * like + _OWN**2 * like * same_rung + _ADAPTER**2 * same * (0.5 + 0.5 * same_rung)
            + _TILT**2 * tilt + _BEND**2 * tilt**2 + _OWN_TILT**2 * tilt * same_rung
            + _LEVEL**2 + _RISE_SPREAD**2 * below
        )  # fmt: skip
        return covariance

    def _mean(self, who: NDArray[np.intp], rungs: Array) -> Array:
        return np.asarray(_MIDDLE + self._prior[who] - _RISE * (self._last - rungs))

    def posterior(self, observed: Sequence[Seen]) -> tuple[Array, Array]:
        """Return mean and standard deviation of each adapter's score at the last rung, on as many items as one likes:
        (adapters,).
        """
        everyone = np.arange(len(self._prior))
        ends = np.full(len(everyone), float(self._last))
        tilt = self._rates**2
        prior = _SHARED**2 + _OWN**2 + _ADAPTER**2 + _LEVEL**2 + (_TILT**2 + _OWN_TILT**2) * tilt + _BEND**2 * tilt**2
        if not observed:
            return self._mean(everyone, ends), np.sqrt(prior)
        who, rungs, scores, counts = zip(*observed, strict=True)
        seen, at, items = (
            np.array(who, dtype=np.intp),
            np.array(rungs, dtype=float),
            np.maximum(counts, 1).astype(float),
        )
        one = np.array([variance(score) for score in scores])
        # Two means over the first n and m items have the chance of the items that are in both in common.
        common = SHARED_CHANCE * np.sqrt(one[:, None] * one[None, :]) / np.maximum(items[:, None], items[None, :])
        gram = self._covariance(seen, at, seen, at) + common + np.diag((1 - SHARED_CHANCE) * one / items)
        cross = self._covariance(everyone, ends, seen, at)
        solved = np.linalg.solve(gram, np.column_stack([np.array(scores) - self._mean(seen, at), cross.T]))
        left = prior - np.einsum("ij,ji->i", cross, solved[:, 1:])
        return self._mean(everyone, ends) + cross @ solved[:, 0], np.sqrt(np.maximum(left, _LEAST))
