"""Keeps the state of a running sweep, from its events and the rows of earlier runs alone, for whatever shows it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from autotune.candidate import Candidate
from autotune.present.tables import settings
from autotune.results.rows import Trial
from autotune.results.trials import Trials
from autotune.scheduler.events import (
    BestSoFar,
    CandidateEnded,
    Event,
    RowWritten,
    StageAt,
    StageBegan,
    TimeLeft,
    WorkersEmployed,
)
from autotune.sweepfile.schema import Budget

_DOING = {
    "finetune": "fine-tuning",
    "merge": "merging",
    "build": "building",
    "check": "checking",
    "time": "timing",
    "turns": "timing in turns",
    "score": "scoring",
    "verify": "verifying",
}
_ALONE = ("time", "turns")
"""Stages that run while no other does."""
_KINDS = {"ok": "measured", "over_limit": "over a limit", "stopped": "stopped"}
"""The words for a status; every other status is a failure."""


def stage_name(stage: str) -> str:
    """Return a stage in words; `stage` may have details after a space."""
    first = stage.split(" ")[0]
    return _DOING.get(first, first) + stage.removeprefix(first)


def candidate_name(candidate: Candidate) -> str:
    """Return a candidate's settings in a few words."""
    return settings(candidate.columns()) or "the untouched model"


@dataclass(frozen=True)
class Doing:
    """The stage that runs for a candidate."""

    candidate: str
    """Its id."""
    trial: int
    settings: str
    stage: str
    since: float
    """When it began, seconds by the clock."""
    target: str | None = None
    host: str = ""
    """The host in a cluster; empty: this machine, or not known yet."""

    @property
    def alone(self) -> bool:
        """Whether the stage has the machine to itself."""
        return self.stage.split(" ")[0] in _ALONE


@dataclass(frozen=True)
class Picture:
    """The state of a sweep at one moment."""

    sweep: str
    budget: Budget
    objectives: tuple[str, ...]
    trials: int
    """Finished trials, with those of earlier runs."""
    workers: tuple[Doing | None, ...]
    """The stage of each worker; None: it is idle."""
    counts: dict[str, int]
    """The number of candidates by outcome (measured, over a limit, stopped, failed); outcomes without a candidate are left out.
    """
    failures: dict[str, int]
    """The number of failed candidates by status."""
    standings: tuple[BestSoFar, ...]
    """The best candidate and the front so far, of the sweep or of each target."""
    now: float
    """Seconds by the clock."""
    spent_s: float
    """Seconds of the wall-clock, earlier runs included."""
    left_s: float | None
    """The expected seconds until the end; None where that is not known."""
    begun: bool
    """Whether any stage of a candidate has begun."""
    one_host: bool
    """Whether all workers are on one machine."""

    def waits(self, doing: Doing) -> bool:
        """Return whether a stage waits for others: a timing waits for the stages that run, and later stages wait for the
        timing.
        """
        if not self.one_host:
            return False  # nobody says here which of them share a machine
        others = [other for other in self.workers if other is not None and other is not doing]
        if doing.alone:
            return any(not other.alone and other.since < doing.since for other in others)
        return any(other.alone and other.since <= doing.since for other in others)


@dataclass
class SoFar:
    """The state so far: `hear` takes each event, `picture` returns the state, from any thread."""

    sweep: str
    budget: Budget
    objectives: Sequence[str]
    earlier: Iterable[Trial] = ()
    """The rows of earlier runs, which count towards the budget."""
    spent_before_s: float = 0.0
    targets: Sequence[str] = ()
    """The names of the sweep's targets, where it has several."""
    clock: Callable[[], float] = time.monotonic
    trials: Trials = field(default_factory=Trials)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self._lock = threading.Lock()
        self._workers: list[Doing | None] = [None]
        self._ended: dict[tuple[str | None, str], str] = {}
        """By target and candidate how its last row says that it ended."""
        names: Sequence[str | None] = list(self.targets) or [None]
        self._standings: dict[str | None, BestSoFar] = {name: BestSoFar(None, (), name) for name in names}
        self._left: tuple[float, float] | None = None
        """The seconds that the sweep still takes, and since when that holds."""
        self._begun, self._one_host = False, True
        for row in self.earlier:
            self._learn(row)

    def hear(self, event: Event) -> None:
        """Update the state by an event."""
        with self._lock:
            match event:
                case WorkersEmployed(count, one_host):
                    self._one_host = one_host
                    self._workers += [None] * (count - len(self._workers))
                case StageBegan(trial, candidate, stage):
                    self._begun = True
                    on = f"{candidate.target}: " if candidate.target is not None else ""
                    doing = Doing(
                        candidate.id, trial, on + candidate_name(candidate), stage, self.clock(), candidate.target
                    )
                    self._workers[self._place(candidate.id)] = doing
                case StageAt(candidate_id, host):
                    self._workers = [
                        replace(doing, host=host) if doing is not None and doing.candidate == candidate_id else doing
                        for doing in self._workers
                    ]
                case CandidateEnded(_, candidate):
                    self._workers = [
                        None if doing is not None and doing.candidate == candidate.id else doing
                        for doing in self._workers
                    ]
                case RowWritten(row):
                    self._learn(row)
                case BestSoFar(target=target):
                    self._standings[target] = event
                case TimeLeft(seconds):
                    self._left = None if seconds is None else (seconds, self.clock())
                case _:
                    pass

    def doing(self, candidate: str) -> Doing | None:
        """Return the stage that runs for a candidate, by its id; None if none does."""
        with self._lock:
            return next((one for one in self._workers if one is not None and one.candidate == candidate), None)

    def _place(self, candidate: str) -> int:
        """Return the line of a candidate in the view: its present line, or else the first free one."""
        names = [doing.candidate if doing is not None else None for doing in self._workers]
        for wanted in (candidate, None):
            if wanted in names:
                return names.index(wanted)
        self._workers.append(None)
        return len(self._workers) - 1

    def _learn(self, row: Trial) -> None:
        self.trials.learn(row)
        if row.trial:
            self._ended[row.target, row.candidate] = row.status

    def left_s(self) -> float | None:
        """Return the seconds that are left, or None where that is not known."""
        left = self._left
        return None if left is None else max(0.0, left[0] - (self.clock() - left[1]))

    def picture(self) -> Picture:
        """Return the present state."""
        with self._lock:
            ended = Counter(self._ended.values())
            failures = {status: count for status, count in sorted(ended.items()) if status not in _KINDS}
            counts = {name: ended[status] for status, name in _KINDS.items() if ended[status]}
            now = self.clock()
            return Picture(
                self.sweep,
                self.budget,
                tuple(self.objectives),
                len(self.trials),
                tuple(self._workers),
                counts | ({"failed": sum(failures.values())} if failures else {}),
                failures,
                tuple(self._standings.values()),
                now,
                self.spent_before_s + now - self._began,
                self.left_s(),
                self._begun,
                self._one_host,
            )
