"""Read delimited text: CSV, TSV, and the variants that spreadsheets and exports write.

The delimiter is the one that splits the header into most of the columns that the sweep asks for; where it asks for none, the
one that splits header and rows alike. Quotes are read by RFC 4180 where the whole file fits it, else by the first of the other
notations that the whole file fits; where none does, the error names the line. No rows are merged: a quote that is part of the text never swallows the rows after it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from autotune.errors import Problem

DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SAMPLED = 60
"""The number of first lines by which the delimiter is recognised where no header holds all wanted columns."""
_HEAD = 1_000_000
"""The number of first characters within which the header must end."""
_LONGEST_CELL = 2**31 - 1
_SEP = re.compile(r'"?sep=([^"\r\n])"?[^\S\r\n]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
"""The line before the header in which Excel names the delimiter."""
_STRIPPED = " \t\r\n\v\f\u00a0\u200b\ufeff"

Quotes = Literal["doubled", "escaped", "after spaces", "single", "text"]
_NOTES: dict[Quotes, str] = {
    "doubled": "",
    "escaped": 'quotes within cells are read as \\"',
    "after spaces": "spaces before quoted cells are left out",
    "single": "cells are quoted with '",
    "text": "quotes are read as part of the text",
}


class Line(NamedTuple):
    number: int  # of its first line in the file, from 1
    lines: int
    cells: list[str]


class Table(NamedTuple):
    columns: list[str]
    lines: list[Line]
    problems: list[Problem]
    notes: list[str]


class _BrokenError(Exception):
    """A text does not fit a notation of quotes."""

    def __init__(self, rule: str, line: int) -> None:
        self.rule, self.line = rule, line
        super().__init__(rule)


def _plain_lines(text: str) -> list[str]:
    # Not splitlines(): cells may hold U+2028 and its like as they are.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _why(error: csv.Error) -> str:
    """Return the csv module's error in words for the user."""
    said = str(error)
    if "unexpected end of data" in said:
        return "a quote is opened and never closed"
    if "expected after" in said:
        return "text follows a closing quote"
    return said.split(" - ")[0]


def _parsed(text: str, delimiter: str, quotes: Quotes, first: int) -> Iterator[Line]:
    """Yield the lines of a table that are not blank. Raises _BrokenError where the text does not fit the notation."""
    if quotes == "text":
        for number, line in enumerate(_plain_lines(text), start=first):
            if delimiter in line or line.strip():
                yield Line(number, 1, line.split(delimiter))
        return
    # Strict: a quote that is never closed would otherwise swallow the rest of the file without a word.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, doublequote=quotes != "escaped",
        escapechar="\\" if quotes == "escaped" or (quotes == "single" and "\\'" in text) else None,
        skipinitialspace=quotes == "after spaces", quotechar="'" if quotes == "single" else '"',
    )  # fmt: skip
    before = csv.field_size_limit(_LONGEST_CELL)
    start = 0
    try:
        for cells in reader:
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield Line(start + first, reader.line_num - start, cells)
            start = reader.line_num
    except csv.Error as error:
        raise _BrokenError(_why(error), start + first) from None
    finally:
        csv.field_size_limit(before)


def _header_of(text: str, delimiter: str) -> list[str]:
    try:
        cells = next(_parsed(text, delimiter, "doubled", 1), Line(1, 1, [])).cells
    except _BrokenError:
        cells = next(_parsed(text, delimiter, "text", 1), Line(1, 1, [])).cells
    names = [name.strip(_STRIPPED) for name in cells]
    single = all(len(name) > 1 and name[0] == name[-1] == "'" for name in names)
    return [name[1:-1] for name in names] if single else names


def _delimiter(text: str, usual: str, wanted: Collection[str]) -> str:
    """Return the delimiter by which the header has most of the wanted columns, and then most lines have as many cells."""
    text = text[:_HEAD]
    kinds = sorted(DELIMITERS, key=lambda kind: kind != usual)
    head = _plain_lines(text)[:_SAMPLED]

    def fitness(kind: str) -> tuple[int, float]:
        header = _header_of(text, kind)
        if len(header) < 2:
            return len(set(wanted).intersection(header)), 0.0
        alike = [line.count(kind) >= len(header) - 1 for line in head if line]
        return len(set(wanted).intersection(header)), sum(alike) / max(1, len(alike))

    if wanted and set(wanted) <= set(_header_of(text, usual)):
        return usual
    return max(kinds, key=fitness)


def _fitting(line: Line, columns: Sequence[str], needed: int) -> list[str] | None:
    """Return the cells of a line by the columns of the header; None where it is unclear which cell belongs to which column.

    Missing cells at the end count as empty if they are not wanted, and empty cells beyond the header are dropped. `needed`: the
    number of first columns that must be there.
    """
    cells = line.cells
    if len(cells) > len(columns):
        return None if any(cell.strip() for cell in cells[len(columns) :]) else cells[: len(columns)]
    return cells if len(cells) == len(columns) or len(cells) >= needed else None


