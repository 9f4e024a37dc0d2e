"""The task that a model was tuned for, which is shipped with it: how its prompts are written and its answers scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from autotune.data.schema import Cell, DataSpec, Message, chat_columns, chat_templates
from autotune.data.templates import Piece, parse_template, template_columns
from autotune.errors import Problem, UsageError


class Task(BaseModel):
    """The part of a sweep that a user of the model needs; fields as in `data`, `train` and `target` of a sweep file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    metric: str
    prompt: str | None = None
    completion: str | None = None
    messages: str | tuple[Message | str, ...] | None = None
    text: str | None = None
    where: dict[str, Cell | tuple[Cell, ...]] | None = None
    """Which rows of a file the task is about, as `data.where`; None: all."""
    labels: tuple[str, ...] = ()
    """The completions to choose among; empty where the metric has none."""
    max_length: int
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    encoding: str | None = None
    """How text becomes tokens, as `Inspection.encoding`."""
    pad: int | None = None
    """The token that a build names for padding; None: that of the model's own settings."""
    provider: str = "cpu"
    threads: int | None = None
    device: int | None = None
    """Which of the provider's devices; None: the first."""

    def plain(self) -> dict[str, Any]:
        """Return the task as plain data, without empty fields."""
        return self.model_dump(mode="json", exclude_none=True)

    def data(self, source: str) -> DataSpec:
        """Return the `data:` part of a sweep whose only file is `source`. Raises ValidationError."""
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("prompt", "completion", "messages", "text", "where", "metric", "max_new_tokens")
        }
        given |= {"labels": self.labels or None, "stop": self.stop or None}
        return DataSpec(train=source, **{name: value for name, value in given.items() if value is not None})

    def turns(self) -> list[tuple[str, str]]:
        """Return the turns of a prompt as (role, template); a turn without a role is the whole prompt.

        For a column of whole conversations the prompt is the user's message, for plain text the beginning of a text.
        """
        if self.text is not None:
            return [("", "{text}")]
        if chat_columns(self.messages):
            return [("user", "{text}")]
        if self.messages is None:
            return [("", self.prompt or "")]
        return [(one.role, one.content) for one in chat_templates(self.messages)[:-1]]

    def columns(self) -> list[str]:
        """Return the columns of a prompt, each once, in order."""
        return list(dict.fromkeys(name for _, text in self.turns() for name in template_columns(text)))


def read_task(about: Mapping[str, Any], file: str) -> Task:
    """Return the task in the content of a `candidate.json`. Raises UsageError where it holds none."""
    try:
        return Task.model_validate(about["task"])
    except (ValidationError, KeyError, TypeError):
        rule = "does not say how the model's prompts are written and its answers scored"
        remedy = "export the candidate again from its results folder: autotune export DIR --to FOLDER"
        raise UsageError(Problem(rule, "task", file, remedy=remedy)) from None


def filled(template: str, text: str) -> str:
    """Return a template of one column with `text` in its place."""
    parts: list[str] = []
    for piece in parse_template(template):
        parts += [piece.text, *_cell(piece, text)]
    return "".join(parts)


def _cell(piece: Piece, text: str) -> list[str]:
    return [] if piece.column is None else [piece.before or "", text]
