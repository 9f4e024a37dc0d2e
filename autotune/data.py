"""Labelled text in, three splits out.

The idea: where a row goes depends on what it says, never on where it stands. Membership of a split, duplicates and
the rows kept under a cap are all decided by hashes of content, so that a file may be reordered or extended without
moving a row from train to test. `load_dataset` reads, cleans, splits and checks, and reports every problem at once.

Order of the work (each step sees what the one before it left):

    read -> render templates -> drop duplicates and conflicts -> hold out by content
         -> drop from train what validation or test has -> collect and check labels -> cap by content

Imports stay light, for `plan` and dashboards: pyarrow is loaded for parquet files only.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autotune.errors import Problem, UsageError, did_you_mean, nearest, shown
from autotune.metrics import LABELLED, SCORES, generates, is_function, is_task
from autotune.paths import exists, is_file, is_folder

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

# Changing a salt moves rows between splits: results made before and after could not be compared.
_SPLIT_SALT = "autotune/split/1"
_CAP_SALT = "autotune/max_items/1"
_SHOWN_PROBLEMS, _SHOWN_PLACES, _SHOWN_LABELS, _SHOWN_COLUMNS = 5, 3, 5, 20

_HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*"
_HUB_TEXT = re.compile(rf"({_HUB_NAME}):([A-Za-z0-9_.\[\]:%+-]+)")


# --- Templates ---------------------------------------------------------------------------------------------------


class RowError(ValueError):
    """A row cannot become an item; the message is the reason under which it is left out."""


@lru_cache(maxsize=256)
def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template into (text, column that follows it or None); ValueError, with the position, if malformed.

    The syntax is the harmless part of `str.format`: `{column}`, and `{{` or `}}` for a brace itself.
    """
    pieces: list[tuple[str, str | None]] = []
    end = 0
    for found in re.finditer(r"\{\{|\}\}|\{([^{}]*)\}|[{}]", template):
        text, mark, column = template[end : found.start()], found[0], found[1]
        place = f"at character {found.start() + 1}"
        if mark in ("{{", "}}"):
            text, column = text + mark[0], None
        elif column is None:
            state = "never closed" if mark == "{" else "never opened"
            raise ValueError(f"'{mark}' {place} is {state}; write '{mark * 2}' for a brace itself")
        elif not column.strip() or re.search(r"[.\[\]!:]", column):
            raise ValueError(
                f"'{mark}' {place} must be a plain column name in braces, without '.', '[', '!' or ':'; "
                "rename the column, or write '{{' and '}}' for braces themselves"
            )
        pieces.append((text, column))
        end = found.end()
    pieces.append((template[end:], None))
    return tuple(pieces)


def template_columns(template: str) -> tuple[str, ...]:
    """Return the columns that a template names, each once, in order; ValueError if the template is malformed."""
    return tuple(dict.fromkeys(column for _, column in parse_template(template) if column is not None))


def render(template: str, row: Mapping[str, object]) -> str:
    """Fill a template from a row; RowError if a value is missing, blank or not text, ValueError if malformed."""
    return "".join(
        text if column is None else text + _cell(row.get(column)) for text, column in parse_template(template)
    )


def _cell(value: object) -> str:
    match value:
        case None:
            raise RowError("empty value")
        case bool():  # an int to Python, but never text to a reader
            raise RowError("not text")
        case float() if math.isnan(value):  # how data frames write null
            raise RowError("empty value")
        case str() | int() | float() | Decimal():
            try:
                text = str(value)
                text.encode()  # half a surrogate pair can be neither hashed nor tokenised
            except ValueError:  # also an int of thousands of digits
                raise RowError("not text") from None
            if not text.strip():
                raise RowError("empty value")
            return text
        case _:
            raise RowError("not text")


# --- What the sweep file says ------------------------------------------------------------------------------------


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    """One turn of a conversation; in a sweep file its content is a template."""

    role: Role
    content: str


class HubDataset(_Frozen):
    """A split of a data set on the Hugging Face hub."""

    dataset: str = Field(pattern=rf"^{_HUB_NAME}$", description="owner/name")
    config: str | None = Field(None, min_length=1, description="the data set's configuration, if it has several")
    split: str = Field(min_length=1, description="which split of it, e.g. train")

    def __str__(self) -> str:
        return f"{self.dataset}{f'/{self.config}' if self.config else ''}:{self.split}"


