"""Encodes rows as compact columns, which the page decodes in a few milliseconds however many rows there are."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.results.columns import Cell, Column
from autotune.results.rows import TableRow

_FEW = 4
"""A column is written as `words` if it has this many times more cells than different values."""


def column_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return one column as plain data: one `constant`; or `values`; or the different values as `words`, and `of` each cell its index.

    A missing cell and a number that is not finite are None.
    """
    clean = [None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in cells]
    places: dict[tuple[type, Cell], int] = {}
    of = [places.setdefault((type(cell), cell), len(places)) for cell in clean]
    words = [cell for _, cell in places]
    if len(words) == 1:
        return {"constant": words[0]}
    if len(words) * _FEW <= len(clean) or any(isinstance(word, str) for word in words):
        return {"words": words, "of": of}
    return {"values": clean}


def columns_of(rows: Sequence[TableRow], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the columns that have at least one cell, each with its name, type and meaning."""
    found = []
    for column in columns:
        cells = [row[column.name] for row in rows]
        if any(cell is not None for cell in cells):
            kind = {str: "text", bool: "flag"}.get(column.type, "number")
            found.append({"name": column.name, "type": kind, "meaning": column.meaning, **column_of(cells)})
    return found


def packed(data: Any) -> str:
    """Return plain data as JSON, deflated (zlib) and in base64: letters, digits, `+`, `/` and `=` only."""
    form: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    try:
        text = json.dumps(data, **form)
    except ValueError:  # a damaged file holds a number that is not finite
        text = json.dumps(_finite(data), **form)
    # "replace": file names and broken outputs may hold lone surrogates, which have no UTF-8.
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode("ascii")


def _finite(data: Any) -> Any:
    """Return plain data with None where a number is not finite."""
    if isinstance(data, Mapping):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
