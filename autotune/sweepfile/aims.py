"""Objectives and limits of a sweep file: parsed, and checked against the metrics that the sweep measures."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.analysis.limits import Limit, excludes, parse_limit, senseless
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.metrics import (
    ENOUGH_FOR_P90,
    METRICS,
    PER_WORKLOAD,
    Direction,
    is_function,
    is_task,
    score_column,
)
from autotune.providers import NVIDIA
from autotune.sweepfile.schema import Target
from autotune.tasks import direction_of, find_task
from autotune.usercode import find_function


def parse_score(metric: str, root: Path, problems: list[Problem]) -> str | None:
    """Return the score column of a `data.metric`; None where the metric is refused. Mistakes go to `problems`."""
    try:
        if is_function(metric):
            find_function(metric, root)
        if is_task(metric):
            find_task(metric, root)
        return score_column(metric)
    except UsageError as error:
        problems += error.problems
        return score_column(metric)
    except KeyError:  # told by the check of the whole document
        return None


def direction_of_score(score: str | None, metric: str, root: Path) -> Direction:
    """Return the direction of the score, where no objective states one."""
    if score == "lm_eval":
        with contextlib.suppress(UsageError):
            return direction_of(metric, root)
    return METRICS[score].direction if score else "maximize"


def parse_objectives(
    raw: Any, score: str | None, first: Direction, builds: bool, usable: Mapping[str, str], problems: list[Problem]
) -> dict[str, Direction]:
    """Return the objectives in order. Mistakes go to `problems`; `first`: the direction of the score."""
    if not isinstance(raw, dict):
        objectives: dict[str, Direction] = {score: first} if score else {}
        if builds:
            objectives |= {"itl_ms_p50": "minimize", "size_mb": "minimize"}
        return objectives
    if not raw:
        remedy = f"e.g. {score or 'accuracy'}: {METRICS[score or 'accuracy'].direction}"
        problems.append(Problem("needs at least one objective", "objectives", remedy=remedy))
    for name, direction in raw.items():
        key = f"objectives.{name}"
        _check_metric(name, key, usable, problems)
        right = METRICS[name].direction if name in METRICS and not METRICS[name].turns else direction
        if direction in ("maximize", "minimize") and direction != right:
            problems.append(
                Problem(f"{name} is {right}d, by its meaning", key, value=direction, remedy=f"write {right}")
            )
    return dict(raw)


def usable_metrics(score: str | None, builds: bool, target: Target) -> dict[str, str]:
    """Return every metric, with the remedy where this sweep does not measure it, else with an empty text."""
    usable: dict[str, str] = {}
    for metric in METRICS.values():
        if metric.kind == "score":
            usable[metric.name] = "" if score in (metric.name, None) else f"data.metric gives {score}"
        elif metric.name == "gpu_memory_mb" and target.provider not in NVIDIA:
            usable[metric.name] = f"it is measured on {' and '.join(NVIDIA)}"
        else:
            usable[metric.name] = "" if builds else "add space.build"
    first = next(iter(target.workloads or {}), None)
    for suffix, workload in target.timed.items() if builds else ():
        # A process times tokens until there are enough for a percentile, and with them so many sequences.
        gaps = ENOUGH_FOR_P90 if workload.drawn else int(workload.new_tokens) - 1
        sequences = max(2, math.ceil(ENOUGH_FOR_P90 / gaps))
        more = math.ceil(ENOUGH_FOR_P90 / sequences)
        few = not workload.drawn and target.timing.processes < more
        needs = f"it needs {ENOUGH_FOR_P90} sequences: set target.timing.processes, and most, to {more}"
        usable[f"ttft_ms_p90{suffix}"] = needs if few else ""
    for plain in sorted(PER_WORKLOAD):
        usable = {f"{plain}{suffix}": usable[plain] for suffix in target.timed if suffix} | usable
        if first is not None:
            usable[f"{plain}@{first}"] = f"write {plain}: {first} is the first of target.workloads"
    return usable


def _check_metric(name: Any, key: str, usable: Mapping[str, str], problems: list[Problem]) -> None:
    """Add a problem where a metric is unknown, or this sweep does not measure it."""
    measured = [metric for metric, instead in usable.items() if not instead]
    if name not in METRICS:
        problems.append(Problem("no such metric", key, value=name, remedy=did_you_mean(str(name), measured)))
    elif name not in measured:
        remedy = usable.get(name) or did_you_mean(name, [m for m in measured if "@" in m] or measured)
        problems.append(Problem(f"{name} is not measured in this sweep", key, remedy=remedy))


def parse_limits(raw: list[Any], usable: Mapping[str, str], problems: list[Problem]) -> tuple[Limit, ...]:
    """Return the limits in order. Mistakes go to `problems`; `usable`: from `usable_metrics`."""
    limits: list[Limit] = []
    for index, text in enumerate(raw):
        if not isinstance(text, str):
            continue
        key = f"limits[{index}]"
        try:
            limit = parse_limit(" ".join(text.split()), METRICS)
        except ValueError as error:
            problems.append(Problem(str(error), key))
            continue
        _check_metric(limit.metric, key, usable, problems)
        problems += [Problem(rule, key, value=text, remedy=remedy) for rule, remedy in senseless(limit)]
        for other in limits:
            if excludes(limit, other) or excludes(other, limit):
                rule = f"no candidate could keep this limit and {other.text!r}"
                problems.append(Problem(rule, key, value=text, remedy="change or remove one of them"))
        limits.append(limit)
    return tuple(limits)
