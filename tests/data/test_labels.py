"""Labels that are probably one are told with their rows; those that only look a little alike are not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from rows import Rows, load, load_file, problems

from autotune.data.labels import folded, label_lines, label_notes


def noted(**rows: int) -> list[str]:
    return label_notes({label: {"train": count} for label, count in rows.items()})


def of(*labels: str, rows: int = 30) -> list[str]:
    return label_notes({label: {"train": rows} for label in labels})


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        (" billing", " billing ", "white space"),
        ("billing", "billing\u00a0", "white space"),
        ("card arrival", "card\u3000arrival", "white space"),
        ("billing", "Billing", "upper and lower case"),
        ("STRASSE", "straße", "upper and lower case"),
        ("caf\u00e9", "cafe\u0301", "the Unicode form of their characters"),
        ("ｂｉｌｌｉｎｇ", "billing", "the Unicode form of their characters"),
        ("1", "1.0", "how a number is written"),
        (" 01", " 1", "how a number is written"),
        ("-1", "-1.0", "how a number is written"),
        ("bill\u200bing", "billing", "invisible characters"),
        ("\u202ajoy\u202c", "joy", "invisible characters"),
        ("billing.", "billing", "case, spaces or punctuation"),
        ('"billing"', "billing", "case, spaces or punctuation"),
        ("“billing”", "billing", "case, spaces or punctuation"),
        ("not_spam", "not spam", "case, spaces or punctuation"),
        ("not-spam", "Not Spam", "case, spaces or punctuation"),
        ("True", "true", "upper and lower case"),
        ("sales", "s\u0430les", "letters of another alphabet that look the same"),
        ("\u0421ORE", "core", "letters of another alphabet that look the same"),
        ("R&D", "R&amp;D", "how HTML writes a character"),
        ("don&#39;t", "don't", "how HTML writes a character"),
    ],
)
def test_labels_that_are_nearly_equal_are_told(one: str, other: str, how: str) -> None:
    (note,) = of(one, other, "something else")
    assert f"(30, 30 rows) differ only in {how}, and count as 2 labels; if they are one, write " in note


@pytest.mark.parametrize(
    "labels",
    [
        ("-1", "0", "1"), ("+", "-"), (":)", ":("), ("C", "C++", "C#"), ("1 star", "11 stars", "2 stars"), ("positive", "negative"),
        ("a", "b", "c"), ("yes", "no"), ("top_up_failed", "top_up_reverted"), ("1", "10", "100"), ("joy", "toy"), ("!", "?", "."),
        ("ja", "nein"), ("是", "否"), ("да", "нет"), ("é", "e"),
    ],
)  # fmt: skip
def test_labels_that_are_several_are_not(labels: tuple[str, ...]) -> None:
    assert of(*labels) == []
    assert len({folded(label) for label in labels}) == len(labels)


@pytest.mark.parametrize("label", ["NaN", " nan", "None", "null", "N/A", "<NA>", "#N/A", "NULL", "undefined"])
def test_a_label_that_looks_like_a_missing_value_is_told(label: str) -> None:
    (note,) = of(label, "billing", "access")
    assert note.startswith(f"label {label!r} (30 rows) looks like a missing value")
    assert "empty their cells" in note


@pytest.mark.parametrize("label", ["[]", "inf", "#DIV/0!"])
def test_a_cell_that_holds_no_label_is_told(label: str) -> None:
    assert "looks like a missing value" in of(label, "billing", "access")[0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("  a", "  b"), "2 labels begin with two white space characters ('  a', '  b')"),
        ((" a\n", " b\n", " c\n"), "3 labels end in white space (' a\\n', ' b\\n' and 1 more)"),
        ((" true", " 1", " false", " 0"), "say yes and no in two ways, and count as 4 labels"),
        (("yes", "no", "y", "n"), "say yes and no in two ways"),
        ((" a|b", " a", " b", " b|a"), "2 of 4 labels look like several in one cell (' a|b', ' b|a')"),
        (("a, b", "a", "b"), "1 of 3 labels look like several in one cell ('a, b')"),
        (("['a', 'b']", "['a']", '["c"]'), "3 of 3 labels look like several in one cell"),
        ((" 0.0", " 1.0"), "are whole numbers with a fraction, as data frames write a column with empty cells"),
        ((" 0.0", " 1", " 2.0"), "are whole numbers, some with a fraction, as data frames"),
        (("'a'", "'b'"), "all labels stand in quotes"),
        (("\u0130stanbul", "istanbul", "Ankara"), "differ only in upper and lower case"),
        (("1,0", "1.0", "2"), "differ only in how a number is written"),
        (("1,5", "1.50", "2,75"), "differ only in how a number is written"),
        ((' "a"', ' "b c"', ' "d"'), "all labels stand in quotes"),
    ],
)
def test_labels_of_a_kind_that_is_probably_not_meant_are_told(labels: tuple[str, ...], said: str) -> None:
    (note,) = of(*labels)
    assert said in note


@pytest.mark.parametrize(
    "labels",
    [("New York, NY", "Paris, TX"), ("1,5", "2,5", "1,0", "2,0"), ("1,000", "1"), ("1", "0"), ("yes", "no", "maybe"), ("1", "2", "yes", "no"), ("1.0", "1.5"),
     ("R&D", "sales"), ("input/output", "memory"), ("[joy]", "fear, or worse"), ("он", "она")],
)  # fmt: skip
def test_labels_that_only_look_a_little_so_are_not(labels: tuple[str, ...]) -> None:
    assert not [note for note in of(*labels) if "[joy]" not in note]


def test_numbers_that_hardly_come_twice_are_told_as_no_labels(tmp_path: Path) -> None:
    rows = [{"text": f"phrase {n}", "tone": f"{n * 0.37:.2f}"} for n in range(60)]
    (problem,) = problems(lambda: load(tmp_path, rows))
    assert "different completions in" in problem.rule
    assert "are hardly labels" in problem.rule
    assert problem.remedy.startswith("use metric: exact_match")


def test_a_label_of_the_sweep_that_no_row_has_is_told(tmp_path: Path) -> None:
    dataset = load(tmp_path, dirty("joy", "fear"), labels=[" joy", " fear", " awe"])
    assert dataset.notes == ("data.labels has ' awe', which no row has",)


def test_a_rare_label_that_is_nearly_a_frequent_one_is_told() -> None:
    assert noted(shipping=300, billing=300, shiping=2) == [
        "label 'shiping' (2 rows) is nearly 'shipping' (300 rows); correct it in the data if it is misspelt"
    ]
    assert noted(shipping=300, shopping=280) == []


def test_many_notes_are_cut_and_many_labels_listed_in_part() -> None:
    notes = of(*itertools.chain.from_iterable((f"label {n}x", f"label {n}X") for n in range(14)))
    assert len(notes) == 11
    assert notes[-1] == "and 4 more labels like these"
    lines = label_lines({f"l{n:02}": {"train": n, "validation": 1} for n in range(25)})
    assert lines[3] == "  label 'l03': 3 train, 1 validation"
    assert lines[-1] == "  and 5 more labels (plan --json lists all)"
    assert len(lines) == 21


def dirty(*labels: Any) -> Rows:
    return [{"text": f"phrase {n}", "tone": labels[n % len(labels)]} for n in range(60)]


def test_booleans_are_labels(tmp_path: Path) -> None:
    dataset = load(tmp_path, dirty(True, False))
    assert dataset.labels == (" false", " true")
    assert {label: sum(rows.values()) for label, rows in dataset.label_rows.items()} == {" false": 30, " true": 30}
    assert dataset.notes == ()


def test_numbers_as_labels_are_listed_as_they_are_and_told(tmp_path: Path) -> None:
    dataset = load(tmp_path, dirty(1, "1", 1.0, 2, "2", 2.0))
    assert dataset.labels == (" 1", " 1.0", " 2", " 2.0")
    assert [sum(dataset.label_rows[label].values()) for label in dataset.labels] == [20, 10, 20, 10]
    assert [note.split(" differ ")[0] for note in dataset.notes] == [
        "labels ' 1', ' 1.0' (20, 10 rows)", "labels ' 2', ' 2.0' (20, 10 rows)",
    ]  # fmt: skip


def test_nulls_are_left_out_and_their_texts_are_labels_that_are_told(tmp_path: Path) -> None:
    dataset = load(tmp_path, dirty("joy", "fear", None, float("nan"), "NaN"))
    assert dataset.labels == (" NaN", " fear", " joy")
    assert {one.reason: one.rows for one in dataset.left_out} == {"empty value in 'tone'": 24}
    assert "label ' NaN' (12 rows) looks like a missing value" in dataset.notes[0]


def test_a_label_of_validation_with_a_space_too_many_has_its_remedy(tmp_path: Path) -> None:
    (problem,) = problems(lambda: load(tmp_path, dirty("joy", "fear"), [{"text": "v", "tone": "joy "}]))
    assert "which lacks ' joy ' (first in validation.jsonl:1)" in problem.rule
    assert problem.remedy.startswith("write ' joy' for ' joy ' if that is meant; else add such rows")


def test_no_labels_are_listed_where_none_are_chosen_among(tmp_path: Path) -> None:
    dataset = load(tmp_path, dirty("joy", "joy "), metric="exact_match")
    assert (dataset.labels, dataset.label_rows, dataset.notes) == ((), {}, ())


def test_labels_of_a_spreadsheet_and_of_json_are_the_same(tmp_path: Path) -> None:
    table = "text;tone\n" + "".join(f"{row['text']};{row['tone']}\n" for row in dirty("joy", "fear"))
    assert (
        load_file(tmp_path, "a.csv", table.encode("utf-16")).label_rows
        == load(tmp_path, dirty("joy", "fear")).label_rows
    )
