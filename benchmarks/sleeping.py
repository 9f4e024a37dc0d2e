"""Stages of known length for `benchmarks.many_workers` and `benchmarks.ray_engine`: each writes the files that its followers
read, and sleeps.

They run in the tuner's own worker processes, so everything but the work itself is real. SLEEPING_SCALE multiplies the seconds
that they sleep, SLEEPING_SIZE sets the size of their results, and SLEEPING_JOURNAL names a file in which each notes when it
begins and ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, MergeJob, ScoreJob, TimeJob, TurnsJob
from autotune.stages.protocol import Job, Result

ITEMS = 100
SECONDS = {"finetune": 8.0, "merge": 0.5, "build": 3.0, "check": 0.5, "score": 4.0, "time": 0.5}
"""What each stage takes, about in the proportions of a model of 135 million parameters; of a timing each process."""
SIZES_MB = {"finetune": 20.0, "merge": 540.0, "build": 90.0}
"""How large results are, 10^6 bytes, about as of that model: of each so many times as much as SLEEPING_SIZE says; else nothing."""


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
    """Return the job that sleeps in place of a real one; one that sleeps already stays."""
    if isinstance(job, TurnsJob):
        return job.model_copy(update={"graphs": tuple(map(sleeping, job.graphs))})
    if type(job) not in _KINDS:
        return job
    return _KINDS[type(job)](**{name: getattr(job, name) for name in type(job).model_fields})


def _journal(job: Job, what: str) -> None:
    if file := os.environ.get("SLEEPING_JOURNAL"):
        with Path(file).open("a", encoding="utf-8") as stream:  # a line this short is written at once
            stream.write(f"{time.time():.3f} {os.getpid()} {job.stage} {job.key} {what}\n")


def sleep(job: Job, out: Path, turns: Iterable[None] | None = None) -> Result:
    """Sleep as long as the stage takes, and write what its followers read; in turns, at each of them."""
    _journal(job, "began")
    time.sleep(SECONDS[job.stage] * float(os.environ.get("SLEEPING_SCALE", "1")))
    result = _result(job, out)
    if size := int(1e6 * SIZES_MB.get(job.stage, 0.0) * float(os.environ.get("SLEEPING_SIZE", "0"))):
        (out / "weights.data").write_bytes(bytes(size))
    if turns is not None:
        laps: list[dict[str, Any]] = [
            {"itl_ms": [8.0] * 3} if lap % 2 else {"ttft_ms": [20.0]} for lap, _ in enumerate(turns)
        ]
        result |= {"laps": laps, "itl_ms": [ms for lap in laps[1::2] for ms in lap["itl_ms"]]}
    _journal(job, "ended")
    return result


def _result(job: Job, out: Path) -> Result:
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
