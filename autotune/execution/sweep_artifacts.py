"""What a sweep knows of its jobs, wherever they are done: results that are there and in use, and what jobs may take and took."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
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
from autotune.stages.jobs import Job, Result

_NO_INPUTS = ("check", "score", "time", "turns")
"""Stages whose results no other job reads."""


class SweepArtifacts:
    """The results that one sweep uses. Threads may share it."""

    def __init__(
        self,
        cache: Cache,
        model: str = "",
        stop: Stop | None = None,
        timeouts: Timeouts | None = None,
        room: Room | None = None,
        costs: CostModel | None = None,
    ) -> None:
        """`costs` is told what stages took; None: a model of its own."""
        self.cache, self.model = cache, model
        self.costs = costs or costs_of(cache, Subject(model))
        self.stop, self.timeouts, self.room = stop, timeouts or Timeouts(self.costs), room
        self.guard = Guard()
        self._needs_mb = 0.0
        self.spent_s = 0.0
        """Seconds inside stages that were done for this sweep and ended well."""
        self._guard = threading.Lock()
        self._in_use: dict[str, Job] = {}
        self._asked_for: dict[str, Job] = {}
        self._settled: set[str] = set()
        self.places: dict[str, Path] = {}
        """Where inputs from outside the cache lie, by their keys."""

    def find(self, job: Job) -> Stored | None:
        """Return the result if it is there already."""
        self.costs.note(job)
        self._use(job)
        return self.cache.find(job)

    def admit(self, job: Job, timeout: float | None = None) -> float:
        """Return the seconds that a job may take, at most `timeout`, before it is done; make room for its result.

        Raises Interrupted where the sweep is to end, MachineError where there is no room.
        """
        if self.stop is not None:
            self.stop.check()
        if self.room is not None:
            self.room.make(self._needs_mb if job.stage in ("merge", "build") else 0.0)
        return self.timeouts.limit(job, timeout)

    def made(self, job: Job, stored: Stored, first: bool) -> None:
        """Take in that a result is there; `first`: its worker had to import what it needs, about."""
        if stored.cached:
            return
        self.taken(job, stored.result, stored.seconds, first)
        if self.room is not None and stored.afar is None:
            self.room.added(stored.path)

    def taken(self, job: Job, result: Result, seconds: float, first: bool = False) -> tuple[Result, float]:
        """Take in what a job took; return its result and the seconds."""
        self.costs.learn(job, result, seconds, first)
        with self._guard:
            self.spent_s += seconds
        return result, seconds

    def place(self, key: str) -> Path:
        """Return where what has a key lies. Raises StageError where it is gone: the candidate that made it must make it anew."""
        place = self.places.get(key) or self.cache.locate(key)
        if place is None:
            raise StageError("lost", f"what was made as {key[:12]} is no longer in the cache")
        return place

    def job_of(self, key: str) -> Job | None:
        """Return the job that makes what has a key, where the sweep has asked for that."""
        with self._guard:
            return self._asked_for.get(key)

    def _use(self, job: Job) -> None:
        with self._guard:
            if self.cache.shared is not None and job.stage not in _NO_INPUTS:
                self._asked_for[job.key] = job
            if job.key not in self._in_use:
                self.cache.hold(job)
                self._in_use[job.key] = job

    @staticmethod
    def what(log: Path) -> str:
        """Return for which candidate and results folder a stage is done that writes to `log`, for others who wait for it."""
        return f"{log.stem} in {log.parent.parent.resolve()}"

    def discard(self, job: Job) -> None:
        """Remove a result that is large and made again in seconds, unless another sweep uses it."""
        with self._guard:
            self._in_use.pop(job.key, None)
            self.cache.discard(job)

    def let_go(self, *needed: Job) -> None:
        """Say that no result is in use any more but those of `needed`, and what `settle` was said of."""
        keys = {job.key for job in needed} | self._settled
        with self._guard:
            for key in set(self._in_use) - keys:
                self.cache.let_go(self._in_use.pop(key))

    def settle(self, files: Iterable[Path], model_mb: float, places: Mapping[str, Path] | None = None) -> None:
        """Say that preparation is over: what is in use now (the base model) is needed until `close`, and `files` must
        not change; `model_mb`, 10^6 bytes, is what a merge or a build may need of the disk; `places` says where inputs
        from outside the cache lie, by their keys. Raises OSError.
        """
        self.places |= places or {}
        self._settled |= set(self._in_use)
        self._needs_mb = model_mb
        if self.room is not None:
            self.room.clear()
        self.guard.watch(files)

    def close(self) -> None:
        """Say that nothing is in use any more."""
        self._settled.clear()
        self.let_go()

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        """Keep the results of `jobs`, and of no others, for a results folder, as long as that is there."""
        self.cache.pin(folder, [*jobs, *(self._in_use[key] for key in self._settled)])
