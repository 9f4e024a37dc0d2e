"""The `select` command: chooses a candidate from existing rows, under old or new limits, without running anything."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.analysis.limits import Aims, Limit, excludes, parse_limit, senseless
from autotune.analysis.selection import Choice
from autotune.errors import Exit, Problem, UsageError, did_you_mean
from autotune.metrics import METRICS, Direction
from autotune.paths import is_file, is_folder
from autotune.pipeline.over_limit import over_limit
from autotune.results.columns import Column
from autotune.results.consistency import disagreements, renamed
from autotune.results.judge import base_of, front_of, judge, kept_turns
from autotune.results.outcomes import parts_of
from autotune.results.rows import Finalist, Trial, measured_in
from autotune.results.table import read_table, write_table

_SHOWN = 100
"""The most candidates of the front whose settings are held to their names."""


@dataclass(frozen=True)
class Selection:
    """The result of `select`: the choice, the rows behind it, and the methods of comparison."""

    choice: Choice
    rows: list[Trial]
    front: list[Trial]
    """The fully measured rows on the Pareto front of the objectives."""
    wanted: Aims
    paired: bool
    final: Finalist | None = None
    """The winner's row of finalists.csv, where the sweep ended with this winner."""
    notes: tuple[str, ...] = ()
    """Notes for the user about the files behind the choice."""
    in_folder: bool = False
    """Whether the rows come from a results folder, and not from a CSV file alone."""
    doubts: tuple[str, ...] = ()
    """Those of the notes that say what sweep.yaml, rows and outcomes contradict one another in."""

    @property
    def exit_code(self) -> Exit:
        """The exit code: 0 with a winner, 4 if no candidate keeps the limits, 5 if none finished."""
        if self.choice.winner is not None:
            return Exit.OK
        return (
            Exit.NO_FEASIBLE
            if any(row.status in ("ok", "over_limit") and row.trial for row in self.rows)
            else Exit.NO_RESULT
        )

    @property
    def won(self) -> Trial | None:
        """The winner's row; None where there is none."""
        return self.row(self.choice.winner.id) if self.choice.winner is not None else None

    def row(self, name: str) -> Trial:
        """Return a candidate's row; for the untouched model, its row as a trial rather than its first measurement."""
        return max((row for row in self.rows if row.candidate == name), key=lambda row: row.trial != 0)


def wanted(sweep: dict[str, Any] | None, rows: Sequence[Trial], limits: Sequence[str], prefer: str | None) -> Aims:
    """Return the objectives and limits of the sweep, or default objectives for a CSV file alone. `limits` replace the sweep's.

    `prefer` makes a metric the first objective. Raises UsageError, also for a metric that no row has.
    """
    # What was measured is needed to check what the user names, and looks at every cell of every row.
    named = sweep is None or limits or prefer is not None
    measured = list(measured_in([row for row in rows if row.status == "ok"])) if named else []
    if sweep is not None:
        objectives: dict[str, Direction] = dict(sweep["objectives"])
        texts = list(limits) or list(sweep.get("limits", []))
    else:
        scores = [metric.name for metric in METRICS.values() if metric.kind == "score"]
        usual = [name for name in (*scores, "itl_ms_p50", "size_mb") if name in measured]
        objectives = {name: _direction(name, rows) for name in usual or measured or ["accuracy"]}
        texts = list(limits)
    problems = []
    parsed: list[Limit] = []

    def check(name: str, key: str) -> None:
        if measured and name not in measured:
            rule = f"{name} was not measured in these results"
            problems.append(Problem(rule, key, remedy="use one of: " + ", ".join(measured)))

    for text in texts:
        if limits and text.strip() in METRICS:
            rule = "a limit must be a metric, <= or >=, and a bound"
            remedy = f"put it in quotes, because a shell takes < and > for files: --limit '{text.strip()} >= ...'"
            problems.append(Problem(rule, "--limit", value=text, remedy=remedy))
            continue
        try:
            limit = parse_limit(" ".join(text.split()), METRICS)
        except ValueError as error:
            remedy = str(error).replace("write each limit as an entry of its own", "write --limit before each limit")
            problems.append(Problem(remedy if limits else str(error), "--limit" if limits else "limits"))
            continue
        if limits:
            check(limit.metric, "--limit")
            problems += [Problem(rule, "--limit", value=text, remedy=remedy) for rule, remedy in senseless(limit)]
            for other in parsed:
                if excludes(limit, other) or excludes(other, limit):
                    rule = f"no candidate could keep this limit and {other.text!r}"
                    problems.append(Problem(rule, "--limit", value=text, remedy="change or leave out one of them"))
        parsed.append(limit)
    if prefer is not None:
        if prefer not in METRICS:
            remedy = did_you_mean(prefer, measured or list(METRICS))
            problems.append(Problem("no such metric", "--prefer", value=prefer, remedy=remedy))
        else:
            check(prefer, "--prefer")
            objectives = {prefer: _direction(prefer, rows)} | objectives
    if problems:
        raise UsageError(problems)
    return Aims(objectives, tuple(parsed))


