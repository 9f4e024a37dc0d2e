"""What an adapter's score will be, guessed from the scores of others and at lower rungs: a Gaussian process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Lora
from autotune.space.domains import Choice
from autotune.space.space import Space

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Place = tuple[list[float], list[str]]
"""An adapter's place in the space: numbers as shares of their range, and choices as texts."""

_GROWTH = 0.5
"""What tells adapters apart grows with this power of the share of the steps."""
_SHARED, _OWN, _ADAPTER = 0.065, 0.05, 0.012
"""Standard deviations: of what settings do alike at all rungs, at one rung, and of an adapter's own luck."""
_LEVEL, _RISE, _RISE_SPREAD = 0.5, 0.095, 0.08
"""Standard deviation of the level of all scores; by how much a rung's level is above that of the one before, and how sure
that is."""
_TILT, _BEND, _OWN_TILT = 0.08, 0.09, 0.02
"""Standard deviations of what a decade of learning rate adds, at all rungs, its square, and at one rung: what is seen at two
rates says something of a third beyond them."""
_DOUBT = 0.5
"""Standard deviation of how much of what settings are thought to be worth beforehand they are worth."""
_LATE = 0.05
"""By how much a decade of learning rate lowers a score before the end: the higher the rate, the more comes with its decay."""
_LENGTH, _OTHER = 0.35, 0.7
"""Length scale over a parameter's range, and the correlation between two choices that have no order."""
SHARED_CHANCE = 0.5
"""The share of an item's chance that all adapters have in common: some items are hard for all."""
_SMOOTH = 0.35
"""How much less than outcomes that are right or wrong the probabilities of the right label vary, as variances."""
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
        if len(ordered) < len(ends):
            choices.append(str(value))
        elif value is None:  # it does not count beside the others
            numbers.append(0.5)
        else:
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
    variance: float
    """Of one item's outcome."""
    apart: float = 0.0
    """The variance by which the score is off what the adapter's is, on however many items."""


def variance(share: float, smooth: bool = False) -> float:
    """Return the variance of one item's outcome, from the share of those that are right, or `smooth`, from the mean
    probability of the right label.
    """
    share = min(max(abs(share), 0.02), 0.98)
    return share * (1 - share) * (_SMOOTH if smooth else 1.0)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is believed of each adapter's score at the last rung, on as many items as one likes: (adapters,) each."""

    mean: Array
    deviation: Array
    observed: tuple[Index, Index]
    """Adapters and rungs of what was observed: (observations,) each."""
    gram: Array
    """The covariance of that: (observations, observations)."""
    weights: Array
    """What each observation says of each adapter: (observations, adapters)."""


