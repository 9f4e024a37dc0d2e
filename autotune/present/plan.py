"""The `plan` command: predicts what a sweep would do and cost, without training anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.architectures import remarks
from autotune.artifacts.store import Cache, default_root
from autotune.candidate import Recipe, Session
from autotune.costs.estimate import Line
from autotune.costs.evidence import costs_of
from autotune.costs.model import ALIKE, MODEL
from autotune.data.schema import AzureFile, Dataset, DataSpec, Remote
from autotune.data.sources import hub_source
from autotune.errors import MachineError
from autotune.execution.workers import slots
from autotune.machine import free_disk_mb, free_memory_mb, usable_processors
from autotune.models import BUILT_IN, config_of, parameters_of
from autotune.pipeline.expected import Prices
from autotune.pipeline.graph import Graph
from autotune.pipeline.inspection import Inspected
from autotune.pipeline.planned import planned_inputs, preparation
from autotune.pipeline.prepare import needed_disk_mb, read_data
from autotune.pipeline.subject import subject_of
from autotune.present.cluster import Clustered, clustered
from autotune.present.device import asked_of_device
from autotune.present.inspection import inspected
from autotune.present.plan_table import STAGES
from autotune.present.savings import savings
from autotune.remote.addresses import is_address
from autotune.scheduler.first_estimates import first_items, priced
from autotune.scheduler.rehearsal import Rehearsed, Simulation, Simulations, rehearse
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.strategies.frontier.constants import POOL
from autotune.strategies.frontier.cost_model import mean_of
from autotune.strategies.frontier.priors import prior_of
from autotune.strategies.named import strategy_of
from autotune.strategies.several import make_for_targets
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Budget, Sweep, Target

_MOST = 10_000
"""Trials beyond which a plan does not count."""
_STANDS_FOR = {"tpe": "random", "nsga2": "random", "gp": "random"}
"""Which strategy is rehearsed for one that is slow to import: it begins about as many adapters."""


def make_plan(file: str, sets: Sequence[str] = (), address: str | None = None) -> dict[str, Any]:
    """Check a sweep and return its plan as plain data, for each target. `address`: the cluster's, if the engine is one.

    Raises UsageError with every problem.
    """
    sweep = load_sweep(file, sets)
    return _plan_of(sweep, clustered(sweep, address))


def _plan_of(sweep: Sweep, engine: Clustered) -> dict[str, Any]:
    sources = (sweep.data.train, sweep.data.validation, sweep.data.test)
    remote = [found for source in sources if (found := hub_source(source, sweep.root)) is not None]
    dataset = None if remote else read_data(sweep)
    config = config_of(sweep.model, sweep.root)
    seen: Inspected | None = None
    notes: list[str] = []
    if dataset is not None:
        seen, notes = inspected(sweep, dataset)
        dataset = seen.dataset if seen is not None else dataset
    sweeps: dict[str | None, Sweep] = {}
    targets: dict[str | None, dict[str, Any]] = {}
    for name, one in sweep.by_target.items():
        sweeps[name], asked = asked_of_device(one, config) if config is not None else (one, [])
        targets[name] = _of_target(sweeps[name], config, asked)
    sizes = [one["candidates"] for one in targets.values()]
    size = None if None in sizes else sum(sizes)
    most, ends_by = _bound(list(sweeps.values()), size)
    own_notes = [] if sweep.targets else targets[None]["notes"]
    data_notes = dataset.notes if dataset else ()
    plan: dict[str, Any] = {
        "sweep": sweep.name,
        "model": sweep.model,
        "strategy": sweep.strategy,
        **({"targets": targets} if sweep.targets else targets[None]),
        "candidates": size,
        "trials": min(most if most is not None else _MOST, _MOST),
        "ends_by": ends_by if most is not None and most <= _MOST else "hours",
        "trials_budget": sweep.budget.trials,
        "hours_budget": sweep.budget.hours,
        "metric": sweep.data.metric,
        "data": _data(sweep.data, dataset),
        "notes": [
            *sweep.notes,
            *engine.notes,
            *data_notes,
            *notes,
            *own_notes,
            *_of_fetched(sweep.model, remote, config),
        ],
    }
    if config is None:
        return plan
    fitted = next(iter(sweeps.values()))
    rehearsed, workers = _rehearsed(list(sweeps.values()), dataset, seen, config, plan["trials"], engine.jobs)
    room = _room(parameters_of(config), fitted.space.recipes, rehearsed)
    return plan | {
        "trials": rehearsed.candidates,
        "ends_by": plan["ends_by"] if rehearsed.ended == "trials" else rehearsed.ended,
        "workers": workers,
        **_counted(rehearsed),
        "estimate": _estimate(rehearsed),
        "savings": savings(fitted, rehearsed, dataset),
        **room,
        "notes": [*plan["notes"], *_of_room(room)],
    }


def _of_fetched(model: str, remote: Sequence[Remote], config: Mapping[str, Any] | None) -> list[str]:
    """Return notes about what `run` fetches first. `remote`: sources of data; `config`: None where the model is not here yet."""
    notes = [f"{model}: {BUILT_IN[model].note}"] if model in BUILT_IN else []
    if remote:
        where = dict.fromkeys("on Azure" if isinstance(one, AzureFile) else "on the hub" for one in remote)
        notes.append(f"data is {' and '.join(where)}: it is checked when it is fetched")
    if config is None:
        at = f"the model {model} is" if is_address(model) else f"there is no folder {model}, so it is"
        where_from = "Azure" if is_address(model) else "the hub"
        notes.append(f"{at} fetched from {where_from}, and its architecture checked then")
    return notes


def _room(parameters: int, recipes: Sequence[Recipe], rehearsed: Rehearsed) -> dict[str, dict[str, int]]:
    """Return the disk and memory that the sweep needs, and those that are free, 10^6 bytes. Raises MachineError where the
    cache's disk is too full even for a few candidates.
    """
    builds = max(1, round(rehearsed.estimate.lines.get("build", Line()).times) - 1)
    free = round(free_disk_mb(default_root()))
    if free < parameters * 4 / 1e6 * 5:
        raise MachineError(f"the disk of the cache has only {free} MB free")
    return {
        "disk": {"needed_mb": round(needed_disk_mb(parameters, recipes, builds)), "free_mb": free},
        "memory": {"needed_mb": round(parameters * 4 / 1e6 * 4 + 1500), "free_mb": round(free_memory_mb())},
    }


def _of_room(room: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return notes about disk and memory where less is free than is needed."""
    return [
        f"{what}: about {one['needed_mb']} MB may be needed, {one['free_mb']} are free"
        for what, one in room.items()
        if one["needed_mb"] > one["free_mb"]
    ]


