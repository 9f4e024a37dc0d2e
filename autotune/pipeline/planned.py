"""The inputs of a sweep for `plan`, before it runs: enough to name its jobs, and to find in the cache which are done.

Only a run finds out some inputs (the digest of a model that was never read, lengths that are drawn from the data). A
placeholder stands for each: the jobs then have other keys than in the run, and the cache holds no result for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotune.architectures import checked_tokens, has_windowed_caches
from autotune.artifacts.store import Cache
from autotune.costs.estimate import Estimate
from autotune.costs.work import USUAL_TOKENS
from autotune.data.schema import SPLITS, Dataset
from autotune.machine import machine_digest
from autotune.metrics import is_function, is_task
from autotune.models import BUILT_IN, digest_folder, local_folder, model_files, parameters_of
from autotune.pipeline.expected import Prices
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.inspection import Inspected, has_weights, inspect_job
from autotune.pipeline.prepare import known_digests, probe_job
from autotune.stages.preparation_jobs import BaseJob, LengthsJob, MetricJob, TaskJob
from autotune.stages.protocol import Job, Result
from autotune.sweepfile.schema import Sweep
from autotune.tasks import find_task

USUAL_ITEMS = 300
"""The assumed number of items of a split, where it is not known yet."""
_SOON_READ = 50_000_000
"""The largest model, in bytes, that `plan` reads for its digest where no sweep has read it before."""


def model_folder(sweep: Sweep, cache: Cache) -> Path | None:
    """Return where the model lies, or None where it is still to be fetched."""
    folder = local_folder(sweep.model, sweep.root)
    if sweep.model not in BUILT_IN and folder is not None:
        return folder
    job = BaseJob(name=sweep.model)
    return cache.folder(job) if cache.peek(job) is not None else None


def planned_inputs(
    sweep: Sweep, dataset: Dataset | None, seen: Inspected | None, config: Mapping[str, Any], cache: Cache
) -> Inputs:
    """Return the inputs that a run would most likely have; `seen`: the inspected data, None where nothing was inspected."""
    folder, metric, most = model_folder(sweep, cache), sweep.data.metric, sweep.data.max_items
    counts: dict[str, int] = {}
    items: dict[str, tuple[str, Path]] = {}
    for split in SPLITS:
        known = len(getattr(dataset, split)) if dataset is not None else 0
        if is_task(metric) and split != "train":
            known = {"validation": most.validation, "test": most.test}[split] or USUAL_ITEMS
        elif dataset is None and split != "test":
            known = (most.validation if split == "validation" else None) or USUAL_ITEMS
        if known:
            counts[split] = known
            digest = dataset.digest(split) if dataset is not None and len(getattr(dataset, split)) == known else split
            items[split] = digest, Path()
    probed = cache.peek(probe_job()) or {}
    device = sweep.train.device if sweep.train.device != "auto" else str(probed.get("device") or "cpu")
    lengths = {
        suffix: ((_tokens(work.prompt_tokens), _tokens(work.new_tokens)),)
        for suffix, work in sweep.target.timed.items()
        if work.drawn
    }
    return Inputs(
        folder or Path(), _digest(folder, cache), items, counts, dataset.labels if dataset is not None else (), device,
        machine_digest(), parameters_of(dict(config)) * 4 / 1e6, code=find_task(metric, sweep.root) if is_task(metric) else None,
        lengths=lengths, encoding=seen.encoding if seen is not None else None, gpus=int(probed.get("gpus") or 0),
        window=has_windowed_caches(dict(config), sweep.target.provider),
        beyond=checked_tokens(dict(config), (seen.longest if seen else 0) or sweep.train.max_length), width=int(config.get("hidden_size") or 0),
    )  # fmt: skip


def _tokens(value: int | str) -> int:
    return int(USUAL_TOKENS) if isinstance(value, str) else value


def _digest(folder: Path | None, cache: Cache) -> str:
    """Return the digest of a model, if a run has read it before or it is small; else a placeholder."""
    if folder is None:
        return "base"
    memo = known_digests(cache.root)
    try:
        known = all(any(key.startswith(f"{file.resolve()}|") for key in memo) for file in model_files(folder))
        small = sum(file.stat().st_size for file in model_files(folder)) <= _SOON_READ
        return digest_folder(folder, memo) if known or small else "base"
    except OSError:
        return "base"


def preparation(
    sweep: Sweep, dataset: Dataset | None, prices: Prices, cache: Cache, found: Callable[[Job], Result | None]
) -> Estimate:
    """Return the estimate of the jobs before the first candidate, without those whose result `found` returns."""
    folder, estimate, metric = model_folder(sweep, cache), Estimate(), sweep.data.metric
    jobs: list[Job] = [probe_job()]
    if folder is None:
        jobs.append(BaseJob(name=sweep.model))
    if folder is not None and dataset is not None and has_weights(folder):
        ships, length = bool(sweep.space.recipes), sweep.train.max_length
        jobs.append(inspect_job(sweep.data, length, ships, dataset, folder, cache.root))
    if prices.graph.inputs.lengths:
        jobs.append(LengthsJob(base="", data="", max_length=0, base_dir=Path(), data_file=Path()))
    if is_function(metric):
        jobs.append(MetricJob(metric=metric, code="", file=Path()))
    if is_task(metric):
        jobs.append(TaskJob(metric=metric, code="", file=Path()))
    for job in jobs:
        if found(job) is None:
            estimate.add("prepare", prices.costs.expect(job, prices.first(job.stage)))
    return estimate
