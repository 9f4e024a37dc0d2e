"""Reads new rows from the tables of a running sweep, and keeps a journal of what a tracker has logged.

A tracker logs every row that is not in its journal. So the next run of the command logs what a killed run, or a run without
the tracker, left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from autotune.results.rows import CurvePoint, TableRow, Trial
from autotune.results.table import parse_table

R = TypeVar("R", bound=TableRow)


class Tail(Generic[R]):
    """A growing table, read on from where the last call stopped; an unfinished last line waits for the next call."""

    def __init__(self, file: Path, kind: type[R]) -> None:
        self._file, self._kind = file, kind
        self._head, self._read = b"", 0

    def new(self) -> list[R]:
        """Return the new rows: all of them if the file was rewritten. Raises UsageError where it is damaged, OSError."""
        try:
            with self._file.open("rb") as stream:
                head = stream.readline()
                stream.seek(0, 2)
                if head != self._head or stream.tell() < self._read:
                    self._head, self._read = head, len(head)
                stream.seek(self._read)
                content = stream.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        if not whole or not head.endswith(b"\n"):
            return []
        return parse_table((self._head + whole).decode("utf-8-sig"), self._kind, self._file)


class Journal:
    """What a tracker has logged, a line each, in a file of the results folder."""

    def __init__(self, file: Path, fresh: bool = False) -> None:
        """`fresh`: begin an empty journal, because the tracker holds nothing of the sweep (anymore)."""
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            file.unlink(missing_ok=True)
        self._done: set[str] = set()
        self._points: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                self._learn(line)

    def _learn(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "curve":
            adapter, _, count = rest.rpartition(" ")
            self._points[adapter] = max(self.points(adapter), int(count) if count.isdigit() else 0)
        else:
            self._done.add(line)

    def _write(self, line: str) -> None:
        with self._file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(line + "\n")
        self._learn(line)

    def has(self, row: Trial) -> bool:
        """Whether a row was logged."""
        return _line(row) in self._done

    def points(self, adapter: str) -> int:
        """Return how many points of an adapter's curve were logged."""
        return self._points.get(adapter, 0)

    def logged(self, row: Trial) -> None:
        """Note that a row was logged. Raises OSError."""
        self._write(_line(row))

    def drawn(self, adapter: str, points: int) -> None:
        """Note that so many points of an adapter's curve were logged. Raises OSError."""
        self._write(f"curve {adapter} {points}")


def _line(row: Trial) -> str:
    return f"row {row.candidate} {row.trial or 0} {row.attempt or 0} {row.ended or ''}"


class Feed:
    """The tables of a results folder, as far as they are read."""

    def __init__(self, folder: Path) -> None:
        self._results = Tail(folder / "results.csv", Trial)
        self._curves = Tail(folder / "curves.csv", CurvePoint)
        self.rows: dict[tuple[str, bool], Trial] = {}
        """The rows that count, by `key_of`: each candidate's last attempt."""
        self.adapters: dict[str, Trial] = {}
        """By adapter, the first row that names it."""
        self._points: dict[str, list[CurvePoint]] = {}

    def look(self) -> list[Trial]:
        """Read on. Returns the new rows. Raises UsageError, OSError."""
        found = self._results.new()
        for row in found:
            self.rows[key_of(row)] = row
            if row.adapter:
                self.adapters.setdefault(row.adapter, row)
        for point in self._curves.new():
            self._points.setdefault(point.adapter, []).append(point)
        return found

    def curves(self, journal: Journal) -> dict[str, Sequence[CurvePoint]]:
        """Return, by adapter that a row names, the points of its curve that are not in the journal."""
        return {
            adapter: points[journal.points(adapter) :]
            for adapter, points in self._points.items()
            if adapter in self.adapters and len(points) > journal.points(adapter)
        }


def key_of(row: Trial) -> tuple[str, bool]:
    """Return a row's key: the candidate's id, and whether it is the first measurement of the untouched model, which is no trial."""
    return row.candidate, not row.trial
