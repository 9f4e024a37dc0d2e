"""Take the rows of a file that `data.where` names: those whose cells are, as texts or numbers, what the sweep file says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from autotune.data.records import Record
from autotune.data.schema import Cell, Where
from autotune.data.templates import RowError, cell_text
from autotune.errors import Problem, nearest, shown

_SHOWN = 5
"""The most values of a column that a message lists."""


def is_one_of(cell: object, values: Cell | Sequence[Cell]) -> bool:
    """Whether a cell is one of the values: the same text, the same number however it is written, or the same truth."""
    try:
        text = cell_text(cell)
    except RowError:  # empty, or no text: a list, an object
        return False
    return any(_is(text, value) for value in ([values] if isinstance(values, str | int | float) else values))


def _is(text: str, value: Cell) -> bool:
    match value:
        case bool():
            return text.strip().lower() == ("true" if value else "false")
        case str():
            return text == value
        case int():  # exactly: numbers that name something may be longer than a float holds
            try:
                return Decimal(text) == value
            except ArithmeticError:
                return False
        case _:
            try:
                return float(text) == value
            except ValueError:
                return False


def rows_where(records: Sequence[Record], where: Where) -> list[Record]:
    """Return the rows of which every named cell is one of its values."""
    return [one for one in records if all(is_one_of(one.cells.get(name), values) for name, values in where.items())]


def none_where(records: Sequence[Record], where: Where, file: str, sweep_file: str) -> Problem:
    """Return the problem that no row of a file is one that `where` names; there are some rows."""
    first = next((name for name in where if not rows_where(records, {name: where[name]})), None)
    rows = f"none of the {len(records)} rows of {file}"
    if first is None:
        rule = f"{rows} has all of these at once: {', '.join(map(shown, where))}"
        return Problem(rule, "data.where", sweep_file, value=_plain(where), remedy="leave one of them out")
    wanted = where[first]
    rule = f"{rows} has {'one of these' if isinstance(wanted, tuple) else 'this'} in {shown(first)}"
    held = _held(records, first)
    value = list(wanted) if isinstance(wanted, tuple) else wanted
    return Problem(rule, f"data.where.{first}", sweep_file, value=value, remedy=_remedy(wanted, held))


def _held(records: Sequence[Record], name: str) -> Counter[str]:
    """Return how often a column has each text."""
    held: Counter[str] = Counter()
    for record in records:
        try:
            held[cell_text(record.cells.get(name))] += 1
        except RowError:
            continue
    return held


def _remedy(wanted: Cell | Sequence[Cell], held: Counter[str]) -> str:
    if not held:
        return "name another column: its cells are empty, or hold no text"
    texts = [str(value) for value in ([wanted] if isinstance(wanted, str | int | float) else wanted)]
    folded = {text.strip().casefold(): text for text in held}
    near = next((folded[text.strip().casefold()] for text in texts if text.strip().casefold() in folded), None)
    near = near or next((found for text in texts if (found := nearest(text, held))), None)
    if near is not None:
        return f"did you mean {shown(near)}?"
    told = ", ".join(f"{shown(text)} ({count})" for text, count in held.most_common(_SHOWN))
    return f"it has {told}{', ...' if len(held) > _SHOWN else ''}"


def _plain(where: Where) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in where.items()}