def _direction(name: str, rows: Sequence[Trial]) -> Direction:
    """Return the direction of a metric; for a user's own metric, as the rows have it."""
    said = next((row.score_direction for row in rows if row.score_direction), None)
    return "minimize" if METRICS[name].turns and said == "minimize" else METRICS[name].direction


def targets_of(place: Path) -> list[str]:
    """Return the targets of a results folder or a CSV file; empty if the sweep has no `targets`. Raises UsageError."""
    from autotune.results.folder import read_results

    return targets_in(read_results(place))


def targets_in(rows: Sequence[Trial]) -> list[str]:
    """Return the targets of rows, each once, in order."""
    return list(dict.fromkeys(row.target for row in rows if row.target))


def selections(
    place: Path,
    limits: Sequence[str] = (),
    prefer: str | None = None,
    target: str | None = None,
    rows: Sequence[Trial] | None = None,
) -> dict[str, Selection]:
    """Choose for each target of a results folder or a lone CSV, or for `target` alone; the name is empty where there are none.

    Takes and raises as `select`. The rows, which may be many, are read once.
    """
    from autotune.results.folder import read_results

    rows = read_results(place) if rows is None else rows
    names = [target] if target else targets_in(rows)
    return {name: select(place, limits, prefer, name or None, rows) for name in names or [""]}


def select(
    place: Path,
    limits: Sequence[str] = (),
    prefer: str | None = None,
    target: str | None = None,
    rows: Sequence[Trial] | None = None,
) -> Selection:
    """Choose among the rows of a results folder or a lone CSV; `target`: of which of several; `rows`: those of `place` that
    count, where they were read. Raises UsageError.
    """
    from autotune.results.folder import check_whole, read_results, read_sweep

    rows = every = list(rows) if rows is not None else read_results(place)
    if is_file(place) and not place.stat().st_size:
        raise UsageError(Problem("is empty", file=str(place), remedy="name a results folder or its results.csv"))
    check_whole(rows, place)
    sweep = read_sweep(place) if is_folder(place) else None
    if target is not None:
        names = targets_in(rows)
        if target not in names and target not in ((sweep or {}).get("targets") or {}):
            remedy = did_you_mean(target, names) if names else "leave it out: these results have one target"
            raise UsageError(Problem("no such target in these results", "--target", value=target, remedy=remedy))
        rows = [row for row in rows if row.target == target]
        own = ((sweep or {}).get("targets") or {}).get(target)
        if sweep is not None and isinstance(own, dict):
            sweep = sweep | {"limits": [*sweep.get("limits", []), *own.get("limits", [])]}
    elif isinstance((sweep or {}).get("targets"), dict) and len(names := targets_in(rows)) > 1:
        rule = f"these results are of several targets: {', '.join(names)}"
        raise UsageError(Problem(rule, file=str(place), remedy="name one with --target"))
    if sweep is not None and not all(name in METRICS for name in sweep.get("objectives") or [""]):
        rule = "is not the sweep of a results folder: it has no objectives"
        raise UsageError(
            Problem(rule, file=str(place / "sweep.yaml"), remedy="name a folder that `autotune run` wrote")
        )
    aims = wanted(sweep, rows, limits, prefer)
    base = base_of(rows)
    needing = [limit for limit in aims.limits if limit.needs_base]
    if needing and base is None and any(row.status == "ok" for row in rows):
        rule = f"limit '{needing[0]}' needs the untouched model, whose row (trial 0) is not there"
        raise UsageError(Problem(rule, file=str(place), remedy="give a limit with a plain number"))
    folder = place if is_folder(place) else None
    turns = kept_turns(folder, target) if folder is not None else None
    # Read once: it is most of the time that thousands of rows take.
    parts = parts_of(folder, [row.candidate for row in rows if row.status == "ok"]) if folder is not None else {}
    choice = judge(rows, aims, base.candidate if base is not None else None, folder, turns, parts)
    notes = (*_notes(place, sweep, every, limits), *(_loosened(rows, every, aims, base) if limits else ()))
    front = front_of(rows, aims.objectives)
    found = Selection(choice, rows, front, aims, choice.paired, _final(folder, choice), notes, folder is not None)
    doubts = (*(disagreements(folder, sweep, every, parts) if folder is not None else ()), *_renamed(found, place))
    return replace(found, notes=(*notes, *doubts), doubts=doubts)


