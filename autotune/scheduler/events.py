"""The events of a running sweep, as one stream. Progress, status and logs listen to it.

Events are sent by the thread that runs the sweep, one after another; only a `Note` may come from another thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.candidate import Candidate
from autotune.results.rows import Trial


@dataclass(frozen=True)
class StageBegan:
    """A stage of a candidate begins, or waits for a free worker. `trial`: its number; 0 where the candidate is no trial."""

    trial: int
    candidate: Candidate
    stage: str


@dataclass(frozen=True)
class StageAt:
    """The stage of a candidate, given by its id, is at work on a host of a cluster."""

    candidate: str
    host: str


@dataclass(frozen=True)
class CandidateEnded:
    """A candidate has ended. Its row was written, unless the sweep is being interrupted."""

    trial: int
    candidate: Candidate


@dataclass(frozen=True)
class RowWritten:
    """A row was written; `best` is the winner so far."""

    row: Trial
    best: Trial | None


@dataclass(frozen=True)
class BestSoFar:
    """The winner so far, and the front of the objectives. It is sent as often as there is time to judge. `target`: of which of several."""

    best: Trial | None
    front: tuple[Trial, ...]
    target: str | None = None


@dataclass(frozen=True)
class WorkersEmployed:
    """So many workers are there from now on: as many candidates can be under way. `one_host`: on this machine, all of them."""

    count: int
    one_host: bool = True


@dataclass(frozen=True)
class StillAtWork:
    """A stage is still running, and none has ended in the last half second."""


@dataclass(frozen=True)
class TimeLeft:
    """How long the sweep still takes, as far as that can be said."""

    seconds: float | None


@dataclass(frozen=True)
class Note:
    """A message for the user, of one line."""

    text: str


Event = StageBegan | StageAt | CandidateEnded | RowWritten | BestSoFar | WorkersEmployed | StillAtWork | TimeLeft | Note
Listener = Callable[[Event], None]


class Events:
    """The stream: call it with an event, and all listeners hear it in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def note(self, text: str) -> None:
        """Send a `Note`."""
        self(Note(text))

    def stages_of(self, candidate: Candidate, trial: int = 0, scored: str = "") -> Callable[[str], None]:
        """Return who is told of a candidate's stages, by name; `scored` says on what it is scored."""
        return lambda stage: self(StageBegan(trial, candidate, stage + (scored if stage == "score" else "")))

    def still_at_work(self) -> None:
        """Send `StillAtWork`."""
        self(StillAtWork())
