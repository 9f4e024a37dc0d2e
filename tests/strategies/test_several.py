"""Strategies for several targets: one search, the same adapters, and each target's worth counted alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from fakes import FINITE, ITEMS, SIZES, TOKEN_MS, make_sweep, next_of, score_of

from autotune.candidate import Candidate
from autotune.strategies.frontier import proposals
from autotune.strategies.frontier.constants import BUILD_PRIOR_WEIGHT
from autotune.strategies.frontier.in_flight import InFlight
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.named import make_strategy
from autotune.strategies.protocol import Proposal, Strategy, Told
from autotune.strategies.several import ForTargets, make_for_targets
from autotune.sweepfile.schema import Sweep

OBJECTIVES = {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}
LAPTOP, BOX = {"provider": "cpu"}, {"provider": "openvino"}
"""Two targets whose builds are the same."""
SLOWER = {"laptop": 1.0, "box": 0.25, "phone": 30.0}
EVERY = ("frontier", "random", "grid", "tpe", "nsga2")


def sweep_of(targets: Mapping[str, Any] | None = None, strategy: str = "frontier", **keys: Any) -> Sweep:
    lora = FINITE if strategy == "grid" else keys.pop("lora", FINITE)
    named = {"targets": targets} if targets is not None else {}
    return make_sweep(lora=lora, objectives=OBJECTIVES, strategy=strategy, **named, **keys)


def joint(sweep: Sweep, seed: int = 0) -> ForTargets:
    spaces = [one.space for one in sweep.by_target.values()]
    return make_for_targets(sweep.strategy, spaces, sweep.objectives, seed, ITEMS)


def measured(
    proposal: Proposal, slower: Mapping[str, float] = SLOWER, train_s: float = 100.0, new: bool = True
) -> Told:
    """Return what a proposal would measure; an adapter takes `train_s` where it is `new`."""
    candidate, items = proposal.candidate, ITEMS if proposal.items is None else proposal.items
    score = score_of(candidate.lora, candidate.recipe) * proposal.rung**0.1
    seconds = {"score": 2.0} | ({"train": train_s * proposal.rung} if new and candidate.lora is not None else {})
    if candidate.recipe is None:
        return Told(None, {}, {"accuracy": score}, seconds=seconds, rung=proposal.rung, items=items, status="stopped")
    name = candidate.recipe.precision
    ms = TOKEN_MS[name] * slower.get(candidate.target or "laptop", 1.0)
    values = {"accuracy": score, "itl_ms_p50": ms, "size_mb": SIZES[name]}
    return Told(tuple(values.values()), {}, values, seconds=seconds | {"build": 2.0, "time": 2.0}, items=items)


def take(
    strategy: Strategy, count: int, sweep: Sweep, slower: Mapping[str, float] = SLOWER, **how: Any
) -> list[Proposal]:
    """Return the first proposals of a strategy, each measured before the next, after the untouched models."""
    for one in sweep.by_target.values():
        base = Candidate(recipe=one.space.recipes[0], target=one.space.target)
        strategy.replay(base, measured(Proposal(base), slower)) if strategy.rungs else None
    found: list[Proposal] = []
    trained: dict[str, float] = {}
    while len(found) < count and (proposal := next_of(strategy)) is not None:
        adapter = Candidate(lora=proposal.candidate.lora).id
        new = trained.get(adapter, 0.0) < proposal.rung
        trained[adapter] = max(proposal.rung, trained.get(adapter, 0.0))
        strategy.tell(proposal, measured(proposal, slower, new=new, **how))
        found.append(proposal)
    return found


def said(proposals: Sequence[Proposal]) -> list[Any]:
    """Return proposals without their targets."""
    return [(one.candidate.lora, one.candidate.recipe, one.candidate.session, one.rung, one.items) for one in proposals]


def full(proposals: Sequence[Proposal], target: str) -> list[Proposal]:
    return [one for one in proposals if one.candidate.target == target and one.candidate.recipe is not None]


@pytest.mark.parametrize("name", EVERY)
def test_one_named_target_is_searched_as_a_target_without_a_name(name: str) -> None:
    named, plain = sweep_of({"laptop": LAPTOP}, name), sweep_of(None, name, target=LAPTOP)
    alone = make_strategy(name, plain.space, plain.objectives, 0, ITEMS)
    both = take(joint(named), 14, named), take(alone, 14, plain)
    assert said(both[0]) == said(both[1])
    assert {one.candidate.target for one in both[0]} == {"laptop"}


@pytest.mark.parametrize("name", EVERY)
def test_every_candidate_is_proposed_once_and_is_of_a_target(name: str) -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX}, name)
    found = [one for one in take(joint(sweep), 200, sweep) if one.candidate.recipe is not None]
    ids = [one.candidate.id for one in found]
    assert len(set(ids)) == len(ids)
    if name != "frontier":  # which ends where nothing is expected to improve the front
        assert len(ids) == 2 * 18
    assert {one.candidate.target for one in found} == {"laptop", "box"}


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_the_targets_take_turns_and_each_is_searched_as_in_a_sweep_of_its_own(name: str) -> None:
    targets = {"laptop": LAPTOP, "box": BOX, "phone": BOX}
    sweep = sweep_of(targets, name)
    found = take(joint(sweep), 30, sweep)
    assert [one.candidate.target for one in found] == ["laptop", "box", "phone"] * 10
    for target, settings in targets.items():
        plain = sweep_of(None, name, target=settings)
        alone = make_strategy(name, plain.space, plain.objectives, 0, ITEMS)
        slower = {"laptop": SLOWER[target]}
        assert said(full(found, target)) == said(take(alone, 10, plain, slower))


def test_random_draws_the_same_adapters_for_every_target() -> None:
    wide = {"r": {"choice": [4, 8, 16]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": 10}
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX}, "random", lora=wide)
    found = take(joint(sweep), 20, sweep)
    assert len({one.candidate.lora for one in found}) == 10
    assert all(mine.candidate.lora == other.candidate.lora for mine, other in zip(found[::2], found[1::2], strict=True))


def test_a_grid_has_an_adapter_on_every_target_before_the_next_begins() -> None:
    # The graph of webgpu means something on one of the two only, so that their recipes differ in number.
    build = [{"precision": "fp32"}, {"precision": "int4", "enable_webgpu_graph": [True, False]}]
    sweep = sweep_of({"laptop": LAPTOP, "gpu": {"provider": "webgpu"}}, "grid", build=build)
    found = take(joint(sweep), 200, sweep)
    assert len(found) == 6 * (2 + 3)
    adapters = list(dict.fromkeys(one.candidate.lora for one in found))
    assert [one.candidate.lora for one in found] == [lora for lora in adapters for _ in range(5)]
    assert [one.candidate.target for one in found[:5]] == ["laptop", "gpu", "laptop", "gpu", "gpu"]


# --- frontier -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1024.0, 2.0**-10])  # powers of two, which no rounding tells apart
def test_a_target_counts_alike_however_long_its_tokens_take(factor: float) -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX})
    found = take(joint(sweep), 24, sweep)
    other = take(joint(sweep), 24, sweep, SLOWER | {"box": SLOWER["box"] * factor})
    assert [(one.candidate.id, one.rung) for one in found] == [(one.candidate.id, one.rung) for one in other]
    counts = [len(full(found, name)) for name in ("laptop", "box")]
    assert min(counts) >= 4, counts


def test_a_trained_adapter_is_measured_on_every_target_before_another_is_trained() -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX})
    found = [one for one in take(joint(sweep), 12, sweep, train_s=1000.0) if one.candidate.recipe is not None]
    first = [one for one in found if one.candidate.lora == found[0].candidate.lora]
    assert found[: len(first)] == first
    assert {one.candidate.target for one in first} == {"laptop", "box"}
    # One after another, each target would have trained adapters of its own for as many candidates.
    trained = len({one.candidate.lora for one in found})
    assert len(found) / trained >= 3


def test_what_a_build_costs_is_not_counted_twice_where_another_target_takes_the_same() -> None:
    same, other = ({"laptop": LAPTOP, "box": target} for target in (BOX, {"provider": "webgpu"}))
    saved = []
    for targets in (same, other):
        sweep = sweep_of(targets)
        strategy = joint(sweep)
        assert isinstance(strategy, Frontier)
        first = take(strategy, 1, sweep)[0].candidate
        observations = strategy.observations
        adapter = next(one for one in observations.adapters.values() if one.lora == first.lora)
        elsewhere = [name for name, one in observations.deployments.items() if one.target != first.target]
        own = [name for name, one in observations.deployments.items() if one.target == first.target]
        assert all(observations.saved_s(adapter, name) == 0 for name in own)
        recipes = {name: observations.deployments[name].recipe for name in elsewhere}
        saved.append({str(recipes[name]): observations.saved_s(adapter, name) for name in elsewhere})
        measured_in = str(first.recipe)
        assert all(seconds > 0 for seconds in saved[-1].values())  # it is merged
        assert all(observations.saved_s(adapter, name) < observations.pair_s(name) for name in elsewhere)
    assert saved[0][measured_in] > max(seconds for name, seconds in saved[0].items() if name != measured_in)
    assert len(set(saved[1].values())) == 1  # a merge, and no build


def test_what_a_recipe_loses_is_learned_from_all_targets() -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX})
    strategy = joint(sweep)
    assert isinstance(strategy, Frontier)
    before = strategy.model.belief().losses
    for proposal in take(strategy, 200, sweep):
        del proposal
    after = strategy.model.belief().losses
    pairs = {name.partition(": ")[2]: name for name in after if name.startswith("laptop")}
    assert len(pairs) == 3
    for model, name in pairs.items():
        assert after[name] == after[f"box: {model}"]
        assert before[name] == before[f"box: {model}"]
    assert any(after[name] != before[name] for name in after)


def test_a_recipe_that_fails_on_one_target_is_worth_less_there_also_to_an_adapter_that_is_known_elsewhere() -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX})
    strategy = joint(sweep)
    assert isinstance(strategy, Frontier)
    first = take(strategy, 1, sweep)[0].candidate
    observations = strategy.observations
    other = next(name for name in observations.deployments if name.startswith("box") and str(first.recipe) in name)

    def worth() -> float:
        belief, names = strategy.model.belief_beside(InFlight()), list(observations.deployments)
        fronts, weights = proposals._expected_fronts(observations, belief, names)
        seconds = np.array([observations.pair_s(name) for name in names])
        chances = [observations.build_probability(name) for name in names]
        state = proposals._State(observations, strategy.model, belief, names, seconds, chances, fronts, weights)
        known = next(n for n, adapter in enumerate(belief.adapters) if adapter.lora == first.lora)
        return float(proposals._pair_gains(state)[names.index(other), known])

    before = worth()
    assert before > 0
    failing = next(adapter for adapter in observations.adapters.values() if adapter.lora != first.lora)
    failing.failed.add(other)
    assert worth() == pytest.approx(before * BUILD_PRIOR_WEIGHT / (1 + BUILD_PRIOR_WEIGHT))


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("name", EVERY)
def test_proposals_beside_pending_ones_differ_from_them(name: str, workers: int) -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX}, name)
    strategy = joint(sweep)
    take(strategy, 2, sweep)
    pending: list[Proposal] = []
    for _ in range(6):
        pending += strategy.ask(workers - len(pending), pending)
        assert len({one.candidate.id for one in pending}) == len(pending)
        done = pending.pop(0)
        strategy.tell(done, measured(done))


@pytest.mark.parametrize("gone", ["laptop", "box"])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_proposed_for_a_target_that_is_left_out(name: str, gone: str) -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX}, name)
    strategy = joint(sweep)
    take(strategy, 4, sweep)
    strategy.leave_out(gone)
    found = [next_of(strategy)]
    assert found[0] is not None
    strategy.tell(found[0], measured(found[0]))
    while len(found) < 40 and (proposal := next_of(strategy)) is not None:
        assert proposal.candidate.target != gone
        strategy.tell(proposal, measured(proposal))
        found.append(proposal)
    strategy.leave_out("box" if gone == "laptop" else "laptop")
    assert next_of(strategy) is None


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("stopped", [3, 9])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(name: str, stopped: int) -> None:
    sweep = sweep_of({"laptop": LAPTOP, "box": BOX}, name)
    whole = take(joint(sweep), 16, sweep)
    again = joint(sweep)
    trained: dict[str, float] = {}
    for one in sweep.by_target.values():
        base = Candidate(recipe=one.space.recipes[0], target=one.space.target)
        again.replay(base, measured(Proposal(base))) if again.rungs else None
    for proposal in whole[:stopped]:
        adapter = Candidate(lora=proposal.candidate.lora).id
        new = trained.get(adapter, 0.0) < proposal.rung
        trained[adapter] = max(proposal.rung, trained.get(adapter, 0.0))
        again.replay(proposal.candidate, measured(proposal, new=new))
    if name in ("tpe", "nsga2"):  # draws that were known already are forgotten, so that only the next one need agree
        assert next_of(again) is not None
        return
    rest: list[Proposal] = []
    while len(rest) < len(whole) - stopped and (proposal := next_of(again)) is not None:
        adapter = Candidate(lora=proposal.candidate.lora).id
        new = trained.get(adapter, 0.0) < proposal.rung
        trained[adapter] = max(proposal.rung, trained.get(adapter, 0.0))
        again.tell(proposal, measured(proposal, new=new))
        rest.append(proposal)
    assert said(rest) == said(whole[stopped:])
