"""Read a results folder: the rows that count, the sweep as resolved, and the stages at work."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from autotune.errors import Problem, UsageError
from autotune.paths import exists, is_folder
from autotune.results.nearby import remedy_for
from autotune.results.rows import CommandRun, Trial
from autotune.results.table import read_table
from autotune.results.table_problems import row_problems
from autotune.sweepfile.syntax import SYNTAX_ERRORS, read_resolved

_SHOWN_PROBLEMS = 5
TURNS, TIMINGS = "turns.json", "timings.jsonl"


def turns_file(target: str | None) -> str:
    """Return the name of the file with the finalists' timings in turns; `target`: where the sweep has several."""
    return TURNS if target is None else TURNS.replace(".json", f".{target}.json")


def read_timings(folder: Path) -> list[dict[str, Any]]:
    """Return the timings of a results folder with the measurements of single processes; damaged lines are left out."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (folder / "outcomes" / TIMINGS).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                timing = json.loads(line)
                if isinstance(timing, dict) and isinstance(timing.get("processes"), list):
                    found.append(timing)
    return found


def read_outcomes(folder: Path, candidate: str, split: str) -> dict[str, Any] | None:
    """Return the outcomes of the items on which a candidate was scored, with the items' `ids`; None where there are none."""
    name = candidate if split == "validation" else f"{candidate}.{split}"
    try:
        kept = json.loads((folder / "outcomes" / f"{name}.json").read_text(encoding="utf-8"))
        ids = json.loads((folder / "outcomes" / f"items.{split}.json").read_text(encoding="utf-8"))
        places = kept.pop("items", None)
        return {**kept, "ids": ids if places is None else [ids[place] for place in places]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """Return the resolved sweep of a results folder, or None where there is none. Raises UsageError."""
    file = folder / "sweep.yaml"
    remedy = "restore the file, or name another folder"
    try:
        data = read_resolved(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, *SYNTAX_ERRORS) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(Problem(f"cannot be read ({reason})", file=str(file), remedy=remedy)) from None
    if not isinstance(data, dict):
        return None
    for key, (rule, holds) in _RESOLVED.items():
        if key in data and not holds(data[key]):
            raise UsageError(Problem(f"is damaged: it {rule}", key, str(file), value=data[key], remedy=remedy))
    return data


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


# The keys of a resolved sweep that readers rely on, with the rule for each.
_RESOLVED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("must be a text", lambda value: isinstance(value, str)),
    "objectives": (
        "must be a mapping of metrics to maximize or minimize",
        lambda value: (
            isinstance(value, dict)
            and all(isinstance(key, str) and aim in ("maximize", "minimize") for key, aim in value.items())
        ),
    ),
    "limits": (
        "must be a list of texts",
        lambda value: isinstance(value, list) and all(isinstance(limit, str) for limit in value),
    ),
    "budget": (
        "must be a mapping with numbers",
        lambda value: isinstance(value, dict) and all(map(_number, value.values())),
    ),
}


def no_sweep(folder: Path, remedy: str) -> Problem:
    """Return why a folder is no results folder: its sweep.yaml says nothing of a sweep, or is not there."""
    if exists(folder / "results.csv") and not exists(folder / "sweep.yaml"):
        rule = "sweep.yaml is missing, and the rest of a results folder is there"
        return Problem(rule, file=str(folder), remedy="bring it back; `autotune select` does without it")
    return Problem("no results of a sweep here", file=str(folder), remedy=remedy_for(folder, remedy))


def read_running(folder: Path) -> dict[str, Any] | None:
    """Return the content of `running.json`; None where no sweep runs, or it is damaged."""
    try:
        data = json.loads((folder / "running.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    sound = {name: data[name] for name, kind in _RUNNING.items() if _is(data.get(name), kind)}
    return sound if {"pid", "host", "started"} <= set(sound) else None


_RUNNING = {
    "pid": int, "host": str, "started": float, "spent_s": float, "stage": str, "since": float, "trial": int,
    "candidate": str,
}  # fmt: skip


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of that type; a number must be possible for a clock or a process id."""
    if kind is str or isinstance(value, bool):
        return kind is str and isinstance(value, str)
    return isinstance(value, int if kind is int else int | float) and 0 <= value < 2**53


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def without_blanks(rows: Iterable[Trial]) -> list[Trial]:
    """Return rows without those that hold nothing: a spreadsheet writes its blank lines as commas."""
    return [row for row in rows if row.cells.get("candidate") or any(cell is not None for cell in row.cells.values())]


def check_names(rows: Iterable[Trial], file: Path) -> None:
    """Raise UsageError where the name of a row's candidate is unsafe: files are named by it, and it is displayed."""
    for row in rows:
        if not _NAME.fullmatch(row.candidate):
            rule = "must be the name of a candidate: letters, digits, '.', '-' and '_', 64 at most"
            raise UsageError(
                Problem(rule, "candidate", str(file), value=row.candidate or None, remedy="restore the file")
            )


def check_whole(rows: Sequence[Trial], place: Path) -> None:
    """Raise UsageError where rows lack a column that identifies them. `place`: the file or folder they come from."""
    for name in ("trial", "kind", "status"):
        if any(name not in row.cells for row in rows):
            remedy = "name a results folder or its results.csv"
            raise UsageError(
                Problem(f"is not a results table: it has no column '{name}'", file=str(place), remedy=remedy)
            )


def read_results(folder_or_csv: Path) -> list[Trial]:
    """Return the rows that count, see `that_count`. Raises UsageError."""
    file = folder_or_csv / "results.csv" if is_folder(folder_or_csv) else folder_or_csv
    if not exists(file):
        if exists(folder_or_csv / "sweep.yaml") and exists(folder_or_csv / "outcomes"):
            rule = "is missing, and the rest of a results folder is there"
            remedy = "bring it back, or run the sweep again: what is in the cache is not done again"
            raise UsageError(Problem(rule, file=str(file), remedy=remedy))
        rule = "no results here" if is_folder(folder_or_csv) else "no such file"
        raise UsageError(Problem(rule, file=str(file), remedy=remedy_for(folder_or_csv)))
    return that_count(read_table(file, Trial), file)


def missing_rows(folder: Path, rows: Sequence[Trial]) -> str:
    """Return in words that results.csv has fewer rows than when the sweep ended; empty where it has not. `rows`: those that count."""
    try:
        noted = [run.rows for run in read_table(folder / "runs.csv", CommandRun) if run.rows is not None]
    except UsageError:  # gone, or damaged: it says nothing of the candidates
        return ""
    if not noted or len(rows) >= noted[-1]:
        return ""
    return (
        f"results.csv has {len(rows)} of the {noted[-1]} rows that it had when the sweep ended: it is cut, or older than the rest of "
        "the folder, and what is said here is of these rows alone"
    )


def that_count(rows: Iterable[Trial], file: Path) -> list[Trial]:
    """Return the rows of a file that count: the last attempt at each candidate, in whatever order the rows are sorted.

    The untouched model measured first (trial 0) counts beside the same candidate as a trial. Raises UsageError.
    """
    last: dict[tuple[str, bool], Trial] = {}
    rows = without_blanks(rows)
    check_names(rows, file)
    if problems := list(islice(row_problems(rows, str(file)), _SHOWN_PROBLEMS)):
        raise UsageError(problems)
    for row in rows:
        place = row.candidate, row.trial == 0
        if place not in last or (row.attempt or 1) >= (last[place].attempt or 1):
            last[place] = row
    return list(last.values())
