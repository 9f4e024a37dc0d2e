"""Tables of text as spreadsheets and exports write them: the right rows, or the line that is in doubt."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import load_file, problems, spec

from autotune.data.dataset import load_dataset
from autotune.data.delimited import DELIMITERS, read_delimited

LABELS = ("billing", "shipping", "access")


def cells(content: str, usual: str = ",", wanted: tuple[str, ...] = ("text", "team")) -> list[list[str]]:
    """Return the cells of the wanted columns, row by row; there must be no problem."""
    table = read_delimited(content, usual, wanted)
    assert not table.problems, table.problems
    places = [table.columns.index(name) for name in wanted]
    return [[line.cells[place] for place in places] for line in table.lines]


def notes(content: str, usual: str = ",") -> list[str]:
    return read_delimited(content, usual, ("text", "team")).notes


@pytest.mark.parametrize("usual", [",", "\t"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_what_the_header_says(delimiter: str, usual: str, end: str) -> None:
    rows = [["text", "team", "note"], ["a, b; c", "billing", "1,5"], ["d", "access", ""]]
    content = end.join(delimiter.join(f'"{c}"' if delimiter in c else c for c in row) for row in rows) + end
    assert cells(content, usual) == [["a, b; c", "billing"], ["d", "access"]]
    assert bool(notes(content, usual)) == (delimiter != usual)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_names_of_rows_without_a_name_of_their_own_are_told(delimiter: str) -> None:
    """As R writes a table, and nothing says which cell belongs to which column."""
    rows = [delimiter.join((str(n), f"text {n}", LABELS[n % 3])) for n in range(20)]
    table = read_delimited("\n".join([delimiter.join(("text", "team")), *rows]) + "\n", delimiter, ("text", "team"))
    (problem,) = table.problems
    assert (problem.line, problem.remedy) == (
        2,
        f"begin the header with a name for the first column, such as row{delimiter}",
    )
    assert "each row has 3 cells, one more than the header" in problem.rule
    table = read_delimited(
        "\n".join([delimiter.join(("row", "text", "team")), *rows]) + "\n", delimiter, ("text", "team")
    )
    assert (table.problems, len(table.lines)) == ([], 20)


def test_semicolons_win_over_commas_within_cells() -> None:
    content = "text;team\n" + "".join(f"{n} was, bitte, ja;{LABELS[n % 3]}\n" for n in range(20))
    assert cells(content)[:2] == [["0 was, bitte, ja", "billing"], ["1 was, bitte, ja", "shipping"]]
    assert notes(content) == ["cells are separated by semicolons"]


def test_a_delimiter_is_found_though_a_column_is_misspelt() -> None:
    content = "texts;teams\n" + "".join(f"{n}, x;{LABELS[n % 3]}\n" for n in range(20))
    assert read_delimited(content, ",", ("text", "team")).columns == ["texts", "teams"]


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_excel_says_its_delimiter_in_the_first_line(first: str) -> None:
    table = read_delimited(first + "text;team\na,b;billing\n", ",", ("text", "team"))
    assert [(line.number, line.cells) for line in table.lines] == [(3, ["a,b", "billing"])]


def test_columns_that_nobody_asks_for_need_no_name() -> None:
    assert cells("team,text,,,\nham,hello,,,\nspam,win now,,,\n") == [["hello", "ham"], ["win now", "spam"]]
    assert cells(",text,team\n0,a,joy\n1,b,fear\n") == [["a", "joy"], ["b", "fear"]]
    assert cells("id,id,text,team\n1,2,a,joy\n") == [["a", "joy"]]
    assert cells("team,text,,\nham,hello,PO Box 5,MK17 92H\n") == [["hello", "ham"]]
    assert cells(" text , team \na,joy\n") == [["a", "joy"]]
    assert cells("\u00a0text,team\u200b\na,joy\n") == [["a", "joy"]]


def test_cells_that_lack_or_are_too_many_at_the_end() -> None:
    assert cells("text,team,note\na,joy\nb,fear,x\n") == [["a", "joy"], ["b", "fear"]]
    assert cells("text,team\na,joy,,\nb,fear, \n") == [["a", "joy"], ["b", "fear"]]
    for row in ("c\n", "c,d,joy\n"):
        (problem,) = read_delimited("text,team\na,joy\n" + row, ",", ("text", "team")).problems
        assert (problem.line, problem.rule) == (3, "each row must have 2 cells, as the header has")


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".csv", ";")])
def test_a_cell_may_be_of_any_length(suffix: str, delimiter: str, tmp_path: Path) -> None:
    long = "word " * 60_000
    rows = [[f'{n} "quoted" {long if n == 3 else ""}', ("joy", "fear")[n % 2]] for n in range(20)]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows([["text", "tone"], *rows])
    limit = csv.field_size_limit()
    dataset = load_file(tmp_path, f"a{suffix}", stream.getvalue().encode())
    assert max(len(str(item.prompt)) for item in dataset.train + dataset.validation) > 300_000
    assert csv.field_size_limit() == limit, "other code's limit is its own"


# --- Quotes ------------------------------------------------------------------------------------------------------------


def test_a_tsv_with_quotes_as_text_keeps_its_rows() -> None:
    # Read as quoted cells, lines 3 to 5 would be one row.
    lines = ["0 slow\tbilling", '"1 late\tshipping', "2 twice\taccess", '3 again"\tbilling', 'say "yes" now\taccess']
    content = "text\tteam\n" + "\n".join(lines) + "\n"
    assert cells(content, "\t") == [line.split("\t") for line in lines]
    assert notes(content, "\t") == ["quotes are read as part of the text"]


def test_a_csv_with_quotes_as_text_keeps_its_rows() -> None:
    rows = [f"{n} word,{LABELS[n % 3]}" for n in range(30)]
    rows[3], rows[5] = '"3 word,billing', '5 word",access'
    content = "text,team\n" + "\n".join(rows) + "\n"
    assert cells(content) == [row.split(",") for row in rows]


@pytest.mark.parametrize("content", ['text,team\n"a" is good,joy\nb,fear\n', 'text,team\n"a,joy\nb,fear\n'])
def test_quotes_that_fit_no_quoted_cell_are_text(content: str) -> None:
    assert cells(content) == [line.split(",") for line in content.splitlines()[1:]]
    assert notes(content) == ["quotes are read as part of the text"]


def test_cells_of_several_lines_stay_one_row() -> None:
    letter = "Dear team,\nmy parcel, of Monday,\n\nis late.\nBob"
    rows = [[letter if n % 4 == 0 else f"{n} word", LABELS[n % 3]] for n in range(24)]
    for delimiter in DELIMITERS:
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=delimiter).writerows([["text", "team"], *rows])
        assert cells(stream.getvalue(), delimiter) == rows
        assert notes(stream.getvalue(), delimiter) == []


def test_other_notations_of_quotes_are_read_where_the_whole_file_fits_one() -> None:
    escaped = 'text,team\n"he said \\"hi, you\\"",joy\n"b, c",fear\n'
    assert cells(escaped) == [['he said "hi, you"', "joy"], ["b, c", "fear"]]
    spaced = 'text, team\n"a, b", "joy"\n"c", "fear"\n'
    assert cells(spaced) == [["a, b", "joy"], ["c", "fear"]]


def test_a_quote_that_swallows_rows_is_a_problem_where_its_end_is_unclear() -> None:
    content = 'text\tteam\na\tjoy\n"b\tfear\nc"\tjoy\nd\te\tf\n'
    lines = [problem.line for problem in read_delimited(content, "\t", ("text", "team")).problems]
    assert lines == [3, 5]


any_cell = st.text(alphabet='ab ,;|\t"\n', max_size=6)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(any_cell, st.sampled_from(LABELS)), min_size=1, max_size=8), st.sampled_from(DELIMITERS))
def test_what_a_csv_writer_wrote_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("text", "team"), *rows])
    assert cells(stream.getvalue(), delimiter) == [list(row) for row in rows]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.text(alphabet='ab ,;"', min_size=1, max_size=6), st.sampled_from(LABELS)), min_size=1, max_size=8
    )
)
def test_a_tsv_loses_no_row_and_no_label_whatever_its_quotes(rows: list[tuple[str, str]]) -> None:
    content = "text\tteam\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    table = read_delimited(content, "\t", ("text", "team"))
    assert not table.problems
    assert [line.cells[1] for line in table.lines] == [label for _, label in rows]


def test_a_missing_header_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0 what a day,joy\n1 oh no,fear\n", encoding="utf-8")
    first, _ = problems(lambda: load_dataset(spec(train="a.csv"), tmp_path))
    assert first.remedy == "name one of those; the first line of a table must name its columns"


def test_a_note_names_the_file(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"metric": "perplexity"}
    dataset = load_file(
        tmp_path,
        "a.csv",
        "".join(f"{n};x\n" for n in ["text;tone", *range(20)]).replace("tone;x", "tone").encode(),
        **parts,
    )
    assert dataset.notes == ("a.csv: cells are separated by semicolons",)
