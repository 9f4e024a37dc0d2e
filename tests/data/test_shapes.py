"""Shapes in which people keep rows: `init` guesses from them what they say, and `plan` reads the same rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import Rows, jsonl, load, load_file, problems, spec, tones

from autotune.data.dataset import load_dataset
from autotune.data.delimited import read_delimited
from autotune.data.guess import Guess, guess, with_rows_of
from autotune.data.schema import Message

ROWS = tones(60)
PAIRS = [(row["text"], row["tone"]) for row in ROWS]


def guessed(folder: Path, name: str, content: str | bytes) -> Guess:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return guess(str(folder / name))


def told(folder: Path, name: str, content: str | bytes) -> str:
    return "\n".join(map(str, problems(lambda: guessed(folder, name, content))))


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(delimiter: str, rows: list[tuple[str, ...]], names: tuple[str, ...] = ("text", "tone")) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()


# --- Tables ------------------------------------------------------------------------------------------------------------

CELLS: dict[str, Callable[[str], str]] = {
    "commas in cells": lambda text: f"{text}, and so on, ok",
    "semicolons in cells": lambda text: f"{text}; and so on",
    "tabs in cells": lambda text: f"{text}\tand\tso",
    "several lines": lambda text: f"{text}\nand, so; on\n\nend",
    "plain": lambda text: text,
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_table_is_guessed_and_read_by_the_same_delimiter(
    ending: str, delimiter: str, kind: str, tmp_path: Path
) -> None:
    rows = [(CELLS[kind](text), tone) for text, tone in PAIRS]
    found = guessed(tmp_path, f"a.{ending}", table(delimiter, rows))
    assert (found.way, found.asks, found.answer, found.rows) == ("label", ("text",), "tone", 60)
    dataset = load_file(tmp_path, f"a.{ending}", table(delimiter, rows).encode())
    items = [*dataset.train, *dataset.validation]
    assert sorted(str(item.prompt) for item in items) == sorted(f"Text: {text}\nTone:" for text, _ in rows)


def test_decimal_commas_make_no_column_of_a_table_with_semicolons(tmp_path: Path) -> None:
    rows = [f"{text};1,5;{tone}" for text, tone in PAIRS]
    found = guessed(tmp_path, "a.csv", "\n".join(["text;price;tone", *rows]) + "\n")
    assert (found.asks, found.answer, found.labels) == (("text",), "tone", ("anger", "fear", "joy"))


QUOTED = {
    "every cell": ("'text','tone'\n", lambda text, tone: f"'{text}, ok','{tone}'\n"),
    "cells below a plain header": ("text,tone\n", lambda text, tone: f"'{text}, ok','{tone}'\n"),
    "some cells": ("tone,text\n", lambda text, tone: f"{tone},'{text}, ok'\n"),
    "doubled within": ("text,tone\n", lambda text, tone: f"'{text}, it''s','{tone}'\n"),
    "escaped within": ("text,tone\n", lambda text, tone: f"'{text}, it\\'s','{tone}'\n"),
    "semicolons": ("text;tone\n", lambda text, tone: f"'{text}; ok';'{tone}'\n"),
}


@pytest.mark.parametrize("kind", QUOTED)
def test_single_quotes_around_cells_are_none_of_the_text(kind: str, tmp_path: Path) -> None:
    head, row = QUOTED[kind]
    content = head + "".join(row(text, tone) for text, tone in PAIRS)
    dataset = load_file(tmp_path, "a.csv", content.encode())
    assert dataset.labels == (" anger", " fear", " joy")
    assert len(dataset.train) + len(dataset.validation) == 60
    prompt = str(dataset.train[0].prompt)
    assert prompt.startswith("Text: phrase ")
    assert prompt.endswith((", ok\nTone:", ", it's\nTone:", "; ok\nTone:"))
    assert "a.csv: cells are quoted with '" in dataset.notes
    assert guessed(tmp_path, "a.csv", content).labels == ("anger", "fear", "joy")


@pytest.mark.parametrize("text", ["it's {} o'clock", "'tis {}", "the boys' {}", "rock 'n' roll {}", "'{}' they said"])
def test_an_apostrophe_quotes_nothing(text: str) -> None:
    content = "text,tone\n" + "".join(f"{text.format(n)},joy\n" for n in range(20))
    found = read_delimited(content, ",", ("text", "tone"))
    assert (found.problems, found.notes) == ([], [])
    assert [line.cells for line in found.lines] == [[text.format(n), "joy"] for n in range(20)]


# --- JSON --------------------------------------------------------------------------------------------------------------


def talk(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n} of many"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "".join(json.dumps(talk(n)) + "\n" for n in range(40))),
        ("a.json", json.dumps([talk(n) for n in range(40)])),
        ("a.jsonl", json.dumps([talk(n) for n in range(40)], indent=1)),
    ],
)
def test_a_row_that_is_a_bare_list_of_messages_is_a_conversation(name: str, content: str, tmp_path: Path) -> None:
    found = guessed(tmp_path, name, content)
    assert (found.way, found.answer, found.rows) == ("messages", "messages", 40)
    dataset = load_file(tmp_path, name, content.encode(), messages="messages", metric="exact_match")
    assert len(dataset.train) + len(dataset.validation) == 40
    assert (Message(role="user", content="question 0"),) in [
        item.prompt for item in (*dataset.train, *dataset.validation)
    ]


def test_messages_in_pythons_notation_are_no_plain_text(tmp_path: Path) -> None:
    content = table(",", [(repr(talk(n)),) for n in range(40)], ("messages",))
    assert "'messages' holds messages in Python's notation" in (said := told(tmp_path, "a.csv", content))
    assert "json.dumps" in said


NESTED = {
    "translation": [{"translation": {"en": f"sentence {n}", "de": f"Satz {n} im Ganzen"}} for n in range(40)],
    "rows of a server": [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(ROWS)],
    "numbered": [{"id": n, "data": row} for n, row in enumerate(ROWS)],
}


@pytest.mark.parametrize("kind", NESTED)
def test_the_fields_of_the_only_objects_are_guessed_as_columns(kind: str, tmp_path: Path) -> None:
    found = guessed(tmp_path, "a.jsonl", lines(NESTED[kind]))
    wanted = ("en", "de") if kind == "translation" else ("text", "tone")
    assert (*found.asks, found.answer) == wanted
    parts = {"prompt": f"{{{wanted[0]}}}:", "completion": f" {{{wanted[1]}}}", "metric": "exact_match"}
    dataset = load_file(tmp_path, "a.jsonl", lines(NESTED[kind]).encode(), **parts)
    assert len(dataset.train) + len(dataset.validation) == len(NESTED[kind])


def test_rows_as_a_server_of_data_sets_wraps_them_are_guessed(tmp_path: Path) -> None:
    whole = {"features": [{"name": "text"}, {"name": "tone"}], "rows": NESTED["rows of a server"], "num_rows_total": 60}
    found = guessed(tmp_path, "a.json", json.dumps(whole))
    assert (found.asks, found.answer, found.rows) == (("text",), "tone", 60)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": n, "data": {"text": row["text"]}, "annotations": [{"result": []}]} for n, row in enumerate(ROWS)],
         "'data' holds objects, and no texts; 'annotations' holds lists"),
        ([{"title": "T", "paragraphs": [{"context": f"c {n}"}]} for n in range(40)], "'paragraphs' holds lists, and no texts"),
        ([{"body": {"text": row["text"]}, "label": row["tone"]} for row in ROWS], "'body' holds objects, and no texts"),
        ([{"text": row["text"].split(), "label": row["tone"]} for row in ROWS], "'text' holds lists, and no texts"),
        ([{"id": n} for n in range(40)], "no column holds texts"),
        ([{"text": f"{n}\0", "label": "ab"[n % 2]} for n in range(40)], "'text' holds no text that a prompt could take (a NUL character)"),
    ],
)  # fmt: skip
def test_texts_within_lists_and_objects_are_named_and_no_number_is_modelled_in_their_place(
    rows: Rows, said: str, tmp_path: Path
) -> None:
    assert said in told(tmp_path, "a.jsonl", lines(rows))


# --- What the columns are ----------------------------------------------------------------------------------------------


def test_labels_that_only_some_rows_have_are_labels(tmp_path: Path) -> None:
    rows = [{"text": f"phrase {n}", "label": ("1.0", "0.0", "", "")[n % 4]} for n in range(60)]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.way, found.metric, found.labels) == ("label", "choice", ("0.0", "1.0"))


def test_a_few_rows_with_a_column_of_that_name_have_labels(tmp_path: Path) -> None:
    found = guessed(tmp_path, "a.jsonl", lines([{"text": f"phrase {n}", "label": "ab"[n % 2]} for n in range(5)]))
    assert (found.way, found.metric, found.labels) == ("label", "choice", ("a", "b"))


@pytest.mark.parametrize(
    ("asked", "reply"), [("instruction", "response"), ("instruction", "output"), ("prompt", "completion")]
)
def test_a_category_beside_an_answer_is_not_what_is_learned(asked: str, reply: str, tmp_path: Path) -> None:
    rows = [
        {asked: f"do this {n}", "context": "", reply: f"this was done {n} times or so", "category": "ab"[n % 2] * 3}
        for n in range(60)
    ]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.way, found.answer, found.asks) == ("answer", reply, (asked,))
    assert "'category' could be labels, too, and is not used" in found.why


@pytest.mark.parametrize(
    ("asked", "reply", "beside"),
    [("question", "answer", "category"), ("question", "answer", "round"), ("document", "summary", "source"), ("article", "highlights", "lang")],
)  # fmt: skip
def test_what_answers_a_question_or_a_document_is_learned_and_not_what_it_is_about(
    asked: str, reply: str, beside: str, tmp_path: Path
) -> None:
    rows = [{asked: f"what of {n}", reply: f"it is {n} times that", beside: "ab"[n % 2] * 3} for n in range(60)]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.way, found.answer, found.asks) == ("answer", reply, (asked,))
    assert f"'{beside}' could be labels, too, and is not used" in found.why


@pytest.mark.parametrize("name", ["label", "sentiment", "Score", "stars"])
def test_labels_by_their_name_come_before_answers(name: str, tmp_path: Path) -> None:
    rows = [{"question": f"what of {n}", "answer": f"it is {n} times that", name: n % 3} for n in range(60)]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.way, found.answer, found.asks) == ("label", name, ("question", "answer"))


@pytest.mark.parametrize("name", ["Class Index", "label_id", "category-id"])
def test_the_number_of_a_class_is_no_number_of_a_row(name: str, tmp_path: Path) -> None:
    rows = [{name: n % 4 + 1, "Title": f"of {n}", "Description": f"all that is to say of {n}"} for n in range(60)]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.way, found.answer, found.asks) == ("label", name, ("Title", "Description"))


@pytest.mark.parametrize("name", ["id", "row_id", "index", "date"])
def test_the_number_of_a_row_is_no_label(name: str, tmp_path: Path) -> None:
    rows = [{name: n % 4 + 1, "title": f"of {n}", "description": f"all that is to say of {n}"} for n in range(60)]
    assert guessed(tmp_path, "a.jsonl", lines(rows)).answer != name


def test_an_answer_of_few_values_beside_a_category_holds_the_labels(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"judge {n}", "output": ("good", "bad")[n % 2], "category": "abc"[n % 3]} for n in range(60)
    ]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.way, found.answer, found.labels) == ("label", "output", ("bad", "good"))


def test_other_columns_of_few_values_are_named(tmp_path: Path) -> None:
    rows = [{"text": text, **{name: int(name == tone) for name in ("anger", "fear", "joy")}} for text, tone in PAIRS]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.answer, found.why[1]) == ("joy", "'anger' and 'fear' could be labels, too, and are not used")


def test_the_choices_of_an_exam_belong_to_the_prompt(tmp_path: Path) -> None:
    rows = [
        {"question": f"what is {n}?", **{name: f"{name.lower()} of {n}" for name in "ABCD"}, "answer": "ABCD"[n % 4]}
        for n in range(60)
    ]
    found = guessed(tmp_path, "a.jsonl", lines(rows))
    assert (found.answer, found.asks) == ("answer", ("question", "A", "B", "C", "D"))


def test_the_number_of_a_row_needs_no_better_name(tmp_path: Path) -> None:
    content = table(",", [(str(n), text, tone) for n, (text, tone) in enumerate(PAIRS)], ("Unnamed: 0", "text", "tone"))
    assert not any("rename" in line for line in guessed(tmp_path, "a.csv", content).why)
    assert any(
        "rename 'the.text'" in line
        for line in guessed(tmp_path, "b.csv", content.replace("Unnamed: 0", "the.text")).why
    )


# --- Other splits ------------------------------------------------------------------------------------------------------


def test_lengths_hold_for_the_rows_of_other_splits(tmp_path: Path) -> None:
    found = guessed(
        tmp_path, "a.jsonl", lines([{"question": f"what {n}", "answer": f"that is {n} of them all"} for n in range(40)])
    )
    longer = jsonl(tmp_path / "b.jsonl", [{"question": "what " * 300, "answer": "that " * 200}])
    both = with_rows_of(found, longer)
    assert both.longest_prompt > 400 > found.longest_prompt
    assert both.longest_answer > 300 > found.longest_answer
    assert both.long_tokens > 400
    assert with_rows_of(both, str(tmp_path / "a.jsonl")) == both
    assert with_rows_of(found, str(tmp_path / "none.jsonl")) == found


def test_lengths_hold_for_conversations_of_other_splits(tmp_path: Path) -> None:
    found = guessed(tmp_path, "a.jsonl", lines([{"messages": talk(n)} for n in range(40)]))
    long = [{"role": "user", "content": "what " * 300}, {"role": "assistant", "content": "that " * 200}]
    both = with_rows_of(found, jsonl(tmp_path / "b.jsonl", [{"messages": long}]))
    assert both.longest_prompt > 400 > found.longest_prompt
    assert both.longest_answer > 300 > found.longest_answer


def test_a_column_that_names_splits_is_told(tmp_path: Path) -> None:
    rows = [{**row, "split": "test" if n % 4 == 3 else "train"} for n, row in enumerate(ROWS)]
    (note,) = load(tmp_path, rows).notes
    assert "'split' says which split a row is of (45 train, 15 test), and all are taken" in note
    assert not any("split a row is of" in note for note in load(tmp_path, rows, where={"split": "train"}).notes)
    assert load(tmp_path, [{**row, "split": "abc"[n % 3]} for n, row in enumerate(ROWS)]).notes == ()


# --- What is lost or mangled -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["für", "naïve", "“quoted”", "it’s", "señor", "Übung"])
def test_a_text_that_was_read_in_the_wrong_encoding_is_told(word: str, tmp_path: Path) -> None:
    wrong = word.encode().decode("cp1252", "ignore") if word != "“quoted”" else "â€œquotedâ€œ"
    content = "text,tone\n" + "".join(f"{wrong} {n},{('joy', 'fear')[n % 2]}\n" for n in range(40))
    dataset = load_file(tmp_path, "a.csv", content.encode())
    assert any("wrong encoding" in note for note in dataset.notes), dataset.notes


@pytest.mark.parametrize("text", ["für Straße", "naïve café", "SÃO PAULO", "Â 5", "日本語", "“quoted” – it’s", "5 €"])
def test_a_text_with_letters_of_its_own_is_not(text: str, tmp_path: Path) -> None:
    content = "text,tone\n" + "".join(f"{text} {n},{('joy', 'fear')[n % 2]}\n" for n in range(40))
    assert load_file(tmp_path, "a.csv", content.encode()).notes == ()


def test_a_file_of_duplicates_has_a_remedy_for_duplicates(tmp_path: Path) -> None:
    (problem,) = problems(lambda: load(tmp_path, [{"text": "the same", "tone": "joy"}] * 40))
    assert (problem.key, problem.remedy) == ("data.holdout", "add other rows")


@pytest.mark.parametrize("metric", ["exact_match", "perplexity"])
def test_rows_with_one_prompt_for_all_are_told_so(metric: str, tmp_path: Path) -> None:
    rows = [{"text": "Tell me a joke.", "tone": f"joke {n}"} for n in range(30)]
    found = problems(lambda: load(tmp_path, rows, metric=metric))
    assert all("all 30 usable rows have the same prompt" in problem.rule for problem in found)
    assert all("name a column in it whose texts differ" in problem.remedy for problem in found)


def test_a_path_of_windows_is_compared_by_its_last_part(tmp_path: Path) -> None:
    for name in ("t.jsonl", "lat.jsonl"):
        jsonl(tmp_path / name, ROWS)
    found: Any = problems(lambda: load_dataset(spec(train="C:\\data\\t.jsonl"), tmp_path))
    assert found[0].remedy == f"did you mean '{(tmp_path / 't.jsonl').as_posix()}'?"
