"""The surrogate: a Gaussian process over adapters and rungs, which predicts each adapter's score at the last rung.

Its prior mean is one of several hypotheses, which differ in where the best learning rate lies. The scores change their
probabilities, and a prediction is their mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.strategies.frontier.constants import (
    GAIN_SD,
    LEAST_VARIANCE,
    LEVEL_GAIN,
    MIDDLE_SCORE,
    PRIOR_SD,
    PROBABILITY_VARIANCE,
    RATE_DELAY,
    RISE,
    SHARED_CHANCE,
    VARIANCE_SHARES,
)
from autotune.strategies.frontier.kernel import Array, Index, Kernel, Place


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
    """The posterior of each adapter's score at the last rung, over infinitely many items: (adapters,) each.

    Of an adapter that was not scored at the last rung it is the value of its settings, without the luck of one training:
    otherwise the unknown luck alone would make each neighbour of a finished adapter look promising.
    """

    mean: Array
    deviation: Array
    chances: Array
    """The probability of each hypothesis: (hypotheses,)."""
    observed: Sequence[Observation]
    at: tuple[Index, Index]
    """The adapters and rungs of the observations: (observations,) each."""
    cross: Array
    """The covariance of the adapters' scores at the last rung with the observed ones: (adapters, observations)."""
    inverse: Array
    """The inverse of the covariance of the observed scores: (observations, observations)."""
    weights: Array
    """The weight of each observation in each adapter's mean, without the part of the prior's factor: (observations,
    adapters)."""
    means: Array
    """The mean of each hypothesis: (hypotheses, adapters)."""
    slopes: Array
    """How much each mean changes with the prior's factor, in its standard deviations: (hypotheses, adapters)."""
    factors: Factors
    """The prior's factor."""


class Factors(NamedTuple):
    """The posterior of the factor on the prior mean, by each hypothesis, in standard deviations of the factor's own prior."""

    residuals: Array
    """The observed scores without their prior means, times the inverse of their covariance: (observations, hypotheses)."""
    slopes: Array
    """How the prior means of the observed scores change with the factor, times that inverse: (observations, hypotheses)."""
    precision: Array
    """(hypotheses,)."""
    mean: Array
    """(hypotheses,)."""


