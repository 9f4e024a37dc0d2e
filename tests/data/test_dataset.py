"""Labelled text in, three splits out: readers, templates, cleaning, splitting, and every way for data to be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rows import PUBLIC, TEMPLATES, Rows, complaint, jsonl, keys, left_out, load, problems, spec, talk, tones, write

from autotune.data.dataset import load_dataset
from autotune.data.items import normalise
from autotune.data.schema import FORMATS, Dataset, DataSpec, HubDataset, LeftOut, Message
from autotune.data.templates import RowError, parse_template, render, template_columns
from autotune.errors import Problem, UsageError

# --- Templates -------------------------------------------------------------------------------------------------------


def test_a_template_is_filled_from_columns() -> None:
    row = {"a": "x", "Label Text": "y", "n": 3, "f": 0.5, "d": Decimal("1.50"), "": "never"}
    assert render("{a}-{Label Text} {{a}} {n} {f} {d}{{}}", row) == "x-y {a} 3 0.5 1.50{}"
    assert render("{{{a}}}", row) == "{x}"
    assert render("{a}", {"a": "{n}"}) == "{n}"  # what stands in a cell is never a template
    assert template_columns("{b} {a} {b} {{c}}") == ("b", "a")


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("Text: {text", "'{' at character 7 is never closed; write '{{'"),
        ("Text: text}", "'}' at character 11 is never opened; write '}}'"),
        ("{{text}", "'}' at character 7"),
        ("{", "'{' at character 1"),
        ("{a{b}}", "'{' at character 1"),
        ("{}", "'{}' at character 1 must be a plain column name"),
        ("{ }", "'{ }' at character 1"),
        ("{text.__class__}", "'{text.__class__}' at character 1"),
        ("a {text[0]}", "'{text[0]}' at character 3"),
        ("{text!r}", "must be a plain column name"),
        ("{text:>9}", "must be a plain column name"),
    ],
)
def test_a_malformed_template_is_refused_with_its_position(template: str, told: str) -> None:
    with pytest.raises(ValueError, match="at character") as raised:
        parse_template(template)
    assert told in str(raised.value)
    assert told in complaint(train="a.jsonl", holdout=0.5, prompt=template)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty value"),
        ("", "empty value"),
        (" \n\u3000", "empty value"),
        (float("nan"), "empty value"),
        (["a"], "not text, but a list"),
        ({"a": 1}, "not text, but an object"),
        (b"a", "not text, but bytes"),
        ("half a pair \ud83d", "not text, but half a character"),
        pytest.param(10**5000, "not text, but a number of thousands of digits", id="5001 digits"),
    ],
)
def test_a_value_that_is_no_text_has_a_reason(value: object, reason: str) -> None:
    with pytest.raises(RowError, match=rf"^{reason} in 'text'$"):
        render("{text}", {"text": value})
    with pytest.raises(RowError, match=r"^empty value in 'text'$"):
        render("{text}", {})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(st.text(alphabet="ab{}[].!: \n") | st.text(), st.dictionaries(st.sampled_from("ab"), anything))
def test_rendering_raises_nothing_but_value_errors(template: str, row: dict[str, object]) -> None:
    try:
        rendered = render(template, row)
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        rendered.encode()


@given(st.text())
def test_escaped_text_renders_as_itself(text: str) -> None:
    assert render(text.replace("{", "{{").replace("}", "}}"), {}) == text


# --- The data part of a sweep file -----------------------------------------------------------------------------------


def test_a_spec_survives_a_round_trip_and_cannot_change() -> None:
    for parts in (
        {"train": "a.jsonl", "validation": "b.csv", "max_items": {"validation": 300}, "labels": [" a", " b"]},
        {"train": {"dataset": "me/tones", "config": "en", "split": "train"}, "holdout": 0.1, "test_holdout": 0.2},
        {"train": "a.jsonl", "holdout": 0.3, "messages": "conversation", "metric": "my.module:score"},
        {
            "train": "a.jsonl",
            "holdout": 0.3,
            "messages": [{"role": "user", "content": "{q}"}, {"role": "assistant", "content": "{a}"}],
        },
    ):
        given_spec = spec(**parts)
        assert DataSpec.model_validate(json.loads(given_spec.model_dump_json())) == given_spec
        assert DataSpec.model_validate(given_spec.model_dump(mode="json", exclude_none=True)) == given_spec
        with pytest.raises(ValidationError):
            given_spec.metric = "f1"  # type: ignore[misc]


ASK = {"role": "user", "content": "{q}"}
ANSWER = {"role": "assistant", "content": "{a}"}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"validation": "b.jsonl", "holdout": 0.2}, "validation and holdout exclude each other; keep one of them"),
        ({"test_holdout": 0.9}, "holdout + test_holdout < 1 must hold, and they are 0.2 and 0.9"),
        ({"encoding": "utf-9"}, "encoding must be one that Python knows"),
        ({"encoding": "hex"}, "encoding must be one that Python knows"),
        ({"completion": "{tone?}"}, "a completion must name a column that is never empty"),
        ({"messages": [ASK, ANSWER | {"content": "{a?}"}]}, "the last message must name a column that is never empty"),
        ({"holdout": 0.2, "test": "c.jsonl", "test_holdout": 0.2}, "test and test_holdout exclude each other"),
        ({"holdout": 0.5, "test_holdout": 0.5}, "holdout + test_holdout < 1"),
        ({"holdout": 0}, "greater than 0"),
        ({"holdout": 1}, "less than 1"),
        ({"holdout": float("nan")}, "holdout"),
        ({"holdout": 0.2, "prompt": None}, "exactly one of prompt with completion, or messages"),
        ({"holdout": 0.2, "completion": None}, "exactly one of prompt with completion, or messages"),
        ({"holdout": 0.2, "messages": "m", "prompt": "{a}"}, "exactly one of prompt with completion, or messages"),
        ({"holdout": 0.2, "messages": "m", **TEMPLATES}, "exactly one of prompt with completion, or messages"),
        ({"holdout": 0.2, "prompt": "no column"}, "must name at least one column"),
        ({"holdout": 0.2, "completion": "{{tone}}"}, "must name at least one column"),
        ({"holdout": 0.2, "messages": [ASK]}, "two or more, the last one the assistant's"),
        ({"holdout": 0.2, "messages": [ANSWER, ASK]}, "two or more, the last one the assistant's"),
        ({"holdout": 0.2, "messages": [ASK | {"content": "hi"}, ANSWER]}, "at least one before it"),
        ({"holdout": 0.2, "messages": [ASK, ANSWER | {"content": "yes"}]}, "must name a column"),
        ({"holdout": 0.2, "messages": [ASK | {"content": "{"}, ANSWER]}, "in message 1: '{' at character 1"),
        ({"holdout": 0.2, "messages": [ASK | {"role": "tool"}, ANSWER]}, "'system', 'user' or 'assistant'"),
        ({"holdout": 0.2, "metric": "exactmatch"}, "did you mean 'exact_match'?"),
        ({"holdout": 0.2, "metric": "module:"}, "known score, module:function or lm-eval:task"),
        ({"holdout": 0.2, "labels": ["a", "a"]}, "labels must be distinct"),
        ({"holdout": 0.2, "labels": ["a", " "]}, "not blank"),
        ({"holdout": 0.2, "max_items": {"train": 0}}, "greater than or equal to 1"),
        ({"holdout": 0.2, "max_items": {"valid": 3}}, "max_items.valid"),
        ({"holdout": 0.2, "holdoff": 0.2}, "holdoff"),
        ({"holdout": 0.2, "train": {"dataset": "tones", "split": "train"}}, "train.HubDataset.dataset"),
        ({"holdout": 0.2, "train": ""}, "at least 1 character"),
    ],
)
def test_a_wrong_spec_is_refused_with_rule_and_remedy(parts: dict[str, Any], told: str) -> None:
    assert told in complaint(**({"train": "a.jsonl"} | parts))


def test_all_wrong_parts_are_told_together() -> None:
    parts = {"validation": "v.jsonl", "holdout": 0.2, "test": "b.jsonl", "test_holdout": 0.1}
    told = complaint(train="a.jsonl", prompt=None, **parts)
    assert "validation and holdout exclude each other" in told
    assert "exclude each other" in told
    assert "exactly one of prompt" in told


# --- Formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*FORMATS, ".CSV"])
def test_every_format_gives_the_same_items(tmp_path: Path, suffix: str) -> None:
    rows = [*tones(9), {"text": 'naïve, "so\u2028to" say\n2\tlines 🎈', "tone": "joy"}]
    source = write(tmp_path / f"train{suffix}", rows)
    dataset = load_dataset(spec(train=source, holdout=0.3), tmp_path)
    expected = load(tmp_path, rows, holdout=0.3)
    assert dataset.model_dump(exclude={"files", "places"}) == expected.model_dump(exclude={"files", "places"})
    assert list(dataset.files) == [source]
    assert len(dataset.files[source]) == 64
    assert 'Text: naïve, "so\u2028to" say\n2\tlines 🎈\nTone:' in {item.prompt for item in dataset.train}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'\xef\xbb\xbf{"text": "a", "tone": "joy"}\r\n\r\n{"text": "b", "tone": "fear"}'),
        ("a.json", b'\xef\xbb\xbf{"data": [{"text": "a", "tone": "joy"}, {"text": "b", "tone": "fear"}]}'),
        ("a.csv", b"\xef\xbb\xbftext, tone\r\na,joy\r\n\r\nb,fear\r\n"),
        ("a.tsv", b"\xef\xbb\xbf\ntext\ttone\na\tjoy\nb\tfear"),
    ],
)
def test_byte_order_marks_line_ends_and_blank_lines_do_not_matter(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    validation = jsonl(tmp_path / "validation.jsonl", [{"text": "c", "tone": "joy"}])
    dataset = load_dataset(spec(train=name, validation=validation), tmp_path)
    assert [item.completion for item in dataset.train] == [" joy", " fear"]


def test_parquet_columns_that_nobody_names_are_not_converted(tmp_path: Path) -> None:
    rows = tones(8)
    table = pyarrow.table(
        {
            "text": pyarrow.array([row["text"] for row in rows]).dictionary_encode(),
            "tone": [row["tone"] for row in rows],
            "when": pyarrow.array([2**60] * 8, pyarrow.timestamp("ms")),  # 36 million years on
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    train = str(tmp_path / "train.parquet")
    assert len(load_dataset(spec(train=train, holdout=0.4), tmp_path).train) > 0
    (problem,) = problems(lambda: load_dataset(spec(train=train, holdout=0.4, prompt="{when}"), tmp_path))
    assert "must be parquet" in problem.rule


def test_a_relative_path_starts_here_and_then_at_the_sweep_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, sweep = tmp_path / "here", tmp_path / "sweep"
    here.mkdir()
    sweep.mkdir()
    monkeypatch.chdir(here)
    jsonl(sweep / "train.jsonl", tones(6))
    jsonl(sweep / "validation.jsonl", tones(3, start=50))
    wanted = spec(train="train.jsonl", validation="validation.jsonl")
    assert len(load_dataset(wanted, sweep).train) == 6
    jsonl(here / "train.jsonl", tones(5))
    dataset = load_dataset(wanted, sweep)
    assert (len(dataset.train), len(dataset.validation)) == (5, 3)
    assert list(dataset.files) == ["train.jsonl", "validation.jsonl"]


# --- The hub ---------------------------------------------------------------------------------------------------------


def test_a_hub_data_set_is_fetched(tmp_path: Path) -> None:
    asked: list[HubDataset] = []

    def fetch(hub: HubDataset) -> Path:
        asked.append(hub)
        name = tmp_path / f"{hub.split}.jsonl"
        jsonl(name, tones(6, start=0 if hub.split == "train" else 50))
        return name

    named = {"dataset": "me/tones", "config": "en", "split": "test"}
    dataset = load_dataset(spec(train="me/tones:train", validation=named), tmp_path, fetch=fetch)
    assert asked == [HubDataset(dataset="me/tones", split="train"), HubDataset.model_validate(named)]
    assert list(dataset.files) == ["me/tones:train", "me/tones/en:test"]


def test_a_string_is_a_hub_data_set_only_where_no_such_file_is(tmp_path: Path) -> None:
    def told(source: str) -> Problem:
        return problems(lambda: load_dataset(spec(train=source, holdout=0.3), tmp_path, "s.yaml"))[0]

    for source in ("me/tones:train", "me/tones.v2:train[:10%]"):
        problem = told(source)
        assert (problem.key, problem.file, problem.value) == ("data.train", "s.yaml", source)
        assert "cannot be fetched here" in problem.rule
    for source in ("a/b/c:train", "tones:train", "me/tones", "C:/data/a.jsonl", "../a:b", "me/tones:"):
        assert told(source).rule == "the file must exist"
    if os.name == "posix":  # Windows file names hold no colon
        (tmp_path / "me").mkdir()
        jsonl(tmp_path / "me" / "tones:train.jsonl", tones(20))
        assert load_dataset(spec(train="me/tones:train.jsonl", holdout=0.3), tmp_path).train


# --- Cleaning --------------------------------------------------------------------------------------------------------


def test_rows_without_text_are_left_out_and_counted(tmp_path: Path) -> None:
    train = [
        *tones(6),
        {"text": "", "tone": "joy"},
        {"text": "x", "tone": None},
        {"text": "x"},
        {"text": "y", "tone": "  "},
        {"text": {"a": 1}, "tone": "joy"},
        {"text": ["a"], "tone": "joy"},
        {"text": 7, "tone": "joy"},
        {"text": True, "tone": "joy"},
    ]
    dataset = load(tmp_path, train, tones(3, start=50))
    assert left_out(dataset) == {
        ("train", "empty value in 'text'"): (1, ("train.jsonl:7",)),
        ("train", "empty value in 'tone'"): (3, ("train.jsonl:8", "train.jsonl:9", "train.jsonl:10")),
        ("train", "not text, but an object in 'text'"): (1, ("train.jsonl:11",)),
        ("train", "not text, but a list in 'text'"): (1, ("train.jsonl:12",)),
    }
    assert [item.prompt for item in dataset.train[-2:]] == ["Text: 7\nTone:", "Text: true\nTone:"]
    assert isinstance(dataset.left_out[0], LeftOut)


def test_places_count_lines_where_a_cell_spans_several(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b'text,tone\n"two\nlines",joy\n,joy\n"a\n\nb",fear\nc,\n')
    write(tmp_path / "validation.parquet", [{"text": "v", "tone": "joy"}, {"text": None, "tone": "joy"}])
    dataset = load_dataset(spec(train="train.csv", validation="validation.parquet"), tmp_path)
    assert left_out(dataset) == {
        ("train", "empty value in 'text'"): (1, ("train.csv:4",)),
        ("train", "empty value in 'tone'"): (1, ("train.csv:8",)),
        ("validation", "empty value in 'text'"): (1, ("validation.parquet row 2",)),
    }


def test_a_duplicate_goes_and_a_conflict_takes_all_its_rows(tmp_path: Path) -> None:
    train = [
        *tones(3),
        {"text": "Same  thing", "tone": "joy"},
        {"text": " same\nTHING ", "tone": "joy"},
        {"text": "Same thing", "tone": "joy"},
        {"text": "torn", "tone": "joy"},
        {"text": " torn", "tone": "fear"},
        {"text": "torn", "tone": "joy"},
    ]
    dataset = load(tmp_path, train, tones(3, start=50))
    assert left_out(dataset) == {
        ("train", "duplicate but for upper and lower case"): (1, ("train.jsonl:5",)),
        ("train", "duplicate"): (1, ("train.jsonl:6",)),
        ("train", "conflicting labels"): (3, ("train.jsonl:7", "train.jsonl:8", "train.jsonl:9")),
    }
    assert [item.prompt for item in dataset.train][3:] == ["Text: Same  thing\nTone:"]


def test_a_prompt_is_in_one_split_only_and_test_comes_first(tmp_path: Path) -> None:
    shared = {"text": "everywhere", "tone": "joy"}
    both = {"text": "train and validation", "tone": "joy"}
    train = [*tones(3), shared, both | {"tone": "fear"}]
    validation = [*tones(3, start=50), shared | {"text": "Everywhere"}, both]
    dataset = load(tmp_path, train, validation, [*tones(2, start=90), shared])
    assert left_out(dataset) == {
        ("validation", "also in test"): (1, ("validation.jsonl:4",)),
        ("train", "also in test"): (1, ("train.jsonl:4",)),
        ("train", "also in validation"): (1, ("train.jsonl:5",)),
    }
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (3, 4, 3)


def test_a_prompt_that_left_test_stays_in_train(tmp_path: Path) -> None:
    torn = {"text": "torn", "tone": "joy"}
    test = [*tones(2, start=90), torn, torn | {"tone": "fear"}]
    dataset = load(tmp_path, [*tones(3), torn], tones(3, start=50), test)
    assert left_out(dataset) == {("test", "conflicting labels"): (2, ("test.jsonl:3", "test.jsonl:4"))}
    assert len(dataset.train) == 4


# --- Messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_column_of_messages(tmp_path: Path, suffix: str) -> None:
    good = [talk("s Be brief.", "u one", "a x"), talk("u two", "a y"), talk("u three", "a z", "u four", "a  x")]
    bad = [
        None,
        [],
        talk("a x"),
        talk("u x", "a z", "u y"),
        talk("a x", "u y"),
        talk("t x", "a y"),
        talk("u x", "a  "),
        talk("u ", "a x"),
    ]
    write(tmp_path / f"train{suffix}", [{"talk": turns} for turns in good + bad])
    validation = jsonl(tmp_path / "v.jsonl", [{"talk": talk("u five", "a x")}])
    dataset = load_dataset(spec(train=f"train{suffix}", validation=validation, messages="talk"), tmp_path)
    assert dataset.train[0].prompt == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="one"),
    )
    assert [item.completion for item in dataset.train] == ["x", "y", " x"]
    assert dataset.labels == (" x", "x", "y")
    assert {reason: rows for (_, reason), (rows, _) in left_out(dataset).items()} == {
        "empty value": 1,
        "fewer than two messages": 2,
        "the last message is not the assistant's, but the user's": 2,
        "a message that calls a tool or answers for one: tools are not taken": 1,
        "an empty message": 1,
        "empty completion": 1,
    }


def test_messages_from_templates(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Name the tone."},
        {"role": "user", "content": "{text}"},
        {"role": "assistant", "content": "{tone}"},
    ]
    dataset = load(tmp_path, [*tones(3), {"text": "PHRASE 0", "tone": "joy"}], tones(2, start=50), messages=messages)
    assert dataset.train[1].prompt == (
        Message(role="system", content="Name the tone."),
        Message(role="user", content="phrase 1"),
    )
    assert dataset.train[1].completion == "fear"
    assert ("train", "duplicate but for upper and lower case") in left_out(dataset)


# --- Splitting -------------------------------------------------------------------------------------------------------

short_texts = st.lists(st.text(alphabet="aAbBß \n", max_size=4), min_size=3, max_size=30)


def attempt(rows: Rows, **parts: Any) -> Dataset | None:
    with TemporaryDirectory() as folder:
        try:
            return load(Path(folder), rows, **parts)
        except UsageError as error:
            assert error.problems  # noqa: PT017
            return None


@settings(deadline=None)
@given(st.data(), short_texts)
def test_the_split_does_not_depend_on_the_order_of_rows(data: st.DataObject, texts: list[str]) -> None:
    rows = [{"text": text, "tone": "joy" if len(text) % 2 else "fear"} for text in texts]
    parts = {"holdout": 0.3, "test_holdout": 0.2, "metric": "perplexity"}
    one, other = attempt(rows, **parts), attempt(data.draw(st.permutations(rows)), **parts)
    assert (one is None) == (other is None)
    if one and other:
        assert [keys(one.train), keys(one.validation), keys(one.test)] == [
            keys(other.train),
            keys(other.validation),
            keys(other.test),
        ]


@settings(deadline=None)
@given(short_texts, short_texts, short_texts, st.booleans())
def test_no_prompt_is_in_two_splits_and_no_row_is_lost(
    train: list[str], validation: list[str], test: list[str], cap: bool
) -> None:
    parts: dict[str, Any] = {"metric": "perplexity", "max_items": {"train": 2, "validation": 1} if cap else {}}
    given_rows = {
        split: [{"text": text, "tone": str(len(text) % 3)} for text in texts]
        for split, texts in (("train", train), ("validation", validation), ("test", test))
    }
    dataset = attempt(given_rows["train"], validation=given_rows["validation"], test=given_rows["test"], **parts)
    if dataset is None:
        return
    splits = (dataset.train, dataset.validation, dataset.test)
    prompts = [{normalise(item.prompt) for item in split} for split in splits]
    assert len(set.union(*prompts)) == sum(map(len, prompts))
    kept = sum(map(len, splits))
    assert len({item.id for split in splits for item in split}) == kept
    lost = sum(one.rows for one in dataset.left_out)
    assert kept + lost == len(train) + len(validation) + len(test)


def test_other_rows_move_nothing_between_splits(tmp_path: Path) -> None:
    few = load(tmp_path, tones(200), holdout=0.3)
    more = load(tmp_path, tones(300), holdout=0.3)
    assert keys(few.validation) <= keys(more.validation)
    assert keys(few.train) <= keys(more.train)
    assert 40 <= len(few.validation) <= 80
    wider = load(tmp_path, tones(200), holdout=0.4)
    assert keys(few.validation) < keys(wider.validation)
    tested = load(tmp_path, tones(200), holdout=0.3, test_holdout=0.2)
    assert tested.validation == few.validation
    assert keys(tested.test) < keys(few.train)


def test_the_split_is_the_same_on_every_machine_and_in_every_version(tmp_path: Path) -> None:
    # A change here moves rows of everyone's data between splits: old results would no longer compare.
    dataset = load(tmp_path, tones(12), holdout=0.3)
    first = '{"completion":" joy","prompt":"Text: phrase 0\\nTone:"}'
    assert dataset.validation[0].id == hashlib.sha256(first.encode()).hexdigest()[:16]
    assert [str(item.prompt)[6:-6] for item in dataset.validation] == ["phrase 0", "phrase 1", "phrase 6", "phrase 10"]
    assert dataset.digest("train") == "5be2b8db2a94e9ce2544df9d82ff06a0b354e9afe5b079ed69510827482f8fd6"


def test_a_cap_draws_by_content_and_keeps_file_order(tmp_path: Path) -> None:
    whole = load(tmp_path, tones(60), tones(60, start=100))
    capped = load(tmp_path, tones(60), tones(60, start=100), max_items={"train": 20, "validation": 10})
    assert (len(capped.train), len(capped.validation)) == (20, 10)
    assert list(capped.train) == [item for item in whole.train if item in capped.train]
    assert left_out(capped)["train", "over max_items"][0] == 40
    backwards = load(tmp_path, tones(60)[::-1], tones(60, start=100), max_items={"train": 20, "validation": 10})
    assert backwards.train == capped.train[::-1]
    grown = load(tmp_path, tones(80), tones(60, start=100), max_items={"train": 20, "validation": 10})
    assert grown.validation == capped.validation
    # A row of the larger draw is new, or was drawn before.
    assert {item.id for item in grown.train} & {item.id for item in whole.train} <= {item.id for item in capped.train}
    smaller = load(tmp_path, tones(60), tones(60, start=100), max_items={"train": 10})
    assert {item.id for item in smaller.train} < {item.id for item in capped.train}


def test_a_digest_knows_items_and_their_order(tmp_path: Path) -> None:
    one = load(tmp_path, tones(6), tones(3, start=50))
    assert one.digest("train") == load(tmp_path, tones(6), tones(4, start=50)).digest("train")
    assert one.digest("train") != load(tmp_path, tones(6)[::-1], tones(3, start=50)).digest("train")
    assert one.digest("train") != one.digest("validation")
    with pytest.raises(KeyError):
        one.digest("dev")


# --- Labels ----------------------------------------------------------------------------------------------------------


def test_labels_are_those_of_train_unless_given(tmp_path: Path) -> None:
    assert load(tmp_path, tones(6), tones(3, start=50)).labels == (" anger", " fear", " joy")
    assert load(tmp_path, tones(6), tones(3, start=50), metric="exact_match").labels == ()
    assert load(tmp_path, tones(6), tones(3, start=50), metric="m:f").labels == ()
    given_labels = [" sadness", " joy", " fear", " anger"]
    for metric in ("choice", "f1", "m:f"):
        dataset = load(tmp_path, tones(6), tones(3, start=50), labels=given_labels, metric=metric)
        assert dataset.labels == tuple(sorted(given_labels))
    # A cap saves time; the task stays the same.
    assert len(load(tmp_path, tones(6), tones(3, start=50), max_items={"train": 1}).labels) == 3


def test_a_label_that_train_lacks_is_a_problem(tmp_path: Path) -> None:
    validation = [*tones(3, start=50), {"text": "v", "tone": "awe"}]
    test = [{"text": f"t{n}", "tone": f"tone {n}"} for n in range(7)]
    first, second = problems(lambda: load(tmp_path, tones(6), validation, test))
    assert first.key == "data.validation"
    assert (
        first.rule == "every label of validation must occur in train, which lacks ' awe' (first in validation.jsonl:4)"
    )
    assert second.key == "data.test"
    assert "of test must" in second.rule
    assert "lacks ' tone 0', ' tone 1', ' tone 2', ' tone 3', ' tone 4' and 2 more" in second.rule
    assert "exact_match" in second.remedy
    assert load(tmp_path, tones(6), validation, test, metric="perplexity").labels == ()


def test_labels_without_their_leading_space_are_told(tmp_path: Path) -> None:
    given_labels = ["joy", "fear", "anger"]
    found = problems(lambda: load(tmp_path, tones(6), tones(3, start=50), labels=given_labels))
    assert [problem.key for problem in found] == ["data.labels", "data.labels"]
    assert found[0].remedy == "write ' anger' for 'anger'"


def test_one_label_is_too_few(tmp_path: Path) -> None:
    rows = [{"text": f"p{n}", "tone": "joy"} for n in range(20)]
    (problem,) = problems(lambda: load(tmp_path, rows, holdout=0.3))
    assert "needs two labels or more" in problem.rule
    assert problem.value == (" joy",)


# --- What can be wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "line", "told"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', 2, "each line must be a JSON object (Expecting value at column 10)"),
        ("a.jsonl", b'\n["a"]\n', 2, "each line must be a JSON object"),
        ("a.jsonl", b"[" * 100_000, 1, "each line must be a JSON object"),
        ("a.jsonl", b"[" * 900 + b"]" * 900, 1, "each line must be a JSON object"),
        ("a.jsonl", b'{"text": ' + b"1" * 5000 + b"}", 1, "each line must be a JSON object"),
        ("a.jsonl", b'\xef\xbb\xbf{"a": 1}\n{"text": "caf\xe9"}', 2, "byte 0xe9 at offset 25"),
        ("a.csv", "text,tone\n".encode("utf-16")[:-1], 1, "cannot be read as utf-16"),
        ("a.json", b'[{"a": 1},\n{"a": }]', 2, "the file must be JSON"),
        ("a.json", b'{"a": 1}\n{"a": }', 2, "each line must be a JSON object"),
        ("a.json", b'{"rows": 3}', None, "must hold a list of objects"),
        ("a.json", b'{"train": [{"text": "a"}], "test": [{"text": "b"}]}', None, "must hold one list of objects"),
        ("a.json", b'"a"', None, "must hold a list of objects"),
        ("a.json", b"[" * 100_000, None, "the file must be JSON"),
        ("a.json", b'[{"text": "a", "tone": "b"}, 3]', None, "row 2 must be an object"),
        ("a.csv", b'text,tone\n"a\nb",joy\na,b,c\n', 4, "each row must have 2 cells"),
        ("a.csv", b"text,tone\na\n", 2, "each row must have 2 cells"),
        ("a.csv", b'text,tone\n"a",joy\n"b,fear\nc,joy\n', 3, "cannot be read (a quote is opened and never closed)"),
        ("a.csv", b'text,tone\n"a"b,"joy"\n', 2, "cannot be read (text follows a closing quote)"),
        ("a.csv", b"text,tone,text\na,joy,b\n", 1, "column names must differ"),
        ("a.parquet", b"PAR1 but not really", None, "must be parquet"),
        ("a.parquet", b"", None, "must be parquet"),
        ("a.jsonl", b"", None, "must have rows"),
        ("a.jsonl", b"\xef\xbb\xbf \n\n", None, "must have rows"),
        ("a.json", b"[]", None, "must have rows"),
        ("a.csv", b"", None, "must have rows"),
        ("a.csv", b"text,tone\n", None, "must have rows"),
        ("a.jsnl", b"{}", None, "must end in a known format"),
        ("a", b"{}", None, "must end in a known format"),
    ],
)
def test_an_unreadable_file_is_a_problem(
    tmp_path: Path, name: str, content: bytes, line: int | None, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = problems(lambda: load_dataset(spec(train=name, holdout=0.3), tmp_path, "s.yaml"))
    (problem,) = [one for one in found if told in one.rule]
    assert (problem.file, problem.line, problem.key) == (str(tmp_path / name), line, "data.train")
    assert problem.remedy


def test_only_the_first_bad_lines_are_told_in_full(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a", "tone": "b"}\n' + b"oops\n" * 12)
    found = problems(lambda: load_dataset(spec(train="a.jsonl", holdout=0.3), tmp_path))
    assert [problem.line for problem in found] == [2, 3, 4, 5, 6, None]
    assert found[-1].rule == "and 7 more problems like these"


def test_a_missing_file_names_its_nearest(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", tones(2))
    for source in ("trian.jsonl", str(tmp_path / "train.json")):
        (problem,) = problems(partial(load_dataset, spec(train=source, holdout=0.3), tmp_path, "s.yaml"))
        assert (problem.rule, problem.key, problem.file) == ("the file must exist", "data.train", "s.yaml")
        assert problem.remedy == f"did you mean '{(tmp_path / 'train.jsonl').as_posix()}'?"
    for source in ("nowhere/a.jsonl", "x" * 5000):
        (problem,) = problems(partial(load_dataset, spec(train=source, holdout=0.3), tmp_path))
        assert "looked in" in problem.remedy
    for source in (".", str(tmp_path)):
        (problem,) = problems(partial(load_dataset, spec(train=source, holdout=0.3), tmp_path))
        assert "not a folder" in problem.rule


def test_a_file_that_may_not_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = jsonl(tmp_path / "a.jsonl", tones(2))

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (problem,) = problems(partial(load_dataset, spec(train=source, holdout=0.3), tmp_path))
    assert problem.rule == "the file must be readable (Permission denied)"


def test_a_missing_column_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    found = problems(lambda: load_dataset(
        spec(
            train=jsonl(tmp_path / "train.jsonl", tones(5)),
            holdout=0.3,
            prompt="{txt} {text} {zzz} {txt}",
            completion="{Tone}",
        ),
        tmp_path,
        "s.yaml",
    ))  # fmt: skip
    assert [(one.key, one.value, one.remedy) for one in found] == [
        ("data.prompt", "txt", "did you mean 'text'?"),
        ("data.prompt", "zzz", "name one of those"),
        ("data.completion", "Tone", "did you mean 'tone'?"),
    ]
    assert all("which has 'text', 'tone'" in one.rule and one.file == "s.yaml" for one in found)
    (problem,) = problems(lambda: load(tmp_path, tones(5), holdout=0.3, messages="message"))
    assert (problem.key, problem.value) == ("data.messages", "message")


def test_a_column_that_some_rows_lack_is_no_problem(tmp_path: Path) -> None:
    dataset = load(tmp_path, [{"tone": "joy"}, *tones(5), {"text": "x", "tone": "joy"}], tones(3, start=50))
    assert left_out(dataset)["train", "empty value in 'text'"] == (1, ("train.jsonl:1",))


def test_problems_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"oops\n")
    jsonl(tmp_path / "c.jsonl", [{"text": "a", "label": "b"}])
    wanted = spec(train="a.jsonl", validation="b.jsonl", test="c.jsonl")
    found = problems(lambda: load_dataset(wanted, tmp_path, "s.yaml"))
    assert [(one.key, Path(one.file).name, one.line) for one in found] == [
        ("data.train", "a.jsonl", 1),
        ("data.validation", "s.yaml", None),
        ("data.completion", "s.yaml", None),
    ]


def test_a_split_without_rows_is_a_problem_that_says_where_they_went(tmp_path: Path) -> None:
    (problem,) = problems(lambda: load(tmp_path, tones(4), tones(4)))
    assert problem.key == "data.train"
    told = "4 left out: also in validation (train.jsonl:1, train.jsonl:2, train.jsonl:3)"
    assert f"train must have rows, but none remain; {told}" in problem.rule
    found = problems(lambda: load(tmp_path, tones(4), holdout=1e-9, test_holdout=1e-9))
    assert [(one.key, one.value) for one in found] == [("data.holdout", 1e-9), ("data.test_holdout", 1e-9)]
    assert found[0].remedy == "raise the share, or add rows"
    assert found[0].rule == "validation must have rows, but none remain of 4 usable rows in train"
    (problem,) = problems(lambda: load(tmp_path, tones(4), holdout=1 - 1e-9))
    assert problem.remedy == "lower the share that is held out, or add rows"


def test_rows_that_are_the_trouble_are_told_and_no_advice_about_shares(tmp_path: Path) -> None:
    blank = [{"text": "", "tone": "joy"}]
    found = problems(lambda: load(tmp_path, tones(4), blank, [{"text": [1], "tone": "joy"}]))
    assert [one.key for one in found] == ["data.validation", "data.test"]
    assert "1 left out: empty value in 'text' (validation.jsonl:1)" in found[0].rule
    assert found[0].remedy == "fill these cells, or write {column?} where one may be empty"
    (problem,) = problems(lambda: load(tmp_path, blank * 9, holdout=0.3, test_holdout=0.1))
    assert problem.key == "data.train"
    assert "9 left out: empty value in 'text' (train.jsonl:1, train.jsonl:2, train.jsonl:3)" in problem.rule
    assert "share" not in str(problem)


# --- Anything at all -------------------------------------------------------------------------------------------------


def parquet_bytes() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(tones(4)), sink)
    return bytes(sink.getvalue())


SEEDS = {
    ".jsonl": b'{"text": "a", "tone": "joy"}\n{"text": "b", "tone": "fear"}\n',
    ".ndjson": b'{"text": "a", "tone": "joy"}\r\n{"text": "b", "tone": "fear"}\r\n',
    ".json": b'{"data": [{"text": "a", "tone": "joy"}, {"text": "\\ud800", "tone": "fear"}]}',
    ".csv": b'text,tone\n"a,\n""b""",joy\nb,fear\n',
    ".tsv": b"text\ttone\na\tjoy\nb\tfear\n",
    ".parquet": parquet_bytes(),
}
snippets = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
    b"null",
]
pieces = st.binary(max_size=6) | st.sampled_from(snippets)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_any_bytes_give_a_dataset_or_a_usage_error(suffix: str, data: st.DataObject) -> None:
    seed = SEEDS[suffix]
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=60))
    else:
        start = data.draw(st.integers(0, len(seed)))
        # Bits of a parquet page are checked by nobody; cuts and insertions are what a broken copy looks like.
        end = len(seed) if suffix == ".parquet" else data.draw(st.integers(start, len(seed)))
        content = seed[:start] + data.draw(pieces) + seed[end:]
    with TemporaryDirectory() as folder:
        (Path(folder) / f"a{suffix}").write_bytes(content)
        wanted = spec(train=f"a{suffix}", holdout=0.5, metric="perplexity")
        try:
            dataset = load_dataset(wanted, Path(folder))
        except UsageError as error:
            assert all(problem.rule for problem in error.problems)  # noqa: PT017
            assert str(error)  # noqa: PT017
        else:
            dataset.model_dump_json()


