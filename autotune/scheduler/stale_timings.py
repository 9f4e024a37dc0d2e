"""Timings that are made anew: because this machine has become faster or slower, or to reach the precision of the sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from autotune.errors import StageError
from autotune.machine import foreign_cpu
from autotune.pipeline.measure import Pipeline
from autotune.results.columns import STAGES, TIMING, Cells
from autotune.results.record import Record, now
from autotune.results.rows import Trial
from autotune.results.trials import rounded
from autotune.scheduler.disturbed_timings import Provisional
from autotune.scheduler.events import CandidateEnded, Events
from autotune.scheduler.ledger import Ledger
from autotune.scheduler.under_way import UnderWay
from autotune.sweepfile.schema import Timing

RETIMED = TIMING - {"graph", "size_mb"} | {"pace"}
"""The cells of a timing."""


class StaleTimings:
    """It times graphs anew, and writes the rows that change."""

    def __init__(
        self,
        ledger: Ledger,
        record: Record,
        pipeline: Pipeline,
        under_way: UnderWay,
        events: Events,
        timing: Timing,
        clock: Callable[[], float],
        foreign_cpu: Callable[[], float] = foreign_cpu,
    ) -> None:
        """`foreign_cpu`: cores that other programs keep busy now where models are timed."""
        self.ledger, self.record, self.pipeline, self.under_way = ledger, record, pipeline, under_way
        self.events, self.clock = events, clock
        self.provisional = Provisional(timing, events, foreign_cpu)
        self.seconds = 0.0
        """Seconds inside stages."""
        self._untimed: set[str] = set()
        """The graphs, each with its session, that could not be timed anew in this run."""

    def check_pace(self) -> list[Trial]:
        """Check that timings of earlier runs still hold on this machine; time graphs anew if not. Returns the rows written."""
        pace = self.pipeline.pace
        if pace is None:
            return []
        same = [row for row in self.ledger.timed() if row.pace == pace.name]
        if same and not pace.trusted:
            candidate = self.ledger.candidate_of(same[0])
            try:
                steps = self.pipeline.holds_steps(same[0], candidate)
                # Not the wall-clock: the timing may wait for other sweeps on this machine.
                self.seconds += self.under_way.complete(steps, self.record.log(candidate.id))
            except StageError as error:
                self.events.note(f"it could not be checked whether earlier timings still hold: {error}")
                self.seconds += error.seconds or 0.0
        return self.at_this_pace()

    def at_this_pace(self) -> list[Trial]:
        """Time graphs anew whose timings are of an earlier pace, or of another machine. Returns the rows written."""
        pace = self.pipeline.pace
        if pace is None:
            return []
        stale = [
            row for row in self.ledger.timed() if row.pace != pace.name and str(row.served_as) not in self._untimed
        ]
        if not stale:
            return []
        graphs = list(dict.fromkeys(str(row.served_as) for row in stale))
        self.events.note(
            f"this machine is faster or slower than at earlier timings: {len(graphs)} graphs are timed anew"
        )
        stale_ids = {id(row) for row in stale}
        written = [
            row
            for graph in graphs
            for row in self._time([row for row in self.ledger.timed_as(graph) if id(row) in stale_ids])
        ]
        self.pipeline.rest()
        return written

    def resolve(self, wanted: Callable[[], Iterable[Trial]]) -> list[Trial]:
        """Time the graphs of the rows that `wanted` returns to the precision of the sweep. Returns the rows written.

        `wanted` is called again after each timing, because a timing may change the front. Graphs that had
        that precision from the start keep their rows.
        """
        written: list[Trial] = []
        done = set(self._untimed)
        while graphs := {str(row.served_as) for row in wanted()} - done:
            graph = min(graphs)
            done.add(graph)
            if rows := self.ledger.timed_as(graph):
                written += self._time(rows, whole=True)
        self.pipeline.rest()
        return written

    def settle(self, patience_s: float = 0.0) -> list[Trial]:
        """Repeat provisional timings if the machine is quieter now, or becomes so within `patience_s` seconds.
        Returns the rows written.
        """
        written: list[Trial] = []
        self.provisional.settle(
            self.ledger.timed(), lambda rows: written.extend(self._time(rows, again=True)), patience_s
        )
        self.pipeline.rest()
        return written

    def _time(self, rows: list[Trial], whole: bool = False, again: bool = False) -> list[Trial]:
        """Time the graph that these rows share, and write the rows whose cells change. `whole` and `again` as in
        `Pipeline.timing_steps`. Returns the rows written.
        """
        made = [self.ledger.candidate_of(row) for row in rows]
        candidate = next(filter(self.pipeline.is_there, made), made[0])
        began, started = self.clock(), now()
        steps = self.pipeline.timing_steps(candidate, self.events.stages_of(candidate), whole, rows[0].graph, again)
        measured = self.under_way.complete(steps, self.record.log(candidate.id))
        self.events(CandidateEnded(0, candidate))
        self.record.keep_timings(measured.timings)
        self.seconds += measured.seconds
        if measured.status != "ok" or measured.cells["graph"] != rows[0].graph:
            why = measured.error or "its build today has another graph"
            self.events.note(f"{rows[0].candidate} could not be timed anew: {why}; its earlier timing stays")
            if measured.status != "lost":
                self._untimed.add(str(rows[0].served_as))
            return []
        cells = rounded({n: v for n, v in measured.cells.items() if n.partition("@")[0] in RETIMED})
        written: list[Trial] = []
        for row in [row for row in rows if any(row[name] != value for name, value in cells.items())]:
            first = not written
            times: Cells = {"started": started, "ended": now(), "wall_s": self.clock() - began if first else 0.0}
            attempt: Cells = {"attempt": self.ledger.attempts[row.candidate] + 1, "cached": None}
            costs: Cells = {f"cost_{stage}_s": None for stage in STAGES}
            if first:
                costs["cost_time_s"] = measured.cells.get("cost_time_s")
            anew = row | rounded({**row.cells, **costs, **attempt, **times, **cells})
            written.append(self.record.results.append(anew))
            self.ledger.learn(written[-1])
        return written
