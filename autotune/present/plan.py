"""What a sweep would do and cost, said before it starts and without training anything."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from autotune.data import Dataset, hub_source
from autotune.errors import MachineError
from autotune.machine import free_disk_mb, free_memory_mb
from autotune.models import BUILT_IN, config_of, parameters_of
from autotune.present.progress import duration
from autotune.search.pipeline import base_candidate
from autotune.search.prepare import needed_disk_mb, read_data
from autotune.space import Choice
from autotune.store.cache import Cache, default_root
from autotune.sweep import Sweep, load_sweep

_FLOPS = 60e9
"""Operations a second that a small machine does, for estimates before anything was measured here."""


def make_plan(file: str, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Check a sweep and return what it would do, as plain data. Raises UsageError with every problem."""
    sweep = load_sweep(file, sets)
    sources = (sweep.data.train, sweep.data.validation, sweep.data.test)
    on_hub = any(hub_source(source, sweep.root) for source in sources)
    dataset = None if on_hub else read_data(sweep)
    config = config_of(sweep.model, sweep.root)
    size = sweep.space.size()
    trials = min(n for n in (sweep.budget.trials, size, 10_000) if n is not None)
    adapters = 0
    if sweep.space.lora is not None:
        adapters = 1
        for domain in sweep.space.searched.values():
            adapters *= len(domain.values) if isinstance(domain, Choice) else 10_000
    plan: dict[str, Any] = {
        "sweep": sweep.name,
        "model": sweep.model,
        "provider": sweep.target.provider,
        "strategy": sweep.strategy,
        "candidates": size,
        "recipes": [str(recipe) for recipe in sweep.space.recipes],
        "left_out": [{"combination": item.settings, "reason": item.reason} for item in sweep.space.left_out],
        "trials": trials,
        "trainings_at_most": min(adapters, trials),
        "builds_at_most": trials + 1 if sweep.space.recipes else 0,
        "timings_at_most": len({*sweep.space.recipes, base_candidate(sweep).recipe} - {None}),
        "data": _data(dataset),
        "notes": [],
    }
    if sweep.model in BUILT_IN:
        plan["notes"].append(f"{sweep.model}: {BUILT_IN[sweep.model].note}")
    if on_hub:
        plan["notes"].append("data is on the hub: it is checked when it is fetched")
    if config is None:
        plan["notes"].append(
            f"there is no folder {sweep.model}, so it is fetched from the hub, and its architecture checked then"
        )
    else:
        parameters = parameters_of(config)
        plan["estimate"] = _estimate(sweep, dataset, parameters, plan)
        plan["disk"] = {
            "needed_mb": round(needed_disk_mb(sweep, parameters)),
            "free_mb": round(free_disk_mb(default_root())),
        }
        plan["memory"] = {"needed_mb": round(parameters * 4 / 1e6 * 4 + 1500), "free_mb": round(free_memory_mb())}
        for what in ("disk", "memory"):
            if plan[what]["needed_mb"] > plan[what]["free_mb"]:
                plan["notes"].append(
                    f"{what}: about {plan[what]['needed_mb']} MB may be needed, {plan[what]['free_mb']} are free"
                )
        if plan["disk"]["free_mb"] < parameters * 4 / 1e6 * 5:
            raise MachineError(f"the disk of the cache has only {plan['disk']['free_mb']} MB free")
    return plan


def _data(dataset: Dataset | None) -> dict[str, Any] | None:
    if dataset is None:
        return None
    return {
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "labels": list(dataset.labels),
        "left_out": [left.model_dump() for left in dataset.left_out],
    }


