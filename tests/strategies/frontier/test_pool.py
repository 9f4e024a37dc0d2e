"""A large space: neighbours lie near, stay in the space, and the pool is refined as adapters are scored."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from fakes import make_sweep

from autotune.candidate import Candidate, Lora
from autotune.strategies.frontier.constants import POOL
from autotune.strategies.frontier.pool import draws, favourites, neighbours
from autotune.strategies.frontier.priors import decades_from_best, prior_mean
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.protocol import Told

WIDE: dict[str, Any] = {
    "r": {"choice": [4, 8, 16, 32, 64]},
    "learning_rate": {"loguniform": [1e-5, 1e-2]},
    "alpha_over_r": {"choice": [1, 2, 4]},
    "dropout": {"uniform": [0.0, 0.2]},
    "target_modules": {"choice": ["attention", "all-linear"]},
    "schedule": {"choice": ["linear", "cosine", "constant"]},
    "steps": {"int": [40, 200]},
}


def settings(lora: Lora) -> dict[str, Any]:
    return lora.model_dump() | {"alpha_over_r": lora.alpha / lora.r}


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_differ_in_little_and_stay_in_the_space(seed: int) -> None:
    space, rng = make_sweep(lora=WIDE).space, random.Random(seed)
    here = next(draws(space, rng)).lora
    assert here is not None
    near = list(neighbours(space, here, 200, rng))
    assert len(near) == 200
    changed = []
    for candidate in near:
        assert candidate.lora is not None
        assert space.has(candidate.lora)
        own, other = settings(here), settings(candidate.lora)
        changed.append(sum(own[name] != other[name] for name in WIDE))
    assert 1 <= sum(changed) / len(changed) < 3.5
    rates = [math.log10(one.lora.learning_rate / here.learning_rate) for one in near if one.lora]
    assert max(map(abs, rates)) < 3
    assert sum(abs(rate) < 0.5 for rate in rates) > 150


def scored(strategy: Frontier, lora: Lora, score: float) -> None:
    recipe = strategy.observations.space.recipes[0]
    values = {"accuracy": score, "itl_ms_p50": 10.0, "size_mb": 100.0}
    candidate = Candidate(lora=lora, recipe=recipe)
    strategy.replay(candidate, Told(tuple(values.values()), {}, values, items=500))


def test_the_pool_moves_to_what_is_good_and_stays_bounded() -> None:
    sweep = make_sweep(lora=WIDE)
    strategy = Frontier(sweep.space, sweep.objectives, seed=0, items=500)

    def truth(lora: Lora) -> float:
        return 0.8 - 0.15 * abs(math.log10(lora.learning_rate / 2e-4)) - 0.1 * (lora.schedule == "constant")

    def mean_of_pool() -> float:
        untouched = [truth(one.lora) for one in strategy.observations.adapters.values() if one.untouched]
        return sum(untouched) / len(untouched)

    before, known = mean_of_pool(), set(strategy.observations.adapters)
    for number in range(12):
        adapters = list(strategy.observations.adapters.values())
        belief = strategy.model.belief()
        free = [n for n, one in enumerate(adapters) if one.untouched]
        chosen = adapters[max(free, key=lambda n: belief.mean[n] + belief.deviation[n])].lora
        scored(strategy, chosen, truth(chosen))
        assert len(strategy.observations.adapters) <= POOL + 1 + number
    assert set(strategy.observations.adapters) - known
    assert mean_of_pool() > before + 0.02


def test_a_resumed_sweep_has_the_same_pool() -> None:
    sweep = make_sweep(lora=WIDE)
    first = Frontier(sweep.space, sweep.objectives, seed=3, items=500)
    done: list[tuple[Lora, float]] = []
    for number in range(6):
        proposal = first.ask(1, [])[0]
        assert proposal.candidate.lora is not None
        done.append((proposal.candidate.lora, 0.5 + 0.03 * number))
        scored(first, *done[-1])
    again = Frontier(sweep.space, sweep.objectives, seed=3, items=500)
    for one in done:
        scored(again, *one)
    assert list(again.observations.adapters) == list(first.observations.adapters)
    assert again.ask(1, []) == first.ask(1, [])


def test_a_small_space_is_listed_in_full() -> None:
    sweep = make_sweep(lora={"r": {"choice": [4, 8]}, "learning_rate": {"choice": [1e-4, 1e-3]}, "steps": 20})
    strategy = Frontier(sweep.space, sweep.objectives, seed=0, items=500)
    before = list(strategy.observations.adapters)
    assert len(before) == 4
    scored(strategy, strategy.observations.adapters[before[0]].lora, 0.7)
    assert list(strategy.observations.adapters) == before


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"dropout": 0.0, "schedule": "linear", "r": 64, "target_modules": "all-linear", "alpha_over_r": 2}),
        ({"dropout": {"uniform": [0.1, 0.25]}}, {"dropout": 0.175}),  # the default is not in the space: the middle
        ({"schedule": {"choice": ["cosine", "constant"]}}, {"schedule": "constant"}),
        ({"steps": {"int": [100, 400]}}, {"steps": 200}),
        ({"weight_decay": {"loguniform": [0.001, 0.1]}}, {"weight_decay": 0.01}),
        ({"dora": {"choice": [False, True]}}, {"dora": False}),
        ({"r": {"int": [4, 100]}}, {"r": 100}),
    ],
)
def test_a_large_space_is_begun_with_its_favourite(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    sweep = make_sweep(lora=WIDE | changed)
    strategy = Frontier(sweep.space, sweep.objectives, seed=3, items=500)
    (first,) = strategy.ask(1, ())
    lora = first.candidate.lora
    assert lora is not None
    assert sweep.space.has(lora)
    assert {name: settings(lora)[name] for name in expected} == pytest.approx(expected)
    assert -0.35 < decades_from_best(lora) < 0.05  # a rate that is too low costs less


def test_the_favourite_is_in_the_pool_at_other_rates_too() -> None:
    space = make_sweep(lora=WIDE).space
    first, *others = [one.lora for one in favourites(space, prior_mean) if one.lora is not None]
    alike = [one.model_copy(update={"learning_rate": first.learning_rate}) for one in others]
    assert set(alike) == {first}
    rates = [one.learning_rate for one in others]
    assert min(rates) == pytest.approx(1e-5)
    assert max(rates) == pytest.approx(1e-2)
    steps = [math.log10(after / before) for before, after in itertools.pairwise(sorted(rates))]
    assert max(steps) < 0.5


def test_a_large_space_without_a_rate_has_one_favourite() -> None:
    space = make_sweep(lora={"r": {"int": [4, 500]}, "dropout": {"uniform": [0.0, 0.2]}}).space
    (only,) = favourites(space, prior_mean)
    assert only.lora is not None
    assert only.lora.r == 500