Source = Annotated[str, Field(min_length=1)] | HubDataset
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, strict=True)]
_Messages = Annotated[str, Field(min_length=1)] | tuple[Message, ...] | None


class MaxItems(_Frozen):
    """Caps on the items of a split, for costly metrics."""

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class DataSpec(_Frozen):
    """The `data:` part of a sweep file.

    A source is a path, a hub data set spelled out, or the short form `owner/name:split`. A string is a path if that
    file exists; failing that it is a hub data set if it reads as `owner/name:split` (one slash, then a colon);
    failing that it is the path of a missing file.
    """

    train: Source = Field(description="jsonl, json, csv, tsv or parquet file, or owner/name:split on the hub")
    validation: Source | None = Field(None, description="rows that the search judges candidates on")
    test: Source | None = Field(None, description="rows that only the finalists are scored on")
    holdout: Share | None = Field(None, description="share of train held out for validation, by content")
    test_holdout: Share | None = Field(None, description="share of train held out for test, by content")
    prompt: str | None = Field(None, description="template of the prompt, e.g. 'Text: {phrase}\\nTone:'")
    completion: str | None = Field(None, description="template of the completion, e.g. ' {tone}'")
    messages: _Messages = Field(
        None, description="column that holds {role, content} messages, or templates of them; the last one answers"
    )
    metric: str = Field("choice", description=f"{', '.join(SCORES)}, module:function, or lm-eval:task")
    labels: tuple[str, ...] | None = Field(
        None, description="the completions to choose among; default: those that occur in train"
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = Field(
        None, description="tokens to generate at most; default: one more than the longest completion"
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = Field(
        None, description="texts at which generation ends; the text from there on is cut off"
    )
    max_items: MaxItems = Field(default_factory=MaxItems, description="caps on items, drawn once, by content")

    @field_validator("prompt", "completion")
    @classmethod
    def _template_names_a_column(cls, template: str | None) -> str | None:
        if template is not None and not template_columns(template):
            raise ValueError("a template must name at least one column; write it in braces, like {text}")
        return template

    @field_validator("messages")
    @classmethod
    def _messages_end_with_the_answer(cls, messages: _Messages) -> _Messages:
        if messages is None or isinstance(messages, str):
            return messages
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise ValueError("messages must be two or more, the last one the assistant's; end with the answer to learn")
        columns = []
        for position, message in enumerate(messages, start=1):
            try:
                columns.append(template_columns(message.content))
            except ValueError as error:
                raise ValueError(f"in message {position}: {error}") from None
        if not any(columns[:-1]) or not columns[-1]:
            raise ValueError(
                "the last message, and at least one before it, must name a column; write it in braces, like {text}"
            )
        return messages

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if metric not in SCORES and not is_function(metric) and not is_task(metric):
            known = did_you_mean(metric, list(SCORES))
            raise ValueError(f"metric must be a known score, module:function or lm-eval:task; {known}")
        return metric

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(set(labels)) < len(labels) or not all(label.strip() for label in labels)):
            raise ValueError("labels must be distinct and not blank; list each completion once")
        return labels

    @model_validator(mode="after")
    def _parts_fit(self) -> DataSpec:
        wrong = []
        if is_task(self.metric):
            wrong += [
                f"{self.metric} brings its own items, and {name} is not scored; remove it"
                for name in ("validation", "holdout", "test", "test_holdout")
                if getattr(self, name) is not None
            ]
        elif (self.validation is None) == (self.holdout is None):
            wrong.append(
                "exactly one of validation and holdout must be given; "
                "name a file of validation rows, or a share such as holdout: 0.2"
            )
        if self.test is not None and self.test_holdout is not None:
            wrong.append("test and test_holdout exclude each other; keep one of them")
        wrong += [
            f"{name} is for metrics that generate text, which {self.metric} does not; remove it"
            for name in ("max_new_tokens", "stop")
            if getattr(self, name) is not None and not generates(self.metric)
        ]
        if (self.holdout or 0) + (self.test_holdout or 0) >= 1:
            wrong.append("holdout + test_holdout < 1 must hold; leave rows to train on")
        if {self.prompt is not None, self.completion is not None} != {self.messages is None}:
            wrong.append(
                "exactly one of prompt with completion, or messages, must be given; "
                "write two templates, or how to find the messages"
            )
        if wrong:
            raise ValueError("; and ".join(wrong))
        return self


# --- What comes out ----------------------------------------------------------------------------------------------


class Item(_Frozen):
    """One example: what the model is given and what it should answer."""

    id: str = Field(description="16 hex digits of a sha256 over prompt and completion")
    prompt: str | tuple[Message, ...]
    completion: str


class LeftOut(_Frozen):
    """Rows that were read but are in no split, all for one reason; `examples` are up to three places."""

    split: Split
    reason: str
    rows: int
    examples: tuple[str, ...]


class Dataset(_Frozen):
    """The three splits, in file order; every row read is in one of them or counted in `left_out`."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    labels: tuple[str, ...] = Field(description="sorted; empty when the metric needs none")
    left_out: tuple[LeftOut, ...]
    files: dict[str, str] = Field(description="source, as the sweep file names it -> sha256 of its content")

    def digest(self, split: str) -> str:
        """Return the sha256 of a split's item ids, in order; KeyError for an unknown split."""
        items = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        return hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()


# --- Reading -----------------------------------------------------------------------------------------------------


class _Record(NamedTuple):
    number: int  # of the line where the file has lines, else of the row; both from 1
    cells: Mapping[str, object]


_Found = Iterator[_Record | Problem]  # what a reader gives; its problems still lack key and file


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
            yield _Record(number, value)
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
            yield _Record(number, row)
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
                yield _Record(line, dict(zip(header, cells, strict=True)))
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
        yield _Record(number, dict(zip(columns, cells, strict=True)))


def _decode(data: bytes) -> str | Problem:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # not utf-8-sig: its error offsets leave out the BOM
    except UnicodeDecodeError as error:
        rule = f"the file must be UTF-8 text (byte {data[error.start]:#04x} at offset {error.start})"
        return Problem(rule, line=data.count(b"\n", 0, error.start) + 1, remedy="save it as UTF-8")


def _read(path: Path, data: bytes, wanted: Collection[str]) -> tuple[list[_Record], list[Problem]]:
    """Return the records of a file and what is wrong with it: the first problems in full, the rest as a count."""
    suffix = path.suffix.lower()
    found: Iterable[_Record | Problem]
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
    records = [one for one in everything if isinstance(one, _Record)]
    problems = [one for one in everything if isinstance(one, Problem)]
    if not records and not problems:
        problems.append(Problem("the file must have rows", remedy="add some, or name another file"))
    if (more := len(problems) - _SHOWN_PROBLEMS) > 0:
        problems = [*problems[:_SHOWN_PROBLEMS], Problem(f"and {more} more problems like these")]
    return records, problems


class _Table(NamedTuple):
    sha256: str
    rows: list[tuple[str, Mapping[str, object]]]  # each with its place


def _load_table(spec: DataSpec, key: str, path: Path, sweep_file: str) -> _Table:
    try:
        data = path.read_bytes()
    except OSError as error:
        rule = f"the file must be readable ({error.strerror or error})"
        raise UsageError(Problem(rule, key, str(path), remedy="check its permissions")) from None
    needed = _columns_needed(spec)
    records, found = _read(path, data, {column for _, column in needed})
    problems = [replace(problem, key=key, file=str(path)) for problem in found]
    columns = list(dict.fromkeys(column for record in records for column in record.cells))
    for user, column in needed:
        if records and column not in columns:
            rule = f"the column must be in {path}, which has {_some(columns, _SHOWN_COLUMNS)}"
            near = nearest(column, columns)
            remedy = f"did you mean '{near}'?" if near else "name one of those"
            problems.append(Problem(rule, user, sweep_file, value=column, remedy=remedy))
    if problems:
        raise UsageError(problems)
    mark = " row " if path.suffix.lower() in (".json", ".parquet") else ":"
    places = [f"{path.name}{mark}{record.number}" for record in records]
    return _Table(hashlib.sha256(data).hexdigest(), list(zip(places, (one.cells for one in records), strict=True)))


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
    found = _HUB_TEXT.fullmatch(source)
    return HubDataset(dataset=found[1], split=found[2]) if found else None


def _locate(source: str | HubDataset, root: Path, fetch: Callable[[HubDataset], Path] | None) -> Path:
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


# --- Cleaning and splitting --------------------------------------------------------------------------------------


class _Row(NamedTuple):
    item: Item
    key: str  # the normalised prompt: rows with the same key are the same question
    place: str


_Splits = dict[Split, list[_Row]]
_LeftOut = defaultdict[tuple[Split, str], list[str]]  # (split, reason) -> places


def normalise(prompt: str | Sequence[Message]) -> str:
    """Return the prompt with its case folded and runs of white space made one: what makes two prompts the same."""
    if isinstance(prompt, str):
        return " ".join(prompt.split()).casefold()
    return "\0".join(f"{message.role}\0{normalise(message.content)}" for message in prompt)


def make_item(prompt: str | tuple[Message, ...], completion: str) -> Item:
    """Return the item with its id filled in."""
    plain = prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
    text = json.dumps({"completion": completion, "prompt": plain}, sort_keys=True, separators=(",", ":"))
    return Item(id=hashlib.sha256(text.encode()).hexdigest()[:16], prompt=prompt, completion=completion)


def _item(spec: DataSpec, cells: Mapping[str, object]) -> Item:
    match spec.messages:
        case None:
            assert spec.prompt is not None
            assert spec.completion is not None
            return make_item(render(spec.prompt, cells), render(spec.completion, cells))
        case str() as column:
            *before, last = _conversation(cells.get(column))
        case templates:
            *before, last = (Message(role=one.role, content=render(one.content, cells)) for one in templates)
    return make_item(tuple(before), last.content)


def _conversation(value: object) -> list[Message]:
    if value is None:
        raise RowError("empty value")
    if not isinstance(value, list) or len(value) < 2:
        raise RowError("not messages")
    messages: list[Message] = []
    for position, turn in enumerate(value, start=1):
        match turn:
            case {"role": "system" | "user" | "assistant" as role, "content": str() as content}:
                if position == len(value) and not content.strip():
                    raise RowError("empty completion")
                messages.append(Message(role=role, content=_cell(content)))
            case _:
                raise RowError("not messages")
    if messages[-1].role != "assistant":
        raise RowError("not messages")
    return messages


def _clean(spec: DataSpec, split: Split, table: _Table, left_out: _LeftOut) -> list[_Row]:
    """Return the usable rows, each prompt once; a prompt with two answers teaches and tests nothing, so it goes."""
    rows: list[_Row] = []
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for place, cells in table.rows:
        try:
            item = _item(spec, cells)
        except RowError as error:
            left_out[split, str(error)].append(place)
            continue
        row = _Row(item, normalise(item.prompt), place)
        answers[row.key].add(item.completion)
        rows.append(row)
    kept: dict[str, _Row] = {}
    for row in rows:
        if len(answers[row.key]) > 1:
            left_out[split, "conflicting labels"].append(row.place)
        elif row.key in kept:
            left_out[split, "duplicate"].append(row.place)
        else:
            kept[row.key] = row
    return list(kept.values())


def _fraction(salt: str, text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    # 53 bits: what a float holds exactly, so that 1 is never reached by rounding.
    return (int.from_bytes(hashlib.sha256(f"{salt}\n{text}".encode()).digest()[:8]) >> 11) / 2**53


def _hold_out(spec: DataSpec, splits: _Splits) -> None:
    """Move rows of train by content: the low end of the hash to validation, the high end to test.

    So adding or changing one share moves no row of the other.
    """
    low, high = spec.holdout or 0.0, 1 - (spec.test_holdout or 0.0)
    rest: list[_Row] = []
    for row in splits["train"]:
        place = _fraction(_SPLIT_SALT, row.key)
        part = splits["validation"] if place < low else splits["test"] if place >= high else rest
        part.append(row)
    splits["train"] = rest


def _separate(splits: _Splits, left_out: _LeftOut) -> None:
    """Take out of validation what test has, and out of train what either has."""
    seen: dict[str, str] = {}
    for split in reversed(SPLITS):
        kept: list[_Row] = []
        for row in splits[split]:
            if other := seen.get(row.key):
                left_out[split, f"also in {other}"].append(row.place)
            else:
                kept.append(row)
        splits[split] = kept
        seen.update((row.key, split) for row in kept)


def _cap(spec: DataSpec, splits: _Splits, left_out: _LeftOut) -> None:
    for split in SPLITS:
        limit = getattr(spec.max_items, split)
        if limit is None or len(splits[split]) <= limit:
            continue
        drawn = sorted(splits[split], key=lambda row: _fraction(_CAP_SALT, row.item.id))
        chosen = {row.item.id for row in drawn[:limit]}
        left_out[split, "over max_items"] += [row.place for row in splits[split] if row.item.id not in chosen]
        splits[split] = [row for row in splits[split] if row.item.id in chosen]


# --- Checking ----------------------------------------------------------------------------------------------------


def _empty_splits(spec: DataSpec, splits: _Splits, left_out: _LeftOut) -> Iterator[Problem]:
    shares: dict[Split, tuple[str, float | None]] = {
        "train": ("train", None),
        "validation": ("holdout", spec.holdout),
        "test": ("test_holdout", spec.test_holdout),
    }
    for split, (key, share) in shares.items():
        if splits[split] or (share is None and getattr(spec, split) is None):
            continue
        # Rows lost before a share was held out were lost as rows of train.
        owners = (split,) if share is None else (split, "train")
        told = [
            f"; {len(places)} left out: {reason} ({', '.join(places[:_SHOWN_PLACES])})"
            for (where, reason), places in left_out.items()
            if where in owners
        ]
        rule = f"{split} must have rows, but none remain{''.join(told)}"
        remedy = "add rows" if share is None else "raise the share, or add rows"
        if split == "train" and (spec.holdout or spec.test_holdout):
            remedy = "lower the share that is held out, or add rows"
        yield Problem(rule, f"data.{split if share is None else key}", value=share, remedy=remedy)


def _wrong_labels(spec: DataSpec, labels: tuple[str, ...], splits: _Splits) -> Iterator[Problem]:
    if len(labels) < 2:
        remedy = "add rows with another completion to train, or use metric: exact_match"
        yield Problem(f"metric {spec.metric} needs two labels or more", "data.labels", value=labels, remedy=remedy)
    for split in SPLITS:
        unknown = sorted({row.item.completion for row in splits[split]}.difference(labels))
        if unknown and spec.labels is None:
            rule = f"every label of {split} must occur in train, which lacks {_some(unknown, _SHOWN_LABELS)}"
            remedy = "add such rows to train, list all labels in data.labels, or use metric: exact_match"
            yield Problem(rule, f"data.{split if getattr(spec, split) else 'train'}", remedy=remedy)
        elif unknown:
            rule = f"labels must hold every completion exactly; {split} has {_some(unknown, _SHOWN_LABELS)}"
            near = nearest(unknown[0], labels)
            remedy = f"write {unknown[0]!r} for {near!r}" if near else "add what is missing"
            yield Problem(rule, "data.labels", value=labels, remedy=remedy)


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


def load_dataset(
    spec: DataSpec, root: Path, sweep_file: str = "", fetch: Callable[[HubDataset], Path] | None = None
) -> Dataset:
    """Read, clean, split and check the data of a sweep.

    Relative paths start at the working directory, or, if there is no such file, at `root` (the sweep file's folder).
    `fetch` turns a hub data set into a local file. Labels and their checks cover all rows, also those over
    `max_items`: a cap saves time and does not change the task. Raises UsageError with every problem found.
    """
    problems: list[Problem] = []
    tables: dict[Split, _Table] = {}
    for split in SPLITS:
        source, key = getattr(spec, split), f"data.{split}"
        if source is None:
            continue
        try:
            tables[split] = _load_table(spec, key, _locate(source, root, fetch), sweep_file)
        except UsageError as error:
            problems += [replace(one, key=one.key or key, file=one.file or sweep_file) for one in error.problems]
    _raise_any(problems)

    left_out: _LeftOut = defaultdict(list)
    splits: _Splits = {split: [] for split in SPLITS}
    for split, table in tables.items():
        splits[split] = _clean(spec, split, table, left_out)
    _hold_out(spec, splits)
    _separate(splits, left_out)
    _raise_any(replace(problem, file=sweep_file) for problem in _empty_splits(spec, splits, left_out))

    labels = tuple(sorted(spec.labels or ()))
    if spec.metric in LABELLED:
        if spec.labels is None:
            labels = tuple(sorted({row.item.completion for row in splits["train"]}))
        _raise_any(replace(problem, file=sweep_file) for problem in _wrong_labels(spec, labels, splits))
    elif spec.metric in SCORES:
        labels = ()
    _cap(spec, splits, left_out)

    items = {split: tuple(row.item for row in rows) for split, rows in splits.items()}
    return Dataset(
        train=items["train"],
        validation=items["validation"],
        test=items["test"],
        labels=labels,
        left_out=tuple(
            LeftOut(split=split, reason=reason, rows=len(places), examples=tuple(places[:_SHOWN_PLACES]))
            for (split, reason), places in left_out.items()
        ),
        files={str(getattr(spec, split)): table.sha256 for split, table in tables.items()},
    )


def _raise_any(problems: Iterable[Problem]) -> None:
    found = tuple(problems)
    if found:
        raise UsageError(found)
