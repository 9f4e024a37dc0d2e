"""The surrogate: a Gaussian process over adapters and rungs, which predicts each adapter's score at the last rung."""

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
from autotune.strategies.frontier.constants import (
    ADAPTER_SD,
    ADAPTER_SHARED,
    BEND_SD,
    CHOICE_CORRELATION,
    GROWTH_EXPONENT,
    LEAST_VARIANCE,
    LENGTH_SCALE,
    LEVEL_SD,
    LOG_RATIO,
    MIDDLE_SCORE,
    PRIOR_SD,
    PROBABILITY_VARIANCE,
    RATE_DELAY,
    RISE,
    RISE_SD,
    RUNG_SD,
    RUNG_TILT_SD,
    SHARED_CHANCE,
    SHARED_SD,
    TILT_SD,
    VARIANCE_SHARES,
)

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Place = tuple[list[float], list[str]]
"""An adapter's place in the space: numbers as shares of their range, and choices as texts."""


def place_of(lora: Lora, space: Space) -> Place:
    """Return an adapter's place in the space: numbers as shares of their (logarithmic) range, and choices as texts."""
    numbers, choices = [], []
    settings = lora.settings()
    settings["alpha_over_r"] = lora.alpha / lora.r
    for name, domain in space.searched.items():
        value = settings.get(name)
        ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        ordered = [float(end) for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if len(ordered) < len(ends):
            choices.append(str(value))
        elif value is None:  # the adapter has no such parameter: the middle of its range
            numbers.append(0.5)
        else:
            low, high, here = min(ordered), max(ordered), float(value)
            if low > 0 and high / low > LOG_RATIO:
                low, high, here = math.log(low), math.log(high), math.log(max(here, 1e-300))
            numbers.append((here - low) / (high - low) if high > low else 0.0)
    return numbers, choices


class Observation(NamedTuple):
    """A score of an adapter at a rung."""

    adapter: int
    """The adapter's number."""
    rung: int
    score: float
    """A share."""
    items: int
    """The number of items that it is the mean of: the first ones of an order that all observations have in common."""
    variance: float
    """The variance of one item's outcome."""
    bias_variance: float = 0.0
    """The variance of the part of the error that more items do not reduce, such as an unknown quantisation loss."""


def variance(share: float, smooth: bool = False) -> float:
    """Return the variance of one item's outcome, from the share of right answers or, with `smooth`, from the mean probability
    of the right label.
    """
    share = min(max(abs(share), VARIANCE_SHARES[0]), VARIANCE_SHARES[1])
    return share * (1 - share) * (PROBABILITY_VARIANCE if smooth else 1.0)


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior of each adapter's score at the last rung, over infinitely many items: (adapters,) each."""

    mean: Array
    deviation: Array
    observed: tuple[Index, Index]
    """The adapters and rungs of the observations: (observations,) each."""
    gram: Array
    """The covariance of the observed scores: (observations, observations)."""
    weights: Array
    """The weight of each observation in each adapter's mean: (observations, adapters)."""


class Surrogate:
    """A Gaussian process over adapters and rungs."""

    def __init__(
        self, places: Sequence[Place], rates: Sequence[float], prior: Sequence[float], rungs: Sequence[float]
    ) -> None:
        """`places` of the adapters; `rates`: their learning rates in decades from a usual one; `prior`: their prior means (in
        units of the score); `rungs`: shares of the steps.
        """
        self._rates = np.array(rates)
        width, named = (len(places[0][0]), len(places[0][1])) if places else (0, 0)
        numbers = np.array([numbers for numbers, _ in places], dtype=float).reshape(len(places), width)
        words = np.array([words for _, words in places], dtype=str).reshape(len(places), named)
        codes = [np.unique(column, return_inverse=True)[1] for column in words.T]
        names = np.array(codes, dtype=np.intp).T.reshape(words.shape)
        self._prior = np.array(prior)
        self._last = len(rungs) - 1
        self._grown: Array = np.power(rungs, GROWTH_EXPONENT)
        distance = ((numbers[:, None, :] - numbers[None, :, :]) / LENGTH_SCALE) ** 2
        differing = (names[:, None, :] != names[None, :, :]).sum(axis=2)
        self._similar: Array = np.exp(-0.5 * distance.sum(axis=2)) * CHOICE_CORRELATION**differing
        """The correlation of adapters by their settings: (adapters, adapters)."""

    def __len__(self) -> int:
        """Return the number of adapters."""
        return len(self._prior)

    def _covariance(self, a: Index, rungs_a: Index, b: Index, rungs_b: Index) -> Array:
        similar, same_rung = self._similar[np.ix_(a, b)], rungs_a[:, None] == rungs_b[None, :]
        same = a[:, None] == b[None, :]
        tilt = self._rates[a, None] * self._rates[None, b]
        effect = (
            SHARED_SD**2 * similar + RUNG_SD**2 * similar * same_rung
            + ADAPTER_SD**2 * same * (ADAPTER_SHARED + (1 - ADAPTER_SHARED) * same_rung)
            + TILT_SD**2 * tilt + BEND_SD**2 * tilt**2 + RUNG_TILT_SD**2 * tilt * same_rung
            + PRIOR_SD**2 * self._prior[a, None] * self._prior[None, b]
        )  # fmt: skip
        grown = self._grown[rungs_a][:, None] * self._grown[rungs_b][None, :]
        # The rise of the level from a rung to the next is random too: two rungs share all rises above the higher one.
        below = self._last - np.maximum(rungs_a[:, None], rungs_b[None, :])
        return np.asarray(grown * effect + LEVEL_SD**2 + RISE_SD**2 * below)

    def _own_covariance(self, rung: int, other: int) -> Array:
        """Return the covariance of each adapter's score at one rung with its own at another: (adapters,)."""
        tilt, same = self._rates**2, rung == other
        effect = (
            SHARED_SD**2 + RUNG_SD**2 * same + ADAPTER_SD**2 * (ADAPTER_SHARED + (1 - ADAPTER_SHARED) * same)
            + (TILT_SD**2 + RUNG_TILT_SD**2 * same) * tilt + BEND_SD**2 * tilt**2 + PRIOR_SD**2 * self._prior**2
        )  # fmt: skip
        grown = self._grown[rung] * self._grown[other]
        return np.asarray(grown * effect + LEVEL_SD**2 + RISE_SD**2 * (self._last - max(rung, other)))

    def _mean(self, who: Index, rungs: Index | int) -> Array:
        early = np.asarray(rungs) < self._last
        return np.asarray(
            MIDDLE_SCORE
            + self._grown[rungs] * self._prior[who]
            - RISE * (self._last - rungs)
            - RATE_DELAY * early * self._rates[who]
        )

    def posterior(self, observed: Sequence[Observation]) -> Posterior:
        """Return the posterior of all adapters' scores at the last rung."""
        everyone = np.arange(len(self._prior))
        mean, prior = self._mean(everyone, self._last), self._own_covariance(self._last, self._last)
        seen = np.array([one.adapter for one in observed], dtype=np.intp)
        at = np.array([one.rung for one in observed], dtype=np.intp)
        scores, one = np.array([one.score for one in observed]), np.array([one.variance for one in observed])
        items = np.array([max(1, one.items) for one in observed], dtype=float)
        # Two means over the first n and m items of one order share the smaller number of items.
        common = SHARED_CHANCE * np.sqrt(one[:, None] * one[None, :]) / np.maximum(items[:, None], items[None, :])
        bias = np.array([one.bias_variance for one in observed])
        gram = self._covariance(seen, at, seen, at) + common + np.diag((1 - SHARED_CHANCE) * one / items + bias)
        cross = self._covariance(everyone, np.full(len(everyone), self._last), seen, at)
        weights = np.linalg.solve(gram, cross.T)
        left = prior - np.einsum("ij,ji->i", cross, weights)
        mean = mean + (scores - self._mean(seen, at)) @ weights
        return Posterior(mean, np.sqrt(np.maximum(left, LEAST_VARIANCE)), (seen, at), gram, weights)

    def information(self, posterior: Posterior, who: Index, rung: int, noise: float) -> Array:
        """Return how informative an evaluation of each adapter of `who` at a lower rung is: the standard deviation of the
        change in its posterior mean at the last rung, (adapters of `who`,). `noise`: the variance of the evaluated score.
        """
        seen, at = posterior.observed
        cross = self._covariance(who, np.full(len(who), rung), seen, at)
        both = self._own_covariance(rung, self._last)[who] - np.einsum("ij,ji->i", cross, posterior.weights[:, who])
        explained = np.einsum("ij,ji->i", cross, np.linalg.solve(posterior.gram, cross.T))
        own = np.maximum(self._own_covariance(rung, rung)[who] - explained, LEAST_VARIANCE) + noise
        return np.asarray(np.sqrt(np.clip(both**2 / own, 0.0, posterior.deviation[who] ** 2 - LEAST_VARIANCE)))
