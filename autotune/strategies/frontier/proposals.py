"""Which proposal is worth most: expected hypervolume improvement for each second that it takes.

A proposal is one of three:

- a pair: a trained adapter is built, timed and scored in a deployment;
- a new adapter: it is trained to the last rung, and then measured in a deployment;
- a low-fidelity evaluation: an adapter is trained to a lower rung, and scored without a recipe on some of the items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autotune.candidate import Candidate
from autotune.strategies.frontier.acquisition import HypervolumeImprovement
from autotune.strategies.frontier.belief import Belief, ScoreModel
from autotune.strategies.frontier.constants import (
    AS_GOOD,
    LATENCY_BOUND,
    LEAST_DEVIATION,
    LOW_FIDELITY_ADAPTERS,
    LOW_FIDELITY_SHARES,
    RUNGS,
    SAME_MODEL_SD,
    SIZE_BOUND,
)
from autotune.strategies.frontier.gittins_index import NODES, best_pairs, direct_index, index_with_stop
from autotune.strategies.frontier.in_flight import InFlight
from autotune.strategies.frontier.kernel import Array
from autotune.strategies.frontier.observations import LAST, Adapter, Observations
from autotune.strategies.protocol import LEAST_ITEMS, Proposal


@dataclass(frozen=True)
class _State:
    """The inputs of one decision."""

    observations: Observations
    model: ScoreModel
    belief: Belief
    deployments: list[str]
    """The deployments within the limits."""
    pair_s: Array
    """The expected seconds of measuring a trained adapter in each deployment: (deployments,)."""
    build_chances: list[float]
    """The probability that the next adapter can be built and run in each deployment."""
    fronts: Mapping[str | None, HypervolumeImprovement]
    """By target."""
    weights: Mapping[str | None, float]
    """By target: the factor by which a gain of its hypervolume becomes a gain of the mean of all targets (see `_expected_fronts`)."""


def next_proposal(
    observations: Observations, model: ScoreModel, in_flight: InFlight, rungs: bool = True, gate: bool = True
) -> Proposal | None:
    """Return the proposal that is worth most beside those in flight; None where none improves the front.

    `rungs`: consider low-fidelity evaluations; `gate`: rank pairs by their worth, instead of measuring at once every pair
    that may improve the front.
    """
    belief = model.belief_beside(in_flight)
    deployments = [
        name
        for name, one in observations.deployments.items()
        if name not in observations.over_limit and one.target not in observations.left_out
    ]
    begun = any(items >= observations.items for adapter in belief.adapters for _, items in adapter.pairs.values())
    if not deployments:
        return None
    pair_s = np.array([observations.pair_s(name, name in in_flight.timed) for name in deployments])
    build_chances = [observations.build_probability(name) for name in deployments]
    fronts, weights = _expected_fronts(observations, belief, deployments)
    state = _State(observations, model, belief, deployments, pair_s, build_chances, fronts, weights)
    gains = _pair_gains(state)
    trained = np.array([adapter.reached == LAST and not adapter.unusable for adapter in belief.adapters])
    trained |= belief.completing
    pairs = np.where(trained, gains / _left_s(state), 0.0)
    if not gate:
        pairs = np.where(trained & (gains > 0), math.inf, 0.0)
    direct = np.where(belief.training, 0.0, _direct(state, gains))
    evaluations = _low_fidelity(state, direct) if begun and rungs else ()
    evaluation = max(evaluations, key=lambda found: found[0], default=(0.0, None))
    best = max(pairs.max(initial=0.0), direct.max(initial=0.0), evaluation[0])
    if best <= 0:
        return None
    if pairs.max(initial=0.0) == best:
        number, place = divmod(int(pairs.T.argmax()), len(deployments))
        return _pair(state, number, place)
    if evaluation[0] == best:
        return evaluation[1]
    number = int(direct.argmax())
    if not belief.posterior.observed:
        # Without a score the level of all scores is unknown, and makes extreme settings look as promising as usual ones.
        expected = np.where(direct > 0, belief.mean, -math.inf)
        number = int((expected >= expected.max() - AS_GOOD).argmax())
    return _pair(state, number, int((gains[:, number] / pair_s).argmax()))


def _pair(state: _State, number: int, place: int) -> Proposal:
    """Return the proposal of an adapter in a deployment, by their numbers."""
    deployment = state.observations.deployments[state.deployments[place]]
    lora = state.belief.adapters[number].lora
    return Proposal(
        Candidate(lora=lora, recipe=deployment.recipe, session=deployment.session, target=deployment.target)
    )


def _left_s(state: _State) -> Array:
    """Return the expected seconds of each pair of a trained adapter: (deployments, adapters), or (deployments, 1) where there is
    one target. A merged model and a build that another target has made cost nothing.
    """
    if len(state.observations.spaces) == 1:
        return state.pair_s[:, None]
    adapters, saved = state.belief.adapters, state.observations.saved_s
    made = np.array([[saved(one, name) for one in adapters] for name in state.deployments])
    return np.asarray(state.pair_s[:, None] - made)


def _direct(state: _State, gains: Array) -> Array:
    """Return the worth of a second spent on training an adapter to the last rung, and measuring it in the deployments that
    are worth most: (adapters,). `gains`: (deployments, adapters).
    """
    adapters = state.belief.adapters
    gained, measured_s = best_pairs(gains, state.pair_s)
    train_s = np.array([state.observations.training_s(adapter, LAST) for adapter in adapters])
    trainable = np.array([adapter.reached < LAST and not adapter.unusable for adapter in adapters])
    return np.where(trainable, direct_index(gained, train_s + measured_s), 0.0)


def _low_fidelity(state: _State, direct: Array) -> Iterator[tuple[float, Proposal]]:
    """Yield, for each lower rung and number of items, the low-fidelity evaluation that is worth most, after its worth for
    each second. `direct`: as `_direct` returns it.
    """
    belief, observations = state.belief, state.observations
    considered = np.argsort(-direct, kind="stable")[:LOW_FIDELITY_ADAPTERS]
    least = (max(LEAST_ITEMS, math.ceil(share * observations.items)) for share in LOW_FIDELITY_SHARES)
    counts = sorted({min(observations.items, count) for count in least})
    for rung in range(LAST):
        who = np.array([n for n in considered if direct[n] > 0 and belief.adapters[n].reached < rung], dtype=np.intp)
        if not len(who):
            continue
        adapters = [belief.adapters[number] for number in who]
        train_s = np.array([observations.training_s(adapter, rung) for adapter in adapters])
        rest_s = np.array([observations.training_s(adapter, LAST) for adapter in adapters]) - train_s
        failed = np.array([[name in adapter.failed for adapter in adapters] for name in state.deployments])
        for items, information in zip(counts, state.model.information(belief, who, rung, counts), strict=True):
            means = belief.mean[who] + NODES[:, None] * information
            deviation = np.sqrt(np.maximum(belief.deviation[who] ** 2 - information**2, LEAST_DEVIATION**2))
            gains = _expected_gains(state, means, np.broadcast_to(deviation, means.shape))
            gained, measured_s = best_pairs(np.where(failed[:, None, :], 0.0, gains), state.pair_s)
            first_s = train_s + observations.costs.alone(items)
            worth = index_with_stop(first_s, gained, rest_s + measured_s, direct[who])
            best = int(worth.argmax())
            candidate = Candidate(lora=adapters[best].lora, target=observations.home)
            yield float(worth[best]), Proposal(candidate, rung=RUNGS[rung], items=items)


def _pair_gains(state: _State) -> Array:
    """Return the expected hypervolume improvement of each pair: (deployments, adapters); 0 for a pair that was measured, is
    being measured, or cannot be measured.
    """
    belief, observations = state.belief, state.observations
    gains = _expected_gains(state, belief.mean, belief.deviation)
    if len(observations.spaces) > 1:
        _without_loss_known_elsewhere(state, gains)
    for place, name in enumerate(state.deployments):
        gains[place] = np.where([_excluded(adapter, name) for adapter in belief.adapters], 0.0, gains[place])
        gains[place, [number for number, names in belief.pairs_in_flight.items() if name in names]] = 0.0
    return gains


def _without_loss_known_elsewhere(state: _State, gains: Array) -> None:
    """Replace the gains of pairs whose adapter was scored in the same recipe on another target: its quantisation loss there
    is the same, apart from rounding. `gains`: (deployments, adapters).
    """
    belief, observations = state.belief, state.observations
    for place, name in enumerate(state.deployments):
        who = [n for n, one in enumerate(belief.adapters) if observations.known_elsewhere(one, name)]
        if who:
            mean, deviation = belief.mean[who] - belief.losses[name], np.hypot(belief.deviation[who], SAME_MODEL_SD)
            gains[place, who] = state.build_chances[place] * _gain(state, name, mean, deviation)


def _excluded(adapter: Adapter, deployment: str) -> bool:
    return not adapter.in_space or deployment in adapter.pairs or deployment in adapter.failed


def _expected_gains(state: _State, mean: Array, deviation: Array) -> Array:
    """Return the expected hypervolume improvement of models in each deployment: (deployments, *the shape of mean and
    deviation). `mean`, `deviation`: of the models' scores without quantisation loss (shares).
    """
    belief = state.belief
    return np.array([
        chance * _gain(
            state, name, mean.ravel() - belief.losses[name],
            np.sqrt(deviation.ravel() ** 2 + belief.loss_deviations[name] ** 2),
        ).reshape(mean.shape)
        for name, chance in zip(state.deployments, state.build_chances, strict=True)
    ])  # fmt: skip


def _gain(state: _State, name: str, mean: Array, deviation: Array) -> Array:
    """Return what models that are built in one deployment, whose scores are normal, are expected to add: (models,)."""
    target = state.observations.deployments[name].target
    return state.weights[target] * state.fronts[target].expected(state.observations.footprint(name), mean, deviation)


def _expected_fronts(
    observations: Observations, belief: Belief, deployments: Sequence[str]
) -> tuple[dict[str | None, HypervolumeImprovement], dict[str | None, float]]:
    """Return the front of each target, and the weight of a gain of its hypervolume.

    Hypervolumes of several targets cannot be added as they are: a target whose tokens take ten times as long would count ten
    times as much. So each is a share of its target's box, which lies between the reference point and the best value of each
    objective but the score.
    """
    of_target: dict[str | None, list[str]] = {}
    for name in deployments:
        of_target.setdefault(observations.deployments[name].target, []).append(name)
    fronts, weights = {}, {}
    for target, names in of_target.items():
        fronts[target], box = _expected_front(observations, belief, names, target)
        weights[target] = 1.0 if len(observations.spaces) == 1 else 1 / (box * len(observations.spaces))
    return fronts, weights


def _expected_front(
    observations: Observations, belief: Belief, deployments: Sequence[str], target: str | None
) -> tuple[HypervolumeImprovement, float]:
    """Return the front of a target's pairs that were measured or are in flight, by their expected scores, and the size of the
    box that a front may fill for each unit of the score.
    """
    best: dict[str, float] = {}
    losses = {name: loss for name, loss in belief.losses.items() if observations.deployments[name].target == target}
    for number, (adapter, mean) in enumerate(zip(belief.adapters, belief.mean.tolist(), strict=True)):
        for name in (*adapter.pairs, *belief.pairs_in_flight.get(number, ())):
            if name in losses:
                score = mean - losses[name]
                best[name] = max(score, best.get(name, score))
    points = [(score, observations.footprint(name)) for name, score in best.items()]
    footprints = [observations.footprint(name) for name in deployments]
    bound, box = [], 1.0
    for place, (objective, direction) in enumerate(zip(observations.others, observations.directions, strict=True)):
        column = [footprint[place] for footprint in footprints]
        beyond = SIZE_BOUND if objective == "size_mb" else LATENCY_BOUND
        bound.append(beyond * max(column) if direction == "minimize" else min(column) / beyond)
        box *= abs(bound[-1] - (min(column) if direction == "minimize" else max(column))) or 1.0
    return HypervolumeImprovement(points, observations.floor_of(target), bound, observations.directions), box
