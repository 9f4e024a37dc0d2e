"""What a sweep would do and cost, said before it starts and without training anything."""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.architectures import remarks
from autotune.artifacts.store import Cache, default_root
from autotune.candidate import Session
from autotune.data.labels import label_lines
from autotune.data.schema import Dataset, DataSpec
from autotune.data.sources import hub_source
from autotune.errors import MachineError
from autotune.machine import free_disk_mb, free_memory_mb, logical_processors
from autotune.metrics import is_task
from autotune.models import BUILT_IN, config_of, parameters_of
from autotune.pipeline.graph import base_candidate, recipe_alone
from autotune.pipeline.inspection import Seen
from autotune.pipeline.prepare import needed_disk_mb, probe_job, read_data
from autotune.present.look import looked_at
from autotune.present.progress import duration
from autotune.scheduler.rehearsal import Spent, rehearse
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.strategies.frontier.constants import POOL, RUNGS
from autotune.strategies.named import make_strategy, strategy_of
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Budget, Sweep, Target, Train

_FLOPS = 60e9
"""Operations a second that a small machine does, for estimates before anything was measured here."""
_ITEMS = 300
"""Items of a split that are counted on where their number is not known yet."""
_CHECKED = 8
"""Texts on which a build is compared with its source."""
_MOST = 10_000
"""Trials beyond which a plan does not count."""