def _like_rows(raw: Sequence[str], delimiter: str, width: int, known: Sequence[set[str]]) -> bool:
    """Return whether the lines of one row are really several rows, in which a quote is part of the text.

    `known`: by column, the values in rows that are certain. A quoted cell hardly ever holds a tab, so for tabs the number of
    cells is enough; for other delimiters one column of these lines must hold only values known from other rows.
    """
    parts = [text.split(delimiter) for text in raw if text]
    if len(parts) < 2 or any(len(part) != width for part in parts):
        return False
    if delimiter == "\t":
        return True
    return any(values and all(part[place].strip('"') in values for part in parts) for place, values in enumerate(known))


def _few(lines: Sequence[Line], width: int) -> list[set[str]]:
    """Return the values of each column; an empty set where most values occur once."""
    found = []
    for place in range(width):
        values = {line.cells[place] for line in lines}
        found.append(values if 2 * len(values) <= len(lines) else set())
    return found


_MARKDOWN = re.compile(r"\s*\|.*\|\s*\n\s*\|(?:\s*:?-+:?\s*\|)+\s*(?:\n|$)")


def read_delimited(text: str, usual: str, wanted: Collection[str]) -> Table:
    """Read delimited text; `usual`: the delimiter by the file's name; `wanted`: the columns that the sweep needs."""
    first, notes = 1, []
    text = text.removesuffix("\x1a")  # what ends a file on DOS
    if _MARKDOWN.match(text[:_HEAD]):
        remedy = "write it as CSV: a header and cells separated by commas"
        return Table([], [], [Problem("the file must be a table of cells, and is Markdown", line=1, remedy=remedy)], [])
    if named := _SEP.match(text):
        text, first, delimiter = text[named.end() :], 2, named[1]
    else:
        delimiter = _delimiter(text, usual, wanted)
    if delimiter != usual:
        notes.append(f"cells are separated by {NAMES.get(delimiter, repr(delimiter))}")
    tried: dict[Quotes, Table] = {}
    for quotes in _notations(text, delimiter):
        table = tried[quotes] = _read(text, delimiter, quotes, first, wanted)
        if not table.problems:
            unknown = bool(wanted) and not set(wanted) & set(table.columns)
            if unknown and (above := _above_header(text, delimiter, usual, first, wanted)):
                return Table([], [], [above], notes)
            notes += [note for note in (_NOTES[quotes], *table.notes) if note]
            return table._replace(notes=notes)
    found = tried["doubled"]
    mostly = 2 * len(found.problems) >= len(found.problems) + len(found.lines)
    if mostly and (above := _above_header(text, delimiter, usual, first, wanted)):
        return Table([], [], [above], notes)
    return found._replace(notes=notes)


_LONGEST_TITLE = 10
"""The most lines above a header: a title, the time of the export, a comment."""


def _above_header(text: str, delimiter: str, usual: str, first: int, wanted: Collection[str]) -> Problem | None:
    """Return the problem of a file whose first line is a title or a comment above the header; else None."""
    lines = [(number, line) for number, line in enumerate(_plain_lines(text[:_HEAD]), start=first) if line.strip()]
    for place, (number, line) in enumerate(lines[1 : 1 + _LONGEST_TITLE], start=1):
        for kind in dict.fromkeys((delimiter, usual, *DELIMITERS)):
            width = len(_header_of(line, kind))
            follow = [other.count(kind) >= width - 1 for _, other in lines[place + 1 :][:_SAMPLED]]
            if width < 2 or sum(follow) < 0.9 * max(1, len(follow)):
                continue
            value, remedy = lines[0][1][:60], f"remove what stands above line {number}"
            if set(wanted) & set(_header_of(line, kind)):
                rule = f"the first line must name the columns, and line {number} does"
                return Problem(rule, line=lines[0][0], value=value, remedy=remedy)
            if kind not in lines[0][1] and kind == delimiter:
                rule = f"the first line must name the columns, and has one cell where those from line {number} on have {width}"
                remedy = f"remove what stands above the header, or quote cells that hold {_one(kind)}"
                return Problem(rule, line=lines[0][0], value=value, remedy=remedy)
    return None


def _notations(text: str, delimiter: str) -> list[Quotes]:
    """Return the notations of quotes that a text may use, the most likely first."""
    if '"' not in text and "'" not in text:
        return ["doubled"]
    kinds: list[Quotes] = ["doubled"]
    if _single_quoted(text, delimiter):
        kinds.insert(0, "single")
    if '\\"' in text:
        kinds.append("escaped")
    if f'{delimiter} "' in text:
        header = text.lstrip("\r\n").split("\n", 1)[0]
        everywhere = header.count(delimiter) == header.count(f"{delimiter} ") > 0
        kinds.insert(0 if everywhere else len(kinds), "after spaces")
    around = re.escape(delimiter)
    # Where whole cells are quoted, quotes are no text; a tab-separated file may hold quotations, cell by cell.
    if delimiter == "\t" or not re.search(rf'(?:^|{around})"[^"\r\n]*"(?:{around}|$)', text, re.MULTILINE):
        kinds.append("text")
    return kinds


