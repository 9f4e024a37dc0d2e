"""The `data:` part of a sweep file, and the data set that reading it gives: items in three splits."""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from autotune.data.encodings import is_text_encoding
from autotune.data.templates import template_columns
from autotune.errors import did_you_mean
from autotune.metrics import SCORES, generates, is_function, is_task

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
DEFAULT_HOLDOUT = 0.2
"""Share of train held out for validation where a sweep gives neither validation rows nor a share."""
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*"
HUB_TEXT = re.compile(rf"({HUB_NAME}):([A-Za-z0-9_.\[\]:%+-]+)")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    """One turn of a conversation; in a sweep file its content is a template."""

    role: Role
    content: str


def chat_columns(messages: object) -> tuple[str, ...]:
    """Return the columns that `data.messages` names; none where it holds templates, or is not given."""
    if isinstance(messages, str):
        return (messages,)
    named = tuple(one for one in messages if isinstance(one, str)) if isinstance(messages, tuple) else ()
    return named if isinstance(messages, tuple) and len(named) == len(messages) else ()


def chat_templates(messages: object) -> tuple[Message, ...]:
    """Return the templates of messages in `data.messages`; none where it names columns, or is not given."""
    return tuple(one for one in messages if isinstance(one, Message)) if isinstance(messages, tuple) else ()


class HubDataset(_Frozen):
    """A split of a data set on the Hugging Face hub."""

    dataset: str = Field(pattern=rf"^{HUB_NAME}$", description="owner/name")
    config: str | None = Field(None, min_length=1, description="the data set's configuration, if it has several")
    split: str = Field(min_length=1, description="which split of it, e.g. train")

    def __str__(self) -> str:
        return f"{self.dataset}{f'/{self.config}' if self.config else ''}:{self.split}"


@dataclass(frozen=True)
class AzureFile:
    """A file of rows on Azure ML."""

    address: str

    def __str__(self) -> str:
        return self.address


