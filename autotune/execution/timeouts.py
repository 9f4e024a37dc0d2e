"""How long a stage may take before it counts as hung: as the sweep says, or many times what the cost model expects.

Only what jobs alike took (the same data, precision and metric) makes a time-out: what short texts took says nothing about
long ones. Of anything else the expectation by size only lengthens the time-out that a stage has until it is known. A
training of which nothing is known may take what `train.time_limit_s` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autotune.costs.model import ALIKE, CostModel
from autotune.stages.jobs import FinetuneJob, Job, TimeJob, TurnsJob

FIRST_S = 3600.0
"""Seconds that a stage may take of which nothing is known yet, at least."""
LEAST_S = 300.0
"""Seconds that any stage may take, and a training beyond the user's limit: imports on a busy machine are slow."""
OF_DEVICES = ("devices", "capability")
"""Stages that ask a device what it is and does; whoever asks them has limits of its own."""
TIMES = 20.0
"""How many times slower than it takes nine times out of ten a stage may be."""


class Timeouts:
    """The time-outs of one sweep, seconds."""

    def __init__(self, costs: CostModel, fixed: Mapping[Any, float] | None = None) -> None:
        """`fixed`: for a stage what the sweep says."""
        self.costs = costs
        self.fixed: dict[str, float] = dict(fixed or {})

    def limit(self, job: Job, asked: float | None = None) -> float:
        """Return the seconds that a job may take where its caller gives it `asked` at most; a sweep that speaks of the
        questions to a device is heard, and not the caller.
        """
        if job.stage in OF_DEVICES and job.stage in self.fixed:
            return self.fixed[job.stage]
        return min(self.of(job), asked or math.inf)

    def of(self, job: Job) -> float:
        """Return the seconds that a job may take; of timings, that one process may."""
        if isinstance(job, TurnsJob):
            return max(self.of(graph) for graph in job.graphs)
        if job.stage in self.fixed:
            return self.fixed[job.stage]
        expected = self.costs.expect(job, first=True, units=1.0 if isinstance(job, TimeJob) else None)
        if expected.evidence == ALIKE and expected.known:
            return max(LEAST_S, TIMES * expected.high)
        # The training itself ends at the user's limit, between two steps; what hangs in a step is stopped after that.
        limit = job.time_limit_s if isinstance(job, FinetuneJob) else None
        return max(FIRST_S, TIMES * expected.high) if limit is None else limit + LEAST_S
