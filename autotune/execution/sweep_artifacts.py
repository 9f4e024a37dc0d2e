"""The artifacts of one sweep, wherever its jobs are done: which results exist and are in use, time limits, and costs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from autotune.artifacts.room import Room
from autotune.artifacts.store import Cache, Stored
from autotune.costs.evidence import costs_of
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.errors import StageError
from autotune.execution.input_guard import Guard
from autotune.execution.stop import Stop
from autotune.execution.timeouts import Timeouts
from autotune.stages.protocol import Job, Result

_NO_INPUTS = ("check", "score", "time", "turns")
"""Stages whose results no other job reads."""
_NO_FILES = ("check", "time", "turns")
"""Those whose results are their report alone, which is read at once: nothing of them has to stay in the cache."""


class SweepArtifacts:
    """The artifacts that one sweep uses. Threads may share it."""

    def __init__(
        self,
        cache: Cache,
        model: str = "",
        stop: Stop | None = None,
        timeouts: Timeouts | None = None,
        room: Room | None = None,
        costs: CostModel | None = None,
    ) -> None:
        """`costs` learns the seconds of stages; None: a model of its own."""
        self.cache, self.model = cache, model
        self.costs = costs or costs_of(cache, Subject(model))
        self.stop, self.timeouts, self.room = stop, timeouts or Timeouts(self.costs), room
        self.guard = Guard()
        self._needs_mb = 0.0
        self.spent_s = 0.0
        """Seconds inside the stages of this sweep that succeeded."""
        self._guard = threading.Lock()
        self._in_use: dict[str, Job] = {}
        self._asked_for: dict[str, Job] = {}
        self._settled: set[str] = set()
        self.places: dict[str, Path] = {}
        """By key, the paths of inputs from outside the cache."""

    def find(self, job: Job) -> Stored | None:
        """Return the result of a job if the cache has it. It is in use from now on."""
        self.costs.note(job)
        self._use(job)
        return self.cache.find(job)

    def admit(self, job: Job, timeout: float | None = None) -> float:
        """Make room for the result of a job, and return its time-out in seconds, at most `timeout`.

        Raises Interrupted where the sweep is to end, MachineError where there is no room.
        """
        if self.stop is not None:
            self.stop.check()
        if self.room is not None:
            self.room.make(self._needs_mb if job.stage in ("merge", "build") else 0.0)
        return self.timeouts.limit(job, timeout)

    def made(self, job: Job, stored: Stored, first: bool) -> None:
        """Book a result that was made; `first`: its worker probably had to import the stage's packages."""
        if stored.cached:
            return
        self.taken(job, stored.result, stored.seconds, first)
        if self.room is not None and stored.afar is None:
            self.room.added(stored.path)

    def taken(self, job: Job, result: Result, seconds: float, first: bool = False) -> tuple[Result, float]:
        """Book the seconds of a job. Returns its result and the seconds."""
        self.costs.learn(job, result, seconds, first)
        with self._guard:
            self.spent_s += seconds
        return result, seconds

    def place(self, key: str) -> Path:
        """Return the path of the input with a key. Raises StageError (`lost`) where it is gone: it must be made again."""
        place = self.places.get(key) or self._folder_in_use(key) or self.cache.locate(key)
        if place is None:
            raise StageError("lost", f"what was made as {key[:12]} is no longer in the cache")
        return place

    def _folder_in_use(self, key: str) -> Path | None:
        """Return the folder of a result that this sweep uses; None where it is not there, or not in use."""
        job = self._in_use.get(key)
        folder = self.cache.folder(job) if job is not None else None
        return folder if folder is not None and folder.is_dir() else None

    def job_of(self, key: str) -> Job | None:
        """Return the job that makes the result with a key, if the sweep has looked for it."""
        with self._guard:
            return self._asked_for.get(key)

    def _use(self, job: Job) -> None:
        if job.stage in _NO_FILES:
            return
        with self._guard:
            if self.cache.shared is not None and job.stage not in _NO_INPUTS:
                self._asked_for[job.key] = job
            if job.key not in self._in_use:
                self.cache.hold(job)
                self._in_use[job.key] = job

    @staticmethod
    def what(log: Path) -> str:
        """Return the candidate and results folder of a stage that writes to `log`, for processes that wait for its result."""
        return f"{log.stem} in {_resolved(log.parent.parent)}"

    def discard(self, job: Job) -> None:
        """Remove a result, unless another sweep uses it: large ones that are made again in seconds."""
        with self._guard:
            self._in_use.pop(job.key, None)
            self.cache.discard(job)

    def let_go(self, *needed: Job) -> None:
        """Release all results except those of `needed` and those that `settle` keeps."""
        keys = {job.key for job in needed} | self._settled
        with self._guard:
            for key in set(self._in_use) - keys:
                self.cache.let_go(self._in_use.pop(key))

    def settle(self, files: Iterable[Path], model_mb: float, places: Mapping[str, Path] | None = None) -> None:
        """End the preparation: results in use now (the base model) are kept until `close`, and `files` must not change.

        `model_mb`: the disk that a merge or a build may need, 10^6 bytes; `places`: by key, the paths of inputs from outside the
        cache. Raises OSError.
        """
        self.places |= places or {}
        self._settled |= set(self._in_use)
        self._needs_mb = model_mb
        if self.room is not None:
            self.room.clear()
        self.guard.watch(files)

    def close(self) -> None:
        """Release all results."""
        self._settled.clear()
        self.let_go()

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        """Keep the results of `jobs`, and no others, for a results folder, as long as that folder exists."""
        self.cache.pin(folder, [*jobs, *(self._in_use[key] for key in self._settled)])


@cache
def _resolved(folder: Path) -> Path:
    return folder.resolve()
