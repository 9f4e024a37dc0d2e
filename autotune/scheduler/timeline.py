"""What ran when on this host: `timeline.csv`, by which it can be seen that timings were alone, and where the time went."""

from __future__ import annotations

from autotune.execution.host_lock import HostLock, Interval
from autotune.results.columns import TIMELINE
from autotune.results.record import Record
from autotune.results.table import Table
from autotune.scheduler.events import CandidateEnded, Event


class Timeline:
    """A listener that writes down what ran whenever a candidate has ended."""

    def __init__(self, record: Record, host: HostLock) -> None:
        self._table, self._host = Table(record.folder / "timeline.csv", TIMELINE), host
        self._table.rows.clear()  # of earlier runs: nobody reads them here
        self._seen: list[Interval] = []

    def __call__(self, event: Event) -> None:
        """Write down what has ended since the last time."""
        if isinstance(event, CandidateEnded):
            self._write()

    @property
    def busy_s(self) -> float:
        """Seconds in which at least one stage of this run was at work."""
        self._write()
        busy, until = 0.0, 0.0
        for one in sorted(self._seen, key=lambda interval: interval.began):
            busy += max(0.0, one.ended - max(one.began, until))
            until = max(until, one.ended)
        return busy

    def _write(self) -> None:
        before = len(self._seen)
        while self._host.intervals:
            self._seen.append(self._host.intervals.popleft())
        for one in self._seen[before:]:
            times = {"began": round(one.began, 3), "ended": round(one.ended, 3)}
            self._table.add({"stage": one.stage, **times, "alone": one.alone})
        if len(self._seen) > before:
            self._table.flush()
            self._table.rows.clear()
