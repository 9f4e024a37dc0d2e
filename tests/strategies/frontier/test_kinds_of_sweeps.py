"""What `frontier` does in each kind of sweep that README names: with one objective, several scores, searched steps, ..."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes import ITEMS, make_sweep, next_of, score_of

from autotune.candidate import Candidate
from autotune.metrics import Direction
from autotune.space.space import Space
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.named import strategy_of
from autotune.strategies.protocol import Proposal, Told

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
LORA: dict[str, Any] = {"r": {"choice": [4, 8, 16]}, "learning_rate": {"choice": RATES}, "steps": 10}
BITS = {"fp32": 32.0, "int8": 8.0, "int4": 4.0}
TIME = {"itl_ms_p50": "minimize"}


def share_of(candidate: Candidate) -> float:
    """Return the score of a candidate: the best learning rate is in the middle, and int4 costs a little."""
    assert candidate.lora is not None
    return score_of(candidate.lora, candidate.recipe)


@dataclass
class Simulated:
    """A sweep by formulas: every proposal is answered at once."""

    space: Space
    objectives: Mapping[str, Direction]
    values_of: Callable[[Candidate], Mapping[str, float]]
    """The scores of a finished candidate."""
    proposals: list[Proposal] = field(default_factory=list)
    seconds: float = 60.0
    """Of a whole training."""

    def run(self, most: int) -> list[Candidate]:
        """Run until that many candidates were measured, or nothing is proposed. Returns the measured ones."""
        strategy = Frontier(self.space, self.objectives, 0, ITEMS)
        base = {name: 0.4 for name in self.objectives if name in ("accuracy", "f1")}
        strategy.replay(Candidate(), Told(None, {}, base, items=ITEMS))
        measured: list[Candidate] = []
        trained: dict[str, float] = {}
        while len(measured) < most and (proposal := next_of(strategy)) is not None:
            self.proposals.append(proposal)
            candidate = proposal.candidate
            name = str(candidate.lora)
            more = max(0.0, proposal.rung - trained.get(name, 0.0))
            trained[name] = max(proposal.rung, trained.get(name, 0.0))
            seconds = {"train": self.seconds * more, "score": 5.0}
            scores = {metric: value - 0.1 * (1 - proposal.rung) for metric, value in self.values_of(candidate).items()}
            whole = proposal.rung == 1 and proposal.items is None
            if not whole:
                strategy.tell(proposal, Told(None, {}, scores, None, seconds, proposal.rung, proposal.items or ITEMS))
                continue
            bits = BITS[candidate.recipe.precision] if candidate.recipe is not None else 32.0
            found = {"itl_ms_p50": bits, "size_mb": 3 * bits} | scores
            found = {metric: found[metric] for metric in self.objectives}
            strategy.tell(proposal, Told(tuple(found.values()), {}, found, None, seconds, 1.0, ITEMS))
            measured.append(candidate)
        return measured


def accuracy(candidate: Candidate) -> dict[str, float]:
    return {"accuracy": share_of(candidate)}


def test_one_objective_is_climbed_in_the_recipe_that_costs_nothing() -> None:
    """A score alone: the best adapter is found, and no time goes into recipes that cannot be better."""
    measured = Simulated(make_sweep(LORA).space, {"accuracy": "maximize"}, accuracy).run(10)
    everything = sorted({share_of(one) for one in make_sweep(LORA).space.grid()}, reverse=True)
    assert max(map(share_of, measured)) >= everything[1]
    assert sum(one.recipe is not None and one.recipe.precision == "int4" for one in measured) <= 5


def test_two_scores_are_climbed_together() -> None:
    """What is best in both is found; a score that depends on the adapter is not taken for a property of the recipe."""

    def both(candidate: Candidate) -> dict[str, float]:
        share = share_of(candidate)
        return {"accuracy": share, "f1": share - (0.1 if candidate.lora is not None and candidate.lora.r == 4 else 0.0)}

    space = make_sweep(LORA).space
    measured = Simulated(space, {"accuracy": "maximize", "f1": "maximize", "size_mb": "minimize"}, both).run(12)
    best = max(both(one)["f1"] for one in space.grid())
    assert max(both(one)["f1"] for one in measured) >= best - 0.02
    assert {one.recipe.precision for one in measured if one.recipe is not None} >= {"int4"}


def test_the_order_of_two_scores_changes_no_choice() -> None:
    space = make_sweep(LORA).space

    def both(candidate: Candidate) -> dict[str, float]:
        return {"accuracy": share_of(candidate), "f1": share_of(candidate) ** 2}

    one = Simulated(space, {"accuracy": "maximize", "f1": "maximize", **TIME}, both).run(6)  # type: ignore[dict-item]
    other = Simulated(space, {"f1": "maximize", "accuracy": "maximize", **TIME}, both).run(6)  # type: ignore[dict-item]
    assert [candidate.id for candidate in one] == [candidate.id for candidate in other]


def test_a_score_that_is_minimised_is_climbed_downwards() -> None:
    def nats(candidate: Candidate) -> dict[str, float]:
        return {"perplexity": math.exp(3 - 2 * share_of(candidate))}

    space = make_sweep(LORA).space
    measured = Simulated(space, {"perplexity": "minimize", **TIME}, nats).run(12)  # type: ignore[dict-item]
    everything = sorted({nats(one)["perplexity"] for one in space.grid()})
    assert min(nats(one)["perplexity"] for one in measured) <= everything[2]


def test_three_trials_are_spent_on_whole_candidates_that_differ() -> None:
    space = make_sweep(LORA).space
    measured = Simulated(space, {"accuracy": "maximize", **TIME}, accuracy).run(3)  # type: ignore[dict-item]
    assert len({one.id for one in measured}) == 3


def test_a_tiny_space_ends_when_everything_that_can_gain_is_measured() -> None:
    """Whatever the budget: the sweep ends by itself, and nothing is measured twice."""
    space = make_sweep({"r": {"choice": [4, 8]}, "learning_rate": 1e-3, "steps": 10}).space
    measured = Simulated(space, {"accuracy": "maximize", **TIME}, accuracy).run(1000)  # type: ignore[dict-item]
    assert len({one.id for one in measured}) == len(measured) <= space.size() or 0


def test_adapters_alone_are_proposed_without_a_recipe() -> None:
    measured = Simulated(make_sweep(LORA, build=None).space, {"accuracy": "maximize"}, accuracy).run(8)
    assert all(one.recipe is None for one in measured)


@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_the_length_of_a_training_is_searched_by_what_it_costs(unit: str) -> None:
    """A short training that is as good comes first; the longest is not the only one tried."""
    lora = {"r": 8, "learning_rate": {"choice": RATES}, unit: {"choice": [1, 10] if unit == "epochs" else [50, 500]}}
    simulated = Simulated(make_sweep(lora).space, {"accuracy": "maximize", **TIME}, accuracy)  # type: ignore[dict-item]
    measured = simulated.run(8)
    lengths = {one.lora.steps if unit == "steps" else one.lora.epochs for one in measured if one.lora is not None}
    assert len(lengths) == 2
    assert len({one.id for one in measured}) == 8


def test_without_a_feasible_candidate_the_search_goes_on_with_what_may_be_one() -> None:
    """Every deployment over a limit is left, and the search ends; one that keeps it is gone on with."""
    sweep = make_sweep(LORA, limits=["itl_ms_p50 <= 5"])
    strategy = Frontier(sweep.space, {"accuracy": "maximize", **TIME}, 0, ITEMS)  # type: ignore[dict-item]
    precisions: list[str] = []
    for _ in range(12):
        proposal = next_of(strategy)
        if proposal is None:
            break
        candidate = proposal.candidate
        if candidate.recipe is None or proposal.rung < 1:
            told = Told(None, {}, {"accuracy": 0.6}, None, {"train": 20.0}, proposal.rung, proposal.items or ITEMS)
        else:
            precisions.append(candidate.recipe.precision)
            bits = BITS[candidate.recipe.precision]
            gaps = dict.fromkeys(sweep.limits, (bits - 5) / 5)
            found = {"accuracy": share_of(candidate), "itl_ms_p50": bits}
            told = Told(tuple(found.values()), gaps, found, None, {"train": 60.0, "score": 5.0}, 1.0, ITEMS)
        strategy.tell(proposal, told)
    assert set(precisions) >= {"int4"}
    assert all(precisions.count(other) <= 1 for other in ("fp32", "int8"))


def test_what_has_no_adapter_or_no_score_is_another_strategy() -> None:
    assert strategy_of("frontier", make_sweep(None).space, {"size_mb": "minimize"}) == "grid"
    assert strategy_of("frontier", make_sweep(LORA).space, {"size_mb": "minimize"}) == "tpe"
