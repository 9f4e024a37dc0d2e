"""What people bring, kind by kind: optional cells, several answers, prompts in another case, odd files, old digests."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rows import PUBLIC, Rows, complaint, left_out, load, load_file, problems, spec, tones

from autotune.data.dataset import load_dataset
from autotune.data.schema import DataSpec, Message
from autotune.data.templates import RowError, parse_template, render, template_columns

# --- Optional cells ----------------------------------------------------------------------------------------------------

ALPACA = "### Instruction:\n{instruction}{input?\n\n### Input:\n}\n\n### Response:\n"


@pytest.mark.parametrize("empty", [{}, {"input": ""}, {"input": None}, {"input": " \n"}, {"input": float("nan")}])
def test_an_optional_cell_is_nothing_where_it_is_empty(empty: dict[str, Any]) -> None:
    row = {"instruction": "Sum up.", **empty}
    assert render(ALPACA, row) == "### Instruction:\nSum up.\n\n### Response:\n"
    assert render("{instruction} {input?}|", row) == "Sum up. |"


def test_an_optional_cell_brings_its_text_with_it() -> None:
    row = {"instruction": "Sum up.", "input": "A: b"}
    assert render(ALPACA, row) == "### Instruction:\nSum up.\n\n### Input:\nA: b\n\n### Response:\n"
    assert render("{input? (of: }{n?, no. }", row | {"n": 0}) == " (of: A: b, no. 0"
    assert template_columns(ALPACA) == ("instruction", "input")
    assert template_columns(ALPACA, optional=False) == ("instruction",)
    assert parse_template("{ a }")[0].column == "a"
    with pytest.raises(RowError, match="not text, but a list in 'input'"):
        render("{input?}", {"input": ["a"]})
    with pytest.raises(ValueError, match="must be a plain column name"):
        parse_template("{?x}")


def test_alpaca_keeps_all_its_rows(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Do {n}.", "input": "" if n % 2 else f"with {n}", "output": f"done {n}"} for n in range(40)
    ]
    parts: dict[str, Any] = {"completion": "{output}", "metric": "exact_match"}
    dataset = load(tmp_path, rows, prompt=ALPACA, **parts)
    assert len(dataset.train) + len(dataset.validation) == 40
    assert left_out(load(tmp_path, rows, prompt="{instruction} {input}", **parts)) == {
        ("train", "empty value in 'input'"): (20, ("train.jsonl:2", "train.jsonl:4", "train.jsonl:6"))
    }
    (problem,) = problems(lambda: load(tmp_path, rows, prompt="{instruction} {inputs?}", **parts))
    assert problem.remedy == "did you mean 'input'?"


def test_a_message_of_empty_optional_cells_is_no_message(tmp_path: Path) -> None:
    messages = [{"role": r, "content": c} for r, c in (("system", "{s?}"), ("user", "{text}"), ("assistant", "{tone}"))]
    rows = [row | {"s": "Be brief." if n % 2 else ""} for n, row in enumerate(tones(30))]
    dataset = load(tmp_path, rows, messages=messages)
    by_length = {len(item.prompt): item.prompt for item in dataset.train}
    assert set(by_length) == {1, 2}
    assert by_length[2][0] == Message(role="system", content="Be brief.")


def test_a_completion_is_never_empty_and_a_prompt_of_nothing_is_left_out(tmp_path: Path) -> None:
    assert "must name a column that is never empty" in complaint(train="a.jsonl", completion="{tone?}")
    rows = [{"text": "" if n == 3 else f"t {n}", "tone": "x"} for n in range(20)]
    dataset = load(tmp_path, rows, prompt="{text?}", metric="perplexity")
    assert left_out(dataset) == {("train", "empty prompt"): (1, ("train.jsonl:4",))}


def test_a_column_whose_name_ends_in_a_question_mark_is_told(tmp_path: Path) -> None:
    (problem,) = problems(lambda: load(tmp_path, [{"text": "a", "toxic?": "x"}], completion="{text}{toxic?}"))
    assert problem.remedy.startswith("rename the column 'toxic?'")


# --- Several answers to a prompt ---------------------------------------------------------------------------------------


def references(prompts: int = 30, each: int = 4) -> Rows:
    several = [{"text": f"place {n}", "tone": f"{n} is fine, {k}"} for n in range(prompts) for k in range(each)]
    return several + [{"text": f"single {n}", "tone": f"{n} is fine"} for n in range(10)]


@pytest.mark.parametrize("metric", ["perplexity", "rouge_l", "exact_match", "my_metric:score"])
def test_every_answer_is_kept_and_no_prompt_is_in_two_splits(metric: str, tmp_path: Path) -> None:
    dataset = load(tmp_path, references(), metric=metric, test_holdout=0.2)
    splits = (dataset.train, dataset.validation, dataset.test)
    prompts = [{item.prompt for item in split} for split in splits]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 40
    answers = [answer for split in splits for item in split for answer in (item.completion, *item.references)]
    assert len(set(answers)) == len(answers) == 130
    assert dataset.left_out == ()
    assert len({item.id for split in splits for item in split}) == sum(map(len, splits))
    assert "120 rows of train are answers to 30 prompts that have several: all are kept" in dataset.notes
    merged = metric in ("rouge_l", "exact_match")
    assert all(not item.references for item in dataset.train)
    assert (len(dataset.validation) == len(prompts[1])) == merged
    assert any("further references" in note for note in dataset.notes) == merged


def test_an_item_with_references_is_another_item() -> None:
    one, other = (load_answers([*answers]) for answers in (("a",), ("a", "b")))
    assert one.completion == other.completion == " a"
    assert (one.references, other.references) == ((), (" b",))
    assert one.id != other.id


def load_answers(answers: list[str]) -> Any:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        rows = [{"text": "v", "tone": answer} for answer in answers]
        return load(Path(folder), tones(6), rows, metric="exact_match").validation[0]


def test_labels_contradict_one_another_still(tmp_path: Path) -> None:
    dataset = load(tmp_path, [*tones(20), {"text": "phrase 0", "tone": "fear"}])
    assert left_out(dataset) == {("train", "conflicting labels"): (2, ("train.jsonl:1", "train.jsonl:21"))}


# --- Prompts in another case -------------------------------------------------------------------------------------------


def test_prompts_whose_case_tells_labels_apart_are_kept_together(tmp_path: Path) -> None:
    cased = [
        {"text": t, "tone": "country" if t.isupper() else "word"} for n in range(20) for t in (f"US {n}", f"us {n}")
    ]
    dataset = load(tmp_path, cased)
    assert len(dataset.train) + len(dataset.validation) == 40
    sides = [{str(item.prompt).casefold() for item in split} for split in (dataset.train, dataset.validation)]
    assert not sides[0] & sides[1]
    assert dataset.notes == (
        "40 rows of train have prompts that differ from another's in upper and lower case only, and have other labels: "
        "they are kept",
    )
    torn = load(tmp_path, [*cased, {"text": "US 0", "tone": "word"}])
    assert left_out(torn) == {("train", "conflicting labels"): (2, ("train.jsonl:1", "train.jsonl:41"))}


def test_code_that_differs_in_case_has_all_its_answers(tmp_path: Path) -> None:
    rows = [{"text": t, "tone": f"# {t}"} for n in range(20) for t in (f"Foo{n}()", f"foo{n}()")]
    dataset = load(tmp_path, rows, metric="exact_match")
    assert len(dataset.train) + len(dataset.validation) == 40
    assert all(item.references == () for item in dataset.validation)


# --- JSON and parquet --------------------------------------------------------------------------------------------------

ROWS = tones(30)
WAYS = {
    "a.json": json.dumps(ROWS),
    "b.json": json.dumps({"data": ROWS, "version": 1}),
    "c.json": json.dumps({"rows": ROWS, "license": "MIT"}),
    "d.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}),
    "e.json": json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]}),
    "f.json": "\n".join(map(json.dumps, ROWS)),
    "g.jsonl": json.dumps(ROWS, indent=1),
    "h.ndjson": json.dumps(ROWS),
}


@pytest.mark.parametrize("name", WAYS)
def test_json_is_read_however_its_rows_lie(name: str, tmp_path: Path) -> None:
    found = load_file(tmp_path, name, WAYS[name].encode())
    wanted = load(tmp_path, ROWS)
    assert (found.digest("train"), found.digest("validation")) == (wanted.digest("train"), wanted.digest("validation"))


def test_columns_of_parquet_of_any_type_of_text(tmp_path: Path) -> None:
    rows = len(ROWS)
    table = pyarrow.table({
        "text": pyarrow.array([row["text"] for row in ROWS]).dictionary_encode(),
        "large": pyarrow.array([row["text"] for row in ROWS], pyarrow.large_string()),
        "flag": pyarrow.array([n % 2 == 0 for n in range(rows)]),
        "day": pyarrow.array([datetime.date(2024, 1, 1 + n) for n in range(rows)]),
        "at": pyarrow.array([datetime.datetime(2024, 1, 1 + n, 9, 30) for n in range(rows)]),
        "price": pyarrow.array([Decimal(n) / 4 for n in range(rows)], pyarrow.decimal128(9, 2)),
        "count": pyarrow.array(list(range(rows)), pyarrow.int16()),
        "nothing": pyarrow.nulls(rows),
        "lists": pyarrow.array([[str(n)] for n in range(rows)]),
        "raw": pyarrow.array([b"\xff"] * rows),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    prompt = "{text}|{large}|{day}|{at}|{price}|{count}|{nothing?}"
    dataset = load_dataset(spec(train="a.parquet", prompt=prompt, completion="{flag}"), tmp_path)
    assert dataset.labels == ("false", "true")
    assert "phrase 3|phrase 3|2024-01-04|2024-01-04 09:30:00|0.75|3|" in {
        item.prompt for item in dataset.train + dataset.validation
    }
    for column, what in (("lists", "a list"), ("raw", "bytes")):
        (problem,) = problems(
            lambda column=column: load_dataset(
                spec(train="a.parquet", prompt=f"{{{column}}}", completion="{flag}"), tmp_path
            )
        )  # type: ignore[misc]
        assert f"30 left out: not text, but {what} in '{column}' (a.parquet row 1" in problem.rule


# --- Templates that say something else ---------------------------------------------------------------------------------


def test_a_line_end_that_is_spelt_out_is_told(tmp_path: Path) -> None:
    dataset = load(tmp_path, tones(30), prompt="Text: {text}\\nTone:")
    assert dataset.notes == (
        "data.prompt holds a backslash and the letter n, not a line end: in YAML only double quotes turn it into one",
    )
    assert load(tmp_path, tones(30)).notes == ()


# --- What was read before is read the same -------------------------------------------------------------------------------

PHRASE_TONE = Path(__file__).parents[2] / "benchmarks" / "phrase_tone"
FILES = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
OLD: tuple[tuple[Path, dict[str, Any], tuple[str, ...]], ...] = (
    (PHRASE_TONE, {**FILES, "prompt": "Text: {phrase}\nTone:", "completion": " {tone}"},
     ("2df64541bdb2d9c6", "41949fd1f3a384f3", "ff0b83ad437e4411")),
    (PUBLIC / "xed_four_tones", {**FILES, "prompt": "Text: {phrase}\nTone:", "completion": " {tone}"},
     ("8a7ad5b8fed493e2", "9c7c4a1f62877679", "ea58bce91665f381")),
    (PUBLIC / "snips", {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": "{intent}"},
     ("b401af94b1367bdc", "ceb137cf6ecfaa3b", "e3b0c44298fc1c14")),
    (PUBLIC / "snips", {"train": "train.jsonl", "holdout": 0.2, "test_holdout": 0.1, "prompt": "{text}", "completion": "{intent}",
                        "metric": "perplexity"}, ("92b8dbb2c733feff", "f31d1e453d2776b0", "1548eef0109a3e89")),
    (PUBLIC / "banking77", {"train": "train.csv", "holdout": 0.2, "test": "test.csv", "prompt": "{text}", "completion": " {category}",
                            "max_items": {"validation": 300}}, ("01439d9f9f00bec5", "815a830402de826e", "f6ecbca1863c189f")),
)  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "parts", "digests"), OLD, ids=["phrase_tone", "xed", "snips", "snips held out", "banking77"]
)
def test_data_of_old_gives_the_items_of_old(folder: Path, parts: dict[str, Any], digests: tuple[str, ...]) -> None:
    # The digests are those of the reader before it knew semicolons; caches and results of old rest on them.
    if not folder.is_dir():
        pytest.skip(f"no {folder.name}; AUTOTUNE_TEST_DATA names the folder of the public data")
    dataset = load_dataset(DataSpec(**parts), folder)
    assert tuple(dataset.digest(split)[:16] for split in FILES) == digests
