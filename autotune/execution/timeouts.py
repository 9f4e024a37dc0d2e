"""Time-outs: a stage that takes longer counts as hung. The sweep file sets them, or they are a multiple of the expected
seconds.

Only jobs alike (the same data, precision and metric) make a time-out: short texts say nothing about long ones. For other
jobs the expectation by size can only lengthen a stage's default time-out. A training of which nothing is known may take
`train.time_limit_s`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autotune.costs.model import ALIKE, CostModel
from autotune.stages.jobs import FinetuneJob, TimeJob, TurnsJob
from autotune.stages.protocol import Job

FIRST_S = 3600.0
"""The least time-out of a stage of which nothing is known yet, seconds."""
LEAST_S = 300.0
"""The least time-out of any stage, and of a training beyond the user's limit, seconds: imports on a busy machine are slow."""
OF_DEVICES = ("devices", "capability")
"""Stages that question a device; their callers have limits of their own."""
TIMES = 20.0
"""A time-out is so many times the seconds that nine jobs of ten do not exceed."""


class Timeouts:
    """The time-outs of one sweep, seconds."""

    def __init__(self, costs: CostModel, fixed: Mapping[Any, float] | None = None) -> None:
        """`fixed`: by stage, the time-outs of the sweep file."""
        self.costs = costs
        self.fixed: dict[str, float] = dict(fixed or {})

    def limit(self, job: Job, asked: float | None = None) -> float:
        """Return the time-out of a job, seconds; `asked`: the caller's own limit. For questions to a device, a time-out of the
        sweep file overrides the caller's limit.
        """
        if job.stage in OF_DEVICES and job.stage in self.fixed:
            return self.fixed[job.stage]
        return min(self.of(job), asked or math.inf)

    def of(self, job: Job) -> float:
        """Return the time-out of a job, seconds; for timings, that of one process."""
        if isinstance(job, TurnsJob):
            return max(self.of(graph) for graph in job.graphs)
        if job.stage in self.fixed:
            return self.fixed[job.stage]
        expected = self.costs.expect(job, first=True, units=1.0 if isinstance(job, TimeJob) else None)
        if expected.evidence == ALIKE and expected.known:
            return max(LEAST_S, TIMES * expected.high)
        # A training ends by itself at the user's limit, between two steps; the time-out stops one that hangs in a step.
        limit = job.time_limit_s if isinstance(job, FinetuneJob) else None
        return max(FIRST_S, TIMES * expected.high) if limit is None else limit + LEAST_S
