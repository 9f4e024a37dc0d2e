"""results.csv: what is written comes back, whatever happened to the file in between."""

from __future__ import annotations

import csv
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.candidate import Candidate, Lora, Recipe
from autotune.errors import UsageError
from autotune.results.columns import (
    COLUMNS,
    CURVES,
    FINALISTS,
    Cell,
    Column,
    markdown,
    with_workloads,
    workload_names,
)
from autotune.results.rows import TableRow, Trial
from autotune.results.table import Table, read_table, text_of, write_table
from autotune.results.trials import Trials, rounded

SMALL = (
    Column("candidate", str, "a name"),
    Column("trial", int, "a number"),
    Column("accuracy", float, "a share"),
    Column("dora", bool, "a switch"),
    Column("error", str, "a line"),
)


class Small(TableRow):
    """A row of such a table."""

    columns = SMALL


ROW = Small({"candidate": "a", "trial": 1, "accuracy": 0.5, "dora": True, "error": None})


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


# --- writing and reading ---------------------------------------------------------------------------------------------


def test_rows_are_appended_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    table = Table(file, Small)
    assert text(file) == "candidate,trial,accuracy,dora,error\n"
    table.append(ROW)
    table.append(Small({"candidate": "b"}))
    assert text(file).splitlines()[1:] == ["a,1,0.5,true,", "b,,,,"]
    again = Table(file, Small)
    assert again.rows == [ROW, Small({"candidate": "b"})]
    assert table.rows == again.rows
    again.append(ROW)
    assert read_table(file, Small) == again.rows


def test_unknown_cells_are_refused(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", Small)
    with pytest.raises(KeyError, match="accuraci"):
        table.append(Small({"candidate": "a", "accuraci": 0.5}))
    assert table.rows == []


def test_lesson_6_what_is_missing_is_empty(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", Small)
    for value in (None, math.nan, math.inf, -math.inf):
        table.append(Small({"candidate": "a", "accuracy": value}))
    assert set(text(table.file).splitlines()[1:]) == {"a,,,,"}
    assert all(row["accuracy"] is None for row in read_table(table.file, Small))
    table.append(Small({"candidate": "a", "accuracy": 0.0, "trial": 0, "dora": False}))
    assert text(table.file).splitlines()[-1] == "a,0,0,false,"


def test_measured_numbers_have_six_digits_and_settings_all() -> None:
    row = rounded(
        {"accuracy": 2 / 3, "lora_learning_rate": 0.00123456789, "size_mb": math.inf, "trial": 1234567, "x": 1e-9}
    )
    assert row == {
        "accuracy": 0.666667,
        "lora_learning_rate": 0.00123456789,
        "size_mb": None,
        "trial": 1234567,
        "x": 1e-9,
    }


def test_the_last_attempt_says_whether_a_trial_was_done() -> None:
    def attempt(trial: int, name: str, status: str) -> Trial:
        return Trial({"trial": trial, "candidate": name, "status": status})

    rows = [attempt(0, "base", "ok"), attempt(1, "a", "stopped"), attempt(1, "b", "lost"), attempt(1, "b", "stopped")]
    assert (len(Trials(rows)), Trials(rows).last) == (0, 0)
    trials = Trials([*rows, attempt(1, "c", "failed"), attempt(2, "d", "lost")])
    assert (len(trials), trials.last) == (2, 2)
    trials.learn(attempt(2, "e", "stopped"))  # which is another one
    trials.learn(attempt(2, "d", "ok"))
    assert len(trials) == 2


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "'=1", "''-x", "'", "''", "it's", "a,b", 'say "x"'])
def test_spreadsheets_run_no_text_of_ours(tmp_path: Path, value: str) -> None:
    table = Table(tmp_path / "t.csv", Small)
    table.append(Small({"candidate": value}))
    with table.file.open(encoding="utf-8", newline="") as stream:
        cell = list(csv.reader(stream))[1][0]
    assert not cell.startswith(("=", "+", "-", "@"))
    assert read_table(table.file, Small)[0]["candidate"] == value


def test_negative_numbers_stay_numbers() -> None:
    assert (text_of(-0.5), text_of(-3), text_of(1e-7), text_of(16.0)) == ("-0.5", "-3", "1e-07", "16")