def _estimate(sweep: Sweep, dataset: Dataset | None, parameters: int, plan: dict[str, Any]) -> dict[str, Any]:
    """Return seconds by stage: from what this model cost here before, else from the operations that it takes."""
    cache = Cache(default_root())
    items = dataset.train if dataset else ()
    texts = [len(str(item.prompt)) + len(item.completion) for item in items[:500]]
    tokens = statistics.fmean(texts) / 4 + 4 if texts else 100
    steps = batch = 0
    if sweep.space.lora is not None:
        largest = {
            n: max(d.values, key=_size) if isinstance(d, Choice) else d.high for n, d in sweep.space.searched.items()
        }
        lora = sweep.space.candidate(largest, None).lora
        assert lora is not None
        batch = lora.batch_size * lora.accumulation
        steps = lora.steps or int((lora.epochs or 1) * len(items) / batch) + 1

    trained = [
        r["step_s"] / i["lora"]["batch_size"] for i, r, _ in cache.measured("finetune", sweep.model) if r["step_s"]
    ]
    scored = [seconds / result["items"] for _, result, seconds in cache.measured("score", sweep.model)]
    built = [seconds for _, _, seconds in cache.measured("build", sweep.model)]
    timed = [seconds for _, _, seconds in cache.measured("time", sweep.model)]
    item_s = 2 * parameters * tokens / _FLOPS
    step_s = _median(trained, 2 * item_s) * batch
    score_s = _median(scored, item_s)
    scores = (plan["trials"] + 1) * (len(dataset.validation) if dataset else 300) + 2 * (
        len(dataset.test) if dataset else 0
    )
    seconds = {
        "train": plan["trainings_at_most"] * steps * step_s,
        "build": plan["builds_at_most"] * _median(built, 5 + parameters / 2e7),
        "score": scores * score_s,
        "time": plan["timings_at_most"] * _median(timed, 15 + parameters / 2e7),
    }
    measured = {"train": trained, "build": built, "score": scored, "time": timed}
    total = sum(seconds.values())
    hours = sweep.budget.hours
    return {
        "seconds": {name: round(value) for name, value in seconds.items()},
        "total_s": round(min(total, hours * 3600) if hours else total),
        "measured_here": [name for name, values in measured.items() if values],
    }


def _median(values: Sequence[float], otherwise: float) -> float:
    return statistics.median(values) if values else otherwise


def _size(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def as_text(plan: dict[str, Any]) -> str:
    """Return the plan in words."""
    size = plan["candidates"]
    lines = [
        f"{plan['sweep']}: {plan['model']} on {plan['provider']}, strategy {plan['strategy']}",
        f"candidates: {size if size is not None else 'without end (a parameter is a range)'}; trials: {plan['trials']}",
        f"at most {plan['trainings_at_most']} trainings, {plan['builds_at_most']} builds, {plan['timings_at_most']} timings",
    ]
    if plan["recipes"]:
        lines.append(f"recipes ({len(plan['recipes'])}):")
        lines += [f"  {recipe}" for recipe in plan["recipes"]]
    if plan["left_out"]:
        lines.append(f"left out ({len(plan['left_out'])}), cannot run here:")
        lines += [f"  {item['combination']}: {item['reason']}" for item in plan["left_out"]]
    data = plan["data"]
    if data:
        lines.append(
            f"data: {data['train']} train, {data['validation']} validation, {data['test']} test; {len(data['labels'])} labels"
        )
        lines += [f"  {left['rows']} rows of {left['split']} left out: {left['reason']}" for left in data["left_out"]]
    if "estimate" in plan:
        estimate = plan["estimate"]
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in estimate["seconds"].items() if seconds)
        basis = (
            "stages measured here: " + ", ".join(estimate["measured_here"])
            if estimate["measured_here"]
            else "nothing measured here yet"
        )
        lines.append(f"time: about {duration(estimate['total_s'])} at most ({parts}; {basis})")
        lines += [
            f"{what}: about {plan[what]['needed_mb']} MB at most, {plan[what]['free_mb']} MB free"
            for what in ("disk", "memory")
        ]
    lines += [f"note: {note}" for note in plan["notes"]]
    return "\n".join(lines)