def _single_quoted(text: str, delimiter: str) -> bool:
    """Return whether all names in the header, or a whole cell in each line below it, stand in single quotes."""
    lines = [line for line in _plain_lines(text[:_HEAD]) if line.strip()]
    if len(text) > _HEAD:
        lines.pop()
    if len(lines) < 3 or "'" not in lines[0] + lines[1]:
        return False
    end = re.escape(delimiter)
    quoted = r"\s*'(?:[^'\\]|''|\\.)*'\s*"
    if re.fullmatch(rf"{quoted}(?:{end}{quoted})*", lines[0]):
        return True
    line = re.compile(rf"(?:[^'{end}]*{end})*{quoted}(?:{end}(?:{quoted}|[^'{end}]*))*")
    return all(map(line.fullmatch, lines[1:]))


def _read(text: str, delimiter: str, quotes: Quotes, first: int, wanted: Collection[str]) -> Table:
    columns: list[str] = []
    lines: list[Line] = []
    problems: list[Problem] = []
    needed = 0
    several: list[Line] = []
    again: list[int] = []
    names: list[str] = []
    try:
        for line in _parsed(text, delimiter, quotes, first):
            if not columns:
                columns = [name.strip(_STRIPPED) for name in line.cells]
                twice = [name for name in columns if name in wanted and columns.count(name) > 1]
                if twice:
                    rule = f"column names must differ, and {twice[0]!r} stands twice"
                    problem = Problem(rule, line=line.number, value=columns, remedy="rename or drop one")
                    return Table(columns, [], [problem], [])
                needed = max((place + 1 for place, name in enumerate(columns) if name in wanted), default=len(columns))
                continue
            if len(columns) > 1 and [cell.strip(_STRIPPED) for cell in line.cells] == columns:
                again.append(line.number)
                continue
            cells = _fitting(line, columns, needed)
            if cells is None:
                rule = f"each row must have {len(columns)} cells, as the header has"
                remedy = f"quote cells that hold {_one(delimiter)}, or complete the row"
                problems.append(Problem(rule, line=line.number, value=len(line.cells), remedy=remedy))
                names += line.cells[:1] if len(line.cells) == len(columns) + 1 else []
                continue
            row = line if cells is line.cells else line._replace(cells=cells)
            lines.append(row)
            if line.lines > 1:
                several.append(line)
    except _BrokenError as broken:
        remedy = "close the quote; a quote that is text is written twice, in a cell that is quoted"
        problems.append(Problem(f"the row cannot be read ({broken.rule})", line=broken.line, remedy=remedy))
    if not lines and len(names) == len(problems) > 1 and _name_rows(names):
        rule = f"each row has {len(columns) + 1} cells, one more than the header, as R writes the names of rows first"
        remedy = f"begin the header with a name for the first column, such as row{delimiter}"
        problems = [Problem(rule, line=problems[0].line, value=len(columns) + 1, remedy=remedy)]
    if several and len(columns) > 1:
        problems += _melted(text, delimiter, first, columns, lines, several)
    more = f" ({len(again)} such lines)" if len(again) > 1 else ""
    notes = [f"line {again[0]} is the header again, and is left out{more}"] if again else []
    return Table(columns, lines, sorted(problems, key=lambda problem: problem.line or 0), notes)


def _name_rows(cells: Sequence[str]) -> bool:
    """Whether the first cells of all rows name the rows, as R writes them: each is one word, and no two are the same."""
    return len(set(cells)) == len(cells) and not any(re.search(r"\s", cell) for cell in cells)


def _one(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}.get(delimiter, repr(delimiter))


def _melted(
    text: str, delimiter: str, first: int, columns: Sequence[str], lines: Sequence[Line], several: Sequence[Line]
) -> Iterator[Problem]:
    """Yield a problem for each row that is really several rows, because a quote that is text was read as opening a cell."""
    raw = _plain_lines(text)
    header = next((line for line in raw if line), "").split(delimiter)
    if all(len(name) > 1 and name[0] == name[-1] == '"' for name in header):  # so quotes are no text here
        return
    certain = [line for line in lines if line.lines == 1 and len(line.cells) == len(columns)]
    known = [] if delimiter == "\t" else _few(certain, len(columns))
    for line in several:
        start = line.number - first
        if _like_rows(raw[start : start + line.lines], delimiter, len(columns), known):
            rule = f"a quote opens a cell that ends {line.lines - 1} lines later, and the lines between look like rows"
            remedy = "write a quote that is text twice, and quote its cell"
            yield Problem(rule, line=line.number, remedy=remedy)
