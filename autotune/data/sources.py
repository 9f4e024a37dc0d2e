"""Where the rows of a split come from: a file, or a data set on the hub, with the columns that the templates name."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from autotune.data.readers import format_of, read_rows
from autotune.data.schema import (
    HUB_NAME,
    HUB_TEXT,
    AzureFile,
    DataSpec,
    HubDataset,
    Remote,
    Where,
    chat_columns,
    chat_templates,
)
from autotune.data.source_remedies import column_remedy, folder_problem
from autotune.data.templates import template_columns
from autotune.data.where import none_where, rows_where
from autotune.errors import Problem, UsageError, nearest, shown
from autotune.paths import exists, is_file, is_folder
from autotune.remote.addresses import is_address, split_rows

SHOWN_COLUMNS = 20
TOOLS = ("tools", "functions")
"""Columns that list the tools a conversation may call, which would be a part of its prompt."""
SYSTEMS = ("system", "system_prompt")
"""Columns that hold the system's message beside a conversation."""
HISTORY = ("history",)
"""Columns that hold earlier turns beside a row of Alpaca's form, in data of LLaMA-Factory."""
VERDICTS = ("label", "kto_tag")
"""Columns that say whether an answer is good, in data of TRL and LLaMA-Factory."""
PARTS = ("split", "subset", "partition", "set")
"""Columns that say which split a row is of."""

_ALSO = (*PARTS, *TOOLS, *SYSTEMS, *HISTORY, *VERDICTS)


class SourceTable(NamedTuple):
    sha256: str
    rows: list[tuple[str, Mapping[str, object]]]  # each with its place
    notes: list[str]
    columns: list[str]


Needed = Sequence[tuple[str, str]]
"""(Key in the sweep file, column that it names)."""

_SLICE = re.compile(r"(.*[^\]])\[(?:(-?[0-9]{1,12})(%)?)?:(?:(-?[0-9]{1,12})(%)?)?\]")


class Part(NamedTuple):
    """Some rows of a file, in the notation of the hub: `[:4096]`, `[100:200]`, `[-50:]`, `[:10%]`."""

    bounds: tuple[tuple[int, bool] | None, tuple[int, bool] | None]
    """First row, and the row after the last: the number, and whether it is a percentage. None: an end of the file."""
    written: str = ""
    """The part as the sweep file has it."""

    def of(self, rows: int) -> slice:
        """Return the slice of a file with so many rows; a percentage is rounded to the nearest row."""
        start, stop = (
            (round(bound[0] * rows / 100) if bound[1] else bound[0]) if bound is not None else None
            for bound in self.bounds
        )
        return slice(start, stop)


def part_of(source: str | HubDataset, root: Path) -> tuple[str | HubDataset, Part | None]:
    """Return the file that a source names, and which of its rows: `data.jsonl[:4096]`, unless a file has that very name.

    Raises UsageError for a percentage above 100.
    """
    found = _SLICE.fullmatch(source) if isinstance(source, str) else None
    if found is None or isinstance(hub_source(source, root), HubDataset):
        return source, None
    if any(exists(path) for path in _places(str(source), root)):
        return source, None
    start, stop = (
        (int(found[place]), found[place + 1] is not None) if found[place] is not None else None for place in (2, 4)
    )
    if any(bound is not None and bound[1] and abs(bound[0]) > 100 for bound in (start, stop)):
        remedy = "write a percentage from 0 to 100, or a number of rows without %"
        raise UsageError(Problem("a share of the rows is 100 % at most", value=str(source), remedy=remedy))
    return found[1], Part((start, stop), str(source)[len(found[1]) :])