def _of_target(sweep: Sweep, config: dict[str, Any] | None, asked: Sequence[str]) -> dict[str, Any]:
    """Return the plan of one target; `asked`: notes from the tests on its device."""
    notes = [*asked, *_many_threads([sweep.target.session, *filter(None, sweep.space.sessions)])]
    if config is not None and sweep.space.recipes:
        notes += remarks(config, sweep.target.provider, sweep.train.max_length)
    return {
        "provider": sweep.target.provider,
        "candidates": sweep.space.size(),
        "recipes": [str(recipe) for recipe in sweep.space.recipes],
        "sessions": [str(session) if session else "as the target says" for session in sweep.space.sessions],
        "workloads": _workloads(sweep.target) if sweep.space.recipes else [],
        "left_out": [{"combination": item.settings, "reason": item.reason} for item in sweep.space.left_out],
        "notes": notes,
    }


def _rehearsed(
    sweeps: Sequence[Sweep],
    dataset: Dataset | None,
    seen: Inspected | None,
    config: dict[str, Any],
    trials: int,
    jobs: int = 0,
) -> tuple[Rehearsed, int]:
    """Return what a sweep of at most so many trials is expected to do, and with how many workers; `sweeps`: of its targets."""
    cache, sweep = Cache(default_root()), sweeps[0]
    inputs = [planned_inputs(one, dataset, seen, config, cache) for one in sweeps]
    digests = {split: key for split, (key, _) in inputs[0].items.items()}
    new = sweep.data.max_new_tokens
    subject = subject_of(sweep.model, float(parameters_of(config)), dataset, digests, sweep.data.metric, new)
    costs = costs_of(cache, subject)
    costs.about(subject, inputs[0].counts.get("train"))
    width = jobs or len(slots(sweep.workers.train, sweep.workers.cpu, inputs[0].device, inputs[0].gpus))
    prices, warm = (
        [Prices(Graph(one, own), costs, cold) for one, own in zip(sweeps, inputs, strict=True)] for cold in (width, 0)
    )
    name, items = strategy_of(sweep.strategy, sweep.space, sweep.objectives), inputs[0].counts["validation"]
    first = mean_of([priced(own) for own in warm]) if name == "frontier" else None
    name = _STANDS_FOR.get(name, name)
    spaces = [one.space for one in sweeps]
    prior = prior_of(inputs[0].width)
    strategy = make_for_targets(name, spaces, sweep.objectives, sweep.seed, items, prior, first)
    simulation = Simulations(
        {
            one.space.target: Simulation(own, one.objectives, bool(strategy.rungs), cache.peek)
            for own, one in zip(prices, sweeps, strict=True)
        }
    )
    before = preparation(sweep, dataset, prices[0], cache, cache.peek)
    adapters = min(POOL, _adapters(sweep.space)) if strategy.rungs else math.inf
    look = first_items(sweep.aims, sweep.data.metric, items, bool(strategy.rungs))
    return rehearse(strategy, simulation, before, trials, _budget_s(sweep.budget), width, adapters, look), width


