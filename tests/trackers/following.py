"""What the tests of trackers share: a results folder that grows, and trackers that follow it as they follow a sweep."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import HANG_S

from autotune.results.folder import read_results
from autotune.results.judge import candidate_of
from autotune.results.rows import CurvePoint, Finalist, Trial
from autotune.results.table import read_table
from autotune.scheduler.events import RowWritten
from autotune.trackers import listener
from autotune.trackers.listener import Trackers, Wanted

EXAMPLE = Path(__file__).parent.parent.parent / "results" / "example"
ROW = RowWritten(Trial({}), None)


class Growing:
    """A copy of the committed example whose tables are written bit by bit, as a sweep writes them."""

    def __init__(self, folder: Path, source: Path = EXAMPLE) -> None:
        self.folder, self._source = folder, source
        shutil.copytree(source, folder)
        for name in ("results.csv", "curves.csv"):
            (folder / name).write_bytes((source / name).read_bytes().splitlines(keepends=True)[0])

    def write(self, rows: int = 1_000_000, points: int = 1_000_000) -> None:
        """Let the tables have so many rows; as many as there are by default."""
        for name, count in (("results.csv", rows), ("curves.csv", points)):
            lines = (self._source / name).read_bytes().splitlines(keepends=True)
            (self.folder / name).write_bytes(b"".join(lines[: count + 1]))

    @property
    def rows(self) -> list[Trial]:
        """The rows that count."""
        return read_results(self.folder)

    @property
    def points(self) -> list[CurvePoint]:
        return read_table(self.folder / "curves.csv", CurvePoint)


@contextmanager
def followed(folder: Path, *wanted: Wanted | str, said: list[str] | None = None) -> Iterator[Trackers]:
    """Follow a results folder with trackers; leaving it ends the run as a sweep ends. `said` gets their warnings."""
    lines: list[str] = [] if said is None else said
    every = [one if isinstance(one, Wanted) else Wanted(one) for one in wanted]
    with pytest.MonkeyPatch.context() as patch, Trackers(every, folder, lines.append) as trackers:
        patch.setattr(listener, "OPENING_S", HANG_S)
        trackers.start()
        yield trackers
    if said is None:
        assert lines == []


def journal_lines(folder: Path, name: str) -> list[str]:
    """Return what a tracker's journal holds."""
    files = list((folder / "trackers").glob(f"{name}-*.done"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


_ROWS = read_table(EXAMPLE / "results.csv", Trial)
WINNER = next(row for row in read_table(EXAMPLE / "finalists.csv", Finalist) if row.role == "winner").candidate
STUDY: dict[str, Any] = {
    "name": "phrase-tone-cpu",
    "target": None,
    "objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"},
    "limits": ["accuracy >= base + 0.29", "size_mb <= 200"],
    "domains": {
        "r": {"choices": [8, 16]},
        "learning_rate": {"low": 1e-4, "high": 5e-3, "log": True, "integer": False},
        "recipe": {"choices": list(dict.fromkeys(str(candidate_of(row, EXAMPLE).recipe) for row in _ROWS))},
    },
}


def mirror(storage: str, studies: Sequence[dict[str, Any]] = (STUDY,)) -> Wanted:
    """Return the mirror of a study as `run --optuna-storage` asks for it."""
    return Wanted("optuna", {"storage": storage, "studies": list(studies)}, must_open=True)