def make_plan(file: str, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Check a sweep and return what it would do, as plain data. Raises UsageError with every problem."""
    sweep = load_sweep(file, sets)
    sources = (sweep.data.train, sweep.data.validation, sweep.data.test)
    on_hub = any(hub_source(source, sweep.root) for source in sources)
    dataset = None if on_hub else read_data(sweep)
    config = config_of(sweep.model, sweep.root)
    seen: Seen | None = None
    notes: list[str] = []
    if dataset is not None:
        seen, notes = looked_at(sweep, dataset)
        dataset = seen.dataset if seen is not None else dataset
    size = sweep.space.size()
    most, ends_by = _bound(sweep, size)
    trials = most if most is not None and most <= _MOST else _MOST
    if trials != most:
        ends_by = "hours"
    costs: dict[str, float] = {}
    measured: list[str] = []
    expected: Spent | None = None
    if config is not None:
        costs, measured = _costs(sweep.model, sweep.space, dataset, parameters_of(config))
        if _in_parts(sweep):
            expected = _rehearsed(sweep, dataset, costs, trials)
            trials = expected.candidates
            ends_by = ends_by if expected.ended == "trials" else expected.ended
        else:
            fitting = bisect_right(
                range(1, trials + 1), _budget_s(sweep.budget), key=lambda n: _seconds(sweep, dataset, n, costs)[1]
            )
            if fitting < trials:
                trials, ends_by = max(1, fitting), "hours"
    at_most = _at_most(sweep, dataset, most)
    plan: dict[str, Any] = {
        "sweep": sweep.name,
        "model": sweep.model,
        "provider": sweep.target.provider,
        "strategy": sweep.strategy,
        "candidates": size,
        "recipes": [str(recipe) for recipe in sweep.space.recipes],
        "sessions": [str(session) if session else "as the target says" for session in sweep.space.sessions],
        "workloads": _workloads(sweep.target) if sweep.space.recipes else [],
        "left_out": [{"combination": item.settings, "reason": item.reason} for item in sweep.space.left_out],
        "trials": trials,
        "ends_by": ends_by,
        "hours_budget": sweep.budget.hours,
        "trainings_at_most": at_most["train"],
        "builds_at_most": at_most["build"],
        "timings_at_most": at_most["time"],
        "expected": None
        if expected is None
        else {
            "adapters": expected.adapters,
            "whole_trainings": round(expected.trained, 1),
            "builds": expected.builds,
            "items_scored": expected.items,
        },
        "metric": sweep.data.metric,
        "data": _data(sweep.data, dataset),
        "notes": [*(dataset.notes if dataset else ()), *notes],
    }
    plan["notes"] += _many_threads([sweep.target.session, *filter(None, sweep.space.sessions)])
    if config is not None and sweep.space.recipes:
        plan["notes"] += remarks(config, sweep.target.provider, sweep.train.max_length)
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
        seconds, total = _seconds(sweep, dataset, trials, costs)
        if expected is not None:
            seconds, total = dict(expected.seconds), expected.total_s
        plan["estimate"] = {
            "seconds": {name: round(value) for name, value in seconds.items()},
            "total_s": round(min(total, _budget_s(sweep.budget))),
            "measured_here": measured,
        }
        builds = _counts(sweep, dataset, trials)["build"]
        plan["disk"] = {
            "needed_mb": round(needed_disk_mb(parameters, sweep.space.recipes, max(1, builds - 1))),
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


def _workloads(target: Target) -> list[str]:
    """Return in words what is timed."""
    words = []
    for name, work in (target.workloads or {"": target.workload}).items():
        prompt, new = (
            "lengths drawn from the data" if tokens == "data" else f"{tokens} tokens"
            for tokens in (work.prompt_tokens, work.new_tokens)
        )
        words.append(f"{name}: " * bool(name) + f"prompt of {prompt}, answer of {new}, batch {work.batch}")
    return words


def _many_threads(sessions: Sequence[Session]) -> list[str]:
    """Return a note where a session asks for more threads than this machine has."""
    there = logical_processors()
    asked = max((session.threads or 0 for session in sessions), default=0)
    if asked <= there:
        return []
    return [
        f"threads: {asked} are asked for, and this machine runs {there} at once; more than that slow one another down"
    ]


def _data(spec: DataSpec, dataset: Dataset | None) -> dict[str, Any] | None:
    if dataset is None:
        return None
    shares = {"validation": spec.holdout, "test": spec.test_holdout}
    return {
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "held_out": {split: share for split, share in shares.items() if share is not None},
        "holdout_by_default": spec.holdout is not None and "holdout" not in spec.model_fields_set,
        "labels": list(dataset.labels),
        "label_rows": dataset.label_rows,
        "left_out": [left.model_dump() for left in dataset.left_out],
    }


def _data_lines(data: dict[str, Any], metric: str) -> list[str]:
    """Return in words what the data holds: splits, labels with their rows, rows left out."""
    if is_task(metric):
        lines = [f"data: {data['train']} train; scored on {metric}"]
    else:
        counts = f"{data['train']} train, {data['validation']} validation, {data['test']} test"
        lines = [f"data: {counts}; {len(data['labels'])} labels"]
    for split, share in data["held_out"].items():
        default = "; the default, since neither data.validation nor data.holdout is given"
        why = default if split == "validation" and data["holdout_by_default"] else ""
        lines.append(f"  {split}: a share of {share:g} of train, held out by content{why}")
    lines += label_lines(data["label_rows"])
    for left in data["left_out"]:
        more = ", ..." if left["rows"] > len(left["examples"]) else ""
        places = f" ({', '.join(left['examples'])}{more})"
        lines.append(f"  {left['rows']} rows of {left['split']} left out: {left['reason']}{places}")
    return lines


def _budget_s(budget: Budget) -> float:
    return budget.hours * 3600 if budget.hours is not None else math.inf


def _in_parts(sweep: Sweep) -> bool:
    """Whether the strategy evaluates candidates at lower fidelities."""
    return strategy_of(sweep.strategy, sweep.space, sweep.objectives) == "frontier"


def _bound(sweep: Sweep, size: int | None) -> tuple[int | None, str]:
    """Return how many candidates there are at most, and what ends them: trials or space; None and hours where neither does.

    `size`: that of the space.
    """
    pool = POOL * max(1, len(sweep.space.recipes)) * max(1, len(sweep.space.sessions)) if _in_parts(sweep) else None
    ends = [(n, by) for n, by in ((sweep.budget.trials, "trials"), (size, "space"), (pool, "space")) if n is not None]
    return min(ends, key=lambda end: end[0], default=(None, "hours"))


def _at_most(sweep: Sweep, dataset: Dataset | None, most: int | None) -> dict[str, int | None]:
    """Return how many trainings, builds and timings there are at most, however long they take, with at most so many
    candidates; None where nothing but the hours ends them.
    """
    counts = _counts(sweep, dataset, most or 0)
    if most is None:
        return {"train": None, "build": None if sweep.space.recipes else 0, "time": counts["time"]}
    if _in_parts(sweep):  # adapters that are left on the way are no trials
        counts["train"] = int(min(POOL, _adapters(sweep.space)))
        if recipe_alone(sweep.space.recipes, sweep.provider, _device(sweep.train)) is not None:
            counts["build"] += (len(RUNGS) - 1) * counts["train"]
    return {stage: counts[stage] for stage in ("train", "build", "time")}


def _device(train: Train) -> str:
    """Return where adapters are trained; of `auto` what a sweep found here before, else the CPU."""
    if train.device != "auto":
        return train.device
    found = Cache(default_root()).find(probe_job())
    return str(found.result["device"]) if found is not None else "cpu"


def _adapters(space: Space) -> float:
    """Return how many adapters there are to train; infinitely many of a range."""
    if space.lora is None:
        return 0
    domains = space.searched.values()
    return math.prod(len(domain.values) if isinstance(domain, Choice) else math.inf for domain in domains)


def _items(spec: DataSpec, dataset: Dataset | None) -> tuple[int, int]:
    """Return how many items validation and test have; where that is not known yet, what is usual."""
    most = spec.max_items
    if is_task(spec.metric):  # what a task holds is known where it is loaded
        return most.validation or _ITEMS, most.test or _ITEMS
    return (len(dataset.validation), len(dataset.test)) if dataset else (most.validation or _ITEMS, 0)


def _counts(sweep: Sweep, dataset: Dataset | None, trials: int) -> dict[str, int]:
    """Return how often each stage runs if there are so many candidates; for `score` the number of items."""
    adapters = int(min(_adapters(sweep.space), trials))
    items = _items(sweep.data, dataset)
    recipes, sessions = sweep.space.recipes, sweep.space.sessions or (None,)
    # A build is scored once for all its sessions, but for those that change the provider's options.
    models = max(1, adapters if sweep.space.lora is not None else 1) * max(1, len(recipes))
    options = {session.provider_options if session else None for session in sessions}
    served = {*itertools.product(recipes, sessions), (base_candidate(recipes, sweep.provider).recipe, None)}
    return {
        "train": adapters,
        "build": min(trials, models) + 1 if recipes else 0,
        "check": min(trials, models) + 1 if recipes else 0,
        "score": (min(trials, models * len(options)) + 1) * items[0] + 2 * items[1],
        "time": len(served) * len(sweep.target.timed) if recipes else 0,
    }


def _seconds(
    sweep: Sweep, dataset: Dataset | None, trials: int, costs: dict[str, float]
) -> tuple[dict[str, float], float]:
    """Return the seconds of that many trials by stage, and their sum."""
    seconds = {name: count * costs[name] for name, count in _counts(sweep, dataset, trials).items()}
    return seconds, sum(seconds.values())


def _rehearsed(sweep: Sweep, dataset: Dataset | None, costs: Mapping[str, float], most: int) -> Spent:
    """Return what a sweep of at most so many trials is expected to spend, for a strategy with lower fidelities."""
    items, _ = _items(sweep.data, dataset)
    strategy = make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed, items)
    once = _counts(sweep, dataset, 0)  # the untouched model, and the finalists on test
    paid = {stage: once[stage] * costs[stage] for stage in ("build", "check", "score")}
    each = dict(costs) | {"time": costs["time"] * len(sweep.target.timed)}
    built = recipe_alone(sweep.space.recipes, sweep.provider, _device(sweep.train)) is not None
    adapters = min(POOL, _adapters(sweep.space))
    return rehearse(strategy, sweep.objectives, each, items, most, _budget_s(sweep.budget), paid, built, adapters)


def _costs(model: str, space: Space, dataset: Dataset | None, parameters: int) -> tuple[dict[str, float], list[str]]:
    """Return the seconds that a stage takes once (`score`: an item), and the stages whose seconds were measured.

    They come from what this model cost here before, else from the operations that it takes.
    """
    cache = Cache(default_root())
    items = dataset.train if dataset else ()
    texts = [len(str(item.prompt)) + len(item.completion) for item in items[:500]]
    tokens = statistics.fmean(texts) / 4 + 4 if texts else 100
    steps = batch = 0
    if space.lora is not None:
        largest = {n: max(d.values, key=_size) if isinstance(d, Choice) else d.high for n, d in space.searched.items()}
        lora = space.candidate(largest, None).lora
        assert lora is not None
        batch = lora.batch_size * lora.accumulation
        steps = lora.steps or int((lora.epochs or 1) * len(items) / batch) + 1

    trained = [
        result["step_s"] / (inputs["lora"]["batch_size"] * inputs["lora"]["accumulation"])
        for inputs, result, _ in cache.measured("finetune", model)
        if result["step_s"]
    ]
    scored = [seconds / result["items"] for _, result, seconds in cache.measured("score", model)]
    built = [seconds for _, _, seconds in cache.measured("build", model)]
    checked = [seconds for _, _, seconds in cache.measured("check", model)]
    timed = [seconds for _, result, seconds in cache.measured("time", model) if not result.get("begun")]
    item_s = 2 * parameters * tokens / _FLOPS
    costs = {
        "train": steps * batch * _median(trained, 2 * item_s),
        "build": _median(built, 5 + parameters / 2e7),
        "check": _median(checked, 1 + 2 * _CHECKED * item_s),
        "score": _median(scored, item_s),
        "time": _median(timed, 15 + parameters / 2e7),
    }
    measured = {"train": trained, "build": built, "check": checked, "score": scored, "time": timed}
    return costs, [name for name, values in measured.items() if values]


def _median(values: Sequence[float], otherwise: float) -> float:
    return statistics.median(values) if values else otherwise


def _size(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _trials(plan: dict[str, Any]) -> str:
    if plan["ends_by"] != "hours":
        return str(plan["trials"])
    hours = duration(plan["hours_budget"] * 3600) if plan["hours_budget"] else "the time that you give it"
    return f"about {plan['trials']}, what fits into {hours}" if "estimate" in plan else f"what fits into {hours}"


def as_text(plan: dict[str, Any]) -> str:
    """Return the plan in words."""
    size = plan["candidates"]
    at_most = {what: plan[f"{what}_at_most"] for what in ("trainings", "builds", "timings")}
    lines = [
        f"{plan['sweep']}: {plan['model']} on {plan['provider']}, strategy {plan['strategy']}",
        f"candidates: {size if size is not None else 'without end (a parameter is a range)'}; trials: {_trials(plan)}",
        "at most " + ", ".join(f"{count} {what}" for what, count in at_most.items() if count is not None),
    ]
    expected = plan["expected"]
    if expected is not None:
        lines.append(
            f"expected: {expected['adapters']} adapters begun, {expected['whole_trainings']} whole trainings' worth of "
            f"steps, {expected['builds']} builds, {expected['items_scored']} items scored (rehearsed on guessed scores)"
        )
    if plan["recipes"]:
        lines.append(f"recipes ({len(plan['recipes'])}):")
        lines += [f"  {recipe}" for recipe in plan["recipes"]]
    if plan["sessions"]:
        lines.append(f"sessions ({len(plan['sessions'])}), each recipe in each:")
        lines += [f"  {session}" for session in plan["sessions"]]
    lines += [f"timed: {words}" for words in plan["workloads"]]
    if plan["left_out"]:
        lines.append(f"left out ({len(plan['left_out'])}), cannot run here:")
        lines += [f"  {item['combination']}: {item['reason']}" for item in plan["left_out"]]
    data = plan["data"]
    if data:
        lines += _data_lines(data, plan["metric"])
    if "estimate" in plan:
        estimate = plan["estimate"]
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in estimate["seconds"].items() if seconds)
        basis = (
            "stages measured here: " + ", ".join(estimate["measured_here"])
            if estimate["measured_here"]
            else "nothing measured here yet"
        )
        most = "" if expected is not None else " at most"
        lines.append(f"time: about {duration(estimate['total_s'])}{most} ({parts}; {basis})")
        lines += [
            f"{what}: about {plan[what]['needed_mb']} MB at most, {plan[what]['free_mb']} MB free"
            for what in ("disk", "memory")
        ]
    lines += [f"note: {note}" for note in plan["notes"]]
    return "\n".join(lines)
