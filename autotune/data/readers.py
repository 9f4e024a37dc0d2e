"""Read the rows of one file: JSON lines, JSON, CSV, TSV or parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from autotune.data.content import another_format, header_of, is_conversation, list_within, misread
from autotune.data.delimited import read_delimited
from autotune.data.encodings import decode, unpacked
from autotune.data.parquet import read_parquet
from autotune.data.records import SHOWN_PROBLEMS, FileRecords, Record, with_fields
from autotune.data.schema import FORMATS
from autotune.errors import Problem, RepeatedKeyError, did_you_mean, different_keys

# The remedy for files of rows that are not read, by their ending.
_ELSEWHERE = {
    ".xlsx": "save the sheet as 'CSV UTF-8' and name that file",
    ".xls": "save the sheet as 'CSV UTF-8' and name that file",
    ".ods": "save the sheet as CSV in UTF-8 and name that file",
    ".zip": "unpack it and name the file in it",
    ".bz2": "unpack it and name the file in it",
    ".xz": "unpack it and name the file in it",
    ".zst": "unpack it and name the file in it",
    ".tar": "unpack it and name the file in it",
    ".tgz": "unpack it and name the file in it",
    ".arrow": "write it as parquet: datasets.Dataset.from_file(...).to_parquet('train.parquet')",
    ".feather": "write it as parquet: pandas.read_feather(...).to_parquet('train.parquet')",
    ".pkl": "a pickle can run code and is never read; write parquet or .jsonl",
    ".pickle": "a pickle can run code and is never read; write parquet or .jsonl",
    ".txt": "rename it for what it holds: .jsonl, .csv (a header and cells) or .tsv (tabs)",
    ".yaml": "write the rows as .jsonl, one JSON object a line",
    ".yml": "write the rows as .jsonl, one JSON object a line",
    ".xml": "write the rows as .jsonl, one JSON object a line",
    ".avro": "write it as parquet or .jsonl",
    ".orc": "write it as parquet or .jsonl",
    ".h5": "write it as parquet or .jsonl",
    ".hdf5": "write it as parquet or .jsonl",
    ".npz": "write it as parquet or .jsonl",
    ".npy": "write it as parquet or .jsonl",
    ".json5": "write it as .json, without comments and with quoted keys",
    ".gz": "say in its name what it holds, such as train.csv.gz",
    ".7z": "unpack it and name the file in it",
    ".rar": "unpack it and name the file in it",
    ".duckdb": "export the table as CSV and name that file",
    ".sqlite3": "export the table as CSV and name that file",
    ".db": "export the table as CSV and name that file",
    ".sqlite": "export the table as CSV and name that file",
}


_Rows = Iterator[Record | Problem]


def _parsed(text: str) -> object:
    """Return JSON as plain data. Raises ValueError, RecursionError; RepeatedKeyError where a key is twice."""
    return json.loads(text, object_pairs_hook=different_keys)


def _read_jsonl(text: str, wanted: Collection[str]) -> _Rows:
    names: list[str] | None = None
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    lines = text.split("\n" if "\n" in text else "\r")
    last = next((place for place in range(len(lines) - 1, -1, -1) if lines[place].strip()), 0)
    for number, line in enumerate(lines, start=1):
        plain = line.strip(_MARK_AND_SPACE)  # a mark stands in the middle where files were put together
        if not plain:
            continue
        rule, value, remedy = "each line must be a JSON object", None, "correct the line"
        try:
            value = _parsed(plain[:-1] if plain.endswith("},") else line.lstrip("\ufeff\x1e"))
        except json.JSONDecodeError as error:
            rule += f" ({error.msg.removesuffix(' at')} at column {error.colno})"
            if plain in ("{", "["):  # not the trouble of this line alone
                remedy = "write each object on one line: jq -c . FILE"
                if _is_json(text):
                    remedy = "write each object on one line, or call the file .json"
                yield Problem(rule, line=number, value=line[:80], remedy=remedy)
                return
            remedy = _line_remedy(plain, error, number == last + 1 and not text.endswith(("\n", "\r")))
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
            rule += f" ({error})"
            remedy = "keep one of them" if isinstance(error, RepeatedKeyError) else remedy
        if isinstance(value, dict):
            yield Record(number, value)
        elif isinstance(value, list) and names is not None and len(value) == len(names):
            yield Record(number, dict(zip(names, value, strict=True)))
        elif is_conversation(value):
            yield Record(number, {"messages": value})
        elif names is None and (found := header_of(value, wanted)):
            names = found
        else:
            if isinstance(value, list):
                remedy = "write objects, with the names of the columns as keys"
                if names is not None:
                    remedy = f"write {len(names)} cells, as the first line has names"
            elif isinstance(value, str) and value.lstrip().startswith("{"):
                remedy = "the object stands in quotes: write each row by one json.dumps, not by two"
            yield Problem(rule, line=number, value=line[:80], remedy=remedy)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


_MARK_AND_SPACE = " \t\r\n\f\v\ufeff\x1e"
"""The characters that may stand around a line of JSON; the last one begins a record of a JSON text sequence (RFC 7464)."""


def _line_remedy(line: str, error: json.JSONDecodeError, torn: bool) -> str:
    """Return the remedy for a line that is no JSON; `torn`: it is the last one, and has no line end."""
    if line.startswith("{'"):
        return "this is Python's notation: write each row by json.dumps"
    if line.startswith(("//", "#", "/*")):
        return "remove the line: JSON has no comments"
    if re.search(r",\s*[}\]]", line[max(0, error.pos - 2) :][:8]):
        return "remove the comma before the closing bracket"
    if error.msg == "Extra data" and line[error.pos :].lstrip(" ,").startswith("{"):
        return "write each object on a line of its own"
    if torn:
        return "the file ends within this line: write or copy it again"
    if error.msg.startswith(("Unterminated string", "Invalid control character")):
        return "write \\n for a line end within a text, and \\t for a tab"
    return "correct the line"


def _by_column(value: dict[str, object], wanted: Collection[str]) -> list[object] | None:
    """Return the rows of a mapping as pandas writes it; None where it is none of these: columns as lists of one length, or as
    mappings with the same keys; rows by their index; names of columns and lists of cells.
    """
    columns = list(value.values())
    names, cells = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(cells, list) and all(isinstance(name, str) for name in names):
        rows = [row for row in cells if isinstance(row, list) and len(row) == len(names)]
        if rows and len(rows) == len(cells):
            return [dict(zip(names, row, strict=True)) for row in rows]
    if columns and all(isinstance(column, list) for column in columns):
        lists = [column for column in columns if isinstance(column, list)]
        if len({len(column) for column in lists}) == 1 and not any(isinstance(cell, dict) for cell in lists[0]):
            return [dict(zip(value, cells, strict=True)) for cells in zip(*lists, strict=True)]
    if columns and all(isinstance(column, dict) for column in columns):
        maps = [column for column in columns if isinstance(column, dict)]
        inner = set().union(*maps[:SHOWN_PROBLEMS])
        if set(wanted) <= inner if wanted else len(maps) > 2 * len(inner):
            return [*maps]
        if all(column.keys() == maps[0].keys() for column in maps):
            return [{name: column[place] for name, column in zip(value, maps, strict=True)} for place in maps[0]]
    return None


def _read_json(text: str, wanted: Collection[str]) -> FileRecords:
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _collected(_read_jsonl(text, wanted))  # one object a line: JSON lines by another name
        remedy = "correct it, or call it .jsonl if it holds one object a line"
        if isinstance(error, json.JSONDecodeError):
            if re.match(r"\s*(?://|#|/\*)", text[max(0, error.pos) :][:20]):
                remedy = "remove the comments: JSON has none"
            elif (known := _line_remedy(text, error, torn=error.pos >= len(text.rstrip()))) != "correct the line":
                remedy = known
        elif isinstance(error, RepeatedKeyError):
            remedy = "keep one of them"
        line = getattr(error, "lineno", None)
        return FileRecords(problems=[Problem(f"the file must be JSON ({error})", line=line, remedy=remedy)])
    rows: object = value
    if isinstance(value, dict):
        lists = {name: part for name, part in value.items() if isinstance(part, list) and _some_object(part)}
        rows = list_within(value, wanted)
        if rows is None:
            usual = next((lists[key] for key in ("data", "rows") if key in lists), None)
            rows = usual if usual is not None else _by_column(value, wanted)
        if rows is None and isinstance(value.get("data"), list):
            rows = value["data"]
        if rows is None and len(lists) > 1:
            remedy = "keep one of them in the file, and write the others to files of their own"
            return FileRecords(
                problems=[Problem("the file must hold one list of objects", value=list(lists), remedy=remedy)]
            )
    if not isinstance(rows, list):
        remedy = 'write [{...}, ...] or {"data": [{...}, ...]}'
        return FileRecords(problems=[Problem("the file must hold a list of objects", remedy=remedy)])
    found = _collected(_of_list(rows, wanted))
    found.mark = " row "
    return found


def _of_list(rows: Sequence[object], wanted: Collection[str]) -> _Rows:
    """Yield the rows of a JSON list: objects, or lists of cells below one of names."""
    names = header_of(rows[0], wanted) if rows else None
    remedy = "write objects, with the names of the columns as keys"
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield Record(number, row)
        elif is_conversation(row):
            yield Record(number, {"messages": row})
        elif names is None or not isinstance(row, list) or len(row) != len(names):
            yield Problem(f"row {number} must be an object", value=type(row).__name__, remedy=remedy)
        elif number > 1:
            yield Record(number, dict(zip(names, row, strict=True)))


def _some_object(rows: list[object]) -> bool:
    return any(isinstance(row, dict) for row in rows)


def _read_table(text: str, usual: str, wanted: Collection[str], also: Collection[str]) -> FileRecords:
    table = read_delimited(text, usual, wanted)
    asked = [(name, place) for place, name in enumerate(table.columns) if name in wanted or name in also]
    records = [
        Record(line.number, {name: line.cells[place] for name, place in asked if place < len(line.cells)})
        for line in table.lines
    ]
    return FileRecords([name for name in table.columns if name], records, table.problems, table.notes)


def _collected(rows: Iterable[Record | Problem]) -> FileRecords:
    found = FileRecords()
    columns: dict[str, None] = {}
    for row in rows:
        if isinstance(row, Problem):
            found.problems.append(row)
            continue
        found.records.append(row)
        if row.cells.keys() - columns.keys():
            columns |= dict.fromkeys(row.cells)
    found.columns = list(columns)
    return found


def _read_text(suffix: str, text: str, wanted: Collection[str], also: Collection[str]) -> FileRecords:
    if suffix in (".csv", ".tsv"):
        return _read_table(text, "," if suffix == ".csv" else "\t", wanted, also)
    if suffix == ".json":
        return _read_json(text, wanted)
    if text.lstrip().startswith("["):  # a JSON list by another name
        found = _read_json(text, wanted)
        if found.records:
            return found
    return _collected(_read_jsonl(text, wanted))


def format_of(path: Path) -> str:
    """Return the ending that names a file's format, without `.gz`; empty where the format is unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ""


