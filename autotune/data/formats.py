"""Recognise rows that are made for another kind of training, or that need the key `data.messages`.

The forms are those of TRL's documentation (dataset formats) and LLaMA-Factory's: pairs of a chosen and a rejected answer,
answers with a verdict, steps with verdicts, prompts and completions that are lists of messages. Without this check a model
would learn them as something else than they are, or every row would be left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from autotune.data.conversations import holds_messages
from autotune.data.schema import DataSpec, chat_columns
from autotune.data.sources import HISTORY, PARTS, SYSTEMS, VERDICTS, SourceTable
from autotune.data.templates import is_empty, parse_template, template_columns
from autotune.errors import Problem

_LOOKED_AT = 100
"""The number of first rows by which the content of columns is recognised."""
CHOSEN, REJECTED = "chosen", "rejected"
_STEPS = ("completions", "labels")
_FALSE, _VERDICTS = ("false", "False", "FALSE"), ("true", "True", "TRUE", "false", "False", "FALSE")


def foreign_format(spec: DataSpec, table: SourceTable, source: str) -> Iterator[Problem]:
    """Yield a problem for each sign that the rows are made for another kind of training than learning the named answers."""
    asked, answers, key = _used(spec)
    used = {*asked, *answers, *(spec.where or ())}
    if REJECTED in answers and CHOSEN in table.columns:
        rule = f"'{REJECTED}' holds the answers that were judged worse than those in '{CHOSEN}', and would be learned"
        yield Problem(rule, key, source, remedy=f"name '{CHOSEN}': pairs of answers (DPO) are not compared here")
    verdict = next((name for name in VERDICTS if name in table.columns and name not in used), None)
    if verdict is not None and answers:
        values = [cells.get(verdict) for _, cells in table.rows]
        bad = [place for (place, _), value in zip(table.rows, values, strict=True) if value is False or value in _FALSE]
        if bad and all(isinstance(value, bool) or value in _VERDICTS for value in values if not is_empty(value)):
            rule = (
                f"'{verdict}' is false in {len(bad)} of {len(values)} rows ({bad[0]}, ...), and their answers would be "
                "learned like those where it is true (unpaired preference, KTO)"
            )
            remedy = f"write data.where: {{{verdict}: true}}, or rename '{verdict}' if it says something else"
            yield Problem(rule, key, source, remedy=remedy)
    if "completions" in answers and set(_STEPS) <= set(table.columns):
        rule = (
            "'completions' and 'labels' hold steps and a verdict on each (stepwise supervision), which is not learned"
        )
        yield Problem(rule, key, source, remedy="write the answer as one text or message in each row")
    if spec.prompt is not None and (named := _conversing(spec, table)):
        rule = f"{_named(named)} {'hold' if len(named) > 1 else 'holds'} messages, and a template takes text"
        both = list(dict.fromkeys([*asked, *answers]))
        columns = f"[{', '.join(both)}]" if len(both) > 1 else both[0]
        remedy = f"write data.messages: {columns} in place of prompt and completion"
        yield Problem(rule, "data.prompt" if set(named) & set(asked) else key, source, remedy=remedy)


def format_notes(spec: DataSpec, table: SourceTable) -> list[str]:
    """Return notes on columns that the sweep does not name although they say what belongs to the data."""
    return [*_parts_notes(spec, table), *_conversation_notes(spec, table)]


def _parts_notes(spec: DataSpec, table: SourceTable) -> list[str]:
    """Return a note for a column that names splits: rows of all of them are taken."""
    asked, answers, _ = _used(spec)
    named = {*asked, *answers, *(spec.where or ()), *(template_columns(spec.text) if spec.text else ())}
    for name in (name for name in PARTS if name in table.columns and name not in named):
        counts = Counter(str(cells.get(name)).strip().lower() for _, cells in table.rows)
        if len(counts) > 1 and counts.keys() <= _SPLIT_NAMES:
            told = ", ".join(f"{count} {part}" for part, count in counts.most_common())
            return [
                f"'{name}' says which split a row is of ({told}), and all are taken; to take those of one alone, write "
                f"data.where: {{{name}: {next(iter(counts))}}}, and write the others to a file of their own"
            ]
    return []


_SPLIT_NAMES = {
    "train", "training", "test", "testing", "validation", "valid", "val", "dev", "development", "eval", "evaluation", "holdout",
}  # fmt: skip


def _conversation_notes(spec: DataSpec, table: SourceTable) -> list[str]:
    columns = [name.removesuffix("?") for name in chat_columns(spec.messages)]
    if not columns:
        return _history_notes(spec, table)
    filled = {
        name: sum(not is_empty(cells.get(name)) for _, cells in table.rows) for name in SYSTEMS if name not in columns
    }
    return [
        f"{count} rows have a text in '{name}', which no prompt holds; to have it, write data.messages: "
        f"[{name}{'?' if count < len(table.rows) else ''}, {', '.join(columns)}]"
        for name, count in filled.items()
        if count
    ]


def _history_notes(spec: DataSpec, table: SourceTable) -> list[str]:
    """Return notes on columns with earlier turns in data of Alpaca's form: lists of pairs, also as JSON in a cell."""
    asked, answers, _ = _used(spec)
    notes = []
    for name in HISTORY:
        cells = [cells.get(name) for _, cells in table.rows if name not in (*asked, *answers)]
        filled = [
            cell
            for cell in cells
            if (isinstance(cell, list) and cell) or (isinstance(cell, str) and cell.startswith("[["))
        ]
        if filled:
            notes.append(
                f"{len(filled)} rows have earlier turns in '{name}', which no prompt holds; to have them, write each row as "
                "one list of messages, and name its column in data.messages"
            )
    return notes


def _used(spec: DataSpec) -> tuple[list[str], list[str], str]:
    """Return the columns of prompts, the columns of answers, and the sweep file's key for the answers."""
    if columns := [name.removesuffix("?") for name in chat_columns(spec.messages)]:
        return columns[:-1], columns[-1:], "data.messages"
    if spec.completion is None:
        return [], [], "data.messages"
    return list(template_columns(spec.prompt or "")), list(template_columns(spec.completion)), "data.completion"


def _conversing(spec: DataSpec, table: SourceTable) -> list[str]:
    """Return the columns of templates that hold lists of messages.

    A list as text (JSON in a CSV cell) counts only where prompt and completion are each nothing but such a column:
    elsewhere the text may be a conversation to classify.
    """
    rows = [cells for _, cells in table.rows[:_LOOKED_AT]]
    asked, answers, _ = _used(spec)
    found = [name for name in dict.fromkeys([*asked, *answers]) if _mostly_messages(rows, name, text=False)]
    alone = [_alone(template) for template in (spec.prompt, spec.completion)]
    pair = [name for name in alone if name is not None]
    if not found and len(pair) == 2 and all(_mostly_messages(rows, name, text=True) for name in pair):
        return pair
    return found


def _alone(template: str | None) -> str | None:
    """Return the column of a template that consists of one column alone; else None."""
    pieces = parse_template(template or "")
    named = [piece.column for piece in pieces if piece.column is not None]
    return named[0] if len(named) == 1 and not any(piece.text.strip() for piece in pieces) else None


def _mostly_messages(rows: Sequence[Mapping[str, object]], name: str, text: bool) -> bool:
    cells = [row.get(name) for row in rows if not is_empty(row.get(name))]
    cells = [cell for cell in cells if text or not isinstance(cell, str)]
    return bool(cells) and sum(holds_messages(cell) for cell in cells) > 0.5 * len(rows)


def _named(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
