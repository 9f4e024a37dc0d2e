"""A message is one printable line of bearable length, whatever the input was."""

from __future__ import annotations

import ast
import json
import pickle
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import autotune
from autotune.errors import (
    Problem,
    StageError,
    StageStatus,
    did_you_mean,
    nearest,
    printable,
    printable_json,
    printable_lines,
    shown,
    stage_status,
)
from autotune.results.columns import STATUSES

DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("\0", "\\x00"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("na\u00efve \U0001f600 \u65e5\u672c", "na\u00efve \U0001f600 \u65e5\u672c"),
    ],
)
def test_what_commands_a_terminal_is_escaped(text: str, plain: str) -> None:
    assert printable(text) == plain
    assert str(Problem(text)) == plain
    assert str(Problem("rule", file=text, key=text, remedy=text)) == f"{plain}: {plain}: rule; {plain}"


def test_lines_stay_lines_and_json_stays_json() -> None:
    assert printable_lines("a\x1b\nb\r") == "a\\x1b\nb\\r"
    document = json.dumps({"a": "\x7f\x9b\u202e\ud800é"}, indent=1, ensure_ascii=False)
    escaped = printable_json(document)
    assert escaped == '{\n "a": "\\u007f\\u009b\\u202e\\ud800é"\n}'
    assert json.loads(escaped) == {"a": "\x7f\x9b\u202e\ud800é"}


@pytest.mark.parametrize(
    "value", [int("f" * 5000, 16), -(10**5000), "a" * 10**6, b"a" * 10**6, DEEP, [DEEP] * 50, {"k" * 10**6: DEEP}, ["a"] * 10**6],
    ids=["long hexadecimal", "long", "text", "bytes", "deep", "deep and wide", "long key", "wide"],
)  # fmt: skip
def test_a_value_is_shown_in_eighty_characters(value: Any) -> None:
    text = str(Problem("rule", value=value))
    assert "..." in text
    assert len(text) <= len("rule, got ") + 80


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts, max_size=3)
                    | st.tuples(parts) | st.tuples(parts, parts), max_leaves=5))  # fmt: skip
def test_a_small_value_is_shown_as_python_writes_it(value: Any) -> None:
    assert shown(value) == repr(value) or "..." in shown(value)


def test_long_parts_are_cut() -> None:
    text = str(Problem("r" * 5000, "k" * 5000, "f" * 5000, remedy="m" * 5000))
    assert len(text) < 3300
    assert text.count("...") == 4


def test_a_long_name_is_compared_with_nothing() -> None:
    began = time.process_time()
    long = "ab" * 50_000
    assert nearest(long, [long + "c"] * 100) is None
    assert nearest("name", [long] * 100_000) is None
    assert did_you_mean(long, ["name"]) == "use one of: name"
    assert time.process_time() - began < 60
    assert nearest("nmae", ["name", "other"]) == "name"


# --- Statuses -------------------------------------------------------------------------------------------------------

DECIDED = {"ok", "over_limit", "stopped"}
"""Statuses of rows that a stage does not raise."""


def statuses_in(source: str) -> set[str]:
    """Return every text that code gives to StageError as a status, or to what is called `status`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            values += node.args[:1] if name == "StageError" else []
            values += [word.value for word in node.keywords if word.arg == "status"]
        elif isinstance(node, ast.Assign):
            targets = [getattr(part, "attr", getattr(part, "id", "")) for part in node.targets]
            values += [node.value] if "status" in targets else []
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values += [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "status"]
        branches = [
            part
            for value in values
            for part in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
        ]
        found |= {part.value for part in branches if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return found


def test_every_status_that_a_stage_can_raise_is_one_of_a_row() -> None:
    assert set(get_args(StageStatus)) | DECIDED == set(STATUSES)
    assert statuses_in('StageError("gone" if x else "away", y)\nrow(status="a")\ndone.status = "b"\nz = {"status": "c"}') == {
        "gone", "away", "a", "b", "c"
    }  # fmt: skip
    root = Path(autotune.__file__).parent
    files = sorted(
        file for file in root.rglob("*.py") if "trackers" not in file.parts
    )  # a tracker's runs have other words
    raised = {file: statuses_in(file.read_text(encoding="utf-8")) for file in files}
    assert set(get_args(StageStatus)) <= set.union(*raised.values())
    assert {file.name: odd for file, found in raised.items() if (odd := found - set(STATUSES))} == {}


def test_a_status_of_a_row_is_taken_for_that_of_a_stage() -> None:
    assert [stage_status(status) for status in get_args(StageStatus)] == list(get_args(StageStatus))
    assert {stage_status(other) for other in (*DECIDED, "unavailable", None, 3)} == {"failed"}


@pytest.mark.parametrize("status", get_args(StageStatus))
def test_a_status_survives_its_way_from_a_worker(status: StageStatus) -> None:
    error = pickle.loads(pickle.dumps(StageError(status, "why")))
    assert (type(error), error.status, str(error)) == (StageError, status, "why")
