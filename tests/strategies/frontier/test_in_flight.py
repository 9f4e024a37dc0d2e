"""`frontier` with several proposals in flight: what it reckons with, and what it never asks for."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from fakes import make_sweep, score_of

from autotune.candidate import Candidate, Recipe
from autotune.strategies.frontier.constants import RUNGS
from autotune.strategies.frontier.in_flight import InFlight, LowFidelity
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.protocol import Proposal, Told
from autotune.sweepfile.schema import Sweep

LORA = {"r": {"choice": [4, 16]}, "learning_rate": {"choice": [1e-4, 1e-3, 3e-3, 1e-2]}, "steps": 10}
AIMS = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}
LARGE = {"fp32": 32.0, "int8": 8.0, "int4": 4.0}
ITEMS = 1000


def sweep_of() -> Sweep:
    return make_sweep(LORA, strategy="frontier", **AIMS)


def made(sweep: Sweep | None = None) -> Frontier:
    sweep = sweep or sweep_of()
    return Frontier(sweep.space, sweep.objectives, 0, ITEMS)


def told_of(proposal: Proposal) -> Told:
    """Return what is found of a proposal, at once."""
    candidate = proposal.candidate
    items = ITEMS if proposal.items is None else proposal.items
    measured = {"accuracy": score_of(candidate.lora, candidate.recipe) - 0.05 * (1 - proposal.rung)}
    seconds = {"train": 90.0 * proposal.rung, "merge": 2.0, "build": 9.0, "score": 0.04 * items}
    if candidate.recipe is None:
        return Told(None, {}, measured, None, seconds, proposal.rung, items, "stopped")
    large = LARGE[candidate.recipe.precision]
    measured |= {"itl_ms_p50": large, "size_mb": large}
    return Told(tuple(measured.values()), {}, measured, None, seconds | {"time": 15.0}, 1.0, items)


def played(strategy: Frontier, workers: int, rng: random.Random) -> list[Proposal]:
    """Ask and tell with so many in flight, which end in a random order. Returns all that were asked for."""
    asked: list[Proposal] = []
    pending: list[Proposal] = []
    while True:
        new = strategy.ask(workers - len(pending), tuple(pending))
        for proposal in new:
            busy = [one for one in pending if one.candidate.lora == proposal.candidate.lora]
            assert proposal.candidate not in [one.candidate for one in busy]
            if proposal.candidate.recipe is None:  # a look is the only one at its adapter
                assert not busy
            assert not any(
                one.candidate.recipe is None for one in busy
            )  # it is trained further when the look has ended
            pending.append(proposal)
        asked += new
        if not pending:
            return asked
        ended = pending.pop(rng.randrange(len(pending)))
        strategy.tell(ended, told_of(ended))


@pytest.mark.parametrize("workers", [1, 2, 4, 16])
def test_whatever_ends_first_no_question_is_asked_twice(workers: int) -> None:
    asked = played(made(), workers, random.Random(workers))
    questions = [(proposal.candidate.id, proposal.rung, proposal.items) for proposal in asked]
    assert len(questions) == len(set(questions))
    assert all(proposal.candidate.recipe is None or proposal.rung == 1 for proposal in asked)
    best = max(sweep_of().space.grid(), key=lambda candidate: score_of(candidate.lora, candidate.recipe))
    assert best.lora in [proposal.candidate.lora for proposal in asked if proposal.candidate.recipe is not None]


def test_several_at_once_are_those_that_are_asked_for_one_by_one() -> None:
    together = made().ask(6, ())
    strategy, one_by_one = made(), list[Proposal]()
    for _ in range(6):
        one_by_one += strategy.ask(1, tuple(one_by_one))
    assert together == one_by_one
    assert len({proposal.candidate.id for proposal in together}) == 6
    assert len({proposal.candidate.lora for proposal in together}) > 1


def test_asking_changes_nothing_that_is_known() -> None:
    strategy = made()
    first = strategy.ask(1, ())
    strategy.ask(4, first)
    assert strategy.ask(1, ()) == first


def test_what_is_in_flight_shrinks_the_doubt_and_moves_no_mean() -> None:
    strategy = made()
    for proposal in strategy.ask(2, ()):
        strategy.tell(proposal, told_of(proposal))
    before = strategy.model.belief()
    new = [name for name, adapter in strategy.observations.adapters.items() if adapter.reached < 0]
    name, other = new[0], new[-1]
    looking, measuring = InFlight(low_fidelity={name: LowFidelity(0, 250)}), InFlight(pairs={name: {str(RECIPE)}})
    for flight, share in ((looking, 0.98), (measuring, 0.8)):
        beside = strategy.model.belief_beside(flight)
        assert np.array_equal(beside.mean, before.mean)
        assert np.all(beside.deviation <= before.deviation + 1e-12)
        place = list(strategy.observations.adapters).index(name)
        assert beside.deviation[place] < share * before.deviation[place]
        assert beside.training[place]
        assert not beside.training[list(strategy.observations.adapters).index(other)]
    assert strategy.model.belief() is before


RECIPE = Recipe(precision="fp32")


def test_a_recipe_in_flight_is_timed_by_then() -> None:
    strategy = made()
    names = list(strategy.observations.deployments)
    assert strategy.observations.pair_s(names[0], timed=True) < strategy.observations.pair_s(names[0])
    candidate = next(sweep_of().space.grid())
    flight = InFlight()
    flight.add(Proposal(candidate), strategy.observations)
    assert flight.timed == {names[0]}
    untouched = InFlight()
    untouched.add(Proposal(Candidate(recipe=candidate.recipe)), strategy.observations)
    assert (untouched.timed, untouched.pairs) == ({names[0]}, {})


def test_an_adapter_in_training_may_be_crossed_and_not_be_trained_further() -> None:
    strategy = made()
    first = strategy.ask(1, ())[0]
    assert first.candidate.recipe is not None
    strategy.tell(first, told_of(first))
    rest = [candidate for candidate in sweep_of().space.grid() if candidate.lora != first.candidate.lora]
    looked = Proposal(Candidate(lora=rest[0].lora), rung=RUNGS[0], items=125)
    # All others have failed, so that this adapter is the only one that is left.
    for candidate in rest:
        if candidate.lora != looked.candidate.lora:
            strategy.replay(candidate, Told(None, {}, status="diverged", seconds={"train": 1.0}))
    for recipe in sweep_of().space.recipes:
        crossed = Proposal(replace_recipe(first.candidate, recipe))
        strategy.tell(crossed, told_of(crossed))
    assert strategy.ask(8, [looked]) == []
    strategy.tell(looked, told_of(looked))
    trained = Proposal(rest[0])
    others = strategy.ask(8, [trained])
    assert others
    assert {proposal.candidate.lora for proposal in others} == {rest[0].lora}
    assert rest[0].recipe not in [proposal.candidate.recipe for proposal in others]
    assert all(proposal.rung == 1 and proposal.candidate.recipe is not None for proposal in others)


def replace_recipe(candidate: Candidate, recipe: Recipe) -> Candidate:
    return candidate.model_copy(update={"recipe": recipe})


def test_a_proposal_of_an_adapter_of_another_space_may_be_pending() -> None:
    strategy = made()
    stranger = next(sweep_of().space.grid())
    assert stranger.lora is not None
    foreign = Proposal(replace(Proposal(stranger), candidate=stranger.model_copy(
        update={"lora": stranger.lora.model_copy(update={"r": 64, "alpha": 64.0})})).candidate)  # fmt: skip
    found = strategy.ask(3, [foreign])
    assert len(found) == 3
    assert foreign.candidate.lora not in [proposal.candidate.lora for proposal in found]
