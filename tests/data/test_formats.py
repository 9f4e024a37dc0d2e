"""Dataset formats of TRL and its kin: conversations in several columns, and data that is made for another training."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rows import Rows, complaint, left_out, load, load_file, problems, talk

from autotune.data.conversations import conversation_in
from autotune.data.guess import guess
from autotune.data.schema import Dataset, Message
from autotune.data.templates import RowError
from autotune.errors import UsageError

TONES = ("joy", "fear", "anger")
WAY: dict[str, Any] = {"messages": ["prompt", "completion"], "metric": "choice"}


def pairs(count: int = 30, **beside: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": talk("s:Be brief.", f"u:what is {n}"), "completion": talk(f"a:{TONES[n % 3]}"), **beside}
        for n in range(count)
    ]


def table(rows: Rows) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(rows[0])
    writer.writerows([json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values()] for row in rows)
    return stream.getvalue().encode()


def parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_prompt_and_completion_of_messages_are_one_conversation(kind: str, tmp_path: Path) -> None:
    rows = pairs()
    whole = load(tmp_path, [{"messages": row["prompt"] + row["completion"]} for row in rows], messages="messages")
    if kind == "jsonl":
        dataset = load(tmp_path, rows, **WAY)
    else:
        content = table(rows) if kind == "csv" else parquet(rows)
        dataset = load_file(tmp_path, f"a.{kind}", content, **WAY)
    assert dataset.digest("train") == whole.digest("train")
    assert dataset.labels == tuple(sorted(TONES))
    first = dataset.train[0]
    assert [message.role for message in first.prompt if isinstance(message, Message)] == ["system", "user"]


@pytest.mark.parametrize(
    ("cells", "columns", "roles", "answer"),
    [
        ({"prompt": talk("u:a"), "completion": "b"}, ["prompt", "completion"], ["user"], "b"),
        ({"prompt": "a", "completion": talk("a:b")}, ["prompt", "completion"], ["user"], "b"),
        ({"prompt": talk("u:a")[0], "completion": talk("a:b")[0]}, ["prompt", "completion"], ["user"], "b"),
        ({"system": "x", "turns": talk("u:a", "a:b")}, ["system?", "turns"], ["system", "user"], "b"),
        ({"system": "", "turns": talk("u:a", "a:b")}, ["system?", "turns"], ["user"], "b"),
        (
            {"prompt": talk("u:a"), "completion": talk("a:m", "u:n", "a:b")},
            ["prompt", "completion"],
            ["user", "assistant", "user"],
            "b",
        ),
        ({"history": None, "q": "a", "r": "b"}, ["history?", "q", "r"], ["user"], "b"),
    ],
)
def test_what_each_of_several_columns_may_hold(
    cells: dict[str, Any], columns: list[str], roles: list[str], answer: str
) -> None:
    *before, last = conversation_in(cells, columns)
    assert [one.role for one in before] == roles
    assert last == Message(role="assistant", content=answer)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"prompt": [], "completion": talk("a:b")}, "empty value in 'prompt'"),
        ({"prompt": talk("u:a"), "completion": []}, "empty value in 'completion'"),
        ({"prompt": talk("u:a"), "completion": talk("u:a", "a:b")}, "the messages in 'completion' begin with those"),
        ({"prompt": "a", "completion": talk("u:b")}, "the last message is not the assistant's"),
        ({"prompt": 3, "completion": talk("a:b")}, "not a list of messages in 'prompt'"),
    ],
)
def test_what_is_in_the_way_of_a_conversation_in_columns(cells: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        conversation_in(cells, ["prompt", "completion"])


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_an_answer_whose_reasoning_would_be_lost_is_left_out(key: str, tmp_path: Path) -> None:
    rows = [
        {"chat": [*talk(f"u:{n}"), {"role": "assistant", "content": "x", key: "so" if n == 4 else ""}]}
        for n in range(20)
    ]
    (where,) = left_out(load(tmp_path, rows, messages="chat", metric="exact_match"))
    assert f"the last message has '{key}' beside its content" in where[1]
    earlier = [
        {"chat": [*talk(f"u:{n}"), {"role": "assistant", "content": "m", key: "so"}, *talk("u:on", "a:x")]}
        for n in range(20)
    ]
    assert not left_out(load(tmp_path, earlier, messages="chat", metric="exact_match"))


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}])
def test_an_answer_that_is_marked_not_to_be_learned_is_left_out(mark: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        {"chat": [*talk(f"u:{n}"), {"role": "assistant", "content": "x", **(mark if n < 3 else {})}]} for n in range(20)
    ]
    ((_, reason),) = left_out(load(tmp_path, rows, messages="chat", metric="exact_match"))
    assert reason.startswith("the last message is marked not to be learned")


def test_pictures_beside_a_conversation_are_not_lost_unseen(tmp_path: Path) -> None:
    rows = [{"chat": talk(f"u:<image> {n}", "a:x"), "images": ["a.png"] if n < 2 else []} for n in range(20)]
    ((_, reason),) = left_out(load(tmp_path, rows, messages="chat", metric="exact_match"))
    assert reason == "a message with a part in 'images': only text is taken"


@pytest.mark.parametrize("tools", [[], "", "[]", None, float("nan")])
def test_a_column_of_no_tools_offers_none(tools: object, tmp_path: Path) -> None:
    rows = [{"chat": talk(f"u:{n}", "a:x"), "tools": tools} for n in range(20)]
    assert not left_out(load(tmp_path, rows, messages="chat", metric="exact_match"))


def test_lists_by_key_are_a_conversation(tmp_path: Path) -> None:
    rows = [{"chat": {"role": ["user", "assistant"], "content": [f"q {n}", "x"]}} for n in range(20)]
    dataset = load(tmp_path, rows, messages="chat", metric="exact_match")
    assert dataset.train[0].completion == "x"


def test_a_system_column_that_no_prompt_holds_is_told(tmp_path: Path) -> None:
    rows = [{"chat": talk(f"u:{n}", "a:x"), "system": "Be kind." if n % 2 else ""} for n in range(20)]
    (note,) = load(tmp_path, rows, messages="chat", metric="exact_match").notes
    assert note.startswith("train: 10 rows have a text in 'system', which no prompt holds")
    assert "[system?, chat]" in note
    named = load(tmp_path, rows, messages=["system?", "chat"], metric="exact_match")
    assert not named.notes
    assert {len(item.prompt) for item in named.train} == {1, 2}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["a", "a"], "the columns of messages must differ"),
        (["a", "b?"], "the last column answers"),
        (["a", {"role": "assistant", "content": "{b}"}], "either columns or templates"),
        ([], "must be two or more"),
    ],
)
def test_lists_of_columns_that_are_none(messages: list[Any], said: str) -> None:
    assert said in complaint(train="a.jsonl", messages=messages)


# --- Made for another training ------------------------------------------------------------------------------------------


def refused(folder: Path, rows: Rows, **parts: Any) -> str:
    return "\n".join(map(str, problems(lambda: load(folder, rows, **({"metric": "exact_match"} | parts)))))


@pytest.mark.parametrize(
    "way",
    [{"prompt": "{prompt}", "completion": "{completion}"}, {"prompt": "Q: {prompt}", "completion": " {completion}"}],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_templates_of_messages_name_the_other_key(way: dict[str, str], kind: str, tmp_path: Path) -> None:
    if kind == "jsonl":
        said = refused(tmp_path, pairs(), **way)
    else:
        said = "\n".join(map(str, problems(lambda: load_file(tmp_path, "a.parquet", parquet(pairs()), **way))))
    assert "'prompt' and 'completion' hold messages, and a template takes text" in said
    assert "write data.messages: [prompt, completion] in place of prompt and completion" in said


def test_messages_as_text_are_told_where_both_are_and_left_where_they_are_classified(tmp_path: Path) -> None:
    content = table(pairs())
    said = str(problems(lambda: load_file(tmp_path, "a.csv", content, prompt="{prompt}", completion="{completion}"))[0])
    assert "write data.messages: [prompt, completion]" in said
    chats = table([{"chat": row["prompt"], "label": TONES[n % 3]} for n, row in enumerate(pairs())])
    dataset = load_file(tmp_path, "b.csv", chats, prompt="{chat}\nTone:", completion=" {label}")
    assert len(dataset.labels) == 3


@pytest.mark.parametrize("cell", ["text", "messages"])
def test_the_worse_answers_of_pairs_are_not_learned(cell: str, tmp_path: Path) -> None:
    def make(text: str) -> Any:
        return talk(f"a:{text}") if cell == "messages" else text

    rows = [{"prompt": f"what {n}", "chosen": make(f"good {n}"), "rejected": make(f"bad {n}")} for n in range(30)]
    ways = {name: {"messages": ["prompt", name]} if cell == "messages" else {"prompt": "{prompt}", "completion": f" {{{name}}}"}
            for name in ("chosen", "rejected")}  # fmt: skip
    said = refused(tmp_path, rows, **ways["rejected"])
    assert "'rejected' holds the answers that were judged worse" in said
    assert "name 'chosen'" in said
    assert load(tmp_path, rows, metric="exact_match", **ways["chosen"]).train


@pytest.mark.parametrize("column", ["label", "kto_tag"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_answers_with_a_verdict_are_not_all_learned(column: str, kind: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"what {n}", "completion": f"so {n}", column: n % 2 == 0} for n in range(30)]
    way = {"prompt": "{prompt}", "completion": " {completion}", "metric": "exact_match"}
    said = str(
        problems(
            lambda: load_file(tmp_path, "a.csv", table(rows), **way) if kind == "csv" else load(tmp_path, rows, **way)
        )[0]
    )
    assert f"'{column}' is false in 15 of 30 rows" in said
    assert f"rename '{column}'" in said
    good = [row for row in rows if row[column]]
    assert load(tmp_path, good, **way).train


def test_a_verdict_that_is_the_label_is_a_label(tmp_path: Path) -> None:
    rows = [{"prompt": f"what {n}", "label": n % 2 == 0} for n in range(30)]
    assert load(tmp_path, rows, prompt="{prompt}", completion=" {label}").labels == (" false", " true")


def test_steps_with_verdicts_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"what {n}", "completions": ["a", "b"], "labels": [True, False]} for n in range(30)]
    assert "stepwise supervision" in refused(tmp_path, rows, prompt="{prompt}", completion=" {completions}")


# --- init ---------------------------------------------------------------------------------------------------------------


def guessed(folder: Path, rows: Rows) -> Any:
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return guess(str(file))


def test_init_finds_conversations_in_two_columns(tmp_path: Path) -> None:
    found = guessed(tmp_path, pairs(60))
    assert (found.way, found.asks, found.answer, found.metric) == ("messages", ("prompt",), "completion", "choice")
    mixed = [{"prompt": f"what {n}", "completion": talk(f"a:so {n}")} for n in range(60)]
    found = guessed(tmp_path, mixed)
    assert (found.asks, found.answer, found.metric) == (("prompt",), "completion", "exact_match")
    whole = [{"system": "Be kind.", "conversations": talk(f"u:{n}", f"a:so {n}")} for n in range(60)]
    assert guessed(tmp_path, whole).asks == ("system",)


PREFERENCE = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (PREFERENCE, 'data.prompt: "{prompt}" and data.completion: "{chosen}"'),
        ({"chosen": talk("u:a", "a:b"), "rejected": talk("u:a", "a:c")}, "write data.messages: chosen"),
        ({"prompt": talk("u:a"), "chosen": talk("a:b"), "rejected": talk("a:c")}, "data.messages: [prompt, chosen]"),
        ({"prompt": "a", "completion": "b", "label": False}, "unpaired preference"),
        ({"prompt": "a", "completions": ["b"], "labels": [True]}, "stepwise supervision"),
        ({"prompt": "a"}, "no column answers them"),
        ({"prompt": talk("s:be", "u:a")}, "the last message is not the assistant's"),
    ],
)
def test_init_refuses_what_is_made_for_another_training(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    rows = [json.loads(json.dumps(row).replace('"a"', f'"a {n}"')) for n in range(40)]
    with pytest.raises(UsageError) as raised:
        guessed(tmp_path, rows)
    assert said in str(raised.value)


def test_nothing_else_changes_what_was_read(tmp_path: Path) -> None:
    dataset: Dataset = load(tmp_path, [{"prompt": f"p {n}", "completion": f"c {n}", "id": n} for n in range(30)],
                            prompt="{prompt}", completion=" {completion}", metric="exact_match")  # fmt: skip
    assert not dataset.notes
    assert not dataset.left_out