def test_reading_text_loads_nothing_heavy(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "train.jsonl", tones(20))
    code = (
        "import sys; from pathlib import Path; from autotune.data.dataset import load_dataset; from autotune.data.schema import DataSpec;"
        f"load_dataset(DataSpec(train={source!r}, holdout=0.3, prompt='{{text}}', completion='{{tone}}'), Path('.'));"
        "print([name for name in ('pandas', 'torch', 'transformers', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


# --- Public data -----------------------------------------------------------------------------------------------------


def public(name: str, **parts: Any) -> Dataset:
    folder = PUBLIC / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in {PUBLIC}; AUTOTUNE_TEST_DATA names the folder of the public data")
    return load_dataset(spec(**parts), folder)


def test_snips_loads() -> None:
    # Loads from its own folder: relative paths start there when they are not found here.
    dataset = public(
        "snips", train="train.jsonl", validation="validation.jsonl", prompt="{text}", completion="{intent}"
    )
    assert len(dataset.labels) == 7
    assert 13_400 < len(dataset.train) <= 13_577
    assert len(dataset.validation) == 695
    assert {one.reason for one in dataset.left_out} == {
        "duplicate", "duplicate but for upper and lower case", "also in validation",
    }  # fmt: skip
    assert any(not str(item.prompt).isascii() for item in dataset.train)


def test_banking77_loads() -> None:
    parts = {"train": "train.csv", "holdout": 0.2, "test": "test.csv", "prompt": "{text}", "completion": " {category}"}
    dataset = public("banking77", **parts, max_items={"validation": 300})
    assert len(dataset.labels) == 77
    assert " card_arrival" in dataset.labels
    assert len(dataset.validation) == 300
    assert 7_800 < len(dataset.train) < 8_200
    assert 3_060 <= len(dataset.test) <= 3_080
    assert max(Counter(item.completion for item in dataset.test).values()) <= 40


def test_xed_four_tones_loads() -> None:
    sources = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    dataset = public("xed_four_tones", **sources, prompt="Text: {phrase}\nTone:", completion=" {tone}")
    assert dataset.labels == (" fear", " joy", " sadness", " surprise")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (4_006, 1_000, 1_200)
    assert dataset.left_out == ()


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    jsonl(tmp_path / "train.jsonl", tones(12))
    dataset = load_dataset(spec(train="~/train.jsonl", holdout=0.3), Path("elsewhere"))
    assert len(dataset.train) + len(dataset.validation) == 12
    assert list(dataset.files) == ["~/train.jsonl"]
    with pytest.raises(UsageError, match="the file must exist, got '~nobody_has_this_name/x"):
        load_dataset(spec(train="~nobody_has_this_name/x.jsonl", holdout=0.3), tmp_path)


def test_rouge_l_leaves_out_what_has_nothing_to_count(tmp_path: Path) -> None:
    rows = [*tones(4), {"text": "dots", "tone": "…"}, {"text": "thumb", "tone": "👍"}, {"text": "han", "tone": "好。"}]
    dataset = load(tmp_path, rows, tones(2, start=50), metric="rouge_l")
    assert [item.completion for item in dataset.train[4:]] == [" 👍", " 好。"]
    assert {reason: rows for (_, reason), (rows, _) in left_out(dataset).items()} == {
        "a completion without letters or digits, in which rouge_l has nothing to count": 1
    }
    assert len(load(tmp_path, rows, tones(2, start=50), metric="exact_match").train) == 7
