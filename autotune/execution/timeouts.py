"""How long a stage may take before it counts as hung: learned from what it took before, or as the sweep says.

A stage is measured in seconds per unit of its work (an item to score, a sequence of a training step, a token to time,
a build), on the same data: what short texts took says nothing about long ones. A training of which nothing is known
may take what `train.time_limit_s` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, Job, MergeJob, Result, ScoreJob, TimeJob, TurnsJob

FIRST_S = 3600.0
"""Seconds that a stage may take of which nothing is known yet."""
LEAST_S = 300.0
"""Seconds that any stage may take, and a training beyond the user's limit: imports on a busy machine are slow."""
TIMES = 20.0
"""How many times slower than the slowest so far a stage may be, per unit of work."""

LEARNED: tuple[type[Job], ...] = (FinetuneJob, MergeJob, BuildJob, CheckJob, ScoreJob, TimeJob)


def _timed_tokens(inputs: Mapping[str, Any]) -> float:
    """Return the tokens of a round of sequences, prompts included, of a timing."""
    lengths = inputs.get("lengths") or [(inputs["prompt_tokens"], inputs["new_tokens"])]
    return float(inputs["batch"] * sum(prompt + new for prompt, new in lengths))


def units_done(inputs: Mapping[str, Any], result: Result) -> float:
    """Return the units of work in a finished stage, from its inputs and result as the cache keeps them."""
    if "lora" in inputs:
        return float(result["step"] * inputs["lora"]["batch_size"] * inputs["lora"]["accumulation"])
    if "prompt_tokens" in inputs:
        return _timed_tokens(inputs)
    return float(result.get("items") or 1)


def units_of(job: Job) -> float | None:
    """Return the units of work in a job that is still to be done, or None where only the stage itself will know."""
    if isinstance(job, FinetuneJob):
        steps = job.stop_at or job.horizon or job.lora.steps
        return None if steps is None else float(steps * job.lora.batch_size * job.lora.accumulation)
    if isinstance(job, TimeJob):
        return _timed_tokens(job.model_dump())
    return job.items if isinstance(job, ScoreJob) else 1.0


def _alike(stage: str, inputs: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what runs of a stage must share so that a unit of their work takes about as long: the data, and where texts
    are cut.
    """
    return stage, inputs.get("data"), (inputs.get("lora") or inputs).get("max_length")


class Timeouts:
    """The time-outs of one sweep, seconds."""

    def __init__(self, fixed: Mapping[Any, float] | None = None) -> None:
        """`fixed`: for a stage what the sweep says."""
        self.fixed: dict[str, float] = dict(fixed or {})
        self._slowest: dict[tuple[object, ...], float] = {}

    def learn(self, stage: str, inputs: Mapping[str, Any], result: Result, seconds: float) -> None:
        """Take in what a stage took."""
        pace, alike = seconds / max(1.0, units_done(inputs, result)), _alike(stage, inputs)
        self._slowest[alike] = max(pace, self._slowest.get(alike, 0.0))

    def of(self, job: Job) -> float:
        """Return the seconds that a job may take; of timings in turns, that one process may."""
        if isinstance(job, TurnsJob):
            return max(self.of(graph) for graph in job.graphs)
        if job.stage in self.fixed:
            return self.fixed[job.stage]
        pace, units = self._slowest.get(_alike(job.stage, job.model_dump())), units_of(job)
        if pace is None or units is None:
            # The training itself ends at the user's limit, between two steps; what hangs in a step is stopped after that.
            limit = job.time_limit_s if isinstance(job, FinetuneJob) else None
            return FIRST_S if limit is None else limit + LEAST_S
        return max(LEAST_S, TIMES * pace * units)
