"""What a sweep on a cluster knows of its jobs. Results may lie in a store alone: their files are copied when somebody asks for them."""

from __future__ import annotations

from autotune.artifacts.shared_store import HERE as STAYS
from autotune.artifacts.store import Stored
from autotune.execution.protocol import Blocking
from autotune.execution.sweep_artifacts import SweepArtifacts
from autotune.stages.jobs import Job, Result, TimeJob

_DONE_WITH = 50
"""How many results an order names that are of no use any more."""


class ClusterStages(SweepArtifacts):
    """What a sweep on a cluster knows of its jobs. A call of it waits for the executor that it is given."""

    blocking: Blocking
    done_with: tuple[str, ...] = ()
    """Large results on nodes that the sweep needs no more; the last of them."""

    def find(self, job: Job) -> Stored | None:
        """Return the result if it is there already: here, or in the shared store."""
        return super().find(job) or self.cache.find_afar(job)

    def discard(self, job: Job) -> None:
        """Remove a result that is large and made again in seconds, here and on nodes."""
        super().discard(job)
        if self.cache.shared is not None and job.stage in STAYS:
            self.done_with = (*self.done_with, job.key)[-_DONE_WITH:]

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job. Raises as the executor's futures do."""
        return self.blocking(job, timeout, anew)

    def again(self, job: TimeJob) -> tuple[Result, float]:
        """Time once more, whatever the cache holds. Raises as a call does."""
        return self.alone(job)

    def alone(self, job: Job, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a process of its own, and keep nothing. Raises as a call does."""
        stored = self.blocking(job, timeout, anew=True)
        return stored.result, stored.seconds
