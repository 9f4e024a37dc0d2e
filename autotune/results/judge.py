"""From rows to a choice: the bridge between results.csv and the rule of the winner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from autotune.analysis.latency import Turns, turns_from
from autotune.analysis.limits import Aims
from autotune.analysis.pareto import front
from autotune.analysis.scores import PARTS, per_item
from autotune.analysis.selection import Choice, Entry, choose
from autotune.candidate import Candidate
from autotune.errors import Problem, UsageError
from autotune.metrics import Direction, score_column
from autotune.results.folder import TURNS
from autotune.results.rows import Trial


def candidate_of(row: Trial, file: Path) -> Candidate:
    """Return the candidate whose settings a row of `file` holds. Raises UsageError."""
    try:
        return Candidate.from_columns({name: str(value) for name, value in row.settings.items() if value is not None})
    except ValueError:
        rule = f"the settings of candidate {row.candidate} cannot be read"
        raise UsageError(Problem(rule, file=str(file), remedy="restore the file, or remove that line")) from None


def entry_of(row: Trial, folder: Path | None = None) -> Entry:
    """Return a row as the rule of the winner sees it, with the outcomes of its items where `folder` keeps them."""
    intervals = {name: interval for name in row.metrics if (interval := row.interval(name)) is not None}
    counts = {name: count for name in row.metrics if (count := row.behind(name)) is not None}
    outcomes = {}
    if folder is not None:
        try:
            kept = json.loads((folder / "outcomes" / f"{row.candidate}.json").read_text(encoding="utf-8"))
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
    return Entry(row.candidate, row.values, intervals, counts, outcomes, row.served_as)


def judge(
    rows: Iterable[Trial],
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
    finished = [row for row in rows if row.status == "ok"]
    base = next((entry_of(row) for row in finished if row.candidate == base_id), None)
    entries = [entry_of(row, folder) for row in finished if row.trial != 0]
    return choose(entries, aims.objectives, aims.limits, base, turns=turns)


def front_of(rows: Iterable[Trial], objectives: Mapping[str, Direction]) -> list[Trial]:
    """Return the fully measured rows that no other is better than in every objective."""
    finished = [row for row in rows if row.status == "ok"]
    proposed = {row.candidate for row in finished if row.trial != 0}
    finished = [row for row in finished if row.trial != 0 or row.candidate not in proposed]
    points = [[row.number(name) for name in objectives] for row in finished]
    return [finished[index] for index in front(points, list(objectives.values()))]


def kept_turns(folder: Path) -> Turns | None:
    """Return how the finalists of a results folder were timed in turns; None where they were not, or it is damaged."""
    try:
        return turns_from(json.loads((folder / "outcomes" / TURNS).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def base_of(rows: Iterable[Trial]) -> Trial | None:
    """Return the row of the untouched model that was measured first (trial 0)."""
    return next((row for row in rows if row.trial == 0), None)
