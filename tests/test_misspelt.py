"""A command line that is nearly right is answered with the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.cli import main


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the last line that a refused command line is answered with."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("statsu", "d"), "did you mean 'status'?"),
        (("Plan", "x.yaml"), "did you mean 'plan'?"),
        (("sweep.yaml",), "did you mean 'autotune run sweep.yaml'?"),
        (("my/olive.json", "--trials", "3"), "did you mean 'autotune run my/olive.json'?"),
        (("help",), "did you mean 'autotune --help'?"),
        (("version",), "did you mean 'autotune --version'?"),
        (("train", "x.yaml"), "did you mean 'autotune run'?"),
        (("evaluate", "d"), "did you mean 'autotune score'?"),
        (("clean",), "did you mean 'autotune cache prune'?"),
        (("run", "x.yaml", "--trails", "3"), "did you mean '--trials'?"),
        (("run", "x.yaml", "--limit", "size_mb<=3"), "--limit belongs to select, export, score"),
        (("plan", "x.yaml", "--trials=3"), "--trials belongs to run"),
        (("select", "d", "--merged"), "--merged belongs to export"),
        (("select", "d", "--limit", "size_mb<=3", "accuracy>=0.9"), "write --limit before each limit"),
        (("run", "x.yaml", "--set", "a=1", "b.c=2"), "write --set before each KEY=VALUE"),
        (("select", "d", "another"), "select takes one folder; report compares several"),
        (("completion", "bahs"), "did you mean 'bash'?"),
        (("cache", "purge"), "did you mean 'prune'?"),
    ],
)
def test_what_was_meant_is_said(words: tuple[str, ...], remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, *words).endswith(f"; {remedy}")


@pytest.mark.parametrize("words", [("frobnicate",), ("run", "x.yaml", "--zzzzzz"), ("status", "d", "another")])
def test_nothing_is_guessed_where_nothing_is_near(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    line = answer(capsys, *words)
    assert ";" not in line
    assert "belongs" not in line


def test_a_results_folder_or_a_model_for_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in (("results", "results.csv"), ("onnx", "genai_config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    assert answer(capsys, "results").endswith("; did you mean 'autotune status results'?")
    assert answer(capsys, "onnx").endswith("; did you mean 'autotune bench onnx'?")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("run", "x.yaml", "--hours", "8h"), "write 8"),
        (("run", "x.yaml", "--hours", "90min"), "write 1.5"),
        (("run", "x.yaml", "--hours", "8:30"), "write 8.5"),
        (("run", "x.yaml", "--hours", "1,5"), "write 1.5"),
        (("run", "x.yaml", "--trials", "1,000"), "write 1000"),
        (("cache", "prune", "--to", "5GB"), "write 5000"),
        (("cache", "prune", "--to", "500 MB"), "write 500"),
    ],
)
def test_a_number_with_a_unit_or_a_comma_is_answered_with_the_number(
    words: tuple[str, ...], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(capsys, *words).endswith(f"; {remedy}")
