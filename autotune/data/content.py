"""Recognise what a text file holds, whatever its name says, and find rows that are nested one level deeper than expected."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from autotune.errors import Problem

_LOOKED_AT = 50
"""The number of first rows or lines by which the content is recognised."""
_MARKUP = re.compile(r"\s*<(?:\?xml|!--|table|html|rows?|data|root)\b", re.IGNORECASE)


def another_format(text: str, suffix: str) -> Problem | None:
    """Return the problem of a text whose format is plainly not that of its file's ending; None where they agree."""
    text = text.lstrip("\ufeff \t\r\n")
    if _MARKUP.match(text[:200]):
        return Problem(
            "the file must be rows, and its content is XML or HTML", remedy="write the rows as .csv or .jsonl"
        )
    first = text.split("\n", 1)[0].strip()
    if suffix in (".csv", ".tsv") and text.startswith(("{", "[")):
        whole = "a list" if _is(first, list) else ""
        if _is(first, dict):
            kind, ending = "JSON, one object a line", ".jsonl"
        elif whole or (text.rstrip().endswith(("}", "]")) and _is(text, (dict, list))):
            kind, ending = "JSON", ".json"
        else:
            return None
        return Problem(
            f"the file must be a table of cells, and its content is {kind}", remedy=f"rename it to end in {ending}"
        )
    if suffix in (".jsonl", ".ndjson", ".json") and (found := _delimiter(text)):
        ending = ".tsv" if found == "\t" else ".csv"
        rule = "the file must be JSON, and its content is a table with a header"
        return Problem(rule, value=first[:60], remedy=f"rename it to end in {ending}")
    return None


def _is(text: str, kind: type | tuple[type, ...]) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _delimiter(text: str) -> str | None:
    """Return the delimiter of a table, which has names in its first line and at least as many cells in the others; else
    None.
    """
    lines = [line for line in text[:100_000].splitlines()[:_LOOKED_AT] if line.strip()]
    if len(lines) < 2 or any(line.lstrip()[:1] in ("{", "[") for line in lines[:2]):
        return None
    for delimiter in ("\t", ",", ";", "|"):
        names = lines[0].split(delimiter)
        named = len(names) > 1 and all(re.fullmatch(r'\s*"?[^\W\d][\w .-]{0,40}"?\s*', name) for name in names)
        if named and all(line.count(delimiter) >= len(names) - 1 for line in lines[1:-1] or lines[1:]):
            return delimiter
    return None


def list_within(value: Mapping[str, object], wanted: Collection[str], depth: int = 4) -> list[object] | None:
    """Return the only list of objects in a mapping, or in the only mapping inside it; None where there is none, or several.

    Of several lists, the one whose objects have all `wanted` columns is returned.
    """
    lists = [part for part in value.values() if isinstance(part, list) and any(isinstance(row, dict) for row in part)]
    fitting = [rows for rows in lists if wanted and set(wanted) <= _names(rows)]
    if len(fitting) == 1 or (len(lists) == 1 and not fitting):
        return (fitting or lists)[0]
    inner = [part for part in value.values() if isinstance(part, dict)]
    if not lists and len(value) == len(inner) == 1 and depth:
        return list_within(inner[0], wanted, depth - 1)
    return None


def _names(rows: Sequence[object]) -> set[str]:
    names: set[str] = set()
    for row in rows[:_LOOKED_AT]:
        if isinstance(row, Mapping):
            names |= row.keys() | {name for part in row.values() if isinstance(part, Mapping) for name in part}
    return names


def header_of(row: object, wanted: Collection[str]) -> list[str] | None:
    """Return a list of cells if it is a header: it holds the names of all `wanted` columns, each once. Else None."""
    if not isinstance(row, list) or not wanted or not all(isinstance(name, str) for name in row):
        return None
    return row if set(wanted) <= set(row) and len(set(row)) == len(row) else None


def is_conversation(row: object) -> bool:
    """Whether a row is a bare list of messages, without a name for the column that would hold it."""
    return isinstance(row, list) and len(row) > 1 and all(isinstance(one, dict) and _ROLES & one.keys() for one in row)


_ROLES = {"role", "from"}
_MISREAD = re.compile("[\u00c2\u00c3][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[\u0080-\u00bf™œ˜¦“”]")
"""UTF-8 of letters with accents, and of typographic quotes, read as cp1252 or latin-1."""


def misread(text: str) -> list[str]:
    """Return a note on text that was read in the wrong encoding before it was saved: `fÃ¼r` for `für`."""
    found = _MISREAD.search(text)
    if found is None or len(_MISREAD.findall(text)) < _TWICE:
        return []
    words = next(one for one in re.finditer(r"\S+", text[max(0, found.start() - 40) :]) if _MISREAD.search(one[0]))[0]
    for encoding in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeError):
            meant = words.encode(encoding).decode("utf-8")
            line = text.count("\n", 0, found.start()) + 1
            return [
                f"line {line} has {words[:40]!r} for {meant[:40]!r}, and there are more like it: the text was read in the wrong "
                "encoding before it was saved; write the data again from its source"
            ]
    return []


_TWICE = 2
"""So many signs of a misread text are needed: one may be meant."""


def outer_of(names: Iterable[str], rows: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Return, for each name that is no column but a field of the objects in exactly one column, that column."""
    looked_at = rows[:_LOOKED_AT]
    found: dict[str, str] = {}
    for name in sorted(names):
        if any(name in row for row in looked_at):
            continue
        holders = {
            outer for row in looked_at for outer, part in row.items() if isinstance(part, Mapping) and name in part
        }
        if len(holders) == 1:
            found[name] = holders.pop()
    return found


def lifted(row: Mapping[str, object], outer: str) -> Mapping[str, object]:
    """Return a row with the fields of the object in its column `outer` as further columns."""
    part = row.get(outer)
    return {**part, **row} if isinstance(part, Mapping) else row
