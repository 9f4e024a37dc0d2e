"""The budget of a sweep: the trials and hours that are left, counted over all runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from autotune.candidate import Candidate
from autotune.scheduler.forecast import Forecast
from autotune.scheduler.shared import Shared
from autotune.sweepfile.schema import Budget

_RECENT = 10
"""The number of latest rows whose median predicts the seconds of the next."""


class BudgetLeft:
    """The part of a sweep's budget that is left."""

    def __init__(self, budget: Budget, shared: Shared, spent_s: Callable[[], float], forecast: Forecast) -> None:
        """`shared`: the rows of all targets, which have one budget; `spent_s`: the wall-clock so far, seconds; `forecast`: of the
        target that this is asked for.
        """
        self.trials_at_most, self.hours = budget.trials, budget.hours
        self.shared, self.spent_s, self.forecast = shared, spent_s, forecast

    def trials(self, pending: int = 0) -> float:
        """Return how many more trials may begin while `pending` are under way."""
        if self.trials_at_most is None:
            return math.inf
        return self.trials_at_most - self.shared.done() - self.trials_kept - pending

    @property
    def trials_kept(self) -> int:
        """How many trials are kept for targets whose device is gone."""
        return self.shared.kept(self.trials_at_most) if self.shared.gone and self.trials_at_most is not None else 0

    def seconds(self) -> float:
        """Return how many seconds of the budget are left; the equal part of a target whose device is gone is kept for it."""
        return math.inf if self.hours is None else self.hours * 3600 - self._seconds_kept() - self.spent_s()

    def _seconds_kept(self) -> float:
        return (self.hours or 0.0) * 3600 * len(self.shared.gone) / len(self.shared.ledgers)

    @property
    def goes_on_with_kept(self) -> bool:
        """Whether the hours would suffice for more, were none kept for targets whose device is gone."""
        return bool(self.shared.gone) and self.seconds() + self._seconds_kept() > self._kept_s()

    @property
    def late(self) -> bool:
        """Whether the hours are used up."""
        return self.seconds() <= 0

    @property
    def at_its_end(self) -> bool:
        """Whether the seconds that are left are needed for the end of the sweep."""
        return self.seconds() <= self._kept_s()

    def left_s(self, candidate: Candidate) -> float | None:
        """Return the expected seconds until the sweep has ended, or None where nothing bounds it; `candidate`: one like those
        that come.
        """
        trials, end_s = self.trials(), self._end_s()
        guesses = [trials * self.forecast.trial_s(candidate) + end_s] if math.isfinite(trials) else []
        if self.hours is not None:
            guesses.append(max(self.seconds(), 0.0) + (0.0 if self.forecast.in_parts else end_s))
        return max(0.0, min(guesses)) if guesses else None

    def _end_s(self) -> float:
        """Return the expected seconds of the end of every target."""
        return sum(forecast.end_s() for forecast in self.shared.forecasts.values())

    def _kept_s(self) -> float:
        """Return the seconds that are kept for the end of the sweep, and for one more row that may begin just before it."""
        if self.hours is None or not self.forecast.in_parts:
            return 0.0
        ledgers = self.shared.ledgers.values()
        rows = [row for ledger in ledgers for row in list(ledger.rows.values())[-_RECENT:]]
        return self._end_s() + statistics.median([row.wall_s or 0.0 for row in rows] or [0.0])