def _read(path: Path, data: bytes, wanted: Collection[str], encoding: str | None, also: Collection[str]) -> FileRecords:
    suffix = format_of(path)
    if not suffix:
        ending = path.suffix.lower()
        remedy = _ELSEWHERE.get(ending) or did_you_mean(ending, FORMATS)
        return FileRecords(
            problems=[Problem("the file name must end in a known format", value=path.name, remedy=remedy)]
        )
    if path.suffix.lower() == ".gz":
        content = unpacked(data)
        if isinstance(content, Problem):
            return FileRecords(problems=[content])
        data = content
        if data.startswith(b"\x1f\x8b"):
            return FileRecords(
                problems=[Problem("the file is compressed with gzip twice", remedy="unpack it once (gzip -d)")]
            )
    if suffix == ".parquet":
        return read_parquet(data, wanted, also)
    text = decode(data, encoding)
    if isinstance(text, Problem):
        return FileRecords(problems=[text])
    if text[0].endswith("\0"):
        whole = text[0].rstrip("\0")
        rule = f"the file ends with {len(text[0]) - len(whole):,} NUL characters: it was not written to its end"
        return FileRecords(problems=[Problem(rule, line=whole.count("\n") + 1, remedy="write or copy it again")])
    if other := another_format(text[0], suffix):
        return FileRecords(problems=[other])
    found = with_fields(_read_text(suffix, text[0], wanted, also), wanted)
    found.notes = [note for note in (text[1], *found.notes) if note]
    if "\ufffd" in text[0]:
        line = text[0].count("\n", 0, text[0].index("\ufffd")) + 1
        found.notes.append(f"characters were lost before it was saved (U+FFFD, first in line {line})")
    found.notes += misread(text[0])
    return found


def read_rows(
    path: Path, data: bytes, wanted: Collection[str], encoding: str | None = None, also: Collection[str] = ()
) -> FileRecords:
    """Return the content of a file, with its first problems in full and the number of the others.

    `wanted`: the columns that the sweep needs. `encoding`: that of text without a byte order mark; None: UTF-8.
    `also`: further columns, which are read where the file has them.
    """
    found = _read(path, data, wanted, encoding, also)
    if not found.records and not found.problems:
        found.problems.append(Problem("the file must have rows", remedy="add some, or name another file"))
    if (more := len(found.problems) - SHOWN_PROBLEMS) > 0:
        found.problems = [*found.problems[:SHOWN_PROBLEMS], Problem(f"and {more} more problems like these")]
    return found
