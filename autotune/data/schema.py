"""The `data:` part of a sweep file, and what reading it gives: items in three splits."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autotune.data.templates import template_columns
from autotune.errors import did_you_mean
from autotune.metrics import SCORES, generates, is_function, is_task

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

_HUB_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*"
HUB_TEXT = re.compile(rf"({_HUB_NAME}):([A-Za-z0-9_.\[\]:%+-]+)")


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
