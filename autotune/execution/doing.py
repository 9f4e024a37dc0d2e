"""A job done by this machine's engine: timed alone, resumable where it trains, with the folders that a stage keeps things in."""

from __future__ import annotations

import shutil
from pathlib import Path

from autotune.artifacts.compiled_engines import in_use, note, with_engines
from autotune.artifacts.store import Cache
from autotune.errors import StageError
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
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
            job = job.model_copy(update={"graphs": tuple(with_engines(self._cache, graph) for graph in job.graphs)})
            with in_use(self._cache, job.graphs):
                rounds, seconds = self._engine.time_in_turns(job, log, limit)
                for graph in job.graphs:
                    note(graph, [])
            return {"rounds": rounds}, seconds
        job = with_engines(self._cache, job)
        with in_use(self._cache, [job]):
            processes, seconds = self._engine.time(job, log, limit)
            note(job, processes)
        # `begun`: the seconds are not those of all processes.
        return {"processes": processes} | ({"begun": len(job.begun)} if job.begun else {}), seconds

    def _resumable(self, job: Job) -> Job:
        """Let a training keep checkpoints, go on from the last, and end early when it is asked to."""
        if not isinstance(job, FinetuneJob):
            return job
        stop_file = self._stop.file if self._stop is not None else None
        return job.model_copy(update={"keep_dir": self._cache.checkpoint(job), "stop_file": stop_file})
