"""The examples in results/dashboards/ that need nothing but what autotune brings are run as they stand."""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from autotune.results.folder import read_results
from autotune.results.judge import front_of

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "results" / "example"
PAGE = (ROOT / "results" / "dashboards" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


def front() -> list[str]:
    """Return the candidates of the front, the most accurate first."""
    rows = [row for row in read_results(EXAMPLE) if row.trial]
    found = front_of(rows, {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"})
    return [row.candidate for row in sorted(found, key=lambda row: -(row.number("accuracy") or 0))]


def test_the_example_for_pandas_prints_the_best_small_candidate_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = blocks("python")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "README.md", "exec"), {})
    small = [row for row in read_results(EXAMPLE) if row.trial and (row.number("size_mb") or 0) <= 200]
    best = max(small, key=lambda row: row.number("accuracy") or 0)
    heading, first, *others = printed.getvalue().splitlines()
    assert heading.split()[0] == "candidate"
    assert first.split()[0] == best.candidate
    assert len([line for line in others if re.match(r"\s*[0-9a-f]{16} ", line)]) == len(small) - 1


def test_the_example_for_sqlite_has_the_rows_that_count(tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    command = [sys.executable, ROOT / "results" / "dashboards" / "to_sqlite.py", EXAMPLE, file]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True)
    (query,) = blocks("sqlite")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute(query).fetchall()
        names = {name for (name,) in database.execute("SELECT candidate FROM results")}
    assert names == {row.candidate for row in read_results(EXAMPLE)}
    assert len(rows) == 10
    assert all(time > 1_700_000_000 and 0 < accuracy < 1 for time, accuracy, *_ in rows)


def test_every_file_beside_the_page_is_named_in_it() -> None:
    for file in (ROOT / "results" / "dashboards").iterdir():
        assert file.name == "README.md" or f"]({file.name})" in PAGE
    app = (ROOT / "results" / "dashboards" / "streamlit_app.py").read_text(encoding="utf-8")
    assert len(app.splitlines()) <= 40