def _renamed(selection: Selection, place: Path) -> list[str]:
    """Return a note if the settings of candidates that are shown, those of the front and the winner, are not their own."""
    shown = {row.candidate: row for row in (*selection.front[:_SHOWN], *filter(None, [selection.won]))}
    return renamed(list(shown.values()), place / "results.csv" if is_folder(place) else place)


def _notes(place: Path, sweep: dict[str, Any] | None, rows: Sequence[Trial], limits: Sequence[str]) -> tuple[str, ...]:
    """Return notes about files of the results folder that are missing, cut or damaged, and without which the choice was made."""
    from autotune.results.folder import missing_rows

    notes = [missing] if is_folder(place) and (missing := missing_rows(place, rows)) else []
    if is_folder(place) and sweep is None:
        held = "limits or " if not limits else ""
        notes.append(
            f"sweep.yaml is missing or empty: no {held}objectives of the sweep are known, and the usual ones decide"
        )
    elif sweep is not None and "limits" not in sweep and not limits:
        notes.append(
            "sweep.yaml has no limits, not even an empty list of them: it was changed, and no limit is applied"
        )
    file = place / "results.csv" if is_folder(place) else place
    with contextlib.suppress(OSError), file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            notes.append(
                f"the last line of {file.name} has no end, and is left out: it was cut off, or is just being written"
            )
    return tuple(notes)


def _loosened(rows: Sequence[Trial], every: Sequence[Trial], aims: Aims, base: Trial | None) -> list[str]:
    """Return a note if candidates were given up unmeasured for a limit of the sweep, but may keep the limits of `aims`; `rows`:
    of the target that is meant, among `every` one.
    """
    known = base.values if base is not None else {}
    given_up = [row for row in rows if row.status == "over_limit" and row.trial]
    might = [row for row in given_up if over_limit(row.values, aims.limits, known) is None]
    if not might:
        return []
    limits = json.dumps([str(limit) for limit in aims.limits], ensure_ascii=False)
    last: dict[str | None, int] = {}  # each target counts its own, and the budget is that of all
    for row in every:
        last[row.target] = max(last.get(row.target, 0), row.trial or 0)
    were = "1 candidate was" if len(might) == 1 else f"{len(might)} candidates were"
    return [
        f"{were} given up unmeasured for a limit of the sweep, and might win under these limits: "
        f"to measure, run the sweep again with --trials {sum(last.values()) + len(might)} --set 'limits={limits}'"
    ]


def _final(folder: Path | None, choice: Choice) -> Finalist | None:
    """Return the winner's row of finalists.csv; None if the sweep has not ended, or has another winner."""
    if folder is None or choice.winner is None or not is_file(folder / "finalists.csv"):
        return None
    try:
        rows = read_table(folder / "finalists.csv", Finalist)
    except UsageError:  # it only adds to what results.csv says
        return None
    return next((row for row in rows if row.role == "winner" and row.candidate == choice.winner.id), None)


def as_json(selection: Selection) -> str:
    """Return the choice as one JSON document."""
    choice = selection.choice

    document = {
        "winner": selection.row(choice.winner.id).filled() if choice.winner else None,
        "verified": selection.final.verified if selection.final is not None else None,
        "paired": selection.paired,
        "objectives": selection.wanted.objectives,
        "limits": [str(limit) for limit in selection.wanted.limits],
        "uncertain_limits": [str(limit) for limit in choice.uncertain],
        "steps": [
            {"metric": s.metric, "leader": s.leader, "tied": list(s.tied), "beaten": dict(s.beaten), "method": s.method}
            for s in choice.steps
        ],
        "feasible": list(choice.feasible),
        "given_up": [
            {"candidate": row.candidate, "error": row.error}
            for row in selection.rows
            if row.status == "over_limit" and row.trial
        ],
        "nearest": [
            {"candidate": name, "misses": [{"limit": str(limit), "by": gap} for limit, gap in misses]}
            for name, misses in choice.nearest
        ],
        "front": [row.candidate for row in selection.front],
        "notes": list(selection.notes),
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def write_front(
    folder: Path, rows: Sequence[Trial], objectives: dict[str, Direction], columns: Sequence[Column] = Trial.columns
) -> None:
    """Write `front.csv`: the rows that no other row beats in every objective. Raises OSError."""
    names = {column.name for column in columns}  # somebody may have added one of his own to results.csv
    front = [
        Trial({name: cell for name, cell in row.cells.items() if name in names}) for row in front_of(rows, objectives)
    ]
    write_table(folder / "front.csv", columns, front)
