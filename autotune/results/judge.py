"""From the rows of results.csv to a choice, by the rule of the winner (`analysis/selection.py`)."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autotune.analysis.latency import Turns, turns_from
from autotune.analysis.limits import Aims
from autotune.analysis.pareto import front
from autotune.analysis.scores import PARTS
from autotune.analysis.selection import Choice, Entry, choose
from autotune.analysis.statistics import Interval
from autotune.candidate import Candidate
from autotune.errors import Problem, UsageError
from autotune.metrics import Direction
from autotune.results.folder import turns_file
from autotune.results.outcomes import MOST_NUMBERS, Parts, parts_of
from autotune.results.rows import Trial, cells_of, layout_of_rows, served_as

_NAMED = re.compile(r"[0-9a-f]{16}")
"""A name that is the digest of a candidate's settings."""


def candidate_of(row: Trial, file: Path) -> Candidate:
    """Return the candidate of a row of `file`. Raises UsageError where its settings cannot be read."""
    try:
        settings = {name: str(value) for name, value in row.settings.items() if value is not None}
        found = Candidate.from_columns(settings | ({"target": row.target} if row.target else {}))
    except ValueError:
        rule = f"the settings of candidate {row.candidate} cannot be read"
        raise UsageError(Problem(rule, file=str(file), remedy="restore the file, or remove that line")) from None
    return found


def named_candidate(row: Trial, file: Path) -> Candidate:
    """Return the candidate of a row as `candidate_of` does, for whoever makes it again. Raises UsageError, also where the row's
    settings are not those that its name is the digest of.
    """
    found = candidate_of(row, file)
    if found.id != row.candidate and _NAMED.fullmatch(row.candidate):
        rule = f"the settings of candidate {row.candidate} are others than those that it was named by: its line was changed"
        raise UsageError(
            Problem(rule, file=str(file), remedy="restore the file: a spreadsheet may have rounded its numbers")
        )
    return found


def entry_of(row: Trial, folder: Path | None = None) -> Entry:
    """Return a row as an entry for the rule of the winner, with the outcomes of its items where `folder` has them."""
    return entries_of([row], folder)[0]


def entries_of(
    rows: Sequence[Trial],
    folder: Path | None = None,
    wanted: Container[str] | None = None,
    parts: Mapping[str, Parts] | None = None,
) -> list[Entry]:
    """Return the entries of many rows, as `entry_of`; ten thousand take a fraction of a second.

    `wanted`: only these metrics; `parts`: the folder's outcomes, by candidate, where they were read before.
    """
    # Column by column: most rows have few of the metrics, and rows mostly share one header.
    layout = layout_of_rows(rows)
    metrics = [metric for metric in layout.metrics if wanted is None or metric[0] in wanted]
    names = ["candidate", "graph", *layout.sessions, *(name for metric in metrics for name in metric)]
    candidates, graphs, *others = cells_of(rows, names)
    sessions = [pair for pair in zip(layout.sessions, others, strict=False) if set(pair[1]) != {None}]
    columns = iter(others[len(layout.sessions) :])
    ids = [str(name or "") for name in candidates]
    kept = parts if parts is not None else parts_of(folder, ids) if folder is not None else {}
    found = []
    values: list[dict[str, float]] = [{} for _ in rows]
    intervals: list[dict[str, Interval]] = [{} for _ in rows]
    counted: list[dict[str, int]] = [{} for _ in rows]
    for name, *_ in metrics:
        measured, least, most, behind = (next(columns) for _ in range(4))
        for place, count in _filled(behind):
            counted[place][name] = int(count)
        for place, value in _filled(measured):
            values[place][name] = float(value)
            low, high = least[place], most[place]
            if low is not None and high is not None:
                intervals[place][name] = Interval(float(low), float(high))
    for place, name in enumerate(ids):
        counts, outcomes = counted[place], {}
        own = kept.get(name)
        if own is not None:
            n = counts.get(own.column, 0)
            if own.items.size == n or (own.grouped and own.items.size == min(n, PARTS)):
                outcomes[own.column] = own.items
        graph = served_as(graphs[place], ((setting, column[place]) for setting, column in sessions))
        found.append(Entry(name, values[place], intervals[place], counts, outcomes, graph))
    return found


def _filled(column: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the cells of a column that are not empty, each with its place."""
    if column.count(None) < len(column):
        yield from ((place, cell) for place, cell in enumerate(column) if cell is not None)


def without_pairs(entries: Sequence[Entry]) -> set[str]:
    """Return the scores that are not compared in pairs, because they have more than `MOST_NUMBERS` outcomes.

    The report has this bound, because it holds all outcomes to choose as `select` does. Outcomes that are right or wrong take
    a bit each, and are not bounded.
    """
    numbers: dict[str, int] = {}
    for entry in entries:
        for metric, items in entry.outcomes.items():
            if items.dtype != np.uint8 and not ((items == 0) | (items == 1)).all():
                numbers[metric] = numbers.get(metric, 0) + items.size
    return {metric for metric, count in numbers.items() if count > MOST_NUMBERS}


def judge(
    rows: Iterable[Trial],
    aims: Aims,
    base_id: str | None,
    folder: Path | None = None,
    turns: Turns | None = None,
    parts: Mapping[str, Parts] | None = None,
) -> Choice:
    """Return the winner among the rows that are fully measured.

    Limits refer to the untouched model measured first (trial 0, `base_id`); it competes only where the strategy proposed it
    too. Without `folder`, scores are compared by intervals, because there are no outcomes of items; without `turns`, latencies
    are. `parts`: as in `entries_of`. Entries of the choice hold only the metrics of the objectives and limits.
    """
    finished = [row for row in rows if row.status == "ok"]
    base = next((entry_of(row) for row in finished if row.candidate == base_id), None)
    decisive = {*aims.objectives, *(limit.metric for limit in aims.limits)}
    entries = entries_of([row for row in finished if row.trial != 0], folder, decisive, parts)
    left_out = without_pairs(entries)
    if left_out:
        entries = [replace(e, outcomes={m: x for m, x in e.outcomes.items() if m not in left_out}) for e in entries]
    return choose(entries, aims.objectives, aims.limits, base, turns=turns)


def front_of(rows: Iterable[Trial], objectives: Mapping[str, Direction]) -> list[Trial]:
    """Return the fully measured rows on the Pareto front of the objectives."""
    finished = [row for row in rows if row.status == "ok"]
    proposed = {row.candidate for row in finished if row.trial != 0}
    finished = [row for row in finished if row.trial != 0 or row.candidate not in proposed]
    points = [[row.number(name) for name in objectives] for row in finished]
    return [finished[index] for index in front(points, list(objectives.values()))]


def kept_turns(folder: Path, target: str | None = None) -> Turns | None:
    """Return the timings in turns of a results folder's finalists; None where there are none, or they are damaged."""
    try:
        return turns_from(json.loads((folder / "outcomes" / turns_file(target)).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def base_of(rows: Iterable[Trial]) -> Trial | None:
    """Return the row of the untouched model that was measured first (trial 0)."""
    return next((row for row in rows if row.trial == 0), None)
