"""The rows of one file: JSON lines, JSON, CSV, TSV or parquet. pyarrow is loaded for parquet files only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from autotune.data.schema import FORMATS
from autotune.errors import Problem, did_you_mean

_SHOWN_PROBLEMS = 5


class Record(NamedTuple):
    number: int  # of the line where the file has lines, else of the row; both from 1
    cells: Mapping[str, object]


_Found = Iterator[Record | Problem]  # what a reader gives; its problems still lack key and file


def _read_jsonl(text: str) -> _Found:
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        rule, value = "each line must be a JSON object", None
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            rule += f" ({error.msg} at column {error.colno})"
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
            rule += f" ({error})"
        if isinstance(value, dict):
            yield Record(number, value)
        else:
            yield Problem(rule, line=number, value=line[:80], remedy="correct the line")


def _read_json(text: str) -> _Found:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "correct it, or call it .jsonl if it holds one object a line"
        yield Problem(f"the file must be JSON ({error})", line=getattr(error, "lineno", None), remedy=remedy)
        return
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        yield Problem("the file must hold a list of objects", remedy='write [{...}, ...] or {"data": [{...}, ...]}')
        return
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield Record(number, row)
        else:
            yield Problem(f"row {number} must be an object", value=type(row).__name__, remedy="correct the row")


def _read_csv(text: str, delimiter: str) -> _Found:
    # Strict: a quote that is never closed would otherwise swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1  # a quoted cell may span lines
            if not cells:
                continue
            if not header:
                header = [name.strip() for name in cells]
                if len(set(header)) < len(header):
                    yield Problem("column names must differ", line=line, value=header, remedy="rename or drop one")
                    return
            elif len(cells) == len(header):
                yield Record(line, dict(zip(header, cells, strict=True)))
            else:
                rule = f"each row must have {len(header)} cells, as the header has"
                yield Problem(rule, line=line, value=len(cells), remedy="quote cells that hold the delimiter")
    except csv.Error as error:
        yield Problem(f"the row cannot be read ({error})", line=start, remedy="look for a stray quote")


def _read_parquet(data: bytes, wanted: Collection[str]) -> _Found:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        # Columns that nobody asked for keep their name only: converting some types would load pandas.
        blank = [None] * table.num_rows
        columns = {name: table.column(name).to_pylist() if name in wanted else blank for name in table.column_names}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        yield Problem(f"the file must be parquet ({reason})", remedy="write it again, or use .jsonl")
        return
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Record(number, dict(zip(columns, cells, strict=True)))


def _decode(data: bytes) -> str | Problem:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # not utf-8-sig: its error offsets leave out the BOM
    except UnicodeDecodeError as error:
        rule = f"the file must be UTF-8 text (byte {data[error.start]:#04x} at offset {error.start})"
        return Problem(rule, line=data.count(b"\n", 0, error.start) + 1, remedy="save it as UTF-8")


def read_rows(path: Path, data: bytes, wanted: Collection[str]) -> tuple[list[Record], list[Problem]]:
    """Return the records of a file and what is wrong with it: the first problems in full, the rest as a count."""
    suffix = path.suffix.lower()
    found: Iterable[Record | Problem]
    if suffix not in FORMATS:
        remedy = did_you_mean(suffix, FORMATS)
        found = [Problem("the file name must end in a known format", value=path.name, remedy=remedy)]
    elif suffix == ".parquet":
        found = _read_parquet(data, wanted)
    elif isinstance(text := _decode(data), Problem):
        found = [text]
    elif suffix == ".json":
        found = _read_json(text)
    elif suffix in (".csv", ".tsv"):
        found = _read_csv(text, "," if suffix == ".csv" else "\t")
    else:
        found = _read_jsonl(text)
    everything = list(found)
    records = [one for one in everything if isinstance(one, Record)]
    problems = [one for one in everything if isinstance(one, Problem)]
    if not records and not problems:
        problems.append(Problem("the file must have rows", remedy="add some, or name another file"))
    if (more := len(problems) - _SHOWN_PROBLEMS) > 0:
        problems = [*problems[:_SHOWN_PROBLEMS], Problem(f"and {more} more problems like these")]
    return records, problems