class Surrogate:
    """A Gaussian process over adapters and rungs."""

    def __init__(
        self,
        places: Sequence[Place],
        rates: Sequence[float],
        priors: Sequence[Sequence[float]],
        rungs: Sequence[float],
        chances: Sequence[float] = (1.0,),
    ) -> None:
        """`places` of the adapters; `rates`: their learning rates in decades from a usual one; `priors`: their prior means (in
        units of the score) by each hypothesis; `rungs`: shares of the steps; `chances`: the prior probability of each hypothesis.
        """
        self.kernel = Kernel(places, rates, rungs)
        self._priors = np.array(priors, dtype=float).reshape(len(chances), len(places))
        self._chances = np.array(chances)
        self._last = len(rungs) - 1
        self.level = MIDDLE_SCORE
        """The mean of the level of all scores (a share)."""

    def __len__(self) -> int:
        """Return the number of adapters."""
        return len(self.kernel)

    def anchor(self, floor: float) -> None:
        """Expect the level of the scores to lie a usual gain above the untouched model's score, `floor` (a share; below zero
        where less is better), but at most half of the way to the best possible score.
        """
        most = 1 - floor if floor >= 0 else -floor
        self.level, self.kernel.level_sd = floor + min(LEVEL_GAIN, 0.5 * most), GAIN_SD

    def _finished(self, seen: Index, at: Index) -> NDArray[np.bool_]:
        """Return which adapters were scored at the last rung, so that their own luck counts: (adapters,)."""
        finished = np.zeros(len(self), dtype=bool)
        finished[seen[at == self._last]] = True
        return finished

    def _mean(self, who: Index, rungs: Index) -> Array:
        """Return the prior mean by each hypothesis: (hypotheses, who)."""
        early = rungs < self._last
        level = self.level - RISE * (self._last - rungs) - RATE_DELAY * early * self.kernel.rates[who]
        return np.asarray(level + self.kernel.grown[rungs] * self._priors[:, who])

    def _slope(self, who: Index, rungs: Index) -> Array:
        """Return how much the prior mean changes with the prior's factor, in its standard deviations: (hypotheses, who)."""
        return np.asarray(PRIOR_SD * self.kernel.grown[rungs] * self._priors[:, who])

    def posterior(self, observed: Sequence[Observation], learn: bool = False) -> Posterior:
        """Return the posterior of all adapters' scores at the last rung. `learn`: learn the kernel's scales first."""
        seen, at = places_of(observed)
        residuals, slopes = self._left(observed, seen, at)
        noise = noise_of(observed)
        if learn:
            self.kernel.forget()  # the scales depend on these scores alone
            gram = self.kernel.covariance(seen, at, seen, at) + noise
            solved = np.linalg.solve(gram, np.concatenate([residuals, slopes]).T)
            likely = int(np.argmax(self._hypotheses(residuals, slopes, solved)[0]))
            self.kernel.fit(seen, at, residuals[likely], noise + np.outer(slopes[likely], slopes[likely]))
        inverse = np.asarray(np.linalg.inv(self.kernel.covariance(seen, at, seen, at) + noise), dtype=np.float64)
        everyone, last = np.arange(len(self)), np.full(len(self), self._last)
        lucky = self._finished(seen, at)
        cross = self.kernel.covariance(everyone, last, seen, at, lucky)
        chances, factors = self._hypotheses(residuals, slopes, inverse @ np.concatenate([residuals, slopes]).T)
        return self._posterior(observed, (seen, at), chances, cross, inverse, inverse @ cross.T, factors)

    def posterior_beside(self, known: Posterior, more: Sequence[Observation]) -> Posterior:
        """Return the posterior after more observations, by the scales and the probabilities of hypotheses of the known one.

        It is that of all observations together, by the inverse of a bordered matrix: the system of the known observations is
        not solved again.
        """
        (seen, at), (new, new_at) = known.at, places_of(more)
        everyone, last = np.arange(len(self)), np.full(len(self), self._last)
        lucky = self._finished(np.concatenate([seen, new]), np.concatenate([at, new_at]))
        cross, weights = known.cross.copy(), known.weights.copy()
        finished = np.flatnonzero(lucky & ~self._finished(seen, at))
        cross[finished] = self.kernel.covariance(finished, last[finished], seen, at)
        weights[:, finished] = known.inverse @ cross[finished].T
        border = self.kernel.covariance(seen, at, new, new_at) + noise_of(known.observed, more)
        own = self.kernel.covariance(new, new_at, new, new_at) + noise_of(more)
        new_cross = self.kernel.covariance(everyone, last, new, new_at, lucky)
        before = known.inverse @ border
        left = np.linalg.inv(own - border.T @ before)

        def bordered(solved: Array, right: Array) -> Array:
            """Return the solution for all observations from that for the known ones, and the right sides of the new ones."""
            added = left @ (right - border.T @ solved)
            return np.concatenate([solved - before @ added, added])

        new_residuals, new_slopes = self._left(more, new, new_at)
        observed = [*known.observed, *more]
        residuals, slopes = self._left(observed, np.concatenate([seen, new]), np.concatenate([at, new_at]))
        solved = np.concatenate([known.factors.residuals, known.factors.slopes], axis=1)
        solved = bordered(solved, np.concatenate([new_residuals, new_slopes]).T)
        factors = self._hypotheses(residuals, slopes, solved)[1]
        corner = -before @ left
        inverse = np.block([[known.inverse - corner @ before.T, corner], [corner.T, left]])
        together = np.concatenate([seen, new]), np.concatenate([at, new_at])
        cross = np.concatenate([cross, new_cross], axis=1)
        return self._posterior(
            observed, together, known.chances, cross, inverse, bordered(weights, new_cross.T), factors
        )

    def _posterior(
        self,
        observed: Sequence[Observation],
        at: tuple[Index, Index],
        chances: Array,
        cross: Array,
        inverse: Array,
        weights: Array,
        factors: Factors,
    ) -> Posterior:
        """Return the posterior from what was solved; the arguments are those of `Posterior`."""
        everyone, last = np.arange(len(self)), np.full(len(self), self._last)
        means, slopes = self._predicted(everyone, last, cross, factors)
        own = self.kernel.own_covariance(self._last, self._last, self._finished(*at))
        left = own - np.einsum("ij,ji->i", cross, weights)
        mean = chances @ means
        spread = chances @ (left + slopes**2 / factors.precision[:, None] + (means - mean) ** 2)
        deviation = np.sqrt(np.maximum(spread, LEAST_VARIANCE))
        return Posterior(mean, deviation, chances, observed, at, cross, inverse, weights, means, slopes, factors)

    def _left(self, observed: Sequence[Observation], seen: Index, at: Index) -> tuple[Array, Array]:
        """Return by each hypothesis the scores without their prior means, and how these means change with the prior's factor:
        (hypotheses, observations) each.
        """
        scores = np.array([one.score for one in observed])
        return scores - self._mean(seen, at), self._slope(seen, at)

    def _hypotheses(self, residuals: Array, slopes: Array, solved: Array) -> tuple[Array, Factors]:
        """Return the probability of each hypothesis, and the prior's factor by each. `residuals` and `slopes`: as `_left`
        returns them; `solved`: both, one after another, times the inverse of the covariance of the observed scores.
        """
        of_residuals, of_slopes = np.split(solved, 2, axis=1)
        precision = 1 + np.einsum("hn,nh->h", slopes, of_slopes)
        factor = np.einsum("hn,nh->h", residuals, of_slopes) / precision
        fits = np.einsum("hn,nh->h", residuals, of_residuals) - precision * factor**2
        evidence = np.log(self._chances) - 0.5 * (fits + np.log(precision))
        chances = np.exp(evidence - evidence.max())
        return chances / chances.sum(), Factors(of_residuals, of_slopes, precision, factor)

    def _predicted(self, who: Index, rungs: Index, cross: Array, factors: Factors) -> tuple[Array, Array]:
        """Return the means by each hypothesis, and how they change with the prior's factor: (hypotheses, who) each."""
        slopes = self._slope(who, rungs) - (cross @ factors.slopes).T
        return self._mean(who, rungs) + (cross @ factors.residuals).T + slopes * factors.mean[:, None], slopes

    def expected(self, posterior: Posterior, number: int, rung: int) -> float:
        """Return the expected score of an adapter at a rung."""
        who, rungs = np.array([number]), np.array([rung])
        cross = self.kernel.covariance(who, rungs, *posterior.at)
        return float((posterior.chances @ self._predicted(who, rungs, cross, posterior.factors)[0])[0])

    def information(self, posterior: Posterior, who: Index, rung: int, noise: Array | float) -> Array:
        """Return how informative an evaluation of each adapter of `who` at a lower rung is: the standard deviation of the
        change in its posterior mean at the last rung, (..., adapters of `who`). `noise`: the variance of the evaluated score, (...).
        """
        rungs, chances = np.full(len(who), rung), posterior.chances
        cross = self.kernel.covariance(who, rungs, *posterior.at)
        means, slopes = self._predicted(who, rungs, cross, posterior.factors)
        precision = posterior.factors.precision[:, None]
        lucky = self._finished(*posterior.at)
        both = self.kernel.own_covariance(rung, self._last, lucky)[who]
        both = both - np.einsum("ij,ji->i", cross, posterior.weights[:, who])
        own = self.kernel.own_covariance(rung, rung)[who]
        own = own - np.einsum("ij,ij->i", cross @ posterior.inverse, cross)
        last_means, apart = posterior.means[:, who] - posterior.mean[who], means - chances @ means
        both = both + chances @ (slopes * posterior.slopes[:, who] / precision + apart * last_means)
        own = np.maximum(own + chances @ (slopes**2 / precision + apart**2), LEAST_VARIANCE)
        own = own + np.asarray(noise)[..., None]
        return np.asarray(np.sqrt(np.clip(both**2 / own, 0.0, posterior.deviation[who] ** 2 - LEAST_VARIANCE)))


def places_of(observed: Sequence[Observation]) -> tuple[Index, Index]:
    """Return the adapters and rungs of observations: (observations,) each."""
    adapters = np.array([one.adapter for one in observed], dtype=np.intp)
    return adapters, np.array([one.rung for one in observed], dtype=np.intp)


def noise_of(observed: Sequence[Observation], others: Sequence[Observation] | None = None) -> Array:
    """Return the covariance of the errors of observed scores with those of other observations: (observations, others); None:
    with one another.
    """
    one, items = _errors(observed)
    other, other_items = (one, items) if others is None else _errors(others)
    # Two means over the first n and m items of one order share the smaller number of items.
    common = SHARED_CHANCE * np.sqrt(np.outer(one, other)) / np.maximum.outer(items, other_items)
    if others is not None:
        return np.asarray(common)
    bias = np.array([observation.bias_variance for observation in observed])
    return np.asarray(common + np.diag((1 - SHARED_CHANCE) * one / items + bias))


def _errors(observed: Sequence[Observation]) -> tuple[Array, Array]:
    """Return the variance of one item's outcome, and the number of items, of each observation: (observations,) each."""
    variances = np.array([observation.variance for observation in observed])
    return variances, np.array([max(1, observation.items) for observation in observed], dtype=float)