def _counted(rehearsed: Rehearsed) -> dict[str, Any]:
    """Return the expected number of each expensive stage."""
    lines = rehearsed.estimate.lines
    return {
        "trainings": round(rehearsed.trained, 1),
        "adapters": rehearsed.adapters,
        "builds": round(lines.get("build", Line()).times),
        "timings": round(lines.get("time", Line()).times),
        "items_scored": round(lines.get("score", Line()).units),
        "cached": rehearsed.cached,
    }


def _estimate(rehearsed: Rehearsed) -> dict[str, Any]:
    """Return the expected seconds of each stage, with their evidence."""
    lines = {stage: rehearsed.estimate.lines[stage] for stage in STAGES if stage in rehearsed.estimate.lines}
    return {
        "total_s": round(rehearsed.wall_s),
        "low_s": round(rehearsed.low_s),
        "high_s": round(rehearsed.high_s),
        "seconds": {stage: round(line.seconds, 1) for stage, line in lines.items()},
        "measured_here": [stage for stage, line in lines.items() if line.evidence in (MODEL, ALIKE)],
        "stages": [
            {
                "stage": stage,
                "times": round(line.times),
                "units": round(line.units),
                "seconds": round(line.seconds, 1),
                "evidence": line.evidence,
                "measured": line.measured,
            }
            for stage, line in lines.items()
        ],
    }


def _workloads(target: Target) -> list[str]:
    """Return the timed workloads in words."""
    words = []
    for name, work in (target.workloads or {"": target.workload}).items():
        prompt, new = (
            "lengths drawn from the data" if tokens == "data" else f"{tokens} tokens"
            for tokens in (work.prompt_tokens, work.new_tokens)
        )
        words.append(f"{name}: " * bool(name) + f"prompt of {prompt}, answer of {new}, batch {work.batch}")
    return words


def _many_threads(sessions: Sequence[Session]) -> list[str]:
    """Return a note if a session asks for more threads than this machine has."""
    there = usable_processors()
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


def _budget_s(budget: Budget) -> float:
    return budget.hours * 3600 if budget.hours is not None else math.inf


def _bound(sweeps: Sequence[Sweep], size: int | None) -> tuple[int | None, str]:
    """Return how many candidates there are at most, and what ends them: trials or space; None and hours where neither does.

    `sweeps`: of the targets; `size`: that of their spaces.
    """
    sweep = sweeps[0]
    in_parts = strategy_of(sweep.strategy, sweep.space, sweep.objectives) == "frontier"
    deployments = sum(max(1, len(one.space.recipes)) * max(1, len(one.space.sessions)) for one in sweeps)
    pool = POOL * deployments if in_parts else None
    ends = [(n, by) for n, by in ((sweep.budget.trials, "trials"), (size, "space"), (pool, "space")) if n is not None]
    return min(ends, key=lambda end: end[0], default=(None, "hours"))


def _adapters(space: Space) -> float:
    """Return how many adapters there are to train; infinitely many of a range."""
    if space.lora is None:
        return 0
    domains = space.searched.values()
    return math.prod(len(domain.values) if isinstance(domain, Choice) else math.inf for domain in domains)
