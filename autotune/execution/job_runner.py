"""Do a job with this machine's engine: timings alone on the host, trainings with checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

from autotune.artifacts.compiled_engines import in_use, note, with_engines
from autotune.artifacts.store import Cache
from autotune.errors import StageError
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
from autotune.stages.jobs import FinetuneJob, TimeJob, TurnsJob
from autotune.stages.protocol import Job, Result

_GOES_ON = ("lost", "timeout")
"""Errors of a training after which its checkpoint is kept."""


class JobRunner:
    """Runs jobs whose inputs are resolved to paths."""

    def __init__(self, cache: Cache, engine: LocalEngine, stop: Stop | None = None) -> None:
        """`stop`: a training ends early when it is requested."""
        self._cache, self._engine, self._stop = cache, engine, stop

    def run(self, job: Job, out: Path, log: Path, limit: float) -> tuple[Result, float]:
        """Run a job into the folder `out`, in at most `limit` seconds. Returns its result and its seconds. Raises as the engine."""
        if isinstance(job, TimeJob | TurnsJob):
            return self.time(job, log, limit)
        try:
            return self._engine.run(self._resumable(job), out, log, limit)
        except StageError as error:
            if error.status not in _GOES_ON:
                shutil.rmtree(self._cache.checkpoint(job), ignore_errors=True)
            raise

    def time(self, job: TimeJob | TurnsJob, log: Path, limit: float) -> tuple[Result, float]:
        """Time models, alone on this host. Returns and raises as `run`."""
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
        # `begun` processes were timed earlier: the seconds do not cover them.
        return {"processes": processes} | ({"begun": len(job.begun)} if job.begun else {}), seconds

    def _resumable(self, job: Job) -> Job:
        """Return a training that keeps checkpoints, continues from the last one, and ends early on request; other jobs as given."""
        if not isinstance(job, FinetuneJob):
            return job
        stop_file = self._stop.file if self._stop is not None else None
        return job.model_copy(update={"keep_dir": self._cache.checkpoint(job), "stop_file": stop_file})
