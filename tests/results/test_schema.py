"""The JSON schema of the tables says what is in them: held against rows that were measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import main
from autotune.results.rows import CurvePoint, Finalist, TableRow, Trial
from autotune.results.schema import TABLES, VERSION, json_schema
from autotune.results.table import read_table

ROOT = Path(__file__).parent.parent.parent
KINDS: dict[str, type[TableRow]] = {"results": Trial, "finalists": Finalist, "curves": CurvePoint}
TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def wrong(row: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    """Return which properties of a row its schema does not allow."""
    found = [name for name in schema["required"] if name not in row]
    for name, value in row.items():
        said = schema["properties"].get(name) or next(
            (one for pattern, one in schema.get("patternProperties", {}).items() if re.search(pattern, name)), None
        )
        if said is None:
            continue
        whole = isinstance(value, TYPES[said["type"]]) and (said["type"] == "boolean" or not isinstance(value, bool))
        bounds = (
            not whole or isinstance(value, str) or said.get("minimum", value) <= value <= said.get("maximum", value)
        )
        if not whole or not bounds or value not in said.get("enum", [value]):
            found.append(name)
    return found


@pytest.mark.parametrize("folder", ["results/example", "tests/fixtures/results-718160a"])
@pytest.mark.parametrize("table", TABLES)
def test_rows_of_this_and_of_an_earlier_version_are_as_the_schema_says(folder: str, table: str) -> None:
    files = sorted((ROOT / folder).rglob(f"{table}.csv"))
    rows = [row.filled() for file in files for row in read_table(file, KINDS[table])]
    assert rows, f"no {table}.csv under {folder}"
    schema = json_schema(table)
    assert [wrong(row, schema) for row in rows if wrong(row, schema)] == []
    broken = dict(rows[0]) | ({"status": "done"} if table == "results" else {schema["x-columns"][0]: 3.5})
    assert wrong(broken, schema)


def test_columns_keep_their_order_and_their_number_only_grows() -> None:
    """The first columns are those that the first version of the schema had: dashboards may count on their places."""
    first = ["candidate", "trial", "attempt", "kind", "status", "error", "started", "ended", "lora_r"]
    assert json_schema("results")["x-columns"][: len(first)] == first
    assert VERSION == 1
    assert list(json_schema("results")["properties"]) == json_schema("results")["x-columns"]


def test_a_column_of_a_workload_is_known() -> None:
    schema = json_schema("results")
    assert wrong({"candidate": "a", "itl_ms_p50_low@long": 1.5}, schema) == []
    assert wrong({"candidate": "a", "itl_ms_p50_low@long": "fast"}, schema) == ["itl_ms_p50_low@long"]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["schema", "finalists"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema("finalists")
