"""A message is one printable line of bearable length, whatever the input was."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import Problem, did_you_mean, nearest, printable, printable_json, printable_lines, shown

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
    began = time.monotonic()
    long = "ab" * 50_000
    assert nearest(long, [long + "c"] * 100) is None
    assert nearest("name", [long] * 100_000) is None
    assert did_you_mean(long, ["name"]) == "use one of: name"
    assert time.monotonic() - began < 60
    assert nearest("nmae", ["name", "other"]) == "name"
