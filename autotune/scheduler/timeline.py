"""The file `timeline.csv`: when each stage ran, and on which host. It shows that timings ran alone, and where the time went."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from autotune.execution.host_lock import Interval
from autotune.results.columns import Cells
from autotune.results.record import Record
from autotune.results.rows import StageSpan
from autotune.results.table import Table
from autotune.scheduler.events import CandidateEnded, Event


class Timeline:
    """A listener that writes the intervals of stages each time a candidate ends."""

    def __init__(self, record: Record, intervals: deque[Interval], waits: Iterable[Interval] = ()) -> None:
        """`intervals`: what ran and has ended, in the order in which it ended; it is taken out of there. `waits`: when stages
        waited for other processes.
        """
        self._table, self._intervals = Table(record.folder / "timeline.csv", StageSpan), intervals
        self._table.rows.clear()  # rows of earlier runs stay in the file; they are not needed in memory
        self._seen: list[Interval] = []
        self._waits = waits

    def __call__(self, event: Event) -> None:
        """Write the intervals that have ended since the last event."""
        if isinstance(event, CandidateEnded):
            self._write()

    @property
    def busy_s(self) -> float:
        """The seconds in which at least one stage of this run was running."""
        self._write()
        return _covered_s(self._seen)

    @property
    def waited_s(self) -> float:
        """The seconds in which no stage of this run was running, because one waited for another process."""
        self._write()
        return _covered_s([*self._seen, *self._waits]) - _covered_s(self._seen)

    def _write(self) -> None:
        before = len(self._seen)
        while self._intervals:
            self._seen.append(self._intervals.popleft())
        for one in self._seen[before:]:
            times = {"began": round(one.began, 3), "ended": round(one.ended, 3)}
            copied: Cells = {} if one.moved_mb is None else {"result": one.result, "moved_mb": round(one.moved_mb, 6)}
            where: Cells = {"alone": one.alone, "host": one.host or None}
            self._table.add(StageSpan({"stage": one.stage, **times, **where, **copied}))
        if len(self._seen) > before:
            self._table.flush()
            self._table.rows.clear()


def _covered_s(intervals: Iterable[Interval]) -> float:
    """Return the seconds that lie in at least one of these intervals."""
    covered, until = 0.0, 0.0
    for one in sorted(intervals, key=lambda interval: interval.began):
        covered += max(0.0, one.ended - max(one.began, until))
        until = max(until, one.ended)
    return covered
