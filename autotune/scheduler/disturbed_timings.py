"""Provisional timings: made beside other work, or with too wide an interval. They are repeated when the machine is quieter."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from autotune.machine import foreign_cpu
from autotune.pipeline.timing_validity import provisional, quieter
from autotune.results.rows import Trial
from autotune.scheduler.events import Events
from autotune.sweepfile.schema import Timing

PATIENCE_S, LOOK_S = 30.0, 3.0
"""Seconds that the end of a sweep waits for a quieter machine, and seconds between two checks of its load."""


class Provisional:
    """The provisional timings of one run of the command."""

    def __init__(self, timing: Timing, events: Events, foreign: Callable[[], float] = foreign_cpu) -> None:
        """`timing`: how precise a timing is to be, and how often it may be repeated; `foreign`: cores that other programs use
        where models are timed.
        """
        self.timing, self.events, self.foreign = timing, events, foreign
        self.wait: Callable[[float], None] = time.sleep
        self._made: Counter[str] = Counter()
        self._certain: set[tuple[str, int | None]] = set()
        """Rows whose timing is not provisional, by candidate and attempt: rows do not change, and there may be thousands."""

    def settle(self, rows: Sequence[Trial], retime: Callable[[list[Trial]], None], patience_s: float = 0.0) -> None:
        """Call `retime` for each graph of `rows` whose timing is provisional, if the machine is quieter now than at that timing,
        or becomes so within `patience_s` seconds. After a wait, a note gives the number of timings that stay provisional.
        """
        graphs: dict[str, list[Trial]] = {}
        for row in rows:
            if (row.candidate, row.attempt) in self._certain:
                continue
            if not self.is_provisional(row):
                self._certain.add((row.candidate, row.attempt))
            elif self._made[name := str(row.served_as)] < self.timing.repeats:
                graphs.setdefault(name, []).append(row)
        if not graphs:
            return
        waited, now = 0.0, self.foreign()
        while (left := [name for name in graphs if not quieter(graphs[name][0].timing, now)]) and waited < patience_s:
            if waited == 0.0:
                self.events.note(f"{len(left)} graphs were timed beside other work: waiting for a quieter machine")
            self.wait(LOOK_S)
            waited, now = waited + LOOK_S, self.foreign()
        if patience_s and left:
            busy = f"other programs keep {now:.1f} cores busy"
            self.events.note(f"{busy}: the timings of {len(left)} graphs are less certain than they should be")
        again = [name for name in graphs if name not in left]
        if again:
            self.events.note(
                f"{len(again)} graphs that were timed beside other work, or are uncertain, are timed again"
            )
        for name in again:
            self._made[name] += 1
            retime(graphs[name])

    def is_provisional(self, row: Trial) -> bool:
        """Whether a row's timing should be made again."""
        return provisional(row.timing, self.timing.precision)
