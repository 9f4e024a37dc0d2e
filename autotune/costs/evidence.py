"""What the cache knows of costs besides the history: its results say what they took when they were made."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from autotune.artifacts.store import Cache
from autotune.costs.history import History
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.machine import machine_digest
from autotune.stages.jobs import (
    BaseJob,
    BuildJob,
    CheckJob,
    FinetuneJob,
    InspectJob,
    Job,
    MergeJob,
    ProbeJob,
    Result,
    ScoreJob,
    TimeJob,
)

_KINDS: tuple[type[Job], ...] = (
    BaseJob, ProbeJob, InspectJob, FinetuneJob, MergeJob, BuildJob, CheckJob, ScoreJob, TimeJob,
)  # fmt: skip


def costs_of(cache: Cache, subject: Subject) -> CostModel:
    """Return the cost model of this machine, with what its cache has measured."""
    return CostModel(subject, History(cache.root, machine_digest()), in_cache(cache, subject.model))


def in_cache(cache: Cache, model: str) -> Callable[[str], list[tuple[Job, Result, float]]]:
    """Return who says of a stage which jobs of a model are in the cache, and what they took."""
    kinds = {kind.stage: kind for kind in _KINDS}

    def read(stage: str) -> list[tuple[Job, Result, float]]:
        found: list[tuple[Job, Result, float]] = []
        for inputs, result, seconds in cache.measured(stage, model) if stage in kinds else ():
            try:
                found.append((kinds[stage].model_validate(inputs), result, seconds))
            except ValidationError:  # of another version
                continue
        return found[::-1]  # the latest last

    return read
