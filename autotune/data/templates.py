"""Templates of prompts and completions: `{column}` filled from a row.

{column}        the cell; a row whose cell is empty is left out
{column?}       the cell, or nothing where it is empty
{column?TEXT}   TEXT and then the cell, or nothing at all: "{instruction}{input?\\n\\nInput: }"
{{ and }}       braces themselves
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple


class RowError(ValueError):
    """A row cannot become an item; the message is the reason under which it is left out."""


class Piece(NamedTuple):
    """Text, and the column that follows it: None at the end; `before`: what precedes a cell that may be empty."""

    text: str
    column: str | None = None
    before: str | None = None


@lru_cache(maxsize=256)
def parse_template(template: str) -> tuple[Piece, ...]:
    """Split a template into texts and columns. Raises ValueError, with the position, if it is malformed."""
    pieces: list[Piece] = []
    end = 0
    for found in re.finditer(r"\{\{|\}\}|\{([^{}]*)\}|[{}]", template):
        text, mark, inside = template[end : found.start()], found[0], found[1]
        place = f"at character {found.start() + 1}"
        end = found.end()
        if mark in ("{{", "}}"):
            pieces.append(Piece(text + mark[0]))
            continue
        if inside is None:
            state = "never closed" if mark == "{" else "never opened"
            raise ValueError(f"'{mark}' {place} is {state}; write '{mark * 2}' for a brace itself")
        column, optional, before = inside.partition("?")
        if not column.strip() or re.search(r"[.\[\]!:]", column):
            raise ValueError(
                f"'{mark}' {place} must be a plain column name in braces, without '.', '[', '!' or ':'; "
                f"{'write a nested field into a column of its own' if '.' in column else 'rename the column'}, or write "
                "'{{' and '}}' for braces themselves"
            )
        pieces.append(Piece(text, column.strip(), before if optional else None))
    pieces.append(Piece(template[end:]))
    return tuple(pieces)


def template_columns(template: str, optional: bool = True) -> tuple[str, ...]:
    """Return the columns that a template names, each once, in order; with `optional` also those whose cell may be empty.

    Raises ValueError if the template is malformed.
    """
    pieces = parse_template(template)
    names = [piece.column for piece in pieces if piece.column is not None and (optional or piece.before is None)]
    return tuple(dict.fromkeys(names))


def render(template: str, row: Mapping[str, object]) -> str:
    """Fill a template from a row. Raises RowError if a value is missing, blank or not text; ValueError if it is malformed."""
    parts: list[str] = []
    for text, column, before in parse_template(template):
        parts.append(text)
        if column is None:
            continue
        value = row.get(column)
        if before is None:
            parts.append(cell_text(value, column))
        elif not is_empty(value):
            parts += [before, cell_text(value, column)]
    return "".join(parts)


def is_empty(value: object) -> bool:
    """Return whether a cell holds nothing: null, white space, NaN."""
    match value:
        case None:
            return True
        case str():
            return not value.strip()
        case float():
            return math.isnan(value)  # how data frames write null
        case _:
            return False


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bytes, "bytes"),
    ((list, tuple), "a list"),
    (Mapping, "an object"),
)


def cell_text(value: object, column: str = "") -> str:
    """Return a cell as text: `true` and `false` as JSON has them, dates in ISO 8601. Raises RowError, with the column."""
    within = f" in '{column}'" if column else ""
    if is_empty(value):
        raise RowError(f"empty value{within}")
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float() | Decimal() | datetime.date() | datetime.time():
            try:
                text = str(value)
                text.encode()  # half a surrogate pair can be neither hashed nor tokenised
            except ValueError:  # also an int of thousands of digits
                what = "half a character" if isinstance(value, str) else "a number of thousands of digits"
                raise RowError(f"not text, but {what}{within}") from None
            if "\0" in text:  # padding of a torn file; tokenizers and databases end a text there
                raise RowError(f"a NUL character{within}")
            return text
        case _:
            what = next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__)
            if isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
                what += " of messages" if any("content" in one or "value" in one for one in value) else " of objects"
            raise RowError(f"not text, but {what}{within}")
