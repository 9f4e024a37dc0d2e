"""Collects the data of the report: a results folder as plain data, with rows as columns and everything that a choice needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune import __version__
from autotune.analysis.selection import Entry
from autotune.errors import UsageError, printable, printable_lines
from autotune.metrics import METRICS, beside
from autotune.paths import is_file, is_folder
from autotune.present.explained import explain
from autotune.present.select import Selection, select
from autotune.present.tables import settings
from autotune.report.columnar import columns_of
from autotune.report.history import curves_of, progress_of, table_of, timeline_of, timings_of
from autotune.report.importance import importance
from autotune.report.outcomes import details_of, items_of, packed_outcomes
from autotune.results.columns import STAGES, STATUSES, Column, with_workloads
from autotune.results.folder import no_sweep, read_running, read_sweep
from autotune.results.judge import entries_of, kept_turns, without_pairs
from autotune.results.record import now
from autotune.results.rows import CommandRun, Finalist, Trial, behind
from autotune.secrets import redact, redacted
from autotune.sweepfile.syntax import to_yaml

MOST_LOGS, LOG_LINES, LOG_LETTERS = 30, 40, 6000
"""The most logs of failed candidates in a page, and the most lines and characters of each, from its end."""
_DERIVED = (
    Column("settings", str, "the candidate's settings in a few words"),
    Column("served", str, "what the timing belongs to: the graph, and the session where it is the candidate's own"),
)


def read_report(folder: Path) -> dict[str, Any]:
    """Return all that the page shows of a results folder. Raises UsageError."""
    return report_of(folder, *opened(folder))


def opened(folder: Path, target: str | None = None) -> tuple[dict[str, Any], Selection]:
    """Return the sweep of a results folder, and what `select` chooses under its own limits. Raises UsageError.

    `target`: the target to choose for, if there are several; the returned sweep's name ends with it.
    """
    sweep = read_sweep(folder) if is_folder(folder) else None
    if sweep is None or not {"name", "objectives"} <= set(sweep):
        raise UsageError(no_sweep(folder, "name a results folder that `autotune run` wrote"))
    selection = select(folder, target=target)
    return (sweep if target is None else sweep | {"name": f"{sweep['name']} on {target}"}), selection


def report_of(
    folder: Path, sweep: Mapping[str, Any], selection: Selection, target: str | None = None
) -> dict[str, Any]:
    """Return all that the page shows of a results folder. `sweep`, `selection`: as `opened` returns them."""
    measured = [row for row in selection.rows if row.status == "ok"]
    entries = entries_of(measured, folder)
    rows = [row | {"settings": settings(row.settings), "served": row.served_as} for row in selection.rows]
    metrics = _metrics(rows, selection)
    first = next((row.candidate for row in rows if row.trial == 0), None)
    base = next((i for i, row in enumerate(rows) if row.status == "ok" and row.candidate == first), None)
    scores = [metric["name"] for metric in metrics if metric["kind"] == "score"]
    turns = kept_turns(folder, target)
    front = [row.candidate for row in selection.front]
    columns = (*with_workloads(Trial.columns, (name for row in rows[:1] for name in row.cells)), *_DERIVED)
    return {
        "name": printable(str(sweep["name"])),
        "folder": printable(folder.resolve().name),
        "made": now(),
        "version": __version__,
        "running": read_running(folder) is not None,
        "rows": len(rows),
        "columns": columns_of(rows, columns),
        "metrics": metrics,
        "objectives": [list(pair) for pair in selection.wanted.objectives.items()],
        "limits": [" ".join(str(limit).split()) for limit in selection.wanted.limits],
        "entries": [place for place, row in enumerate(rows) if row.status == "ok"],
        "base": base,
        "outcomes": _outcomes(scores, measured, entries, folder),
        "turns": turns.plain() if turns is not None else None,
        "front": front,
        "explained": printable_lines(redact(explain(selection))),
        "finalists": [row.filled() for row in table_of(folder / "finalists.csv", Finalist)],
        "runs": [row.filled() for row in table_of(folder / "runs.csv", CommandRun)],
        "machine": _machine(folder),
        "sweep": to_yaml(redacted(sweep)),
        "budget": sweep.get("budget") if isinstance(sweep.get("budget"), Mapping) else {},
        "statuses": STATUSES,
        "stages": STAGES,
        "progress": progress_of(rows, selection.wanted.objectives),
        "curves": curves_of(folder, rows, scores[0] if scores else "accuracy"),
        "timeline": timeline_of(folder),
        "timings": timings_of(folder),
        "importance": importance(rows, list(selection.wanted.objectives)),
        "items": items_of(folder),
        "answers": details_of(folder, _interesting(selection, front)),
        "logs": _logs(folder, rows),
    }


def _metrics(rows: Sequence[Trial], selection: Selection) -> list[dict[str, Any]]:
    """Return the metrics that any row has or the sweep names, each with its direction, meaning and interval columns."""
    objectives = selection.wanted.objectives
    named = [*objectives, *(limit.metric for limit in selection.wanted.limits)]
    there = {name for row in rows for name, value in row.cells.items() if value is not None}
    names = [*(metric.name for metric in METRICS.values()), *sorted(name for name in there if "@" in name)]
    said = next((row.score_direction for row in rows if row.score_direction), None)
    found = []
    for name in dict.fromkeys([*named, *names]):
        if name in METRICS and (name in there or name in named):
            metric = METRICS[name]
            direction = "minimize" if metric.turns and said == "minimize" else metric.direction
            sides = {end: beside(name, end) for end in ("low", "high")}
            about = {"name": name, "direction": objectives.get(name, direction), "kind": metric.kind}
            found.append({**about, "meaning": metric.meaning, "behind": behind(name), **sides})
    return found


def _outcomes(scores: Sequence[str], rows: Sequence[Trial], entries: Sequence[Entry], folder: Path) -> dict[str, Any]:
    """Return the outcomes by which `select` compares candidates, by score; "too many" for a score past `select`'s bound."""
    candidates = [entry for row, entry in zip(rows, entries, strict=True) if row.trial != 0]
    left_out = without_pairs(candidates)
    found: dict[str, Any] = dict.fromkeys(left_out, "too many")
    for score in scores:
        if score not in left_out and (packed := packed_outcomes(score, entries, folder)) is not None:
            found[score] = packed
    return found


def _interesting(selection: Selection, front: Sequence[str]) -> list[str]:
    """Return the candidates whose answers the page shows: untouched model, winner, front, and ties with the winner."""
    choice = selection.choice
    base = [row.candidate for row in selection.rows if row.trial == 0]
    ends = [entry.id for entry in (choice.winner, choice.leader) if entry is not None]
    return [*base, *ends, *front, *(name for step in choice.steps for name in step.tied)]


def _logs(folder: Path, rows: Sequence[Trial]) -> dict[str, str]:
    """Return the ends of failed candidates' logs, by candidate."""
    found: dict[str, str] = {}
    for row in rows:
        name = row.candidate
        if row.status in ("ok", "stopped") or name in found or len(found) >= MOST_LOGS:
            continue
        file = folder / "logs" / f"{name}.log"
        try:
            text = file.read_text(encoding="utf-8", errors="replace") if is_file(file) else ""
        except OSError:
            continue
        if text.strip():
            found[name] = printable_lines(redact("\n".join(text.splitlines()[-LOG_LINES:])))[-LOG_LETTERS:]
    return found


def _machine(folder: Path) -> dict[str, Any]:
    """Return the description of the machine and its packages; empty where the file is missing or damaged."""
    try:
        kept = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
        return dict(redacted(kept)) if isinstance(kept, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
