"""A job done by this machine's engine: timed alone, resumable where it trains, with the folders that a stage keeps things in."""

from __future__ import annotations

import shutil
from pathlib import Path

from autotune.artifacts.store import Cache
from autotune.candidate import digest
from autotune.errors import StageError
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
from autotune.providers import PROVIDERS, installed
from autotune.stages.jobs import FinetuneJob, Job, Result, TimeJob, TurnsJob

_GOES_ON = ("lost", "timeout")
"""Ends of a training after which its checkpoint is of use."""


class Doing:
    """Does jobs whose inputs are resolved to paths."""

    def __init__(self, cache: Cache, engine: LocalEngine, stop: Stop | None = None) -> None:
        """`stop`: a training ends early when it is asked for."""
        self._cache, self._engine, self._stop = cache, engine, stop

    def into(self, job: Job, out: Path, log: Path, limit: float) -> tuple[Result, float]:
        """Do a job into the folder `out`, in at most `limit` seconds. Returns its result and its seconds. Raises as the engine."""
        if isinstance(job, TimeJob | TurnsJob):
            return self.timed(job, log, limit)
        try:
            return self._engine.run(self._resumable(job), out, log, limit)
        except StageError as error:
            if error.status not in _GOES_ON:
                shutil.rmtree(self._cache.checkpoint(job), ignore_errors=True)
            raise

    def timed(self, job: TimeJob | TurnsJob, log: Path, limit: float) -> tuple[Result, float]:
        """Time models, alone on this host. Returns and raises as `into`."""
        if isinstance(job, TurnsJob):
            job = job.model_copy(update={"graphs": tuple(map(self._with_engines, job.graphs))})
            rounds, seconds = self._engine.time_in_turns(job, log, limit)
            return {"rounds": rounds}, seconds
        processes, seconds = self._engine.time(self._with_engines(job), log, limit)
        # `begun`: the seconds are not those of all processes.
        return {"processes": processes} | ({"begun": len(job.begun)} if job.begun else {}), seconds

    def _with_engines(self, job: TimeJob) -> TimeJob:
        """Let a provider that compiles engines keep them beside the cache's results: of one graph, device with its driver,
        version and options each.
        """
        provider = PROVIDERS.get(job.provider)
        if provider is None or not provider.engines_option:
            return job
        versions = provider.packages | {package: installed(package) for package in job.packages}
        where = [job.device_index, job.hardware, job.machine]
        key = digest([job.graph, job.provider, versions, *where, job.provider_options])
        return job.model_copy(update={"engines_dir": self._cache.root / "engines" / key[:32]})

    def _resumable(self, job: Job) -> Job:
        """Let a training keep checkpoints, go on from the last, and end early when it is asked to."""
        if not isinstance(job, FinetuneJob):
            return job
        stop_file = self._stop.file if self._stop is not None else None
        return job.model_copy(update={"keep_dir": self._cache.checkpoint(job), "stop_file": stop_file})