def load_table(
    needed: Needed, key: str, path: Path, sweep_file: str, encoding: str | None = None, part: Part | None = None,
    where: Where | None = None,
) -> SourceTable:  # fmt: skip
    """Read a file that `key` names, or a part of its rows; of these the rows that `where` names.

    Raises UsageError with every problem of the file and of the columns needed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        rule = f"the file must be readable ({error.strerror or error})"
        raise UsageError(Problem(rule, key, str(path), remedy="check its permissions")) from None
    found = read_rows(path, data, {column for _, column in needed}, encoding, _ALSO)
    problems = [replace(problem, key=key, file=str(path)) for problem in found.problems]
    for user, column in needed:
        if found.columns and column not in found.columns:
            rule = f"the column must be in {path}, which has {some_of(found.columns, SHOWN_COLUMNS)}"
            remedy = column_remedy(column, found.columns, {name for _, name in needed}, found.inner)
            problems.append(Problem(rule, user, sweep_file, value=column, remedy=remedy))
    if problems:
        raise UsageError(problems)
    before = f"{path.name}{found.mark}"
    records = found.records if part is None else found.records[part.of(len(found.records))]
    if not records:
        rule = (
            f"some of its rows must be named, and of its {len(found.records)} none is in {part.written if part else ''}"
        )
        raise UsageError(Problem(rule, key, str(path), remedy="write [FIRST:LAST], counted from 0"))
    notes = [f"{path.name}: {note}" for note in found.notes]
    if where is not None:
        kept = rows_where(records, where)
        if not kept:
            raise UsageError(none_where(records, where, f"{path}{part.written if part else ''}", sweep_file))
        notes.append(f"{path.name}: {len(kept)} of {len(records)} rows are those of data.where")
        records = kept
    rows = [(f"{before}{record.number}", record.cells) for record in records]
    for column in dict.fromkeys(column for _, column in needed):
        alike = [name for name in found.columns if name != column and name.strip().casefold() == column.casefold()]
        notes += [f"{path.name}: it has a column {shown(name)} besides {column!r}, which is not read" for name in alike]
    return SourceTable(hashlib.sha256(data).hexdigest(), rows, notes, found.columns)


def columns_needed(spec: DataSpec) -> list[tuple[str, str]]:
    """Return (key in the sweep file, column that it names), each pair once."""
    return [*_columns_of_texts(spec), *(("data.where", name) for name in spec.where or ())]


def _columns_of_texts(spec: DataSpec) -> list[tuple[str, str]]:
    match spec.messages:
        case None if spec.text is not None:
            templates = [("data.text", spec.text)]
        case None:
            templates = [("data.prompt", spec.prompt or ""), ("data.completion", spec.completion or "")]
        case messages if columns := chat_columns(messages):
            return [("data.messages", column.removesuffix("?") if len(columns) > 1 else column) for column in columns]
        case messages:
            templates = [("data.messages", message.content) for message in chat_templates(messages)]
    return list(dict.fromkeys((key, name) for key, text in templates for name in template_columns(text)))


def hub_source(source: str | HubDataset | None, root: Path) -> Remote | None:
    """Return the data set on the hub, or the file on Azure, that a source names; None for a local or a missing file."""
    if source is None or isinstance(source, HubDataset):
        return source
    if any(exists(path) for path in _places(source, root)):
        return None
    if is_address(source):
        return AzureFile(split_rows(source)[0])
    found = HUB_TEXT.fullmatch(source)
    return HubDataset(dataset=found[1], split=found[2]) if found else None


def locate(source: str | HubDataset, root: Path, fetch: Callable[[Remote], Path] | None) -> Path:
    """Return the local file of a source; `fetch` copies remote ones here. Raises UsageError where there is none."""
    candidates: list[Path] = []
    hub: Remote | None = source if isinstance(source, HubDataset) else None
    if isinstance(source, str):
        candidates = _places(source, root)
        for path in candidates:
            if is_file(path):
                return path
        if any(is_folder(path) for path in candidates):
            raise UsageError(folder_problem(source, next(path for path in candidates if is_folder(path))))
        if any(exists(path) for path in candidates):
            rule = "a source must be a file, and neither a device nor a pipe: it is read more than once"
            raise UsageError(Problem(rule, value=source, remedy="write its content to a file"))
        hub = hub_source(source, root)
    if hub is None:
        raise UsageError(Problem("the file must exist", value=str(source), remedy=_missing(str(source), candidates)))
    if fetch is None:
        remedy = "save it as a jsonl file and name that, or correct the path if a file was meant"
        raise UsageError(
            Problem("data on the hub or on Azure cannot be fetched here", value=str(source), remedy=remedy)
        )
    return fetch(hub)


def _places(source: str, root: Path) -> list[Path]:
    """Return the paths that a source may mean: from the working directory, and from `root`; `~` is the user's folder."""
    path = Path(source)
    with contextlib.suppress(RuntimeError):  # ~ of nobody
        path = path.expanduser()
    return list(dict.fromkeys([path, root / path]))


def is_local(source: str, root: Path) -> bool:
    """Whether a source is a file on this machine, or some rows of one."""
    found = _SLICE.fullmatch(source)
    names = [source, *([found[1]] if found is not None else [])]
    return any(is_file(path) for name in names for path in _places(name, root))


_NO_PATHS = (
    (r"^file:/", "write the path alone, without file:"),
    (r"[a-z][a-z0-9+]+://", "download it and name the file: no address is fetched"),
    (r"[“”„«»‘’]|^['\"].*['\"]$", "the quotes are part of the name: write plain ones, and only around the whole value"),
    (r"\$\{?\w|%\w+%", "write the path out: variables of the environment are not filled in"),
    (r"[\x00-\x1f]", "in double quotes \\n, \\t and their like stand for control characters: use single quotes, or /"),
    (r"[*?]", "name one file: patterns are not expanded"),
    (r"\.\w+\s*[,;]\s*\S+\.\w+$", "name one file: put the rows of several into one"),
)


def _missing(source: str, candidates: Sequence[Path]) -> str:
    """Return the remedy for a source that is neither a file nor a data set."""
    for pattern, remedy in _NO_PATHS:
        if re.search(pattern, source):
            return remedy
    if source.endswith("]") and any(is_file(path.with_name(path.name.partition("[")[0])) for path in candidates):
        return f"write {source.partition('[')[0]}[FIRST:LAST] for some of its rows, counted from 0"
    if "\\" in source:
        plain = Path(source.replace("\\", "/"))
        for path in dict.fromkeys([plain, *(candidate.parent / plain for candidate in candidates)]):
            if is_file(path):
                return f"write / between folders: '{plain.as_posix()}'"
    found = _nearest(candidates)
    if re.fullmatch(HUB_NAME, source) and not Path(source).suffix and not found.startswith("did you mean"):
        return f"write {source}:train if the split train of that data set on the hub is meant; else check the path"
    if re.fullmatch(r"[A-Za-z0-9_-]+", source) and not found.startswith("did you mean"):
        return f"{found}; a data set on the hub is written owner/name:split"
    return found


def _nearest(candidates: Sequence[Path]) -> str:
    for path in candidates:
        try:
            names = sorted(entry.name for entry in path.parent.iterdir() if format_of(entry))
        except (OSError, ValueError):
            continue
        if close := nearest(path.name.rpartition("\\")[2], names):
            return f"did you mean '{path.with_name(close).as_posix()}'?"
    folders = " and ".join(f"'{path.parent}'" for path in candidates)
    return f"looked in {folders}; paths start at the working directory, or at the sweep file's folder"


def some_of(names: Sequence[str], most: int) -> str:
    """Return the first names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