Remote = HubDataset | AzureFile
"""A source whose rows are fetched from elsewhere."""
Source = Annotated[str, Field(min_length=1)] | HubDataset
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1, strict=True)]
_Column = Annotated[str, Field(min_length=1)]
_Messages = _Column | tuple[Message | _Column, ...] | None
Cell = str | bool | int | float
"""What a cell is compared with."""
Where = Mapping[str, Cell | tuple[Cell, ...]]
"""By column, the value that its cells have in the rows that are taken, or several of which they have one."""


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

    train: Source = Field(
        description="jsonl, json, csv, tsv or parquet file (each but parquet also as .gz), or owner/name:split on the hub; "
        "some of its rows: file.jsonl[:4096], owner/name:train[:10%]"
    )
    validation: Source | None = Field(None, description="rows that the search judges candidates on")
    test: Source | None = Field(None, description="rows that only the finalists are scored on")
    encoding: str | None = Field(
        None, description="of text files without a byte order mark, e.g. cp1252 of European Excel; default: UTF-8"
    )
    where: dict[str, Cell | tuple[Cell, ...]] | None = Field(
        None,
        description="rows to take of every file, by the cells of a column: {language: python}, or one of several: "
        "{language: [python, go], stars: 5}; default: all",
    )
    holdout: Share | None = Field(
        None, description=f"share of train held out for validation, by content; without validation: {DEFAULT_HOLDOUT}"
    )
    test_holdout: Share | None = Field(None, description="share of train held out for test, by content")
    prompt: str | None = Field(
        None, description="template of the prompt, e.g. 'Text: {phrase}\\nTone:'; {column?} may be empty"
    )
    completion: str | None = Field(None, description="template of the completion, e.g. ' {tone}'")
    messages: _Messages = Field(
        None,
        description="column that holds {role, content} messages, several whose messages follow one another, such as "
        "[prompt, completion], or templates of messages; the last one answers",
    )
    text: str | None = Field(
        None, description="template of plain text to model, instead of prompt and completion; scored by perplexity"
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

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str | None) -> str | None:
        if encoding is not None and not is_text_encoding(encoding):
            raise ValueError("encoding must be one that Python knows, such as utf-8, cp1252, latin-1 or utf-16")
        return encoding

    @field_validator("where", mode="before")
    @classmethod
    def _where_names_cells(cls, where: object) -> object:
        if where is None:
            return None
        if not isinstance(where, Mapping) or not where:
            raise ValueError("where must be a mapping of at least one column; write where: {COLUMN: VALUE}")
        for name, values in where.items():
            if not isinstance(name, str) or not name.strip():
                raise ValueError("the keys of where must be names of columns; write where: {COLUMN: VALUE}")
            for value in values if isinstance(values, list | tuple) and values else [values]:
                if not isinstance(value, str | bool | int | float):
                    raise ValueError(
                        f"where takes a text, a number or true and false, or a list of them; correct '{name}'"
                    )
                if (isinstance(value, float) and not math.isfinite(value)) or (
                    isinstance(value, str) and not value.strip()
                ):
                    raise ValueError(f"where takes no empty text, and finite numbers only; correct '{name}'")
        return where

    @field_validator("prompt", "completion", "text")
    @classmethod
    def _template_names_a_column(cls, template: str | None, info: ValidationInfo) -> str | None:
        if template is None:
            return None
        if not template_columns(template):
            if found := re.search(r"\{\{\s*(\w+)\s*\}\}", template):
                raise ValueError(f"a template must name at least one column; write {{{found[1]}}} for {found[0]}")
            raise ValueError("a template must name at least one column; write it in braces, like {text}")
        if info.field_name != "prompt" and not template_columns(template, optional=False):
            raise ValueError(f"a {info.field_name} must name a column that is never empty; write one without '?'")
        return template

    @field_validator("messages")
    @classmethod
    def _messages_end_with_the_answer(cls, messages: _Messages) -> _Messages:
        if messages is None or isinstance(messages, str):
            return messages
        if not (named := chat_columns(messages)) and any(isinstance(one, str) for one in messages):
            raise ValueError("messages are either columns or templates of messages; write all in one of the two ways")
        if named:
            if len(set(named)) < len(named):
                raise ValueError("the columns of messages must differ; name each once")
            if named[-1].endswith("?"):
                raise ValueError("the last column answers, and is never empty; write it without '?'")
            return messages
        turns = chat_templates(messages)
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise ValueError("messages must be two or more, the last one the assistant's; end with the answer to learn")
        columns = []
        for position, message in enumerate(turns, start=1):
            try:
                columns.append(template_columns(message.content))
            except ValueError as error:
                raise ValueError(f"in message {position}: {error}") from None
        if not any(columns[:-1]) or not columns[-1]:
            raise ValueError(
                "the last message, and at least one before it, must name a column; write it in braces, like {text}"
            )
        if not template_columns(turns[-1].content, optional=False):
            raise ValueError("the last message must name a column that is never empty; write one without '?'")
        return messages

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        found = re.fullmatch(
            r"(?:lm[_-]?eval(?:uation)?(?:[_-]?harness)?|lm[_-]?harness)[:/](\w+)", metric, re.IGNORECASE
        )
        if found is not None and not is_task(metric):
            raise ValueError(f"a task of lm-evaluation-harness is named lm-eval:task; write lm-eval:{found[1]}")
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
        elif self.validation is not None and self.holdout is not None:
            wrong.append("validation and holdout exclude each other; keep one of them")
        elif self.validation is None and self.holdout is None:
            object.__setattr__(self, "holdout", DEFAULT_HOLDOUT)  # not among the fields that were set
        if self.test is not None and self.test_holdout is not None:
            wrong.append("test and test_holdout exclude each other; keep one of them")
        wrong += [
            f"{name} is for metrics that generate text, which {self.metric} does not; remove it"
            for name in ("max_new_tokens", "stop")
            if getattr(self, name) is not None and not generates(self.metric)
        ]
        if (self.holdout or 0) + (self.test_holdout or 0) >= 1:
            wrong.append(
                f"holdout + test_holdout < 1 must hold, and they are {self.holdout:g} and {self.test_holdout or 0:g}; "
                "leave rows to train on"
            )
        whole = [way for way in (self.messages, self.text) if way is not None]
        if {self.prompt is not None, self.completion is not None} != {not whole} or len(whole) > 1:
            wrong.append(
                "exactly one of prompt with completion, or messages, or text, must be given; "
                "write two templates, how to find the messages, or one template of plain text"
            )
        elif self.prompt is not None and self.completion is not None:
            asked = template_columns(self.prompt)
            if all(name in asked for name in template_columns(self.completion)):
                names = " and ".join(f"'{name}'" for name in template_columns(self.completion))
                wrong.append(f"every prompt would hold its own answer: {names} stands in both; take it out of prompt")
        elif self.text is not None and self.metric != "perplexity" and not is_task(self.metric):
            wrong.append(
                f"{self.metric} scores answers, and text has none; write metric: perplexity, or prompt and completion"
            )
        if wrong:
            raise ValueError("; and ".join(wrong))
        return self


