"""Stages of known length for `benchmarks.many_workers`: each writes the files that its followers read, and sleeps.

They run in the tuner's own worker processes, so everything but the work itself is real.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import ClassVar

from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, Job, MergeJob, Result, ScoreJob, TimeJob

ITEMS = 100
SECONDS = {"finetune": 8.0, "merge": 0.5, "build": 3.0, "check": 0.5, "score": 4.0, "time": 0.5}
"""What each stage takes, about in the proportions of a model of 135 million parameters; of a timing each process."""


class SleepingFinetune(FinetuneJob):
    """A training that sleeps."""

    function: ClassVar[str] = "benchmarks.sleeping:sleep"


class SleepingMerge(MergeJob):
    """A merge that sleeps."""

    function: ClassVar[str] = "benchmarks.sleeping:sleep"


class SleepingBuild(BuildJob):
    """A build that sleeps."""

    function: ClassVar[str] = "benchmarks.sleeping:sleep"


class SleepingCheck(CheckJob):
    """A check that sleeps."""

    function: ClassVar[str] = "benchmarks.sleeping:sleep"


class SleepingScore(ScoreJob):
    """A score that sleeps."""

    function: ClassVar[str] = "benchmarks.sleeping:sleep"


class SleepingTime(TimeJob):
    """A timing process that sleeps."""

    function: ClassVar[str] = "benchmarks.sleeping:sleep"


_KINDS: dict[type[Job], type[Job]] = {
    FinetuneJob: SleepingFinetune, MergeJob: SleepingMerge, BuildJob: SleepingBuild, CheckJob: SleepingCheck,
    ScoreJob: SleepingScore, TimeJob: SleepingTime,
}  # fmt: skip


def sleeping(job: Job) -> Job:
    """Return the job that sleeps in place of a real one."""
    return _KINDS[type(job)](**{name: getattr(job, name) for name in type(job).model_fields})


def sleep(job: Job, out: Path) -> Result:
    """Sleep as long as the stage takes, and write what its followers read."""
    time.sleep(SECONDS[job.stage])
    match job:
        case FinetuneJob():
            state = {"step": 30, "horizon": 30, "curve": [[30, 0.1, 1e-3]]}
            (out / "state.json").write_text(json.dumps(state), encoding="utf-8")
            return {"step": 30, "loss": 0.1}
        case BuildJob():
            return {"size_mb": 90.0, "signature": str(job.recipe)}
        case CheckJob():
            return {"kl_nats": 0.01, "greedy_agreement": 0.9, "texts": 8, "trouble": None}
        case ScoreJob():
            right = int(job.source[:4], 16) % ITEMS if job.source != "base" else 0
            outcomes = {"ids": [str(n) for n in range(ITEMS)], "predicted": [int(n >= right) for n in range(ITEMS)],
                        "gold": [0] * ITEMS, "margin": [1.0] * ITEMS}  # fmt: skip
            (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
            return {"items": ITEMS, "cut": 0}
        case TimeJob():
            return {"ttft_ms": [20.0] * 8, "itl_ms": [8.0] * 64, "load_s": 0.5, "peak_memory_mb": 700.0}
        case _:
            return {}
