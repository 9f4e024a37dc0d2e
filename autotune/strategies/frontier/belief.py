"""The belief about each adapter's score: the surrogate's posterior, with and without the proposals in flight."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from autotune.strategies.frontier.constants import (
    DIVERGED_SD,
    FLAT_CHANCE,
    FULL_HISTORIES,
    RUNGS,
    SHARED_CHANCE,
    SHIFT_CHANCES,
    STEEP_CHANCES,
)
from autotune.strategies.frontier.in_flight import InFlight
from autotune.strategies.frontier.kernel import Array
from autotune.strategies.frontier.observations import LAST, Adapter, Observations, RungScore
from autotune.strategies.frontier.priors import decades_from_best
from autotune.strategies.frontier.quantisation_loss import posterior_losses
from autotune.strategies.frontier.surrogate import Observation, Posterior, Surrogate, variance

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Belief:
    """The posterior of each adapter's score at the last rung without quantisation loss, and the loss of each deployment.

    Scores and losses are shares.
    """

    adapters: list[Adapter]
    posterior: Posterior
    losses: dict[str, float]
    """The mean quantisation loss, by deployment."""
    loss_deviations: dict[str, float]
    """The standard deviation of the loss of an adapter that was not measured in that deployment."""
    training: Flags
    """Whether an adapter is being trained now; it can be trained further when that has ended: (adapters,)."""
    completing: Flags
    """Whether an adapter is being trained to the last rung; other pairs of it wait for that training: (adapters,)."""
    pairs_in_flight: Mapping[int, Set[str]] = field(default_factory=dict)
    """The deployments in which an adapter is being measured, by the adapter's number."""

    @property
    def mean(self) -> Array:
        """The expected score of each adapter: (adapters,)."""
        return self.posterior.mean

    @property
    def deviation(self) -> Array:
        """Its standard deviation: (adapters,)."""
        return self.posterior.deviation


