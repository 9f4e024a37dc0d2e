"""The protocol of a strategy, which decides what the sweep measures next: `ask` and `tell`.

A strategy lives in memory and is rebuilt from the rows of results.csv, which are the state of the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.limits import Limit
from autotune.candidate import Candidate

LEAST_ITEMS = 100
"""The least number of validation items of a low-fidelity evaluation; on fewer its score is too noisy. Chosen, not measured."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcome of each scored item, in the fixed order of items: (items,) each."""

    right: NDArray[np.float64]
    """1 where the prediction was right, else 0; for a metric that is not a share of right answers, its value for the item."""
    loss: NDArray[np.float64] | None = None
    """Cross-entropy over the labels, nats, where it is known."""
    margin: NDArray[np.float64] | None = None
    """The chosen label's lead over the second, nats, where it is known."""


@dataclass(frozen=True)
class Told:
    """The result of a proposal, as a strategy is told of it.

    `values`: in the order of the objectives; None if the candidate could not be measured, or not in full (at a lower rung, or
    on some of the items). `gaps`: by how much each limit is broken (positive: broken).
    """

    values: tuple[float, ...] | None
    gaps: Mapping[Limit, float]
    measured: Mapping[str, float] = field(default_factory=dict)
    """The measured values by metric, also where `values` is None: the score of the items that were scored, or the latency and
    size of a build that was not scored."""
    outcomes: Outcomes | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """The seconds of each stage; a stage whose result came from the cache is absent."""
    rung: float = 1.0
    """The share of its steps that the adapter was trained to."""
    items: int = 0
    """The number of validation items that it was scored on."""
    status: str = "ok"
    """The status, as in results.csv."""
    probability: float | None = None
    """The mean probability of the right label over these items, where the metric chooses among labels."""


@dataclass(frozen=True)
class Proposal:
    """A candidate to try; `trial` is the strategy's own handle on it."""

    candidate: Candidate
    trial: Any = None
    rung: float = 1.0
    """The share of its steps to which the adapter is trained; a recipe is built at 1 only. Without a recipe, the adapter is
    scored at full precision at that rung."""
    items: int | None = None
    """The number of validation items to score, the first of a fixed order; 0: build and time only; None: all."""


class Strategy(Protocol):
    """Any object with these functions can be the strategy of a sweep."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """The lower fidelities and the full one, as shares of a training's steps; empty: it proposes full candidates only."""
        ...

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return up to `n` proposals to run at the same time as those that are `pending`: asked for, and not told yet.

        No proposal repeats a known or a pending one, and no two proposals, pending ones included, measure the same thing. An
        empty list means that there is nothing to propose now: with nothing pending the search is over, else the answer may
        change once a pending proposal is told.

        A proposal may need an adapter that a pending proposal trains, at the same rung or a higher one. The scheduler starts
        the other stages of that proposal when the training has ended; until then the proposal occupies no worker.
        """
        ...

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Tell the result of a proposal. Proposals are told in the order in which they end."""
        ...

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Tell the result of a candidate of an earlier run."""
        ...


class Whole:
    """A strategy that proposes full candidates only."""

    rungs: tuple[float, ...] = ()
