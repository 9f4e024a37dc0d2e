"""Who looks on while a sweep runs."""

from __future__ import annotations

from typing import Protocol

from autotune.candidate import Candidate
from autotune.results.columns import Row


class Watcher(Protocol):
    """Who is told what happens: the progress display, or a test."""

    def stage(self, trial: int, candidate: Candidate, stage: str) -> None:
        """A stage begins."""
        ...

    def row(self, row: Row, best: Row | None) -> None:
        """A candidate has ended; `best` is the winner so far."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...
