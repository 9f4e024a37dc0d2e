"""The file `running.json`, which `status` reads: the candidates under way, and the stage of each.

With many candidates under way it is written once a second: at every stage it would be most of what the tuner costs.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

from autotune.results.record import Record
from autotune.scheduler.events import CandidateEnded, Event, StageBegan, StillAtWork

MANY = 16
"""Candidates under way up to which every stage is noted at once."""
EVERY_S = 1.0
"""Seconds between two notes where there are more."""


class Running:
    """A listener that keeps `running.json`."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._jobs: dict[str, dict[str, Any]] = {}
        """The stage of each candidate under way, by its id; the last began last."""
        self._noted, self._open = -math.inf, False
        """When they were noted, and whether something has changed since."""

    def __call__(self, event: Event) -> None:
        """Update the file for an event."""
        match event:
            case StageBegan(trial, candidate, stage):
                self._jobs.pop(candidate.id, None)
                job = {"trial": trial, "candidate": candidate.id, "stage": stage, "since": time.time()}
                self._jobs[candidate.id] = job
                self._open = True
                self._note()
            case CandidateEnded(_, candidate):
                self._jobs.pop(candidate.id, None)
            case StillAtWork():
                with contextlib.suppress(OSError):  # somebody reads it just now: the next note will do
                    self._note()
                self._record.still_busy()
            case _:
                pass

    def _note(self) -> None:
        """Write what has changed, unless that was done just now."""
        if not self._open or (len(self._jobs) > MANY and time.monotonic() - self._noted < EVERY_S):
            return
        if last := next(reversed(self._jobs.values()), None):
            self._record.busy(**last, jobs=list(self._jobs.values()))
        self._noted, self._open = time.monotonic(), False
