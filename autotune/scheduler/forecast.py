"""How long a sweep still takes: the rows that its budget leaves, and its end; for the budget and for who waits."""

from __future__ import annotations

import math
from collections.abc import Callable

from autotune.candidate import Candidate
from autotune.costs.estimate import Estimate
from autotune.pipeline.expected import Prices
from autotune.scheduler.ledger import Ledger

_GROWN = 1.25
"""The cost of a trial is estimated again when the number of trials has grown by this factor."""
_WORTH = 2.0
"""The weight of the cost model's estimate of a trial, in trials, in the mean with those that have ended."""


class Forecast:
    """The expected seconds of what is left of a sweep, by what the cost model says of its jobs and what its trials took."""

    def __init__(
        self,
        prices: Prices,
        ledger: Ledger,
        clock: Callable[[], float],
        width: int,
        in_parts: bool,
        done: Callable[[], int],
    ) -> None:
        """`width`: how many stages run at once; `in_parts`: the strategy evaluates candidates at lower fidelities, so that the
        end of the sweep completes the untouched model and the timings; `done`: how many trials were done, of all targets.
        """
        self.prices, self.ledger, self.clock, self.width, self.in_parts = prices, ledger, clock, width, in_parts
        self._trials = done
        self._began, self._done_before = clock(), 0
        self._searching = False
        self._whole: tuple[int, float] | None = None
        """The number of trials at the last estimate of a trial, and the estimate, seconds."""
        self._end: tuple[tuple[int, bool], float] | None = None
        """What the end was last estimated for, and the estimate, seconds."""

    def search_began(self) -> None:
        """Say that the search begins: from now on trials are counted."""
        self._began, self._done_before, self._searching = self.clock(), self._trials(), True

    def trial_s(self, candidate: Candidate) -> float:
        """Return the expected wall-clock of one more trial, seconds; `candidate`: one like those that come."""
        done = self._trials() - self._done_before if self._searching else 0
        if self._whole is None or done >= _GROWN * self._whole[0] + 1:
            timed = bool(self.ledger.known(candidate))
            self._whole = done, self.prices.whole(candidate, timed).wall_s(self.width)
        spent = self.clock() - self._began if done else 0.0
        return (_WORTH * self._whole[1] + spent) / (_WORTH + done)

    def end_s(self) -> float:
        """Return the expected seconds of the end: what was begun is completed, the finalists are timed and scored on test."""
        # Priced anew for a new recipe or session only: this is asked before every candidate, and rows may be many.
        known = len(self.ledger.footprints), self.ledger.base_is_open
        if self._end is None or self._end[0] != known:
            self._end = known, self._ending().wall_s()
        return self._end[1]

    def _ending(self) -> Estimate:
        ledger, prices, base = self.ledger, self.prices, self.ledger.untouched
        served = {str(row.served_as): row for row in ledger.timed()}
        candidates = [ledger.candidate_of(row) for row in served.values()]
        estimate = Estimate()
        if self.in_parts:
            for candidate in candidates:
                estimate = estimate.plus(prices.completed(candidate))
            if ledger.base_is_open and ledger.base_row is not None:
                items = prices.graph.inputs.counts["validation"]
                more = max(0.0, items - float(ledger.base_row.behind(ledger.score) or 0))
                estimate.add("score", prices.scoring(base, "validation", more), more)
                if base.recipe is not None:
                    for suffix in prices.suffixes:
                        estimate.add("time", prices.costs.expect(prices.time_job(base, suffix)))
        winner = candidates[-1] if candidates else None
        # Every graph could tie with the winner's; about half of them do.
        rivals = candidates[: math.ceil(len(candidates) / 2)]
        return estimate.plus(prices.finale(winner, base, rivals))