class Surrogate:
    """A Gaussian process over adapters and rungs."""

    def __init__(
        self, places: Sequence[Place], rates: Sequence[float], prior: Sequence[float], rungs: Sequence[float]
    ) -> None:
        """`places` of the adapters, their learning rates in decades from a usual one, what each is worth beforehand (in
        units of the score), and the rungs: shares of the steps.
        """
        self._rates = np.array(rates)
        width, named = (len(places[0][0]), len(places[0][1])) if places else (0, 0)
        numbers = np.array([numbers for numbers, _ in places], dtype=float).reshape(len(places), width)
        words = np.array([words for _, words in places], dtype=str).reshape(len(places), named)
        codes = [np.unique(column, return_inverse=True)[1] for column in words.T]
        names = np.array(codes, dtype=np.intp).T.reshape(words.shape)
        self._prior = np.array(prior)
        self._last = len(rungs) - 1
        self._grown: Array = np.power(rungs, _GROWTH)
        distance = ((numbers[:, None, :] - numbers[None, :, :]) / _LENGTH) ** 2
        differing = (names[:, None, :] != names[None, :, :]).sum(axis=2)
        self._like: Array = np.exp(-0.5 * distance.sum(axis=2)) * _OTHER**differing
        """How alike adapters' settings are: (adapters, adapters)."""

    def __len__(self) -> int:
        """How many adapters there are."""
        return len(self._prior)

    def _covariance(self, a: Index, rungs_a: Index, b: Index, rungs_b: Index) -> Array:
        like, same_rung = self._like[np.ix_(a, b)], rungs_a[:, None] == rungs_b[None, :]
        same = a[:, None] == b[None, :]
        tilt = self._rates[a, None] * self._rates[None, b]
        apart = (
            _SHARED**2 * like + _OWN**2 * like * same_rung + _ADAPTER**2 * same * (0.5 + 0.5 * same_rung)
            + _TILT**2 * tilt + _BEND**2 * tilt**2 + _OWN_TILT**2 * tilt * same_rung
            + _DOUBT**2 * self._prior[a, None] * self._prior[None, b]
        )  # fmt: skip
        grown = self._grown[rungs_a][:, None] * self._grown[rungs_b][None, :]
        # Levels rise by chance, as well, from rung to rung: those below the same rung have all rises above it in common.
        below = self._last - np.maximum(rungs_a[:, None], rungs_b[None, :])
        return np.asarray(grown * apart + _LEVEL**2 + _RISE_SPREAD**2 * below)

    def _own_covariance(self, rung: int, other: int) -> Array:
        """Return the covariance of each adapter's score at one rung with its own at another: (adapters,)."""
        tilt, same = self._rates**2, rung == other
        apart = (
            _SHARED**2 + _OWN**2 * same + _ADAPTER**2 * (0.5 + 0.5 * same)
            + (_TILT**2 + _OWN_TILT**2 * same) * tilt + _BEND**2 * tilt**2 + _DOUBT**2 * self._prior**2
        )  # fmt: skip
        grown = self._grown[rung] * self._grown[other]
        return np.asarray(grown * apart + _LEVEL**2 + _RISE_SPREAD**2 * (self._last - max(rung, other)))

    def _mean(self, who: Index, rungs: Index | int) -> Array:
        early = np.asarray(rungs) < self._last
        return np.asarray(
            _MIDDLE
            + self._grown[rungs] * self._prior[who]
            - _RISE * (self._last - rungs)
            - _LATE * early * self._rates[who]
        )

    def posterior(self, observed: Sequence[Seen]) -> Posterior:
        """Return what is believed of all adapters."""
        everyone = np.arange(len(self._prior))
        mean, prior = self._mean(everyone, self._last), self._own_covariance(self._last, self._last)
        seen = np.array([one.adapter for one in observed], dtype=np.intp)
        at = np.array([one.rung for one in observed], dtype=np.intp)
        scores, one = np.array([one.score for one in observed]), np.array([one.variance for one in observed])
        items = np.array([max(1, one.items) for one in observed], dtype=float)
        # Two means over the first n and m items have the chance of the items that are in both in common.
        common = SHARED_CHANCE * np.sqrt(one[:, None] * one[None, :]) / np.maximum(items[:, None], items[None, :])
        apart = np.array([one.apart for one in observed])
        gram = self._covariance(seen, at, seen, at) + common + np.diag((1 - SHARED_CHANCE) * one / items + apart)
        cross = self._covariance(everyone, np.full(len(everyone), self._last), seen, at)
        weights = np.linalg.solve(gram, cross.T)
        left = prior - np.einsum("ij,ji->i", cross, weights)
        mean = mean + (scores - self._mean(seen, at)) @ weights
        return Posterior(mean, np.sqrt(np.maximum(left, _LEAST)), (seen, at), gram, weights)

    def learned(self, posterior: Posterior, who: Index, rung: int, noise: float) -> Array:
        """Return what a look at each of these adapters at a lower rung would teach of its score at the last one, as the
        standard deviation of the mean to come: (adapters,). `noise`: the variance of such a look.
        """
        seen, at = posterior.observed
        cross = self._covariance(who, np.full(len(who), rung), seen, at)
        both = self._own_covariance(rung, self._last)[who] - np.einsum("ij,ji->i", cross, posterior.weights[:, who])
        told = np.einsum("ij,ji->i", cross, np.linalg.solve(posterior.gram, cross.T))
        own = np.maximum(self._own_covariance(rung, rung)[who] - told, _LEAST) + noise
        return np.asarray(np.sqrt(np.clip(both**2 / own, 0.0, posterior.deviation[who] ** 2 - _LEAST)))
