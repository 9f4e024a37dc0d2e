"""Explain sources that are no file of rows, and columns that are missing: say what is there instead, and what to write."""

from __future__ import annotations

import contextlib
import itertools
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from autotune.data.readers import format_of
from autotune.errors import Problem, nearest

_LONGEST_NAME = 40
"""A longer column name, in characters, is more likely a cell."""
_QUOTES = "'`‘’‚‛“”„‟«»‹›"
_SHOWN = 3
_LOOKED_AT = 200
"""The most entries of a folder that are read to recognise its content."""
_ARROW = "load it and write it as parquet: datasets.load_from_disk({folder!r}){split}.to_parquet({file!r})"


def column_remedy(column: str, columns: Sequence[str], wanted: Collection[str], inner: Mapping[str, str]) -> str:
    """Return the remedy for a column that a file does not have.

    `columns`: the columns of the file; `wanted`: all columns that the sweep needs; `inner`: by name, the column whose objects
    have a field of that name.
    """
    if f"{column}?" in columns:
        return f"rename the column '{column}?': in a template, ? says that a cell may be empty"
    if column in inner:
        return f"it is a field of the objects in '{inner[column]}': write it as a column of its own"
    if any(name.startswith("__label__") for name in columns):
        return "these are lines for fastText: write a table with a column of labels and one of texts"
    if quoted := next((name for name in columns if name != column and _unquoted(name) == column), None):
        return f'the file puts {quoted[0]} around its cells: write double quotes (") there instead'
    if (
        same := next((name for name in columns if name != column and _plain(name) == _plain(column)), None)
    ) is not None:
        return f"rename the column: it only looks like this one, and holds {_unlike(same, column)}"
    if len(columns) == 1 and (between := _separator(columns[0], wanted)):
        return f"its cells are separated by {between!r}: separate them by commas, semicolons, tabs or vertical bars"
    alike = [name for name in columns if name.strip().casefold() == column.casefold()]
    near = alike[0] if alike else nearest(column, columns)
    if near:
        return f"did you mean '{near}'?"
    if any(len(name) > _LONGEST_NAME or name[:1].isdigit() for name in columns):
        return "name one of those; the first line of a table must name its columns"
    return "name one of those"


def _unquoted(name: str) -> str:
    return name[1:-1].strip() if len(name) > 2 and name[0] in _QUOTES and name[-1] in _QUOTES else name


def _plain(name: str) -> str:
    """Return a name without invisible characters, in Unicode's composed form."""
    return unicodedata.normalize("NFC", "".join(c for c in name if unicodedata.category(c) not in ("Cf", "Cc")))


def _unlike(name: str, column: str) -> str:
    """Return the invisible difference between a file's column name and the wanted one, which look the same."""
    odd = next((c for c in name if unicodedata.category(c) in ("Cf", "Cc")), "")
    if odd:
        return f"{unicodedata.name(odd, 'a control character').lower()} (U+{ord(odd):04X})"
    if any(unicodedata.category(c) in ("Cf", "Cc") for c in column):
        return "no invisible character, as the sweep file does"
    return "letters that are composed otherwise (another Unicode normal form)"


def _separator(header: str, wanted: Collection[str]) -> str:
    """Return the separator in a header that was read as a single name; empty where there is none."""
    held = sorted((name for name in wanted if name in header), key=header.index)
    if len(held) < len(set(wanted)) or not held:
        return ""
    first = header.index(held[0])
    after = re.match(r"[^\w'\"]{1,3}|[\x00-\x1f]", header[first + len(held[0]) :])
    before = re.search(r"([^\w'\"]{1,3})$", header[:first])
    return after[0] if after else before[0] if before else ""


def _entries(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted; of very many, some. Raises OSError."""
    return sorted(itertools.islice(folder.iterdir(), _LOOKED_AT))


def _near(entries: Sequence[Path]) -> list[Path]:
    """Return the entries of a folder and of its subfolders, but no deeper: the folder may be the root of a large disk."""
    found: list[Path] = []
    for entry in entries:
        if len(found) >= _LOOKED_AT:
            break
        found.append(entry)
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            with contextlib.suppress(OSError):
                found += _entries(entry)
    return found


def folder_problem(source: str, folder: Path) -> Problem:
    """Return the problem of a source that is a folder; its content decides the remedy."""
    rule, remedy = "a source must be a file, not a folder", "name a file in it"
    try:
        entries = _entries(folder)
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
        splits = [entry.name for entry in entries if (entry / "state.json").is_file()]
        files = [path.relative_to(folder).as_posix() for path in _near(entries) if format_of(path)]
    except OSError:
        return Problem(rule, value=source, remedy=remedy)
    data = [
        name
        for name in files
        if name.rpartition("/")[2] not in ("dataset_info.json", "state.json", "dataset_dict.json")
    ]
    file = f"{folder.name}.parquet"
    if "state.json" in names or splits or "dataset_dict.json" in names:
        rule += ", and this one was written by datasets.save_to_disk"
        split = f"[{(splits or ['train'])[0]!r}]" if "state.json" not in names else ""
        remedy = _ARROW.format(folder=folder.as_posix(), split=split, file=file)
    elif "config.json" in names:
        remedy = "name a file of rows: this is the folder of a model"
    elif len(data) == 1:
        remedy = f"did you mean '{(folder / data[0]).as_posix()}'?"
    elif len(data) > 1 and len({re.sub(r"[0-9]+", "", name) for name in data}) == 1:
        remedy = f"its {len(data)} files ({data[0]}, ...) are parts: write their rows into one file, and name that"
    elif data:
        told = ", ".join(data[:_SHOWN]) + (", ..." if len(data) > _SHOWN else "")
        remedy = f"name one of its files: {told}"
    elif names:
        remedy = "name a file of rows: it holds none that is read"
    else:
        remedy = "name a file: it holds none"
    return Problem(rule, value=source, remedy=remedy)
