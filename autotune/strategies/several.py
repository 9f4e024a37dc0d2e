"""One search for several targets: all targets get the same adapters, and each deployment belongs to one target.

`frontier` has one model of adapters for all targets, and `grid` one order (see both). Of every other strategy there is one
for each target, because latencies on two targets cannot be compared: a candidate of one target has no values for the
strategy of another. The targets take turns, so that each has the same share of the budget. These strategies have the same
seed, so that they draw the same adapters: `random` always, Optuna's samplers until they have learned something. An adapter
is trained once, whichever target asks for it first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from autotune.candidate import Candidate
from autotune.metrics import Direction
from autotune.space.space import Space
from autotune.strategies.baselines import Grid
from autotune.strategies.frontier.cost_model import FirstCosts
from autotune.strategies.frontier.priors import Prior, prior_mean
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.named import make_strategy, strategy_of
from autotune.strategies.protocol import Proposal, Strategy, Told, Whole


class ForTargets(Strategy, Protocol):
    """A strategy for several targets: each candidate names its target."""

    def leave_out(self, target: str | None) -> None:
        """Propose no more candidates of a target: its device is gone, or builds another model."""
        ...


class InTurns(Whole):
    """One strategy for each target. The one whose target has the fewest candidates so far is asked next."""

    def __init__(self, parts: Mapping[str | None, Strategy]) -> None:
        """`parts`: by target; strategies that propose full candidates only."""
        self._parts = dict(parts)
        self._told: Counter[str | None] = Counter()

    def leave_out(self, target: str | None) -> None:
        """Propose no more candidates of a target."""
        self._parts.pop(target, None)

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next candidates, each of the target whose turn it is."""
        asked: list[Proposal] = []
        open_ = list(self._parts)
        begun = self._told + Counter(proposal.candidate.target for proposal in pending)
        while len(asked) < n and open_:
            target = min(open_, key=lambda name: begun[name])
            busy = [one for one in (*pending, *asked) if one.candidate.target == target]
            found = self._parts[target].ask(1, busy)
            if not found:
                open_.remove(target)
            asked += found
            begun[target] += len(found)
        return asked

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Tell the strategy of the candidate's target."""
        target = proposal.candidate.target
        self._told[target] += 1
        if target in self._parts:
            self._parts[target].tell(proposal, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Tell the strategy of the candidate's target what an earlier run has measured."""
        self._told[candidate.target] += 1
        if candidate.target in self._parts:
            self._parts[candidate.target].replay(candidate, told)


def make_for_targets(
    name: str,
    spaces: Sequence[Space],
    objectives: Mapping[str, Direction],
    seed: int,
    items: int = 1000,
    prior: Prior = prior_mean,
    first: FirstCosts | None = None,
) -> ForTargets:
    """Return the strategy that a sweep names for several targets, whose spaces these are. The rest is as in `make_strategy`."""
    name = strategy_of(name, spaces[0], objectives)
    if name == "frontier":
        return Frontier(spaces[0], objectives, seed, items, prior=prior, first=first, others=spaces[1:])
    if name == "grid":
        return Grid(*spaces)
    return InTurns({space.target: make_strategy(name, space, objectives, seed, items) for space in spaces})
