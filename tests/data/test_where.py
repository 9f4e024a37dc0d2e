"""`data.where`: the rows of every file that are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.data.dataset import load_dataset
from autotune.data.where import is_one_of
from autotune.errors import UsageError
from autotune.sweepfile.resolve import load_sweep
from tests.rows import complaint, jsonl, load, problems, spec, write

LANGUAGES = ("Python", "Go", "C++")


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "text": f"phrase {n}",
            "tone": ("joy", "fear")[n % 2],
            "language": LANGUAGES[n % 3],
            "stars": n % 5,
            "good": n % 2 == 0,
            "weight": (n % 4) / 2,
        }
        for n in range(count)
    ]


def taken(dataset: Any) -> set[int]:
    return {int(item.prompt.split()[2]) for item in (*dataset.train, *dataset.validation, *dataset.test)}


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        ({"language": "Go"}, lambda n: n % 3 == 1),
        ({"language": ["Go", "C++"]}, lambda n: n % 3 != 0),
        ({"language": ("Go",)}, lambda n: n % 3 == 1),
        ({"stars": 3}, lambda n: n % 5 == 3),
        ({"stars": 3.0}, lambda n: n % 5 == 3),
        ({"stars": "3"}, lambda n: n % 5 == 3),
        ({"stars": [1, "2"]}, lambda n: n % 5 in (1, 2)),
        ({"weight": 0.5}, lambda n: n % 4 == 1),
        ({"weight": 1}, lambda n: n % 4 == 2),
        ({"language": "Go", "stars": [0, 1]}, lambda n: n % 3 == 1 and n % 5 < 2),
        ({"tone": "joy"}, lambda n: n % 2 == 0),
    ],
)  # fmt: skip
def test_rows_are_taken_by_their_cells_in_every_format(tmp_path: Path, ending: str, where: Any, keeps: Any) -> None:
    name = f"rows{ending}"
    write(tmp_path / name, rows())
    dataset = load_dataset(spec(train=name, where=where, metric="perplexity"), tmp_path)
    assert taken(dataset) == {n for n in range(60) if keeps(n)}
    assert any("rows are those of data.where" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("cell", "value", "same"),
    [
        (True, True, True), ("true", True, True), ("True", True, True), ("FALSE", False, True), (1, True, False),
        ("1", True, False), (True, 1, False), (True, "true", True), (2, 2.0, True), ("2.50", 2.5, True), ("2.50", "2.5", False),
        ("go", "Go", False), (" Go", "Go", False), (None, "None", False), ("", "x", False), (float("nan"), "nan", False),
        (["Go"], "Go", False), ({"a": 1}, "a", False), ("x", 1, False), (10**30, 10**30, True), ("1e3", 1000, True),
        (2**53 + 1, 2**53, False), (str(2**53 + 1), 2**53, False), (str(2**53 + 1), 2**53 + 1, True), ("5.0", 5, True), ("0.1", 0.1, True),
    ],
)  # fmt: skip
def test_a_cell_is_compared_as_text_number_or_truth(cell: object, value: Any, same: bool) -> None:
    assert is_one_of(cell, value) is same
    assert is_one_of(cell, [value, "something else"]) is same


def test_it_counts_for_every_file_and_after_the_part_of_a_file(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", rows())
    jsonl(tmp_path / "validation.jsonl", [{**row, "text": f"other {row['text']}"} for row in rows(12)])
    given = spec(train="train.jsonl[:30]", validation="validation.jsonl", where={"language": "Python"})
    dataset = load_dataset(given, tmp_path)
    assert [int(item.prompt.split()[2]) for item in dataset.train] == list(range(0, 30, 3))
    assert len(dataset.validation) == 4
    assert [note for note in dataset.notes if "where" in note] == [
        "train.jsonl: 10 of 30 rows are those of data.where",
        "validation.jsonl: 4 of 12 rows are those of data.where",
    ]


def test_other_rows_are_other_data(tmp_path: Path) -> None:
    whole = load(tmp_path, rows(), holdout=0.3)
    part = load(tmp_path, rows(), holdout=0.3, where={"language": ["Python", "Go"]})
    every = load(tmp_path, rows(), holdout=0.3, where={"language": list(LANGUAGES)})
    assert whole.digest("train") == every.digest("train") != part.digest("train")
    assert whole.digest("validation") == every.digest("validation") != part.digest("validation")


@pytest.mark.parametrize(
    ("where", "key", "rule", "remedy"),
    [
        ({"language": "python"}, "data.where.language", "none of the 60 rows", "did you mean 'Python'?"),
        ({"language": ["Pythn"]}, "data.where.language", "has one of these in 'language'", "did you mean 'Python'?"),
        ({"language": "Haskell"}, "data.where.language", "has this in 'language'",
         "it has 'Python' (20), 'Go' (20), 'C++' (20)"),
        ({"stars": 9}, "data.where.stars", "has this in 'stars'", "it has '0' (12), '1' (12)"),
        ({"tone": "joy", "good": False}, "data.where", "has all of these at once: 'tone', 'good'", "leave one of them out"),
    ],
)  # fmt: skip
def test_a_choice_that_leaves_no_row_says_what_there_is(
    tmp_path: Path, where: Any, key: str, rule: str, remedy: str
) -> None:
    (found,) = problems(lambda: load(tmp_path, rows(), where=where))
    assert found.key == key
    assert rule in found.rule
    assert "train.jsonl" in found.rule
    assert remedy in found.remedy


def test_a_column_of_no_texts_says_so(tmp_path: Path) -> None:
    (found,) = problems(lambda: load(tmp_path, [{**row, "language": None} for row in rows()], where={"language": "Go"}))
    assert found.remedy.startswith("name another column")


def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    (found,) = problems(lambda: load(tmp_path, rows(), where={"langage": "Go"}))
    assert (found.key, found.value, found.remedy) == ("data.where", "langage", "did you mean 'language'?")


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ({}, "at least one column"), ("language", "at least one column"), (["language"], "at least one column"),
        ({"": "x"}, "names of columns"), ({1: "x"}, "names of columns"), ({"a": None}, "correct 'a'"),
        ({"a": []}, "correct 'a'"), ({"a": [None]}, "correct 'a'"), ({"a": {"b": 1}}, "correct 'a'"), ({"a": " "}, "no empty text"),
        ({"a": float("nan")}, "finite numbers only"), ({"a": [1, float("inf")]}, "finite numbers only"),
    ],
)  # fmt: skip
def test_what_names_no_cells_is_refused(where: Any, rule: str) -> None:
    assert rule in complaint(train="x.jsonl", where=where)


def test_verdicts_that_are_named_are_no_reason_to_refuse_the_rows(tmp_path: Path) -> None:
    judged = [{"text": row["text"], "tone": row["tone"], "label": row["stars"] > 1} for row in rows()]
    (found,) = problems(lambda: load(tmp_path, judged))
    assert "write data.where: {label: true}" in found.remedy
    dataset = load(tmp_path, judged, where={"label": True})
    assert taken(dataset) == {n for n in range(60) if n % 5 > 1}


def test_a_sweep_file_says_it_and_the_resolved_one_keeps_it(tmp_path: Path, tiny_llama: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", rows())
    file = tmp_path / "sweep.yaml"
    text = f"""
model: {json.dumps(str(tiny_llama))}
data:
  train: rows.jsonl
  where: {{ language: Go, stars: [1, 2], good: true }}
  prompt: "{{text}}"
  completion: " {{tone}}"
space: {{ lora: {{ r: 4 }} }}
"""
    file.write_text(text, encoding="utf-8")
    sweep = load_sweep(file)
    assert sweep.resolved()["data"]["where"] == {"language": "Go", "stars": [1, 2], "good": True}
    file.write_text(text.replace("where:", "filter:"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"write where: .COLUMN: VALUE."):
        load_sweep(file)
    # A mistake elsewhere in `data` does not hide a column that is not there.
    file.write_text(text.replace("stars:", "starz:").replace("  train:", "  holdout: 3\n  train:"), encoding="utf-8")
    with pytest.raises(UsageError, match="starz") as raised:
        load_sweep(file)
    assert any(problem.key == "data.holdout" for problem in raised.value.problems)
