"""The file `running.json`, which `status` reads: the candidates under way, and the stage of each."""

from __future__ import annotations

import time
from typing import Any

from autotune.results.record import Record
from autotune.scheduler.events import CandidateEnded, Event, StageBegan, StillAtWork


class Running:
    """A listener that keeps `running.json`."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._jobs: dict[str, dict[str, Any]] = {}
        """The stage of each candidate under way, by its id."""

    def __call__(self, event: Event) -> None:
        """Update the file for an event."""
        match event:
            case StageBegan(trial, candidate, stage):
                self._jobs.pop(candidate.id, None)
                job = {"trial": trial, "candidate": candidate.id, "stage": stage, "since": time.time()}
                self._jobs[candidate.id] = job
                self._record.busy(**job, jobs=list(self._jobs.values()))
            case CandidateEnded(_, candidate):
                self._jobs.pop(candidate.id, None)
            case StillAtWork():
                self._record.still_busy()
            case _:
                pass
