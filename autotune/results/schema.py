"""The JSON schema of each table, for other tools: columns in order, types, bounds, meanings.

A row is described after its cells are read: an empty cell is a missing property. New columns are added only at the end, so a
reader of an older version reads a newer file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autotune.metrics import PER_WORKLOAD, WORKLOAD
from autotune.results.columns import COLUMNS, CURVES, FINALISTS, LATENCY, SERVED, SPREAD, STATUSES, Column

VERSION = 1
"""The version of the columns' meaning: another number means that the meaning of a column changed, or a column is gone."""
TABLES: dict[str, tuple[Column, ...]] = {"results": COLUMNS, "finalists": FINALISTS, "curves": CURVES}
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_KINDS = ("base", "adapter", "pair")


def json_schema(table: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a row of one of `TABLES`. `x-columns`: the columns in their order."""
    columns = TABLES[table]
    found: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"a row of {table}.csv",
        "version": VERSION,
        "type": "object",
        "required": [columns[0].name],
        "properties": {column.name: _property(column) for column in columns},
        "additionalProperties": True,
        "x-columns": [column.name for column in columns],
    }
    if table != "curves":
        found["patternProperties"] = _of_workloads([*LATENCY, *SERVED, *SPREAD])
    return found


def _property(column: Column) -> dict[str, Any]:
    said: dict[str, Any] = {"type": _TYPES[column.type], "description": column.meaning}
    if math.isfinite(column.low):
        said["minimum"] = column.low
    if math.isfinite(column.high):
        said["maximum"] = column.high
    match column.name:
        case "status":
            said["enum"] = list(STATUSES)
        case "kind":
            said["enum"] = list(_KINDS)
        case "started" | "ended":
            said["format"] = "date-time"
    return said


def _of_workloads(columns: Sequence[Column]) -> dict[str, Any]:
    """Return the pattern of the columns of further workloads, whose names end in `@` and the workload's name."""
    names = sorted(
        column.name
        for column in columns
        if column.name == "processes" or column.name.removesuffix("_low").removesuffix("_high") in PER_WORKLOAD
    )
    pattern = f"^({'|'.join(names)})@{WORKLOAD.pattern}$"
    return {pattern: {"type": "number", "description": "as the column before @, in that workload of the sweep"}}
