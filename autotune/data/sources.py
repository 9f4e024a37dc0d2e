"""Where the rows of a split come from: a file, or a data set on the hub, with the columns that the templates name."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from autotune.data.readers import read_rows
from autotune.data.schema import FORMATS, HUB_TEXT, DataSpec, HubDataset
from autotune.data.templates import template_columns
from autotune.errors import Problem, UsageError, nearest, shown
from autotune.paths import exists, is_file, is_folder

SHOWN_COLUMNS = 20


class SourceTable(NamedTuple):
    sha256: str
    rows: list[tuple[str, Mapping[str, object]]]  # each with its place


def load_table(spec: DataSpec, key: str, path: Path, sweep_file: str) -> SourceTable:
    try:
        data = path.read_bytes()
    except OSError as error:
        rule = f"the file must be readable ({error.strerror or error})"
        raise UsageError(Problem(rule, key, str(path), remedy="check its permissions")) from None
    needed = _columns_needed(spec)
    records, found = read_rows(path, data, {column for _, column in needed})
    problems = [replace(problem, key=key, file=str(path)) for problem in found]
    columns = list(dict.fromkeys(column for record in records for column in record.cells))
    for user, column in needed:
        if records and column not in columns:
            rule = f"the column must be in {path}, which has {some_of(columns, SHOWN_COLUMNS)}"
            near = nearest(column, columns)
            remedy = f"did you mean '{near}'?" if near else "name one of those"
            problems.append(Problem(rule, user, sweep_file, value=column, remedy=remedy))
    if problems:
        raise UsageError(problems)
    mark = " row " if path.suffix.lower() in (".json", ".parquet") else ":"
    places = [f"{path.name}{mark}{record.number}" for record in records]
    return SourceTable(hashlib.sha256(data).hexdigest(), list(zip(places, (one.cells for one in records), strict=True)))


def _columns_needed(spec: DataSpec) -> list[tuple[str, str]]:
    """Return (key in the sweep file, column that it names), each pair once."""
    match spec.messages:
        case None:
            templates = [("data.prompt", spec.prompt or ""), ("data.completion", spec.completion or "")]
        case str() as column:
            return [("data.messages", column)]
        case messages:
            templates = [("data.messages", message.content) for message in messages]
    return list(dict.fromkeys((key, name) for key, text in templates for name in template_columns(text)))


def hub_source(source: str | HubDataset | None, root: Path) -> HubDataset | None:
    """Return the hub data set that a source names, or None where it is a file (there or missing)."""
    if source is None or isinstance(source, HubDataset):
        return source
    if any(exists(path) for path in _places(source, root)):
        return None
    found = HUB_TEXT.fullmatch(source)
    return HubDataset(dataset=found[1], split=found[2]) if found else None


def locate(source: str | HubDataset, root: Path, fetch: Callable[[HubDataset], Path] | None) -> Path:
    candidates: list[Path] = []
    hub = source if isinstance(source, HubDataset) else None
    if isinstance(source, str):
        candidates = _places(source, root)
        for path in candidates:
            if is_file(path):
                return path
        if any(is_folder(path) for path in candidates):
            rule = "a source must be a file, not a folder"
            raise UsageError(Problem(rule, value=source, remedy="name a file in it"))
        hub = hub_source(source, root)
    if hub is None:
        raise UsageError(Problem("the file must exist", value=str(source), remedy=_nearest(candidates)))
    if fetch is None:
        remedy = "save it as a jsonl file and name that, or correct the path if a file was meant"
        raise UsageError(Problem("a data set on the hub cannot be fetched here", value=str(source), remedy=remedy))
    return fetch(hub)


def _places(source: str, root: Path) -> list[Path]:
    """Return where a file that a sweep names may be; `~` is the user's folder, an absolute path swallows the root."""
    path = Path(source)
    with contextlib.suppress(RuntimeError):  # ~ of nobody
        path = path.expanduser()
    return list(dict.fromkeys([path, root / path]))


def _nearest(candidates: Sequence[Path]) -> str:
    for path in candidates:
        try:
            names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in FORMATS)
        except (OSError, ValueError):
            continue
        if close := nearest(path.name, names):
            return f"did you mean '{path.with_name(close).as_posix()}'?"
    folders = " and ".join(f"'{path.parent}'" for path in candidates)
    return f"looked in {folders}; paths start at the working directory, or at the sweep file's folder"


def some_of(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
