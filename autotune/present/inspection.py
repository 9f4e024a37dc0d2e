"""Inspects model, tokenizer and data for `plan`, with the stage of a run in a worker, so that `plan` itself imports little.

The first time takes some seconds, because the worker imports the libraries. Later the cache has the result."""

from __future__ import annotations

import sys
from pathlib import Path

from autotune.artifacts.place import check_place
from autotune.artifacts.store import Cache, default_root
from autotune.data.schema import Dataset
from autotune.errors import MachineError, StageError
from autotune.models import BUILT_IN, local_folder
from autotune.pipeline.inspection import Inspected, has_weights, inspect_job, judge_inspection
from autotune.pipeline.modules import adapter_notes, refused_modules
from autotune.providers import installed
from autotune.stages.inspection_findings import Inspection
from autotune.stages.preparation_jobs import BaseJob, InspectJob
from autotune.stages.protocol import ORT_WHEELS
from autotune.sweepfile.schema import Sweep


def inspected(sweep: Sweep, dataset: Dataset) -> tuple[Inspected | None, list[str]]:
    """Return the inspected data, and notes for the user; None where the model is still to be fetched, or cannot be inspected.

    Raises UsageError with every problem of model and data, MachineError where the cache cannot be written.
    """
    cache = Cache(default_root())
    check_place(cache.root)
    folder = _folder(sweep.model, sweep.root, cache)
    if folder is None or not has_weights(folder):
        return None, []
    job = inspect_job(sweep.data, sweep.train.max_length, bool(sweep.space.recipes), dataset, folder, cache.root)

    def judged(look: Inspection) -> Inspected:
        seen = judge_inspection(sweep.model, sweep.file, sweep.data, sweep.train.max_length, dataset, look)
        return refused_modules(sweep.space.lora, sweep.file, seen)

    found = cache.find(job)
    if found is not None:
        seen = judged(Inspection.model_validate(found.result))
        return seen, [*seen.notes, *adapter_notes(sweep.space, folder, len(dataset.train))]
    missing = _missing(sweep.provider.wheel if sweep.space.recipes else None)
    if missing:
        return None, [f"model, tokenizer and texts were not looked at, because {missing} is not installed"]
    try:
        seen = judged(_look(job, cache, sweep.model))
    except (StageError, MachineError) as error:
        return None, [f"model, tokenizer and texts could not be looked at: {error}"]
    return seen, [*seen.notes, *adapter_notes(sweep.space, folder, len(dataset.train))]


def _folder(model: str, root: Path, cache: Cache) -> Path | None:
    """Return where the model lies, or None where it is still to be fetched."""
    folder = local_folder(model, root)
    if model not in BUILT_IN and folder is not None:
        return folder
    stored = cache.find(BaseJob(name=model))
    return stored.path if stored is not None else None


def _missing(wheel: str | None) -> str:
    """Return a missing package that the inspection needs, or an empty text; `wheel`: that of the ONNX Runtime to build for."""
    lacking = [name for name in ("torch", "transformers", "safetensors") if not installed(name)]
    if wheel is not None and not any(map(installed, ORT_WHEELS)):
        lacking.append(wheel)
    return lacking[0] if lacking else ""


def _say(line: str) -> None:
    """Say on stderr what the inspection waits for."""
    sys.stderr.write(f"autotune: {line}\n")


def _look(job: InspectJob, cache: Cache, model: str) -> Inspection:
    """Do the inspection's job in a worker. Returns its result. Raises StageError, MachineError."""
    from autotune.execution.executor import Stages
    from autotune.execution.local import LocalEngine

    with LocalEngine() as engine:
        engine.host.say = _say
        stages = Stages(cache, engine, lambda: cache.root / "logs" / "plan.log", model, say=_say)
        try:
            return Inspection.model_validate(stages(job).result)
        finally:
            stages.close()
