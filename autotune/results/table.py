"""A table on disk. `results.csv` is the public interface of dashboards and the state of the search.

Rows are appended, flushed and synced; a line that a power cut left half-written is dropped when the file is opened again.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Container, Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Generic, TypeVar

from autotune.durable import sync_folder, write_aside
from autotune.errors import Problem, UsageError
from autotune.paths import exists, is_file
from autotune.results.columns import Cell, Cells, Column, bounds_of, with_workloads
from autotune.results.rows import TableRow
from autotune.results.table_problems import cell_remedy, no_header, not_utf8

_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four are full-width
R = TypeVar("R", bound=TableRow)

_PASSED_OVER = "'" + "".join(map(chr, range(32))) + "\x7f\ufeff"


def _runs(text: str) -> bool:
    """Whether a spreadsheet may take a text for a formula."""
    return text.lstrip(_PASSED_OVER).startswith(_RUN_BY_SPREADSHEETS)


def text_of(value: Cell) -> str:
    """Return a cell as text: empty where nothing was measured, never nan or inf."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = " ".join(str(value).split())
    # A spreadsheet runs such a cell as a formula: a leading quote makes it text.
    if isinstance(value, str) and _runs(text):
        return f"'{text}"
    return text


def _parsed(text: str, column: Column) -> Cell:
    """Return the value of a cell: the inverse of `text_of`. Raises ValueError, KeyError."""
    kind = column.type
    if text == "":
        return None
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]  # a spreadsheet writes TRUE
    if kind is str:
        return text[1:] if text[0] == "'" and _runs(text) else text
    # A data frame writes whole numbers of a column with empty cells as 200.0.
    value: int | float = kind(text.removesuffix(".0") if kind is int else text)
    if not column.low <= value <= column.high or (kind is int and abs(value) >= 2**63):
        raise ValueError(text)
    return value


def read_table(file: Path, kind: type[R]) -> list[R]:
    """Return the rows of a table, of the class `kind`; a last line without a line end is left out.

    Columns of workloads are recognised by their names; unknown columns keep their texts. Raises UsageError where the file is
    not such a table.
    """
    try:
        if exists(file) and not is_file(file):  # a device, or a pipe, may have no end
            raise OSError("it is no file")
        content = file.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason, remedy = (
            not_utf8(content)
            if isinstance(error, UnicodeDecodeError)
            else (error.strerror or str(error), "name a results folder or its results.csv")
        )
        rule = f"cannot be read as a results table ({reason})"
        raise UsageError(Problem(rule, file=str(file), remedy=remedy)) from None
    return parse_table(text, kind, file)


def parse_table(text: str, kind: type[R], file: Path) -> list[R]:
    """Return the rows of a table's text, as `read_table`; `file`: the file, for messages. Raises UsageError."""
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[R] = []
    columns = kind.columns
    try:
        header = next(reader, [])
        ours = {column.name: column for column in with_workloads(columns, header)}
        if header and columns[0].name not in header:
            raise UsageError(no_header(text, columns[0].name, str(file)))
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            rule, remedy = f"has the column '{twice}' twice", "restore the file or remove the column"
            if not twice:
                rule, remedy = (
                    "has columns without a name, as a spreadsheet adds them",
                    "restore the file or remove those columns",
                )
            raise UsageError(Problem(rule, file=str(file), remedy=remedy))
        empty: Cells = dict.fromkeys(header)
        places = range(len(header))
        # Most cells are empty, and the others repeat: each different text of a column is parsed once.
        known: list[dict[str, Cell]] = [{} for _ in header]
        for cells in reader:
            if not cells:  # an empty line
                continue
            if len(cells) != len(header):
                rule = f"a row has {len(cells)} cells, and the header {len(header)}"
                raise UsageError(
                    Problem(rule, file=str(file), line=reader.line_num, remedy="restore the file or remove the line")
                )
            row = empty.copy()
            for place in compress(places, cells):
                name, cell = header[place], cells[place]
                if cell not in known[place]:
                    try:
                        known[place][cell] = _parsed(cell, ours[name]) if name in ours else cell
                    except (ValueError, KeyError):
                        rule = f"must be {bounds_of(ours[name])}"
                        remedy = cell_remedy(ours[name].type, cell)
                        raise UsageError(Problem(rule, name, str(file), reader.line_num, cell, remedy)) from None
                row[name] = known[place][cell]
            rows.append(kind(row))
    except csv.Error as error:
        rule, remedy = f"is not a CSV file ({error})", "restore the file or remove the line"
        raise UsageError(Problem(rule, file=str(file), line=reader.line_num, remedy=remedy)) from None
    return rows


