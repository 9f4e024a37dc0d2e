"""From rows to a choice: the bridge between results.csv and the rule of the winner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autotune.analysis.latency import Turns, turns_from
from autotune.analysis.limits import Limit
from autotune.analysis.pareto import front
from autotune.analysis.scores import PARTS, per_item
from autotune.analysis.selection import Choice, Entry, choose
from autotune.analysis.statistics import Interval
from autotune.candidate import Candidate
from autotune.errors import Problem, UsageError
from autotune.metrics import METRICS, Direction, beside, score_column
from autotune.results.folder import TURNS


class Aims(Protocol):
    """What a sweep wants: its objectives in order, and its limits."""

    @property
    def objectives(self) -> dict[str, Direction]:
        """Metric to direction."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """All must be kept."""
        ...


def metrics_of(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics, those of workloads last, that a row has cells for or may have."""
    return [*METRICS, *(name for name in row if "@" in name and name in METRICS)]


def candidate_of(row: Mapping[str, Any], file: Path) -> Candidate:
    """Return the candidate whose settings a row of `file` holds. Raises UsageError."""
    try:
        return Candidate.from_columns({name: str(value) for name, value in row.items() if value is not None})
    except ValueError:
        rule = f"the settings of candidate {row['candidate']} cannot be read"
        raise UsageError(Problem(rule, file=str(file), remedy="restore the file, or remove that line")) from None


def values_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that a row has measured."""
    return {name: float(row[name]) for name in metrics_of(row) if row.get(name) is not None}


def served_as(row: Mapping[str, Any]) -> str | None:
    """Return what a row's timing belongs to: its graph, and its session where that is the candidate's own."""
    if row.get("graph") is None:
        return None
    session = (f"{n}={v}" for n, v in sorted(row.items()) if n.startswith("session_") and v is not None)
    return " ".join([str(row["graph"]), *session])


def entry_of(row: Mapping[str, Any], folder: Path | None = None) -> Entry:
    """Return a row as the rule of the winner sees it, with the outcomes of its items where `folder` keeps them."""
    intervals: dict[str, Interval] = {}
    counts: dict[str, int] = {}
    for name in metrics_of(row):
        low, high = row.get(beside(name, "low")), row.get(beside(name, "high"))
        if low is not None and high is not None:
            intervals[name] = Interval(float(low), float(high))
        behind = row.get(_behind(name))
        if behind is not None:
            counts[name] = int(behind)
    outcomes = {}
    if folder is not None:
        try:
            kept = json.loads((folder / "outcomes" / f"{row['candidate']}.json").read_text(encoding="utf-8"))
            column = score_column(kept["metric"])
            with np.errstate(all="ignore"):
                items = per_item(kept["metric"], kept)
            n = counts.get(column, 0)
            expected = {n, min(n, PARTS)} if "parts" in kept else {n}
            if items is not None and np.isfinite(items).all() and items.ndim == 1 and items.size in expected:
                outcomes[column] = items
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ):  # not kept, or damaged: intervals do
            pass
    return Entry(str(row["candidate"]), values_of(row), intervals, counts, outcomes, served_as(row))


def _behind(metric: str) -> str:
    """Return the column that counts what a metric was measured on: items, or the processes of a timing."""
    return f"{metric}_n" if METRICS[metric].kind == "score" else "processes" + "".join(metric.partition("@")[1:])


def judge(
    rows: Iterable[Mapping[str, Any]],
    aims: Aims,
    base_id: str | None,
    folder: Path | None = None,
    turns: Turns | None = None,
) -> Choice:
    """Return the winner among the rows that are fully measured.

    The untouched model measured first (trial 0) is what limits refer to; it competes only where the strategy proposes
    it too. Without `folder` there are no outcomes of items, and scores are compared by intervals; without `turns`,
    latencies are.
    """
    finished = [row for row in rows if row["status"] == "ok"]
    base = next((entry_of(row) for row in finished if row["candidate"] == base_id), None)
    entries = [entry_of(row, folder) for row in finished if row["trial"] != 0]
    return choose(entries, aims.objectives, aims.limits, base, turns=turns)


def front_of(rows: Iterable[Mapping[str, Any]], objectives: Mapping[str, Direction]) -> list[Mapping[str, Any]]:
    """Return the fully measured rows that no other is better than in every objective."""
    finished = [row for row in rows if row["status"] == "ok"]
    proposed = {row["candidate"] for row in finished if row["trial"] != 0}
    finished = [row for row in finished if row["trial"] != 0 or row["candidate"] not in proposed]
    points = [[values_of(row).get(name) for name in objectives] for row in finished]
    return [finished[index] for index in front(points, list(objectives.values()))]


def kept_turns(folder: Path) -> Turns | None:
    """Return how the finalists of a results folder were timed in turns; None where they were not, or it is damaged."""
    try:
        return turns_from(json.loads((folder / "outcomes" / TURNS).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def base_of(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row of the untouched model that was measured first (trial 0)."""
    return next((row for row in rows if row["trial"] == 0), None)
