"""Stages as the search calls them: found in the cache, or done by the engine and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autotune.engine.local import LocalEngine
from autotune.stages.jobs import Job, Result, TimeJob
from autotune.store.cache import Cache, Stored


class Stages:
    """Call it with a job: the result comes from the cache, or from a worker and then into the cache."""

    def __init__(self, cache: Cache, engine: LocalEngine, log: Callable[[], Path], model: str = "") -> None:
        self.cache, self.engine, self.log, self.model = cache, engine, log, model
        self.spent_s = 0.0
        """Seconds inside stages that were done here and ended well."""

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        """Return the stored result of a job. Raises StageError, MachineError; a failure is not kept."""

        def run(out: Path) -> tuple[Result, float]:
            if isinstance(job, TimeJob):
                return self._time(job, timeout)
            return self.engine.run(job, out, self.log(), timeout)

        stored = self.cache.make(job, run, self.model)
        if not stored.cached:
            self.spent_s += stored.seconds
        return stored

    def find(self, job: Job) -> Stored | None:
        """Return the result if it is there already."""
        return self.cache.find(job)

    def hold(self, job: Job) -> None:
        """Keep a job's result until `release`, whichever sweep wants to remove it."""
        self.cache.hold(job)

    def release(self, stage: str) -> None:
        """Remove the results of a stage that were held; they are large, and made again in seconds."""
        self.cache.release(stage)

    def _time(self, job: TimeJob, timeout: float | None) -> tuple[Result, float]:
        """Time in fresh processes, one after another: each is one sample."""
        processes: list[Result] = []
        total = 0.0
        for _ in range(job.processes):
            result, seconds = self.engine.run_fresh(job, self.log(), timeout)
            processes.append(result)
            total += seconds
        return {"processes": processes}, total
