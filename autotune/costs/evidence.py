"""Costs of results in the cache: what each took when it was made, where the history has no line for it."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from autotune.artifacts.store import Cache
from autotune.costs.history import History
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.machine import machine_digest
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, MergeJob, ScoreJob, TimeJob
from autotune.stages.preparation_jobs import BaseJob, InspectJob, ProbeJob
from autotune.stages.protocol import Job, Result

_KINDS: tuple[type[Job], ...] = (
    BaseJob, ProbeJob, InspectJob, FinetuneJob, MergeJob, BuildJob, CheckJob, ScoreJob, TimeJob,
)  # fmt: skip


def costs_of(cache: Cache, subject: Subject) -> CostModel:
    """Return the cost model of this machine, which learns from its history and its cache."""
    return CostModel(subject, History(cache.root, machine_digest()), in_cache(cache, subject.model))


def in_cache(cache: Cache, model: str) -> Callable[[str], list[tuple[Job, Result, float]]]:
    """Return a function from a stage to its jobs of a model in the cache: (job, result, seconds), the latest last."""
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
