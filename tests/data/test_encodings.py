"""Bytes to text: what says its encoding is read, what does not is named with the likely one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from rows import load_file, problems, spec, tones

from autotune.data.dataset import load_dataset
from autotune.data.encodings import decode, marked
from autotune.errors import Problem

TABLE = "text,tone\n" + "".join(f"Größe {n} – „falsch“, bitte,x\n".replace(", bitte,", " bitte,") for n in range(30))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_marks_and_zeros_say_the_encoding(encoding: str, delimiter: str, tmp_path: Path) -> None:
    content = TABLE.replace(",", delimiter)
    dataset = load_file(tmp_path, "a.csv", content.encode(encoding), metric="perplexity")
    prompts = {str(item.prompt) for item in dataset.train + dataset.validation}
    assert len(prompts) == 30
    assert "Text: Größe 3 – „falsch“ bitte\nTone:" in prompts
    assert any("read as utf" in note for note in dataset.notes) == (not encoding.startswith("utf-8"))


def test_json_lines_in_utf_16_are_read_as_powershell_writes_them(tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\r\n" for row in tones(30)).encode("utf-16")
    assert len(load_file(tmp_path, "a.jsonl", content).labels) == 3


@pytest.mark.parametrize(
    ("encoding", "text", "named"),
    [
        ("cp1252", "Größe „falsch“ – bitte ändern", "cp1252"),
        ("latin-1", "Où est ma commande, déjà payée ?", "cp1252"),
        ("cp1252", "¿Dónde está mi pedido? £100", "cp1252"),
        ("cp1250", "Proszę o zwrot pieniędzy, źle działa", "cp1250"),
        ("cp1251", "Где мой заказ, верните деньги пожалуйста", "cp1251"),
        ("gb18030", "我的订单在哪里，请退款，物流太慢了", "gb18030"),
    ],
)
def test_a_code_page_is_named_and_shown_and_then_taken(encoding: str, text: str, named: str, tmp_path: Path) -> None:
    content = "text,tone\n" + "".join(f'"{n} {text}",{("joy", "fear")[n % 2]}\n' for n in range(20))
    (tmp_path / "a.csv").write_bytes(content.encode(encoding))
    (problem,) = problems(lambda: load_dataset(spec(train="a.csv"), tmp_path))
    assert (problem.key, problem.line) == ("data.train", 2)
    assert f"as {named} the line reads '\"0 {text[:20]}" in problem.rule
    assert f"write data.encoding: {named} if the line reads right" in problem.remedy
    dataset = load_dataset(spec(train="a.csv", encoding=named), tmp_path)
    assert any(text in str(item.prompt) for item in dataset.train)
    assert dataset.notes == (f"a.csv: read as {named}",)


def test_one_bad_line_of_utf_8_is_named_and_no_other_encoding() -> None:
    problem = decode("größe\n".encode() * 50 + b"gr\xf6\xdfe\n")
    assert isinstance(problem, Problem)
    assert (problem.line, problem.remedy) == (51, "correct that line: the rest of the file is UTF-8")


def test_a_mark_is_followed_whatever_the_sweep_says() -> None:
    assert decode("text".encode("utf-16"), "cp1252") == ("text", "read as utf-16")
    assert decode("größe".encode("cp1252"), "cp1252") == ("größe", "read as cp1252")
    problem = decode(b"\x81\x8d", "cp1252")
    assert isinstance(problem, Problem)
    assert problem.remedy == "correct data.encoding, or save the file as UTF-8"
    assert marked(b"plain") is None
    assert marked(b"a\0b\0") == "utf-16-le"
    assert marked(b"\0" * 40) is None


@pytest.mark.parametrize("name", ["a.csv.gz", "a.CSV.GZ"])
def test_gzip_is_unpacked(name: str, tmp_path: Path) -> None:
    content = "text,tone\n" + "".join(f"{n},{('joy', 'fear')[n % 2]}\n" for n in range(20))
    assert len(load_file(tmp_path, name, gzip.compress(content.encode())).labels) == 2
    (tmp_path / name).write_bytes(gzip.compress(content.encode())[:-9])
    (problem,) = problems(lambda: load_dataset(spec(train=name), tmp_path))
    assert "must be compressed with gzip" in problem.rule


def test_lost_characters_are_told(tmp_path: Path) -> None:
    content = "text,tone\n" + "".join(f"{n} caf\ufffd,{('joy', 'fear')[n % 2]}\n" for n in range(20))
    dataset = load_file(tmp_path, "a.csv", content.encode())
    assert dataset.notes == ("a.csv: characters were lost before it was saved (U+FFFD, first in line 2)",)
