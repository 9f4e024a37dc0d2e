"""Files as exports, copies and other tools leave them: read where that is unambiguous, else told in one clear message."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rows import left_out, load_file, problems, tones

from autotune.data.dataset import load_dataset
from autotune.data.guess import guess
from autotune.data.schema import Dataset, DataSpec
from autotune.errors import UsageError

ROWS = tones(30)
CSV = "text,tone\n" + "".join(f"{row['text']},{row['tone']}\n" for row in ROWS)
LINES = [json.dumps(row) for row in ROWS]
JSONL = "".join(line + "\n" for line in LINES)


def read(folder: Path, name: str, content: str | bytes, **parts: Any) -> Dataset:
    return load_file(folder, name, content.encode() if isinstance(content, str) else content, **parts)


def told(folder: Path, name: str, content: str | bytes, **parts: Any) -> str:
    return "\n".join(map(str, problems(lambda: read(folder, name, content, **parts))))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "".join(f"{line},\n" for line in LINES)),
        ("a.jsonl", "\r".join(LINES)),
        ("a.jsonl", "\n".join(LINES[:9]) + "\n\ufeff" + "\n".join(LINES[9:])),
        ("a.csv", CSV + "\x1a"),
        ("a.csv", CSV.replace("\n", "\n   \n")),
        ("a.csv", CSV.replace("\nphrase 9,", "\n\t\nphrase 9,")),
        ("a.json", json.dumps({"columns": ["text", "tone"], "data": [list(row.values()) for row in ROWS]})),
        ("a.json", json.dumps({"columns": ["text", "tone"], "index": [0], "data": [list(r.values()) for r in ROWS]})),
        ("a.json", json.dumps({f"id{n}": row for n, row in enumerate(ROWS)})),
        ("a.json", json.dumps({key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]})),
    ],
)
def test_what_other_tools_write_is_read(name: str, content: str, tmp_path: Path) -> None:
    wanted = read(tmp_path, "b.jsonl", JSONL)
    assert read(tmp_path, name, content).digest("train") == wanted.digest("train")


def test_a_header_that_comes_again_is_no_row(tmp_path: Path) -> None:
    half = CSV.splitlines(keepends=True)
    dataset = read(tmp_path, "a.csv", "".join([*half[:12], half[0], *half[12:]]))
    assert dataset.labels == (" anger", " fear", " joy")
    assert dataset.notes == ("a.csv: line 13 is the header again, and is left out",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", CSV.encode() + b"\0" * 512, "a.csv:32: data.train: the file ends with 512 NUL characters"),
        ("a.jsonl", JSONL.encode() + b"\0" * 8, "a.jsonl:31: data.train: the file ends with 8 NUL characters"),
        ("a.csv", "# exported in May\n" + CSV, "a.csv:1: data.train: the first line must name the columns, and line 2 does"),
        ("a.csv", "Tickets\n\nof May\n" + CSV, "remove what stands above line 4"),
        ("a.csv", "Tickets of May\n" + CSV.replace(",", ";"), "and line 2 does"),
        ("a.csv", "| text | tone |\n|:---|---|\n| a | b |\n", "the file must be a table of cells, and is Markdown"),
        ("a.jsonl", JSONL.replace('"joy"}', '"joy",}', 1), "remove the comma before the closing bracket"),
        ("a.jsonl", "// mine\n" + JSONL, "remove the line: JSON has no comments"),
        ("a.json", "# mine\n[]", "remove the comments: JSON has none"),
        ("a.jsonl", "".join(LINES), "write each object on a line of its own"),
        ("a.jsonl", JSONL[:-20], "a.jsonl:30: data.train: each line must be a JSON object (Unterminated string starting"),
        ("a.jsonl", JSONL[:-20], "the file ends within this line"),
        ("a.jsonl", JSONL.replace("phrase 7", "phrase\t7"), "write \\n for a line end within a text, and \\t for a tab"),
        ("a.jsonl", JSONL.replace('"joy"}', '"joy", "tone": "fear"}', 1), "(the key 'tone' is written twice)"),
        ("a.jsonl", JSONL.replace('"joy"}', '"joy", "tone": "fear"}', 1), "keep one of them"),
        ("a.json", '[{"text": "a", "text": "b", "tone": "x"}]', "the key 'text' is written twice"),
        ("a.jsonl", '["a", "b"]\n', "write objects, with the names of the columns as keys"),
        ("a.jsonl", "".join(json.dumps(row, indent=1) + "\n" for row in ROWS), "write each object on one line"),
        ("a.csv", b"SQLite format 3\0" + b"\0" * 84, "its content is a SQLite database"),
        ("a.csv", b"{\\rtf1 text,tone}", "its content is a document (RTF)"),
        ("a.parquet", CSV, "the file must be parquet, and its content is text; rename it"),
        ("a.parquet", b"ARROW1\0\0abc", "the file must be parquet, and its content is an Arrow file"),
        ("a.parquet", gzip.compress(CSV.encode()), "the file must be parquet, and its content is compressed with gzip"),
        ("a.gz", gzip.compress(CSV.encode()), "say in its name what it holds, such as train.csv.gz"),
        ("a.sqlite3", b"", "export the table as CSV"),
        ("a.avro", b"", "write it as parquet or .jsonl"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_told_with_what_to_do(name: str, content: str | bytes, said: str, tmp_path: Path) -> None:
    assert said in told(tmp_path, name, content)


def test_one_message_for_a_title_above_the_header(tmp_path: Path) -> None:
    assert told(tmp_path, "a.csv", "Tickets of May\n" + CSV).count("\n") == 0
    assert told(tmp_path, "a.jsonl", "".join(json.dumps(row, indent=1) + "\n" for row in ROWS)).count("\n") == 0


def test_a_text_with_commas_is_no_header(tmp_path: Path) -> None:
    said = told(tmp_path, "a.csv", "text,tone\n" + "".join(f"a {n}, b,joy\n" for n in range(20)))
    assert "each row must have 2 cells" in said
    assert "the first line" not in said


def test_nul_characters_within_a_text_cost_their_row(tmp_path: Path) -> None:
    content = JSONL.replace("phrase 7", "phrase \\u0000 7")
    assert left_out(read(tmp_path, "a.jsonl", content)) == {("train", "a NUL character in 'text'"): (1, ("a.jsonl:8",))}


@pytest.mark.parametrize(
    ("text", "encoding", "refused"),
    [
        ("café", "cp1252", True),
        ("café", "latin-1", True),
        ("да", "cp1251", True),
        ("東京タワーです。", "shift_jis", False),  # not UTF-8 by any encoding's bytes
        ("plain", "cp1252", False),
    ],
)
def test_utf_8_is_not_read_as_a_code_page(text: str, encoding: str, refused: bool, tmp_path: Path) -> None:
    content = CSV.replace("phrase", text)
    if refused:
        said = told(tmp_path, "a.csv", content, encoding=encoding)
        assert f"a.csv:2: data.train: the file is UTF-8, and not {encoding}" in said
        assert "remove data.encoding" in said
    dataset = read(tmp_path, "a.csv", content.encode(encoding), encoding=encoding)
    assert text in str(dataset.train[0].prompt)


def test_parts_in_two_encodings_are_told_as_such(tmp_path: Path) -> None:
    content = CSV.replace("phrase", "café").encode() + CSV.replace("phrase", "café").encode("cp1252")
    said = told(tmp_path, "a.csv", content)
    assert "save all parts of the file in UTF-8" in said or "correct that line" in said
    assert "data.encoding" not in said


def parquet(table: pyarrow.Table) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def test_columns_of_one_name_in_parquet_are_told(tmp_path: Path) -> None:
    columns = [
        pyarrow.array([row["text"] for row in ROWS]),
        pyarrow.array(["x"] * 30),
        pyarrow.array([row["tone"] for row in ROWS]),
    ]
    table = pyarrow.Table.from_arrays(columns, names=["text", "text", "tone"])
    assert "column names must differ, and 'text' stands twice" in told(tmp_path, "a.parquet", parquet(table))


def test_the_names_of_classes_that_numbers_stand_for_are_told(tmp_path: Path) -> None:
    features = {"tone": {"_type": "ClassLabel", "names": ["joy", "fear"]}, "text": {"_type": "Value"}}
    table = pyarrow.table({"text": [row["text"] for row in ROWS], "tone": [n % 2 for n in range(30)]})
    about = json.dumps({"info": {"features": features}})
    dataset = read(tmp_path, "a.parquet", parquet(table.replace_schema_metadata({"huggingface": about})))
    assert dataset.notes[0].startswith("a.parquet: the numbers in 'tone' stand for 'joy', 'fear'")
    assert not read(tmp_path, "b.parquet", parquet(table.replace_schema_metadata({"huggingface": "[1"}))).notes


def test_columns_that_differ_in_case_are_told(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "Text": "x", "tone": row["tone"]} for row in ROWS]
    dataset = read(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert dataset.notes == ("a.jsonl: it has a column 'Text' besides 'text', which is not read",)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a.csv[100:200]", "of its 30 none is in [100:200]"),
        ("a.csv[20:10]", "of its 30 none is in [20:10]"),
        ("a.csv[:200%]", "a share of the rows is 100 % at most"),
        ("a.csv[::2]", "write a.csv[FIRST:LAST]"),
        ("a.csv[5]", "write a.csv[FIRST:LAST]"),
        ("imdb", "a data set on the hub is written owner/name:split"),
    ],
)
def test_parts_and_names_that_are_none(source: str, said: str, tmp_path: Path) -> None:
    from autotune.data.dataset import load_dataset
    from autotune.data.schema import DataSpec

    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    found = problems(lambda: load_dataset(DataSpec(train=source, prompt="{text}", completion=" {tone}"), tmp_path))
    assert said in str(found[0])


# --- init ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("".join(CSV.splitlines(keepends=True)[1:]), "'joy' is a value of its own column, too"),
        ("".join(f"__label__{row['tone']} {row['text']}\n" for row in ROWS), "reads like a text"),
        ("My printer prints nothing since the last update of Tuesday\n" + "It works\n" * 9, "reads like a text"),
    ],
)
def test_init_does_not_take_a_row_for_the_header(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="the first line must name the columns") as raised:
        guess(str(tmp_path / "a.csv"))
    assert said in str(raised.value)


def test_init_takes_the_numbers_of_a_data_frame_for_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,1\n" + "".join(f"phrase {n},{n % 2}\n" for n in range(30)), encoding="utf-8")
    assert guess(str(tmp_path / "a.csv")).answer == "1"


def test_init_says_which_columns_it_leaves_out(tmp_path: Path) -> None:
    rows = [{"text": f"phrase {n}", "tags": ["a"], "team": "one", "score": n * 0.37} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    why = "\n".join(guess(str(tmp_path / "a.jsonl")).why)
    assert "'tags' is not used: it holds lists" in why
    assert "'team' is not used: every row has the same, 'one'" in why
    assert "'score' is not used: it holds numbers" in why


def guessed(folder: Path, rows: list[dict[str, Any]]) -> Any:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return guess(str(folder / "a.jsonl"))


@pytest.mark.parametrize("name", ["ticket.text", "{text}", "text: body", "a[0]"])
def test_init_names_a_column_that_no_template_can_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        guessed(tmp_path, [{name: row["text"], "tone": row["tone"]} for row in ROWS])
    assert f"rename '{name}'" in str(raised.value)
    found = guessed(tmp_path, [{name: "x", **row} for row in ROWS])
    assert f"not used: rename '{name}'" in found.why[-1]


def test_init_prefers_the_names_of_classes_to_their_numbers(tmp_path: Path) -> None:
    numbers = {"joy": 0, "fear": 1, "anger": 2}
    rows = [{"text": row["text"], "label": numbers[row["tone"]], "label_name": row["tone"]} for row in ROWS]
    assert guessed(tmp_path, rows).answer == "label_name"
    assert guessed(tmp_path, [{"text": row["text"], "label": row["label"]} for row in rows]).answer == "label"


def test_init_does_not_take_the_context_for_an_answer_that_it_cannot_read(tmp_path: Path) -> None:
    rows = [{"question": f"who {n}?", "context": f"it is {n}", "answers": {"text": [f"p {n}"]}} for n in range(30)]
    with pytest.raises(UsageError, match="'answers' is not used: it holds objects") as raised:
        guessed(tmp_path, rows)
    assert "write the answer as one text in each row" in str(raised.value)


def test_init_says_that_choices_in_lists_are_not_in_the_prompt(tmp_path: Path) -> None:
    rows = [{"question": f"which {n}?", "choices": ["a", "b"], "answer": n % 2} for n in range(30)]
    assert "'choices' is not used: it holds lists" in "\n".join(guessed(tmp_path, rows).why)


# --- what a file holds, whatever its name and its nesting say ---------------------------------------------------------

CELLS = [[row["text"], row["tone"]] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\n".join(json.dumps(row) for row in [["text", "tone"], *CELLS])),
        ("a.json", json.dumps([["tone", "text"], *([tone, text] for text, tone in CELLS)])),
        ("a.jsonl", "".join(f"\x1e{line}\n" for line in LINES)),
        ("a.json", json.dumps({"data": {"rows": ROWS}})),
        ("a.json", json.dumps({"result": {"set": {"version": 1}}} | {"examples": ROWS})),
        ("a.json", json.dumps({"labels": [{"id": 0, "name": "joy"}], "rows": ROWS})),
        ("a.json", json.dumps({"features": [{"name": "text"}], "rows": [{"row_idx": n, "row": r} for n, r in enumerate(ROWS)]})),
        ("a.jsonl", "\n".join(json.dumps({"id": n, "fields": row}) for n, row in enumerate(ROWS))),
    ],
)  # fmt: skip
def test_rows_a_level_deeper_or_below_a_list_of_names_are_read(name: str, content: str, tmp_path: Path) -> None:
    dataset = read(tmp_path, name, content)
    plain = read(tmp_path, "b.csv", CSV)
    assert answers(dataset) == answers(plain)


def answers(dataset: Dataset) -> dict[Any, str]:
    return {item.prompt: item.completion for item in (*dataset.train, *dataset.validation)}


def test_cells_of_parquet_are_what_was_written(tmp_path: Path) -> None:
    texts = [f"phrase {n}".encode() for n in range(20)]
    short = parquet(
        pyarrow.table({"text": texts, "tone": pyarrow.array([0.1 * (n % 3) for n in range(20)], pyarrow.float32())})
    )
    dataset = read(tmp_path, "a.parquet", short)
    assert dataset.labels == (" 0.0", " 0.1", " 0.2")
    assert dataset.train[0].prompt.startswith("Text: phrase ")
    half = parquet(pyarrow.table({"text": texts, "tone": pyarrow.array([0.1, 0.3] * 10, pyarrow.float16())}))
    assert read(tmp_path, "b.parquet", half).labels == (" 0.1", " 0.3")
    pairs = parquet(pyarrow.table({"translation": [{"en": f"word {n}", "de": f"Wort {n}"} for n in range(20)]}))
    dataset = read(tmp_path, "c.parquet", pairs, prompt="{en}", completion="{de}", metric="exact_match")
    assert len(dataset.train) + len(dataset.validation) == 20
    assert "c.parquet: the columns 'de', 'en' are read from within 'translation'" in dataset.notes
    pictures = parquet(pyarrow.table({"text": [b"\xff\xd8\xff"] * 9, "tone": ["a", "b", "c"] * 3}))
    assert "not text, but bytes in 'text'" in told(tmp_path, "d.parquet", pictures)
    turns = [[[("role", "user"), ("content", f"q {n}")], [("role", "assistant"), ("content", "a")]] for n in range(20)]
    maps = pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.string()))
    chat = parquet(pyarrow.table({"chat": pyarrow.array(turns, maps)}))
    dataset = read(tmp_path, "e.parquet", chat, prompt=None, completion=None, messages="chat", metric="exact_match")
    assert {item.completion for item in dataset.train} == {"a"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", JSONL, "its content is JSON, one object a line; rename it to end in .jsonl"),
        ("a.tsv", json.dumps(ROWS), "its content is JSON; rename it to end in .json"),
        ("a.csv", json.dumps(ROWS, indent=1), "its content is JSON; rename it to end in .json"),
        ("a.jsonl", CSV, "its content is a table with a header, got 'text,tone'; rename it to end in .csv"),
        ("a.json", CSV.replace(",", "\t"), "rename it to end in .tsv"),
        ("a.csv", "<?xml version='1.0'?><rows/>", "its content is XML or HTML"),
        ("a.csv", "<table><tr><td>text</td></tr></table>", "its content is XML or HTML"),
        ("a.csv.gz", gzip.compress(gzip.compress(CSV.encode())), "compressed with gzip twice; unpack it once"),
        ("a.json", json.dumps(ROWS)[:-1] + ",]", "remove the comma before the closing bracket"),
        ("a.jsonl", "".join(f"{json.dumps(line)}\n" for line in LINES), "write each row by one json.dumps, not by two"),
        ("a.csv", CSV.replace(",", "^"), "its cells are separated by '^'"),
        ("a.csv", CSV.replace(",", "::"), "its cells are separated by '::'"),
        ("a.csv", CSV.replace(",", "\x01"), "its cells are separated by '\\x01'"),
        ("a.csv", "“text”,“tone”\n" + "".join(f"“{a}”,“{b}”\n" for a, b in CELLS), "the file puts “ around its cells"),
        ("a.csv", CSV.replace("text", "te\u200bxt", 1), "holds zero width space (U+200B)"),
        ("a.csv", "".join(f"__label__{b} {a}\n" for a, b in CELLS), "these are lines for fastText"),
        ("a.jsonl", "".join(json.dumps({"tone": b, "doc": {"text": a}}) + "\n" for a, b in CELLS), "it is a field of the objects in 'doc'"),
        ("a.jsonl", "".join(json.dumps({"text": [a], "tone": b}) + "\n" for a, b in CELLS), "write one text in each cell"),
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}), "keep one of them in the file"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_told_once_with_what_to_do(
    name: str, content: str | bytes, said: str, tmp_path: Path
) -> None:
    message = told(tmp_path, name, content)
    assert said in message
    assert message.count("\n") < 6


def test_a_column_in_another_unicode_form_is_told(tmp_path: Path) -> None:
    message = told(tmp_path, "a.csv", CSV.replace("tone", "to\u0308ne"), completion=" {t\u00f6ne}")
    assert "it only looks like this one, and holds letters that are composed otherwise" in message


def test_a_text_that_only_begins_like_another_format_is_read(tmp_path: Path) -> None:
    table = CSV + "".join(f'"{{""a"": {n}}} or <b>{n}</b>",joy\n' for n in range(5))
    assert len(read(tmp_path, "a.csv", table).label_rows) == 3
    odd = '{"id",text,tone\n' + "".join(f"{n},{a},{b}\n" for n, (a, b) in enumerate(CELLS))
    assert len(read(tmp_path, "b.csv", odd).label_rows) == 3


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["train.csv"], "did you mean '{folder}/train.csv'?"),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "its 2 files (train-00000-of-00002.parquet, ...) are parts"),
        (["state.json", "dataset_info.json", "data-00000-of-00001.arrow"], "datasets.load_from_disk('{folder}').to_parquet('d.parquet')"),
        (["dataset_dict.json", "test/state.json", "test/data.arrow"], "load_from_disk('{folder}')['test'].to_parquet"),
        (["a.csv", "b.jsonl"], "name one of its files: a.csv, b.jsonl"),
        (["read.me"], "it holds none that is read"),
        ([], "name a file: it holds none"),
    ],
)  # fmt: skip
def test_a_folder_is_told_by_what_lies_in_it(files: list[str], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        load_dataset(DataSpec(train=str(folder), prompt="{text}", completion=" {tone}"), tmp_path)
    assert said.format(folder=folder.as_posix()) in str(refused.value)


def test_a_folder_is_not_walked_to_its_depths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the root of a disk with millions of files."""
    seen: list[Path] = []
    iterdir = Path.iterdir

    def watched(folder: Path) -> Any:
        for entry in iterdir(folder):
            seen.append(entry)
            yield entry

    for n in range(300):
        (tmp_path / "d" / f"{n:03}" / "deep" / "deeper").mkdir(parents=True)
        (tmp_path / "d" / f"{n:03}" / "deep" / "a.csv").write_text("x", encoding="utf-8")
    monkeypatch.setattr(Path, "iterdir", watched)
    monkeypatch.setattr(Path, "rglob", None)
    with pytest.raises(UsageError, match="name a file"):
        load_dataset(DataSpec(train=str(tmp_path / "d"), prompt="{text}", completion=" {tone}"), tmp_path)
    assert 200 <= len(seen) <= 500


