"""While a sweep runs, its report follows, and never takes much of its time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from autotune.errors import MachineError
from autotune.report import refresh as refresh_module
from autotune.report.refresh import LEAST_S, SHARE, ReportRefresher
from autotune.results.rows import Trial
from autotune.scheduler.events import Note, RowWritten
from benchmarks.report_folders import Shape, make_folder

ROW = RowWritten(Trial({}), None)


def test_the_report_is_written_after_rows_but_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written, said = [0.0], [], []

    def write(folders: list[Path], say: object) -> None:
        written.append(now[0])
        now[0] += 2.0  # it takes so long

    monkeypatch.setattr(refresh_module, "write_report", write)
    refresher = ReportRefresher(tmp_path, said.append, clock=lambda: now[0])
    refresher(Note("no row"))
    assert written == []
    for _ in range(1000):
        refresher(ROW)
        now[0] += 1.0
    assert written[0] == 0.0
    assert all(b - a >= max(LEAST_S, 2.0 / SHARE) for a, b in pairwise(written))
    assert len(written) == 5
    assert said == []


def test_what_hinders_it_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def write(folders: list[Path], say: object) -> None:
        raise MachineError("the disk is full")

    monkeypatch.setattr(refresh_module, "write_report", write)
    refresher = ReportRefresher(tmp_path, said.append)
    assert not refresher.write()
    assert not refresher.write()
    assert said == ["the report was not written: the disk is full"]


def test_a_running_sweeps_folder_has_a_report(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made", Shape(6, items=20))
    note = '{"pid": 1, "host": "here", "started": 1.0, "stage": "train"}'
    (folder / "running.json").write_text(note, encoding="utf-8")
    assert ReportRefresher(folder, print).write()
    assert (folder / "report.html").exists()
