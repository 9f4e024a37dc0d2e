"""The budget of a sweep: the trials and hours that are left, counted over all runs, and the time that its end needs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from autotune.scheduler.ledger import Ledger
from autotune.sweepfile.schema import Budget, Timing

_RECENT = 10
"""The number of latest rows whose median predicts the seconds of the next."""


class BudgetLeft:
    """The part of a sweep's budget that is left."""

    def __init__(
        self, budget: Budget, timing: Timing, ledger: Ledger, spent_s: Callable[[], float], items: int, in_parts: bool
    ) -> None:
        """`timing`: the numbers of processes of a timing; `spent_s`: the wall-clock so far, seconds; `items`: the number of
        validation items; `in_parts`: the strategy evaluates candidates at lower fidelities, so that the end of the sweep
        completes the untouched model and the timings.
        """
        self.trials_at_most, self.hours, self.timing = budget.trials, budget.hours, timing
        self.ledger, self.spent_s, self.items, self.in_parts = ledger, spent_s, items, in_parts

    def trials(self, pending: int = 0) -> float:
        """Return how many more trials may begin while `pending` are under way."""
        if self.trials_at_most is None:
            return math.inf
        return self.trials_at_most - len(self.ledger.trials) - pending

    def seconds(self) -> float:
        """Return how many seconds of the budget are left."""
        return math.inf if self.hours is None else self.hours * 3600 - self.spent_s()

    @property
    def late(self) -> bool:
        """Whether the hours are used up."""
        return self.seconds() <= 0

    @property
    def at_its_end(self) -> bool:
        """Whether the seconds that are left are needed for the end of the sweep."""
        return self.seconds() <= self._kept_s()

    def _kept_s(self) -> float:
        """Return the seconds that are kept for the end of the sweep, and for one more row that may begin just before it."""
        if self.hours is None:
            return 0.0
        end_s, rows = self._end_s(), list(self.ledger.rows.values())[-_RECENT:]
        return end_s + statistics.median(row.wall_s or 0.0 for row in rows) if end_s and rows else end_s

    def _end_s(self) -> float:
        """Return about how many seconds the end of the sweep takes: the untouched model is scored on all items, and timings are
        completed. It counts every timing, though only those of the front are needed.
        """
        if not self.in_parts:
            return 0.0
        ledger = self.ledger
        times = [row.cost_s("time") or 0.0 for row in ledger.rows.values()]
        time_s = statistics.median(filter(None, times)) if any(times) else 0.0
        # Counted by recipe and session, not by row: this runs before every candidate, and rows may be many.
        served = sum("itl_ms_p50" in footprint for footprint in ledger.footprints.values())
        seconds = (self.timing.most / self.timing.processes - 1) * time_s * served
        if ledger.base_row is not None and ledger.base_is_open:
            scored = float(ledger.base_row.behind(ledger.score) or 1)
            seconds += time_s + (self.items / scored - 1) * (ledger.base_row.cost_s("score") or 0.0)
        return seconds