def test_a_cell_is_one_line(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", Small)
    table.append(Small({"candidate": "a", "error": "first\r\nsecond\tthird   \u2028 end"}))
    assert len(text(table.file).splitlines()) == 2
    assert read_table(table.file, Small)[0]["error"] == "first second third end"


lines_of_text = st.text(max_size=20).map(lambda t: " ".join(t.split())).filter(lambda t: "\x00" not in t)
cells = {
    str: st.none() | lines_of_text.map(lambda t: t or None),
    int: st.none() | st.integers(-(10**12), 10**12),
    float: st.none() | st.floats(allow_nan=False, allow_infinity=False),
    bool: st.none() | st.booleans(),
}
rows_of_all_columns = st.lists(
    st.fixed_dictionaries({}, optional={c.name: cells[c.type] for c in SMALL}).map(lambda r: {"candidate": "x"} | r),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(rows=rows_of_all_columns)
def test_any_row_comes_back_as_it_was(rows: list[dict[str, Cell]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        table = Table(file, Small)
        for row in rows:
            table.append(Small(row))
        assert read_table(file, Small) == list(map(Small, rows))
        assert Table(file, Small).rows == table.rows


def test_a_whole_row_of_settings_comes_back_as_the_same_candidate(tmp_path: Path) -> None:
    candidate = Candidate(
        lora=Lora(
            r=8, alpha=5.1, dropout=0.05, target_modules=("k_proj", "q_proj"), learning_rate=3.162e-4,
            schedule="cosine", warmup=0.1, batch_size=8, accumulation=1, gradient_checkpointing=False,
            max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.999, weight_decay=0.0, dtype="auto", max_length=256,
            epochs=0.5, dora=True, quantized_base="nf4", double_quant=False,
        ),
        recipe=Recipe(precision="int4", algorithm="rtn", block_size=32, symmetric=False, nodes_to_exclude="/a/b,/c"),
    )  # fmt: skip
    table = Table(tmp_path / "t.csv", Trial)
    table.append(Trial({"candidate": candidate.id, **candidate.columns()}))
    row = read_table(table.file, Trial)[0].filled()
    assert row.pop("candidate") == candidate.id
    assert row == candidate.columns()
    assert Candidate.from_columns({name: str(value) for name, value in row.items()}) == candidate


# --- what happens to files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_half_written_line_is_dropped_and_the_rest_kept(tmp_path: Path, cut: int) -> None:
    table = Table(tmp_path / "t.csv", Small)
    table.append(ROW)
    table.append(ROW | {"candidate": "b", "error": 'größer, "so"'})
    whole = table.file.read_bytes()
    table.file.write_bytes(whole[:-cut])
    assert [row["candidate"] for row in read_table(table.file, Small)] == ["a"]  # a reader leaves it as it is
    again = Table(table.file, Small)
    assert again.rows == [ROW]
    again.append(ROW | {"candidate": "c"})
    assert [row["candidate"] for row in read_table(table.file, Small)] == ["a", "c"]


def test_a_half_written_header_and_an_empty_file(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"candid", b"\n", b"\x00\x00\x00")):
        file = tmp_path / f"{number}.csv"
        file.write_bytes(content)
        table = Table(file, Small)
        table.append(ROW)
        assert read_table(file, Small) == [ROW]


def test_a_power_cut_that_leaves_zeros(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", Small)
    table.append(ROW)
    with table.file.open("ab") as stream:
        stream.write(b"\x00" * 500)
    assert Table(table.file, Small).rows == [ROW]
    assert b"\x00" not in table.file.read_bytes()


def test_new_columns_go_to_the_end_and_the_order_stays(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("trial,candidate,mine\n1,a,-note\n2,b,\n", encoding="utf-8")
    table = Table(file, Small)
    table.append(ROW | {"candidate": "c", "trial": 3})
    assert text(file) == (
        "trial,candidate,mine,accuracy,dora,error\n1,a,-note,,,\n2,b,,,,\n3,c,,0.5,true,\n"
    )  # fmt: skip
    assert Table(file, Small).rows == table.rows
    assert [row["mine"] for row in table.rows] == ["-note", None, None]
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_spreadsheet_saves_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    saved = '\ufeffcandidate,trial,accuracy,dora,error\r\na,1,0.5,TRUE,\r\n\r\nb,2,,FALSE,"x, y"\r\n'
    file.write_bytes(saved.encode())
    table = Table(file, Small)
    assert table.rows == [ROW, Small({"candidate": "b", "trial": 2, "dora": False, "error": "x, y"})]
    table.append(ROW)
    assert len(read_table(file, Small)) == 3


def test_rows_wait_while_a_spreadsheet_holds_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(tmp_path / "t.csv", Small)

    def held(self: Table, text: str) -> None:
        raise PermissionError(13, "in use", str(self.file))

    with monkeypatch.context() as patch:
        patch.setattr(Table, "_append", held)
        table.append(ROW)
        table.append(ROW | {"candidate": "b"})
        assert not table.flush()
        assert [row["candidate"] for row in table.rows] == ["a", "b"]
    assert read_table(table.file, Small) == []
    table.append(ROW | {"candidate": "c"})
    assert [row["candidate"] for row in read_table(table.file, Small)] == ["a", "b", "c"]
    assert table.flush()
    assert len(read_table(table.file, Small)) == 3


def test_other_trouble_with_the_file_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(tmp_path / "t.csv", Small)

    def full(self: Table, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Table, "_append", full)
    with pytest.raises(OSError, match="No space"):
        table.append(ROW)


def test_a_file_that_was_removed_is_written_whole(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv", Small)
    table.append(ROW)
    table.file.unlink()
    table.append(ROW | {"candidate": "b"})
    assert [row["candidate"] for row in read_table(table.file, Small)] == ["a", "b"]
    table.append(ROW | {"candidate": "c"})
    assert [row["candidate"] for row in read_table(table.file, Small)] == ["a", "b", "c"]


def test_a_table_written_anew_replaces_the_old(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    write_table(file, SMALL, [ROW, ROW])
    write_table(file, SMALL, [ROW | {"candidate": "b"}])
    assert [row["candidate"] for row in read_table(file, Small)] == ["b"]
    write_table(file, SMALL, [])
    assert read_table(file, Small) == []
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("written", [0, 1, 30, 70])
def test_lines_that_a_full_disk_took_in_part_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    table = Table(tmp_path / "t.csv", Small)
    table.append(ROW)
    before = table.file.read_bytes()

    def full(number: int) -> None:
        os.truncate(table.file, min(len(before) + written, table.file.stat().st_size))
        raise OSError(28, "No space left on device")

    for name in "bcd":
        table.add(ROW | {"candidate": name})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space") as raised:
            table.flush()
    assert raised.value.filename == str(table.file)
    assert table.file.read_bytes() == before
    table.flush()
    assert [row["candidate"] for row in read_table(table.file, Small)] == ["a", "b", "c", "d"]


# --- files that are no tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a;b\n1;2\n", "no column 'candidate'"),
        ("candidate,trial\na\n", "a row has 1 cells, and the header 2"),
        ("candidate,trial\na,one\n", "trial: must be whole number, got 'one'"),
        ("candidate,accuracy\na,high\n", "accuracy: must be number"),
        ("candidate,accuracy\na,nan\n", "accuracy: must be number"),
        ("candidate,dora\na,maybe\n", "dora: must be true or false"),
        ('candidate\n"a\n', ""),
        ("candidate\n" + "x" * 200_000 + "\n", "not a CSV file"),
        (b"candidate\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_place(tmp_path: Path, content: Any, says: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    if not says:
        read_table(file, Small)  # a quote that never ends swallows the rest: one odd row
        return
    with pytest.raises(UsageError, match=says) as error:
        read_table(file, Small)
    assert str(file) in str(error.value)


def test_a_folder_or_nothing_is_no_table(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing.csv"):
        with pytest.raises(UsageError, match="cannot be read as a results table"):
            read_table(place, Small)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200) | st.text(alphabet='candidate,trl"\n\r1.e-\x00=é', max_size=200).map(str.encode),
       head=st.sampled_from([b"", b"candidate,trial,accuracy,dora,error\n", b"\xef\xbb\xbfcandidate,trial\n"]))  # fmt: skip
def test_any_bytes_are_a_table_or_a_usage_error(content: bytes, head: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        file.write_bytes(head + content)
        try:
            rows = read_table(file, Small)
        except UsageError as error:
            assert str(file) in str(error)  # noqa: PT017 - one of two right outcomes
            return
        for row in rows:
            for column in SMALL:
                value: Cell = row[column.name]
                assert value is None or isinstance(value, column.type)
                assert not isinstance(value, float) or math.isfinite(value)
        table = Table(file, Small)
        assert table.rows == rows
        table.append(ROW)
        assert Table(file, Small).rows[-1] == ROW


# --- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [COLUMNS, FINALISTS, CURVES])
def test_columns_have_one_name_a_type_and_a_meaning(columns: tuple[Column, ...]) -> None:
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    for column in columns:
        assert column.type in (str, int, float, bool)
        assert column.meaning
    table = markdown(columns)
    assert table.count("\n") == len(columns) + 2


def test_every_setting_has_its_column() -> None:
    names = {column.name for column in COLUMNS}
    assert {f"lora_{name}" for name in Lora.model_fields} | {f"build_{name}" for name in Recipe.model_fields} < names


@pytest.mark.parametrize(
    ("name", "cell", "rule"),
    [
        ("accuracy", "1.5", "must be number from 0 to 1"),
        ("f1_low", "-0.1", "must be number from 0 to 1"),
        ("perplexity", "-1", "must be number of at least 0"),
        ("accuracy_n", "0", "must be whole number from 1 to 1e+09"),
        ("trial", "-1", "must be whole number of at least 0"),
        ("lora_r", "9" * 30, "must be whole number"),
        ("lora_r", "9" * 5000, "must be whole number"),
    ],
)
def test_a_number_that_cannot_have_been_measured_is_refused(tmp_path: Path, name: str, cell: str, rule: str) -> None:
    (tmp_path / "results.csv").write_text(f"candidate,{name}\na,{cell}\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_table(tmp_path / "results.csv", Trial)
    assert f"results.csv:2: {name}: {rule}, got '{cell[:20]}" in str(caught.value)


def test_the_largest_perplexity_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("candidate,perplexity\na,1.7e308\n", encoding="utf-8")
    assert read_table(tmp_path / "results.csv", Trial)[0]["perplexity"] == 1.7e308


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("candidate,trial,trial\na,1,2\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has the column 'trial' twice; restore the file or remove the column"):
        read_table(tmp_path / "results.csv", Trial)


def test_what_cannot_be_read_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\n")
    for file in (tmp_path, tmp_path / "image.csv"):
        with pytest.raises(UsageError, match=r"cannot be read as a results table \(.*\); name a results folder or its"):
            read_table(file, Trial)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of POSIX")
def test_a_device_without_an_end_is_no_table() -> None:
    with pytest.raises(UsageError, match="it is no file"):
        read_table(Path("/dev/zero"), Trial)


def test_columns_of_workloads_stand_at_the_end_and_are_read_as_numbers(tmp_path: Path) -> None:
    columns = with_workloads(COLUMNS, [*workload_names("@long"), "note@home", "accuracy@long", "candidate"])
    assert columns[: len(COLUMNS)] == COLUMNS
    assert [column.name for column in columns[len(COLUMNS) :]] == [
        "ttft_ms_p50@long", "ttft_ms_p90@long", "itl_ms_p50@long", "itl_ms_p50_low@long", "itl_ms_p50_high@long",
        "itl_ms_p90@long", "decode_tps@long", "peak_memory_mb@long", "gpu_memory_mb@long", "processes@long",
        *(f"{name}_{end}@long" for name in ("ttft_ms_p50", "ttft_ms_p90", "itl_ms_p90", "decode_tps", "peak_memory_mb", "gpu_memory_mb")
          for end in ("low", "high")),
    ]  # fmt: skip
    assert workload_names("") == []
    file = tmp_path / "results.csv"
    row = Trial({"candidate": "a", "itl_ms_p50@long": 4.25, "itl_ms_p50_low@long": 4.0})
    Table(file, Trial, workload_names("@long")).append(row)
    row = read_table(file, Trial)[0]
    assert (row["itl_ms_p50@long"], row["itl_ms_p50_low@long"], row["decode_tps@long"]) == (4.25, 4.0, None)
    file.write_text(file.read_text(encoding="utf-8").replace("4.25", "fast"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"itl_ms_p50@long: must be number, got 'fast'"):
        read_table(file, Trial)
