"""A sweep whose test rows have changed since its finalists were scored on them, run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran, TinySweep

from autotune.errors import Exit

pytestmark = pytest.mark.usefixtures("keeps_workers")


def test_test_rows_at_another_path_are_known_by_their_content(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    place = tmp_path / "copy"
    shutil.copytree(tiny_sweep.file.parent, place)
    table = (place / "out" / "results.csv").read_bytes()
    scores = (place / "out" / "finalists.csv").read_bytes()
    (place / "same.jsonl").write_bytes((place / "test.jsonl").read_bytes())
    rows = (place / "test.jsonl").read_text(encoding="utf-8")
    (place / "other.jsonl").write_text(rows.replace("today", "tomorrow"), encoding="utf-8")
    for name in ("other", "test"):
        (place / "test.jsonl").write_text(rows.replace("today", "tomorrow"), encoding="utf-8")
        ran = autotune("run", place / "sweep.yaml", "--out", place / "out", "--set", f"data.test={place / name}.jsonl")
        assert ran.code == Exit.USAGE, ran.err
        assert "data.test: differs from" in ran.err or "the content of test has changed" in ran.err
        assert "another --out" in ran.err
        assert (place / "out" / "results.csv").read_bytes() == table
        assert (place / "out" / "finalists.csv").read_bytes() == scores
    ran = autotune("run", place / "sweep.yaml", "--out", place / "out", "--set", f"data.test={place / 'same'}.jsonl")
    assert ran.code == Exit.OK, ran.err
    assert (place / "out" / "results.csv").read_bytes() == table
