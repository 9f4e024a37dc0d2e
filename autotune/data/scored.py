"""Read new labelled rows for a model that exists already: cleaned as the data of a sweep is, with nothing held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from autotune.data.duplicates import clean, merge_references
from autotune.data.items import LeftOutPlaces, Splits
from autotune.data.schema import DataSpec, Item, LeftOut
from autotune.data.sources import SourceTable, columns_needed, load_table, locate, part_of, some_of
from autotune.data.splits import cap
from autotune.errors import Problem, UsageError, shown
from autotune.metrics import LABELLED, REFERENCED

_SHOWN, _LISTED = 3, 12
_KEY = "--data"


@dataclass(frozen=True)
class Scored:
    """Items to score, where each stands, and the rows that were left out."""

    items: tuple[Item, ...]
    places: dict[str, str]
    """By id of an item: file and line of its row."""
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def load_scored(spec: DataSpec, labels: Collection[str]) -> Scored:
    """Read the rows of `spec.train`. Rows whose label is not among `labels` are left out: the model cannot answer with it.

    Where the file lacks a column of `spec.where`, all of its rows are taken, and this is noted. Raises UsageError with every
    problem of the file, or where no row remains.
    """
    try:
        table = _read(spec)
    except UsageError as error:
        raise UsageError([_said(problem) for problem in error.problems]) from None
    left_out: LeftOutPlaces = defaultdict(list)
    notes = list(table.notes)
    splits: Splits = {"train": [], "validation": [], "test": clean(spec, "test", table, left_out, notes)}
    if spec.metric in LABELLED:
        known = [row for row in splits["test"] if row.item.completion in labels]
        for row in splits["test"]:
            if row.item.completion not in labels:
                near = next((one for one in labels if _plain(one) == _plain(row.item.completion)), None)
                meant = f", but nearly {shown(near)}" if near is not None else ""
                left_out["test", f"{shown(row.item.completion)} is none of the model's labels{meant}"].append(row.place)
        splits["test"] = known
    elif spec.metric in REFERENCED:
        merge_references(splits)
    cap(spec, splits, left_out)
    told = tuple(
        LeftOut(split="test", reason=reason, rows=len(places), examples=tuple(places[:_SHOWN]))
        for (_, reason), places in left_out.items()
    )
    rows = splits["test"]
    if not rows:
        why = "; ".join(f"{left.rows} left out: {left.reason}" for left in told[:5])
        rule = f"the file must have rows to score, but none remain ({why or 'it has none'})"
        remedy = "name a file with the columns that the model was tuned on"
        if any("model's labels" in left.reason for left in told):
            remedy = f"write the labels as the model knows them: {some_of(sorted(label.strip() for label in labels), _LISTED)}"
        raise UsageError(Problem(rule, _KEY, str(spec.train), remedy=remedy))
    return Scored(tuple(row.item for row in rows), {row.item.id: row.place for row in rows}, told, tuple(notes))


def _read(spec: DataSpec) -> SourceTable:
    """Read the rows that the sweep would take of a file. Raises UsageError."""
    (file, part), everything = part_of(spec.train, Path()), spec.model_copy(update={"where": None})
    path = locate(file, Path(), None)
    table = load_table(columns_needed(everything), _KEY, path, _KEY, spec.encoding, part)
    lacks = [name for name in spec.where or () if name not in table.columns]
    if lacks:
        note = f"{path.name}: it has no column {shown(lacks[0])}, so all of its rows are scored, and not those of data.where alone"
        return table._replace(notes=[*table.notes, note])
    return (
        table
        if spec.where is None
        else load_table(columns_needed(spec), _KEY, path, _KEY, spec.encoding, part, spec.where)
    )


def _plain(label: str) -> str:
    return " ".join(label.split()).casefold()


def _said(problem: Problem) -> Problem:
    """Return a problem as one of `--data`, where it names a key of a sweep file: the user wrote none."""
    if problem.key.startswith("data."):
        return Problem(problem.rule, _KEY, "", None, problem.value, problem.remedy)
    return Problem(
        problem.rule,
        _KEY,
        "" if problem.file == "--data" else problem.file,
        problem.line,
        problem.value,
        problem.remedy,
    )
