"""The result of reading a file: its columns, its rows, and what is wrong or worth a note."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from autotune.data.content import lifted, outer_of
from autotune.errors import Problem, shown

SHOWN_PROBLEMS = 5
"""The most problems of one file that are told in full."""


class Record(NamedTuple):
    number: int  # of the line where the file has lines, else of the row; both from 1
    cells: Mapping[str, object]


@dataclass
class FileRecords:
    """The content of a file: its columns, records with at least the wanted columns, and problems without key and file."""

    columns: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    inner: dict[str, str] = field(default_factory=dict)
    """By wanted name that is no column but a field of the objects in a column: that column."""
    mark: str = ":"
    """The text between the file's name and a record's number: a colon before a line, ` row ` before a row."""


def with_fields(found: FileRecords, wanted: Collection[str]) -> FileRecords:
    """Lift the fields of objects into columns, where all wanted columns are fields of the objects in one column.

    `{"translation": {"de": ..., "en": ...}}` then has the columns de and en, and `{"row": {...}}`, as servers wrap rows, the
    columns of the inner row. Where only some of the wanted names are such fields, nothing changes.
    """
    outer = outer_of(wanted, [record.cells for record in found.records])
    found.inner = outer
    holders = set(outer.values())
    if wanted and len(outer) == len(set(wanted)) and len(holders) == 1:
        (holder,) = holders
        found.records = [Record(number, lifted(cells, holder)) for number, cells in found.records]
        found.columns = [*found.columns, *(name for name in outer if name not in found.columns)]
        found.notes.append(f"the columns {', '.join(map(shown, outer))} are read from within {shown(holder)}")
    return found
