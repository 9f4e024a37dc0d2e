"""The artifacts of a sweep on a cluster. Results may lie in a store alone: their files are copied here when a caller asks
for them.
"""

from __future__ import annotations

from autotune.artifacts.shared_store import HERE as STAYS
from autotune.artifacts.store import Stored
from autotune.execution.protocol import Blocking
from autotune.execution.sweep_artifacts import SweepArtifacts
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Job, Result

_DONE_WITH = 50
"""The most results that an order lists for removal."""


class ClusterStages(SweepArtifacts):
    """The artifacts of a sweep on a cluster. A call does a job through `blocking`, which the engine sets."""

    blocking: Blocking
    done_with: tuple[str, ...] = ()
    """The keys of the last large results on nodes that the sweep needs no more."""

    def find(self, job: Job) -> Stored | None:
        """Return the result of a job if it exists here or in the shared store."""
        return super().find(job) or self.cache.find_afar(job)

    def discard(self, job: Job) -> None:
        """Remove a result, here and on nodes: large ones that are made again in seconds."""
        super().discard(job)
        if self.cache.shared is not None and job.stage in STAYS:
            self.done_with = (*self.done_with, job.key)[-_DONE_WITH:]

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job. Raises as the executor's futures do."""
        return self.blocking(job, timeout, anew)

    def again(self, job: TimeJob) -> tuple[Result, float]:
        """Time once more, without the cache. Raises as a call does."""
        return self.alone(job)

    def alone(self, job: Job, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a fresh process, without the cache. Raises as a call does."""
        stored = self.blocking(job, timeout, anew=True)
        return stored.result, stored.seconds