def _line(values: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _row_line(row: TableRow, names: Sequence[str], ours: Container[str]) -> str:
    """Return a row as a line; cells of unknown columns are left as they are."""
    cells = ((name, row[name]) for name in names)
    return _line([text_of(value) if name in ours else str(value or "") for name, value in cells])


def _check_columns(row: TableRow, names: Sequence[str], file: Path) -> None:
    unknown = set(row.cells) - set(names)
    if unknown:
        raise KeyError(f"{file.name} has no column {', '.join(sorted(unknown))}")


class Table(Generic[R]):
    """An append-only CSV file with rows of one class. Opening it repairs a half-written end and adds columns that are new.

    Raises UsageError where the file is not such a table, OSError where it cannot be written.
    """

    def __init__(self, file: Path, kind: type[R], more: Iterable[str] = ()) -> None:
        """`more`: names of columns for the metrics of workloads, after those of the class."""
        self.file = file
        self.columns = columns = with_workloads(kind.columns, more)
        self._names = [column.name for column in columns]
        self._ours = frozenset(self._names)
        self._waiting: list[str] = []
        self.rows: list[R] = []
        """All rows: those of the file, and those added since, without empty cells; a caller that does not need them may clear it."""
        if file.exists() and file.stat().st_size:
            self._repair()
            self.rows = read_table(file, kind)
            self._adopt_header(kind)
        else:
            self._append(_line(self._names))
            sync_folder(file.parent)

    def _repair(self) -> None:
        with self.file.open("rb+") as stream:
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                stream.truncate(whole)
                stream.flush()
                os.fsync(stream.fileno())

    def _adopt_header(self, kind: type[R]) -> None:
        """Keep the order of the file's columns; new columns go to the end, and the file is rewritten once."""
        with self.file.open(encoding="utf-8-sig", newline="") as stream:
            header = next(csv.reader(stream), [])
        new = [name for name in self._names if name not in header]
        self._names = [*header, *new]
        if new:
            self.rows = [kind({name: row[name] for name in self._names}) for row in self.rows]
            self._rewrite()

    def _rewrite(self) -> None:
        write_aside(self.file, "".join([_line(self._names), *map(self._text, self.rows)]))

    def _text(self, row: R) -> str:
        return _row_line(row, self._names, self._ours)

    def append(self, row: R) -> R:
        """Write a row so that it survives a power cut; while the file cannot be written, rows wait for the next try.

        Returns the row as it is kept in memory, without its empty cells.
        """
        kept = self.add(row)
        self.flush()
        return kept

    def add(self, row: R) -> R:
        """Add a row that the next `flush` writes. Returns as `append`."""
        _check_columns(row, self._names, self.file)
        kept = type(row)(row.filled())
        self.rows.append(kept)
        self._waiting.append(self._text(row))
        return kept

    def flush(self) -> bool:
        """Write the waiting rows. Returns whether none waits any more."""
        try:
            if not self.file.exists():  # it was removed: without a header it would be no table
                self._rewrite()
            elif self._waiting:
                self._append("".join(self._waiting))
        except PermissionError:  # a spreadsheet holds the file open
            return False
        self._waiting.clear()
        return True

    def _append(self, text: str) -> None:
        before: int | None = None
        try:
            with self.file.open("ab") as stream:
                before = stream.tell()
                stream.write(text.encode("utf-8"))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if before is not None:
                self._cut(before)
            error.filename = error.filename or str(self.file)  # a full disk is noticed where no file is named
            raise

    def _cut(self, length: int) -> None:
        """Remove lines that were written in part (a full disk), so that they can be written again."""
        with contextlib.suppress(OSError), self.file.open("rb+") as stream:
            stream.truncate(length)


def write_table(file: Path, columns: Sequence[Column], rows: Iterable[TableRow]) -> None:
    """Write a table anew: a reader sees the old or the new one, whole. Raises OSError."""
    names = [column.name for column in columns]
    lines = [_line(names)]
    for row in rows:
        _check_columns(row, names, file)
        lines.append(_row_line(row, names, frozenset(names)))
    write_aside(file, "".join(lines))
