"""What `running.json` says of candidates under way, and how often it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import make_sweep

from autotune.candidate import Candidate, Recipe
from autotune.results.record import Record
from autotune.scheduler import status_note
from autotune.scheduler.events import CandidateEnded, StageBegan, StillAtWork
from autotune.scheduler.status_note import EVERY_S, MANY, Running


def candidate(number: int) -> Candidate:
    return Candidate(recipe=Recipe(precision="fp32"), target=f"t{number}")


def said(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "running.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("count", [1, MANY, MANY + 1, 200])
def test_many_candidates_are_noted_once_a_second_and_few_at_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    now, notes = 1000.0, list[int]()
    monkeypatch.setattr(status_note.time, "monotonic", lambda: now)
    with Record(tmp_path / "out", make_sweep(), lambda: 0.0) as record:
        busy = record.busy
        monkeypatch.setattr(record, "busy", lambda **what: (notes.append(len(what["jobs"])), busy(**what)))
        running = Running(record)
        for number in range(count):
            running(StageBegan(number + 1, candidate(number), "finetune"))
        running(StillAtWork())
        assert notes == list(range(1, min(count, MANY) + 1))
        now += EVERY_S
        running(StillAtWork())
        assert len(said(tmp_path / "out")["jobs"]) == count  # what was put off is written soon
        assert said(tmp_path / "out")["trial"] == count
        before = len(notes)
        running(StillAtWork())
        assert len(notes) == before  # nothing has changed
        running(CandidateEnded(1, candidate(0)))
        now += EVERY_S
        running(StageBegan(count, candidate(count - 1), "merge"))
        assert said(tmp_path / "out")["stage"] == "merge"
        assert {job["candidate"] for job in said(tmp_path / "out")["jobs"]} == {
            candidate(number).id for number in range(1, count)
        } | {candidate(count - 1).id}