class ScoreModel:
    """The belief about all adapters. It keeps the last belief and the surrogate, because they take long to compute."""

    def __init__(self, observations: Observations, centre_rates: bool = False) -> None:
        """`centre_rates`: measure learning rates from their mean, instead of from the prior's best rate."""
        self._observations, self._centre_rates = observations, centre_rates
        self._belief: Belief | None = None
        self._surrogate: Surrogate | None = None

    def outdate(self) -> None:
        """Discard the kept belief: the observations have changed."""
        self._belief = None

    def refine(self) -> None:
        """Refine the pool of a large space: adapters that may be best, by mean and standard deviation, get neighbours."""
        belief = self.belief()
        promise = dict(zip(self._observations.adapters, belief.mean + belief.deviation, strict=True))
        self._observations.refine(promise)
        self._belief = self._surrogate = None

    def belief(self) -> Belief:
        """Return the belief from the observations alone."""
        if self._belief is not None:
            return self._belief
        observations = self._observations
        adapters = list(observations.adapters.values())
        shares = [observations.shares(adapter) for adapter in adapters]
        crossed = (observations.of_models(by_deployment) for by_deployment in shares if len(by_deployment) > 1)
        of_model, deviation_of_model = posterior_losses(crossed, observations.prior_losses)
        losses = {name: of_model[model] for name, model in observations.models.items()}
        loss_deviations = {name: deviation_of_model[model] for name, model in observations.models.items()}
        observed: list[Observation] = []
        histories = 0
        for number, adapter in enumerate(adapters):
            own = [self._at_rung(number, rung, score) for rung, score in sorted(adapter.rung_scores.items())]
            if adapter.pairs:
                # All deployments score the same items, so that their scores are one observation, not several.
                weights = [items for _, items in adapter.pairs.values()]
                each = (share + losses[name] for name, share in shares[number].items())
                share = sum(map(operator.mul, weights, each)) / sum(weights)
                bias_variance = 1 / sum(loss_deviations[name] ** -2 for name in observations.distinct(adapter.pairs))
                own.append(Observation(number, LAST, share, max(weights), variance(share), bias_variance))
            elif adapter.diverges:
                # It has no score. Its neighbours are likely to diverge too, so it counts as an adapter that has learned nothing.
                floor = observations.floor
                own.append(Observation(number, LAST, floor, observations.items, variance(floor), DIVERGED_SD**2))
            # Below an adapter's highest rung, observations show only how rungs correlate: some tens of adapters show that.
            histories += len(own) > 1
            observed += own if histories <= FULL_HISTORIES else own[-1:]
        surrogate = self._surrogate_of(adapters)
        if observations.untouched is not None:
            surrogate.anchor(observations.floor)
        posterior = surrogate.posterior(observed, learn=True)
        none = np.zeros(len(adapters), dtype=bool)
        self._belief = Belief(adapters, posterior, losses, loss_deviations, none, none)
        return self._belief

    def belief_beside(self, in_flight: InFlight) -> Belief:
        """Return the belief after the proposals in flight, whose scores are taken to be their expected values.

        The means stay (the kriging believer of Ginsbourger, Le Riche and Carraro, in Computational Intelligence in Expensive
        Optimization Problems, 2010). The standard deviations shrink: they do not depend on the scores.
        """
        belief = self.belief()
        if not in_flight.low_fidelity and not in_flight.pairs:
            return belief
        surrogate = self._surrogate_of(belief.adapters)
        number_of = {name: number for number, name in enumerate(self._observations.adapters)}
        training, completing = np.zeros(len(number_of), dtype=bool), np.zeros(len(number_of), dtype=bool)
        expected: list[Observation] = []
        for name, evaluation in in_flight.low_fidelity.items():
            number = number_of[name]
            training[number] = True
            chance = self._observations.chance / (1 - SHARED_CHANCE)
            score = surrogate.expected(belief.posterior, number, evaluation.rung)
            expected.append(Observation(number, evaluation.rung, score, evaluation.items, chance))
        pairs_in_flight: dict[int, set[str]] = {}
        for name, deployments in in_flight.pairs.items():
            number = number_of[name]
            adapter = belief.adapters[number]
            pairs_in_flight[number] = deployments
            if adapter.reached < LAST and not adapter.unusable:
                training[number] = completing[number] = True
            if not adapter.pairs:  # with a pair, its score is nearly known
                distinct = self._observations.distinct(deployments)
                bias_variance = 1 / sum(belief.loss_deviations[one] ** -2 for one in distinct)
                chance = variance(float(belief.mean[number]))
                score = float(belief.mean[number])
                expected.append(Observation(number, LAST, score, self._observations.items, chance, bias_variance))
        shrunk = surrogate.posterior_beside(belief.posterior, expected)
        return replace(
            belief, posterior=replace(shrunk, mean=belief.mean),
            training=training, completing=completing, pairs_in_flight=pairs_in_flight,
        )  # fmt: skip

    def information(self, belief: Belief, who: NDArray[np.intp], rung: int, items: Sequence[int]) -> Array:
        """Return the standard deviation of the change in each adapter's expected score that a low-fidelity evaluation of it
        on so many items would bring: (items, adapters of `who`).
        """
        surrogate = self._surrogate_of(belief.adapters)
        return surrogate.information(belief.posterior, who, rung, self._observations.chance / np.array(items))

    def _surrogate_of(self, adapters: Sequence[Adapter]) -> Surrogate:
        if self._surrogate is None or len(self._surrogate) != len(adapters):
            rates = [decades_from_best(adapter.lora) for adapter in adapters]
            centre = statistics.fmean(rates) if self._centre_rates and rates else 0.0
            priors = list(zip(*(adapter.prior_means for adapter in adapters), strict=True))
            places = [adapter.place for adapter in adapters]
            chances = (*(steep * shift for steep in STEEP_CHANCES for shift in SHIFT_CHANCES), FLAT_CHANCE)
            self._surrogate = Surrogate(places, [rate - centre for rate in rates], priors, RUNGS, chances)
        return self._surrogate

    def _at_rung(self, number: int, rung: int, observed: RungScore) -> Observation:
        if observed.probability is None or rung == LAST:
            share = self._observations.scale.share(observed.score)
            return Observation(number, rung, share, observed.items, variance(share))
        share = observed.probability
        return Observation(number, rung, share, observed.items, variance(share, smooth=True))
