"""What reading a file gives: its columns, its rows, and what is wrong or noteworthy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from autotune.data.content import lifted, outer_of
from autotune.errors import Problem, shown

SHOWN_PROBLEMS = 5
"""Problems of one file that are said in full."""


class Record(NamedTuple):
    number: int  # of the line where the file has lines, else of the row; both from 1
    cells: Mapping[str, object]


@dataclass
class Found:
    """What a file holds: its columns, records with the columns asked for at least, problems without key and file."""

    columns: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    inner: dict[str, str] = field(default_factory=dict)
    """Names that are asked for and are no columns, but fields of the objects in one: that column."""
    mark: str = ":"
    """What stands between the file's name and a record's number: a colon before a line, ` row ` before a row."""


def with_fields(found: Found, wanted: Collection[str]) -> Found:
    """Return rows whose wanted columns stand in an object that one of their columns holds, with these beside it.

    `{"translation": {"de": ..., "en": ...}}` has the columns de and en; a row that a server has wrapped, `{"row": {...}}`,
    those of the row. Where some of the names are there and others are not, nothing is guessed.
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
