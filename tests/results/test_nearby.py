"""Who names a place without results is told where results are."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.results.nearby import remedy_for


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tones", "tickets"):
        for below in ("best/onnx", "outcomes"):
            Path("results", name, below).mkdir(parents=True)
        Path("results", name, "results.csv").touch()
        Path("results", name, "report.html").touch()
    Path("elsewhere").mkdir()
    Path("tones.yaml").touch()


@pytest.mark.parametrize(
    ("place", "remedy"),
    [
        ("results", "name one of the results folders in it: results/tickets, results/tones"),
        ("results/tonse", "did you mean results/tones?"),
        ("results/zzz", "name one of these: results/tickets, results/tones"),
        ("results/tones/best", "name the results folder itself: results/tones"),
        ("results/tones/best/onnx", "name the results folder itself: results/tones"),
        ("results/tones/report.html", "name the results folder itself: results/tones"),
        ("tones.yaml", "name its results folder: results/tones"),
        ("elsewhere", "look it up"),
        ("nothing/at/all", "look it up"),
        ("a\0b", "look it up"),
        ("x" * 5000, "look it up"),
    ],
)
def test_the_folder_that_was_meant_is_named(place: str, remedy: str) -> None:
    assert remedy_for(Path(place), "look it up") == str(remedy).replace("/", str(Path("/"))[-1])


def test_of_many_folders_some_are_named() -> None:
    for n in range(9):
        Path("many", f"sweep-{n}").mkdir(parents=True)
        Path("many", f"sweep-{n}", "results.csv").touch()
    assert remedy_for(Path("many")).endswith("sweep-4, ...")
