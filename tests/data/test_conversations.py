"""Conversations as data sets write them, and what is in the way of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import Rows, left_out, load, load_file

from autotune.data.conversations import conversation_of
from autotune.data.schema import Message
from autotune.data.templates import RowError

OPENAI: list[dict[str, Any]] = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
PARTS = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in OPENAI]
WANTED = [Message(role="user", content="one"), Message(role="assistant", content="two")]


@pytest.mark.parametrize(
    "value",
    [
        OPENAI,
        PARTS,
        [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}],
        [{"from": "Human", "value": "one", "weight": None}, {"from": "GPT", "value": "two", "weight": 1}],
        [{"role": "user", "value": "one"}, {"from": "assistant", "content": "two"}],
        [{"from": "user", "value": "one"}, {"from": "chatgpt", "value": "two"}],
        [{"role": "prompter", "content": "one"}, {"role": "model", "content": "two"}],
        [{"role": "user", "content": ["one"]}, {"role": "assistant", "content": {"type": "text", "text": "two"}}],
        [
            {"role": "user", "content": "one", "tool_calls": None},
            {"role": "assistant", "content": "two", "tool_calls": []},
        ],
        json.dumps(OPENAI),
        {"messages": OPENAI},
    ],
)
def test_turns_are_read_however_they_are_written(value: object) -> None:
    assert conversation_of(value) == WANTED


def test_systems_and_parts() -> None:
    for role in ({"role": "system"}, {"from": "system"}, {"role": "developer"}):
        first = conversation_of([role | {"value": "Be brief."}, *OPENAI])[0]
        assert first == Message(role="system", content="Be brief.")
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert conversation_of([{"role": "user", "content": parts}, OPENAI[1]])[0].content == "a\nb"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty value"),
        ("", "empty value"),
        (OPENAI[:1], "fewer than two messages"),
        ([*OPENAI, OPENAI[0]], "the last message is not the assistant's, but the user's"),
        ([OPENAI[0], {"from": "gpt", "value": " "}], "empty completion"),
        ([{"role": "user", "content": ""}, OPENAI[1]], "an empty message"),
        (
            [{"role": "user", "content": [{"type": "image"}]}, OPENAI[1]],
            "a message with a part of type 'image': only text",
        ),
        ([{"role": "user", "content": [{"type": "image_url", "text": "x"}]}, OPENAI[1]], "a part of type 'image_url'"),
        ([OPENAI[0], {"role": "tool", "content": "x"}, OPENAI[1]], "tools are not taken"),
        ([OPENAI[0], {"from": "observation", "value": "x"}, OPENAI[1]], "tools are not taken"),
        ([OPENAI[0], {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}], "tools are not taken"),
        ([OPENAI[0], {"role": "assistant", "function_call": {"name": "f"}}], "tools are not taken"),
        (
            [{"role": "critic", "content": "x"}, OPENAI[1]],
            "a message of the role 'critic', not system, user or assistant",
        ),
        ([{"who": "x", "text": "y"}, OPENAI[1]], "a message without 'role' or 'from', but with 'who', 'text'"),
        (
            [{"role": "user", "message": "y"}, OPENAI[1]],
            "a message without 'content' or 'value', but with 'role', 'message'",
        ),
        ([["user", "hi"], ["assistant", "ho"]], "a message that is no object"),
        ("[{'role': 'user', 'content': 'x'}]", "messages in Python's notation"),
        ("hello", "not a list of messages, but text"),
        (3, "not a list of messages"),
        ([{"role": "user", "content": "\ud83d"}, OPENAI[1]], "not text, but half a character in 'content'"),
    ],
)
def test_what_is_in_the_way_is_named(value: object, reason: str) -> None:
    with pytest.raises(RowError) as raised:
        conversation_of(value)
    assert reason in str(raised.value)


def rows_of(turns: list[dict[str, Any]], **beside: Any) -> Rows:
    text = json.dumps(turns)
    return [
        {"id": n, "chat": json.loads(text.replace("one", f"one {n}").replace("two", ("yes", "no")[n % 2])), **beside}
        for n in range(30)
    ]


@pytest.mark.parametrize("turns", [OPENAI, PARTS, [{"from": "human", "value": "one"}, {"from": "gpt", "value": "two"}]])
def test_files_of_conversations_give_the_same_items(turns: list[dict[str, Any]], tmp_path: Path) -> None:
    wanted = load(tmp_path, rows_of(OPENAI), messages="chat", metric="exact_match")
    assert len(wanted.train) + len(wanted.validation) == 30
    rows = rows_of(turns)
    assert load(tmp_path, rows, messages="chat", metric="exact_match").digest("train") == wanted.digest("train")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    assert load_file(tmp_path, "a.parquet", content, messages="chat", metric="exact_match").digest(
        "train"
    ) == wanted.digest("train")
    table = "id;chat\n" + "".join(
        f'{row["id"]};"{json.dumps(row["chat"]).replace(chr(34), chr(34) * 2)}"\n' for row in rows
    )
    assert load_file(tmp_path, "a.csv", table.encode(), messages="chat", metric="exact_match").digest(
        "train"
    ) == wanted.digest("train")


def test_one_bad_conversation_costs_one_row(tmp_path: Path) -> None:
    rows = [*rows_of(OPENAI), {"chat": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]}]
    dataset = load(tmp_path, rows, messages="chat", metric="exact_match")
    assert left_out(dataset) == {
        ("train", "a message that calls a tool or answers for one: tools are not taken"): (1, ("train.jsonl:31",))
    }


def test_rows_that_offer_tools_are_left_out_and_empty_ones_stay(tmp_path: Path) -> None:
    rows = [*rows_of(OPENAI, tools=[]), *({**row, "id": 1, "tools": [{"name": "f"}]} for row in rows_of(OPENAI)[:2])]
    dataset = load(tmp_path, rows, messages="chat", metric="exact_match")
    assert left_out(dataset) == {
        ("train", "tools are offered, and no tool is written into the prompt"): (
            2,
            ("train.jsonl:31", "train.jsonl:32"),
        )
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "type", "text"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(anything | st.lists(anything, min_size=2, max_size=4))
def test_anything_is_a_conversation_or_has_a_reason(value: object) -> None:
    try:
        messages = conversation_of(value)
    except RowError as error:
        assert str(error)  # noqa: PT017
    else:
        assert messages[-1].role == "assistant"


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "1"}]}],
        [{"role": "prompter", "text": "q"}, {"role": "assistant", "text": "1"}],
        [{"role": "User", "message": None, "content": "q"}, {"role": "Chatbot", "content": "1"}],
        [{"speaker": "human", "utterance": "q"}, {"speaker": "bot", "utterance": "1"}],
        [{"human": "q", "assistant": "1"}],
        [{"system": "", "user": "q", "assistant": "1"}],
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": 1}],
    ],
)
def test_turns_by_the_names_of_other_services_are_read(turns: list[dict[str, object]]) -> None:
    assert [(one.role, one.content) for one in conversation_of(turns)] == [("user", "q"), ("assistant", "1")]


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        (["q", "a"], "a message that is no object, but str"),
        ([{"assistant": "a", "human": "q"}], "a message without 'role' or 'from', but with 'assistant', 'human'"),
        ([{"human": "q", "answer": "a"}], "a message without 'role' or 'from'"),
    ],
)
def test_turns_whose_order_or_names_are_unclear_are_not(turns: list[object], said: str) -> None:
    with pytest.raises(RowError, match=said):
        conversation_of(turns)
