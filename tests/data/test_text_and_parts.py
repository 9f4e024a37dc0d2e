"""Plain text to model, and some rows of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.data.dataset import load_dataset
from autotune.data.schema import DataSpec
from autotune.data.sources import Part, part_of
from autotune.errors import UsageError


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def spec(**given: Any) -> DataSpec:
    return DataSpec(train="rows.jsonl", text="{a}", metric="perplexity", **given)


def test_a_text_is_an_item_without_a_prompt(tmp_path: Path) -> None:
    write(tmp_path, [{"a": f"one thing {n} and another"} for n in range(20)])
    data = load_dataset(spec(), tmp_path)
    assert {item.prompt for item in data.train} == {""}
    assert len(data.train) + len(data.validation) == 20
    assert data.validation
    assert data.labels == ()


def test_texts_that_are_alike_are_one_and_in_one_split_only(tmp_path: Path) -> None:
    write(tmp_path, [{"a": "same"}, {"a": " Same"}, {"a": "same"}, *({"a": f"other {n}"} for n in range(30))])
    data = load_dataset(spec(holdout=0.5), tmp_path)
    texts = [item.completion for item in (*data.train, *data.validation)]
    assert sorted(text for text in texts if text.strip().casefold() == "same") == ["same"]
    assert {one.reason for one in data.left_out} == {"duplicate", "duplicate but for upper and lower case"}


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"text": "{a}"}, "write metric: perplexity"),
        ({"text": "{a}", "metric": "exact_match"}, "write metric: perplexity"),
        ({"text": "{a}", "prompt": "{a}", "completion": "{b}", "metric": "perplexity"}, "or text, must be given"),
        ({"text": "{a}", "messages": "m", "metric": "perplexity"}, "or text, must be given"),
        ({"text": "{a}", "prompt": "{a}", "metric": "perplexity"}, "or text, must be given"),
        ({"text": "nothing", "metric": "perplexity"}, "must name at least one column"),
        ({"text": "{a?}", "metric": "perplexity"}, "never empty"),
    ],
)
def test_what_does_not_go_with_text_is_refused(given: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        DataSpec(train="x.jsonl", **given)


@pytest.mark.parametrize(
    ("ending", "numbers"),
    [
        ("[:3]", [0, 1, 2]),
        ("[7:]", [7, 8, 9]),
        ("[-2:]", [8, 9]),
        ("[2:4]", [2, 3]),
        ("[:25%]", [0, 1]),
        ("[75%:]", [8, 9]),
        ("[:]", list(range(10))),
        ("[5:100]", [5, 6, 7, 8, 9]),
    ],
)
def test_some_rows_of_a_file(tmp_path: Path, ending: str, numbers: list[int]) -> None:
    write(tmp_path, [{"p": f"question {n}", "c": f"answer {n}"} for n in range(10)])
    write(tmp_path, [{"p": f"other {n}", "c": "answer"} for n in range(3)], "validation.jsonl")
    given = DataSpec(
        train=f"rows.jsonl{ending}", validation="validation.jsonl", prompt="{p}", completion="{c}", metric="perplexity"
    )
    data = load_dataset(given, tmp_path)
    assert [item.prompt for item in data.train] == [f"question {n}" for n in numbers]


def test_a_file_that_has_such_a_name_is_that_file(tmp_path: Path) -> None:
    write(tmp_path, [{"a": "x"}], "odd[:3]")
    assert part_of("odd[:3]", tmp_path) == ("odd[:3]", None)
    assert part_of("owner/name:train[:3]", tmp_path) == ("owner/name:train[:3]", None)
    assert part_of("none.jsonl", tmp_path) == ("none.jsonl", None)


def test_no_rows_are_left_of_an_empty_part(tmp_path: Path) -> None:
    write(tmp_path, [{"a": "x"}, {"a": "y"}])
    with pytest.raises(UsageError, match=r"of its 2 none is in \[5:\]"):
        load_dataset(spec(holdout=0.5).model_copy(update={"train": "rows.jsonl[5:]"}), tmp_path)


@given(st.integers(0, 500), st.integers(-120, 120), st.integers(-120, 120))
def test_percentages_stay_within_the_file(rows: int, start: int, stop: int) -> None:
    found = Part(((start, True), (stop, True))).of(rows)
    assert 0 <= len(range(rows)[found]) <= rows