def test_a_source_that_is_an_address_or_two_files_is_told(tmp_path: Path) -> None:
    for source, said in (("file:///tmp/a.csv", "without file:"), ("a.csv,b.csv", "put the rows of several into one")):
        with pytest.raises(UsageError, match=said):
            load_dataset(DataSpec(train=source, prompt="{text}", completion=" {tone}"), tmp_path)


# --- what rows say beside their texts ---------------------------------------------------------------------------------


def test_signs_for_a_missing_label_and_formulas_are_told(tmp_path: Path) -> None:
    labels = ["yes", "no", "?"]
    table = "text,tone\n" + "".join(f"phrase {n},{labels[n % 3]}\n" for n in range(30))
    assert any(
        "label ' ?' (10 rows) looks like a missing value" in note for note in read(tmp_path, "a.csv", table).notes
    )
    signs = table.replace("yes", "+").replace("no", "-").replace("?", "0")
    assert not any("missing" in note for note in read(tmp_path, "b.csv", signs).notes)
    formulas = "text,tone\n" + "".join(f'phrase {n},"=""00{n % 2}"""\n' for n in range(30))
    assert any("formulas of a spreadsheet" in note for note in read(tmp_path, "c.csv", formulas).notes)


def test_earlier_turns_that_no_prompt_holds_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"t {n}", "tone": "ab"[n % 2], "history": [["q", "a"]] if n else []} for n in range(20)]
    dataset = read(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert any("19 rows have earlier turns in 'history', which no prompt holds" in note for note in dataset.notes)
    plain = [row | {"history": "of Rome"} for row in rows]
    dataset = read(tmp_path, "b.jsonl", "".join(json.dumps(row) + "\n" for row in plain))
    assert not any("history" in note for note in dataset.notes)


def test_a_prompt_that_ends_in_a_line_end_before_a_space_is_told(tmp_path: Path) -> None:
    assert any("ends in a line end" in note for note in read(tmp_path, "a.csv", CSV, prompt="{text}\n").notes)
    assert not any("line end" in n for n in read(tmp_path, "a.csv", CSV, prompt="{text}\n", completion="{tone}").notes)


def test_a_test_file_that_is_the_train_file_is_told_by_name(tmp_path: Path) -> None:
    message = told(tmp_path, "a.csv", CSV, test=str(tmp_path / "a.csv"))
    assert "name other rows: a prompt is in one split only" in message
    assert "share" not in message
