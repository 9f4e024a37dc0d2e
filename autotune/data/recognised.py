"""What the columns of a file show before anything is guessed: no header, conversations, data for another kind of training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from autotune.data.conversations import conversation_in, conversation_of, holds_messages
from autotune.data.formats import CHOSEN, REJECTED
from autotune.data.sources import VERDICTS
from autotune.data.templates import RowError, is_empty
from autotune.errors import Problem, UsageError, shown

IDS = re.compile(
    r"(?i)(^|_|\b)(id|idx|index|uuid|guid|url|uri|hash|date|time|timestamp|created|updated|split|source_file|nr|no)($|_|\b)|^$|^unnamed"
)


def row_for_header(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Return why the first line of a table is probably a row and no header; empty where it is a header."""
    if list(columns) == [str(place) for place in range(len(columns))]:  # a data frame without names
        return ""
    for name in columns:
        cells = {str(row.get(name) or "").strip() for row in rows}
        if len(rows) > 1 and name in cells and len(cells) < 0.5 * len(rows):
            return f"{shown(name)} is a value of its own column, too"
        if name.startswith("__label__") or len(name.split()) > _NAME_WORDS:
            return f"{shown(name)} reads like a text"
    return ""


_NAME_WORDS = 8
"""The most words in the name of a column."""
_VERDICT = (True, False, "true", "false", "True", "False")


def refuse_foreign(path: Path, columns: Sequence[str], records: Sequence[Mapping[str, object]]) -> None:
    """Raise UsageError for data that is made for another kind of training: see `autotune.data.formats`."""

    def refuse(rule: str, remedy: str) -> NoReturn:
        raise UsageError(Problem(rule, "--data", str(path), remedy=remedy))

    talks = {name for name in columns if holds(records, name, holds_messages)}
    if {CHOSEN, REJECTED} <= set(columns):
        rule = f"'{CHOSEN}' and '{REJECTED}' are pairs of answers (DPO), which are not compared here"
        before = next((name for name in ("prompt", "question", "instruction") if name in columns), None)
        if CHOSEN in talks:
            whole = holds(records, CHOSEN, converses)
            line = f"data.messages: {CHOSEN}" if whole or before is None else f"data.messages: [{before}, {CHOSEN}]"
        else:
            line = f'data.prompt: "{{{before or "prompt"}}}" and data.completion: "{{{CHOSEN}}}"'
        refuse(rule, f"to learn the chosen answers, write {line} into a sweep file")
    if {"prompt", "completions", "labels"} <= set(columns) and holds(
        records, "completions", lambda v: isinstance(v, list)
    ):
        refuse(
            "'completions' and 'labels' hold steps and a verdict on each (stepwise supervision), which is not learned",
            "write the answer as one text in each row",
        )
    for verdict in VERDICTS:
        if {"prompt", "completion", verdict} <= set(columns) and holds(records, verdict, lambda v: v in _VERDICT):
            rule = f"'{verdict}' says which completions are good (unpaired preference, KTO), and all would be learned"
            refuse(rule, f"keep the rows where it is true, without '{verdict}'; rename it if it says something else")
    for name in columns:
        texts = [other for other in columns if other != name and not IDS.search(other)]
        if name in talks and not texts and not holds(records, name, converses):
            refuse(f"'{name}' holds messages that cannot be learned: {_reason(records, name)}", "correct these rows")
        if plain_name(name) in ("prompt", "prompts") and not texts:
            rule = f"'{name}' holds prompts, and no column answers them"
            refuse(rule, f'add a column of answers; to model the prompts as plain texts, write data.text: "{{{name}}}"')


def _reason(records: Sequence[Mapping[str, object]], name: str) -> str:
    """Return why the first cell of a column that is no conversation is none; empty where all are."""
    for row in records:
        try:
            conversation_of(row.get(name))
        except RowError as error:
            return str(error)
    return ""


def holds(records: Sequence[Mapping[str, object]], name: str, what: Callable[[object], bool]) -> bool:
    """Return whether `what` holds for most non-empty cells of a column."""
    cells = [row.get(name) for row in records[:200] if not is_empty(row.get(name))]
    return bool(cells) and sum(map(what, cells)) >= 0.5 * len(cells)


def columns_of_turns(columns: Sequence[str], records: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Return two columns whose messages form one conversation, as TRL's prompt and completion; empty where there are none."""
    talks = [name for name in columns if holds(records, name, holds_messages)]
    rows = [{"": row} for row in records]
    for first in [*talks, *(name for name in columns if name in _ASKS)]:
        for last in [*talks, *(name for name in columns if name in _ANSWERED)]:
            pair = (first, last)
            if first == last or not {first, last} & set(talks) or holds(records, last, converses):
                continue
            if holds(rows, "", partial(follows, columns=pair)):
                return pair
    return ()


_ASKS, _ANSWERED = ("prompt", "question", "instruction"), ("completion", "response", "answer", "output")
"""Columns that may hold a text where their neighbour holds messages."""


def follows(row: object, columns: Sequence[str]) -> bool:
    """Return whether the cells of these columns make one conversation."""
    try:
        return isinstance(row, Mapping) and len(conversation_in(row, columns)) > 1
    except RowError:
        return False


def converses(value: object) -> bool:
    """Return whether a cell holds a conversation that ends with the assistant."""
    if not isinstance(value, list | Mapping) and not (isinstance(value, str) and value.lstrip()[:1] in ("[", "{")):
        return False
    try:
        return len(conversation_of(value)) >= 2
    except RowError:
        return False


def plain_name(name: str) -> str:
    """Return the name of a column in lower case, its words joined by `_`."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())
