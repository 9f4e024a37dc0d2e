"""Templates of prompts and completions: `{column}` filled from a row."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache


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
        text if column is None else text + cell_text(row.get(column)) for text, column in parse_template(template)
    )


def cell_text(value: object) -> str:
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