_SOURCE: TypeAdapter[str | HubDataset] = TypeAdapter(Source)


def readable_parts(raw: object) -> tuple[dict[Split, str | HubDataset], list[tuple[str, str]], str | None]:
    """Return the sources, the (key, column) pairs of the templates, and the encoding of a `data:` part that has mistakes.

    Keys that are wrong themselves are left out. So files and columns can be checked as well, and one mistake hides no other.
    """
    if not isinstance(raw, Mapping):
        return {}, [], None
    sources: dict[Split, str | HubDataset] = {}
    for split in SPLITS:
        with contextlib.suppress(ValidationError):
            sources[split] = _SOURCE.validate_python(raw.get(split))
    templates = [(f"data.{name}", raw.get(name)) for name in ("prompt", "completion", "text")]
    needed = []
    messages = raw.get("messages")
    if isinstance(messages, str):
        needed = [("data.messages", messages)] if messages else []
    elif isinstance(messages, list):
        needed = [("data.messages", turn.removesuffix("?")) for turn in messages if isinstance(turn, str) and turn]
        templates += [("data.messages", turn.get("content")) for turn in messages if isinstance(turn, Mapping)]
    for key, template in templates:
        with contextlib.suppress(ValueError):
            if isinstance(template, str):
                needed += [(key, column) for column in template_columns(template)]
    if isinstance(where := raw.get("where"), Mapping):
        needed += [("data.where", column) for column in where if isinstance(column, str) and column]
    encoding = raw.get("encoding")
    return sources, needed, encoding if isinstance(encoding, str) and is_text_encoding(encoding) else None


class Item(_Frozen):
    """One example: what the model is given and what it should answer."""

    id: str = Field(description="16 hex digits of a sha256 over prompt and completion")
    prompt: str | tuple[Message, ...] = Field(description="empty where the completion is plain text to model")
    completion: str
    references: tuple[str, ...] = Field(
        (), description="further right answers; a generated text is scored against the best of them"
    )


class LeftOut(_Frozen):
    """Rows that were read but are in no split, all for one reason; `examples` are up to three places."""

    split: Split
    reason: str
    rows: int
    examples: tuple[str, ...]

    @property
    def places(self) -> str:
        """The places in brackets, as a message ends with them; empty where none is known."""
        more = ", ..." if self.rows > len(self.examples) else ""
        return f" ({', '.join(self.examples)}{more})" if self.examples else ""


class Dataset(_Frozen):
    """The three splits, in file order; every row read is in one of them, among an item's references, or in `left_out`."""

    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    test: tuple[Item, ...]
    labels: tuple[str, ...] = Field(description="sorted; empty when the metric needs none")
    left_out: tuple[LeftOut, ...]
    files: dict[str, str] = Field(description="source, as the sweep file names it -> sha256 of its content")
    label_rows: dict[str, dict[str, int]] = Field(
        {}, description="label -> split -> its rows, before any cap; the labels in order"
    )
    notes: tuple[str, ...] = Field((), description="what a reader should know: how files were read, labels alike")
    places: dict[str, str] = Field(default_factory=dict, description="id of an item -> file and line of its row")

    def digest(self, split: str) -> str:
        """Return the sha256 of a split's item ids, in order; KeyError for an unknown split."""
        items = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        return hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()
