"""`run --report`: rewrites the report while the sweep runs, at intervals that keep its cost small."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from autotune.errors import AutotuneError
from autotune.report.write import write_report
from autotune.scheduler.events import Event, RowWritten

LEAST_S, SHARE = 30.0, 0.01
"""The least seconds between two writings, and the largest share of the wall-clock that they take."""


class ReportRefresher:
    """A listener that rewrites the report of a running sweep after a row, unless it did so a moment ago."""

    def __init__(self, folder: Path, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._say, self._clock = folder, say, clock
        self._next = clock()
        self._told = ""

    def __call__(self, event: Event) -> None:
        """Write the report after a new row, once the interval has passed."""
        if isinstance(event, RowWritten) and self._clock() >= self._next:
            self.write()

    def write(self) -> bool:
        """Write the report now. Returns whether it was written; says why not, but each reason once in a row."""
        began, written = self._clock(), False
        try:
            write_report([self._folder], say=_nothing)
            written = True
        except (AutotuneError, OSError) as error:
            if str(error) != self._told:
                self._told = str(error)
                self._say(f"the report was not written: {error}")
        now = self._clock()
        self._next = now + max(LEAST_S, (now - began) / SHARE)
        return written


def _nothing(_: str) -> None:
    """Do nothing with the note that there is nothing to draw yet."""
