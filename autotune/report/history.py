"""Computes how a sweep went: the hypervolume of its front over time, its training curves, and where the time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from autotune.analysis.pareto import dominates, hypervolume
from autotune.errors import UsageError
from autotune.metrics import Direction
from autotune.paths import is_file
from autotune.results.folder import read_timings
from autotune.results.rows import CurvePoint, StageSpan, TableRow, Trial
from autotune.results.table import read_table

R = TypeVar("R", bound=TableRow)

MOST_CURVES, MOST_POINTS, MOST_INTERVALS, MOST_TIMINGS = 60, 40, 2000, 200
"""The most of each in a page: adapters with a curve, points of a curve, intervals of the timeline, timings of graphs."""


def when(text: Any) -> float | None:
    """Return an ISO 8601 time as seconds since 1970; None where the text is no such time."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def progress_of(rows: Sequence[Trial], objectives: Mapping[str, Direction]) -> dict[str, Any] | None:
    """Return the hypervolume of the front after each candidate that moved it; None where fewer than two were measured.

    `seconds` are counted from the first row's start. `volume` is a share of the box between the best and the worst value of
    each objective among all fully measured rows: it does not compare sweeps. `measured` counts the candidates by then.
    """
    points = []
    for row in rows:
        values, ended = [row.number(name) for name in objectives], when(row.ended)
        if row.status == "ok" and ended is not None and all(value is not None for value in values):
            points.append((ended, [float(value) for value in values if value is not None]))
    points.sort(key=lambda point: point[0])
    if len(points) < 2:
        return None
    scaled = _scaled([point for _, point in points], list(objectives.values()))
    if scaled is None:
        return None
    scaled_points, reference, whole, ways = scaled
    starts = [start for row in rows if (start := when(row.started)) is not None]
    began = min(starts, default=points[0][0])
    front: list[list[float]] = []
    seconds, volumes, counts = [0.0], [0.0], [0]
    for count, ((ended, _), point) in enumerate(zip(points, scaled_points, strict=True), start=1):
        if any(point == other or dominates(other, point, ways) for other in front):
            continue
        front = [other for other in front if not dominates(point, other, ways)] + [point]
        seconds.append(ended - began)
        volumes.append(hypervolume(front, reference, ways) / whole)
        counts.append(count)
    seconds.append(points[-1][0] - began)
    volumes.append(volumes[-1])
    counts.append(len(points))
    return {"seconds": seconds, "volume": volumes, "measured": counts}


def _scaled(
    points: Sequence[Sequence[float]], directions: Sequence[Direction]
) -> tuple[list[list[float]], list[float], float, list[Direction]] | None:
    """Scale the objectives that vary so that each spans 1. Returns points, reference point, volume of the whole box, directions.

    None where no objective varies.
    """
    columns = list(zip(*points, strict=True))
    ends = [(max(c), min(c)) if d == "maximize" else (min(c), max(c)) for c, d in zip(columns, directions, strict=True)]
    spans = [abs(best - worst) for best, worst in ends]
    used = [place for place, span in enumerate(spans) if span > 0]
    if not used:
        return None
    ways = [directions[place] for place in used]
    # A margin of a hundredth: the candidate with the worst value of an objective still adds volume by its other objectives.
    margin = [0.01 if way == "minimize" else -0.01 for way in ways]
    reference = [ends[place][1] / spans[place] + add for place, add in zip(used, margin, strict=True)]
    best = [ends[place][0] / spans[place] for place in used]
    whole = 1.0
    for a, b in zip(best, reference, strict=True):
        whole *= abs(a - b)
    return [[point[place] / spans[place] for place in used] for point in points], reference, whole, ways


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` of the points, the last one among them."""
    every = -(-len(points) // MOST_POINTS)
    return [point for place, point in enumerate(points) if place % every == 0 or place == len(points) - 1]


def curves_of(folder: Path, rows: Sequence[Trial], score: str) -> dict[str, Any]:
    """Return the training curves: for each adapter (step, loss), thinned, and (step, score) at its rungs.

    At most `MOST_CURVES` adapters are kept, those of scored candidates first.
    """
    losses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in table_of(folder / "curves.csv", CurvePoint):
        step = float(row.step or 0)
        if row.train_loss is not None:
            losses[row.adapter].append((step, row.train_loss))
        if row.score is not None:
            scores[row.adapter].append((step, row.score))
    scored = {row.adapter for row in rows if row.adapter is not None and row[score] is not None}
    names = sorted(losses.keys() | scores.keys(), key=lambda name: (name not in scored, name))
    adapters = [
        {"adapter": name, "loss": _thinned(sorted(losses[name])), "score": sorted(scores[name])}
        for name in names[:MOST_CURVES]
    ]
    return {"score": score, "adapters": adapters, "left_out": max(0, len(names) - MOST_CURVES)}


def timeline_of(folder: Path) -> dict[str, Any]:
    """Return the total seconds of each stage (`totals`), and the last `MOST_INTERVALS` intervals in seconds since `first`."""
    spans = [
        (row.stage, row.began, row.ended, bool(row.alone))
        for row in table_of(folder / "timeline.csv", StageSpan)
        if row.began is not None and row.ended is not None
    ]
    totals: dict[str, float] = defaultdict(float)
    for stage, began, ended, _ in spans:
        totals[stage] += max(0.0, ended - began)
    first = min((began for _, began, _, _ in spans), default=0.0)
    kept = sorted(spans, key=lambda span: span[1])[-MOST_INTERVALS:]
    return {
        "totals": dict(sorted(totals.items(), key=lambda item: -item[1])),
        "first": first,
        "spans": [
            [stage, round(began - first, 2), round(ended - first, 2), alone] for stage, began, ended, alone in kept
        ],
        "left_out": len(spans) - len(kept),
    }


def timings_of(folder: Path) -> list[dict[str, Any]]:
    """Return the last `MOST_TIMINGS` timings, each with the numbers of its processes."""
    kept = ("itl_ms_p50", "ttft_ms_p50", "foreign_cpu", "load_avg")
    found = []
    for timing in read_timings(folder)[-MOST_TIMINGS:]:
        processes = [process for process in timing["processes"] if isinstance(process, dict)]
        found.append(
            {
                **{name: timing.get(name) for name in ("graph", "session", "workload", "again")},
                "processes": [[_number(process.get(name)) for name in kept] for process in processes[:64]],
            }
        )
    return found


def _number(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if sound else None


def table_of(file: Path, kind: type[R]) -> list[R]:
    """Return the rows of a table that the report can do without; empty where the file is missing or damaged."""
    try:
        return read_table(file, kind) if is_file(file) else []
    except UsageError:
        return []
