"""Recognise what spreadsheets, data frames, editors and git do to a results table, and say what to do."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence

from autotune.errors import Problem, did_you_mean
from autotune.results.columns import STATUSES, Cell
from autotune.results.rows import Trial, cells_of, layout_of_rows

_AGAIN = "restore the file, or save it as CSV in UTF-8, separated by commas"
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_EARLIER_STATUSES = ("unavailable",)
"""Statuses that earlier versions wrote."""


def no_header(text: str, first: str, file: str) -> Problem:
    """Return the problem of a text that is no results table, because its header lacks the column `first`."""
    line = text.split("\n", 1)[0]
    rule, remedy = f"is not a results table: it has no column '{first}'", "name a results folder or its results.csv"
    if text.startswith(("<<<<<<<", ">>>>>>>", "=======")):
        rule, remedy = "holds a merge of git that was left unfinished", "restore the file, or remove git's lines"
    elif re.match(r"[0-9a-f]{16},", line):
        rule, remedy = "begins with a row, and not with the names of its columns", "restore the file"
    else:
        for delimiter, name in _DELIMITERS.items():
            if first in (cell.strip('\ufeff" \r') for cell in line.split(delimiter)):
                rule = f"is not a results table: its cells are separated by {name}, as a spreadsheet may save it"
                remedy = _AGAIN
    return Problem(rule, file=file, remedy=remedy)


def not_utf8(content: bytes) -> tuple[str, str]:
    """Return the reason why bytes are no UTF-8 text, and the remedy."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it is UTF-16 text, as a spreadsheet may save it", _AGAIN
    return "it is no UTF-8 text", "name a results folder or its results.csv"


def cell_remedy(kind: type, cell: str) -> str:
    """Return the remedy for a cell that does not fit its column."""
    if kind in (int, float) and re.fullmatch(
        r"-?[0-9]{1,3}(?:[ ,'.][0-9]{3})*,[0-9]+|-?[0-9]{1,3}(?:,[0-9]{3})+\.?[0-9]*", cell
    ):
        return "a spreadsheet has rewritten the numbers: restore the file"
    if kind in (int, float) and re.fullmatch(r"[0-9]{1,2}[./-](?:[0-9]{1,2}|[A-Za-z]{3})(?:[./-][0-9]{2,4})?\.?", cell):
        return "a spreadsheet has taken the number for a date: restore the file"
    if kind in (int, float) and cell.strip().casefold() in ("nan", "inf", "-inf", "none", "null", "n/a", "na", "<na>"):
        return "leave the cell empty: nothing was measured"
    return "restore the file"


def row_problems(rows: Sequence[Trial], file: str) -> Iterable[Problem]:
    """Yield problems of rows that no run can have written: an unknown status, an interval with its ends exchanged."""
    known = {*STATUSES, *_EARLIER_STATUSES}
    for row in rows:
        if "status" in row.cells and row.status not in known:
            rule = f"row of {row.candidate}: must be one of {', '.join(STATUSES)}"
            remedy = did_you_mean(row.status.strip(), list(STATUSES))
            remedy = (
                remedy if remedy.startswith("did you") else "restore the file, or read it by the version that wrote it"
            )
            yield Problem(rule, "status", file, value=row.status or None, remedy=remedy)
    metrics = layout_of_rows(rows).metrics
    columns = iter(cells_of(rows, [name for _, *ends, _ in metrics for name in ends]))
    for metric, low, high, _ in metrics:
        for row, least, most in zip(rows, next(columns), next(columns), strict=True):
            if _above(least, most):
                rule = (
                    f"row of {row.candidate}: {low} must be at most {high} ({most}): they are an interval of {metric}"
                )
                yield Problem(rule, low, file, value=least, remedy="restore the file")


def _above(low: Cell, high: Cell) -> bool:
    return isinstance(low, int | float) and isinstance(high, int | float) and low > high
