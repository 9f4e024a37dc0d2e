"""Shows a running sweep on stderr: as a live view in a terminal, as plain lines elsewhere or on request."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from autotune.candidate import Candidate
from autotune.errors import printable
from autotune.present.so_far import SoFar, candidate_name, stage_name
from autotune.present.tables import score_text, settings
from autotune.results.rows import Trial
from autotune.scheduler.events import Event, Note, RowWritten, StageAt, StageBegan
from autotune.secrets import redact

if TYPE_CHECKING:
    from autotune.present.live import LiveView


def has_live_view() -> bool:
    """Return whether stderr is a terminal that can draw lines over themselves."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class Progress:
    """A listener that shows the sweep's events; a context manager, which opens and closes the live view."""

    def __init__(self, so_far: SoFar, plain: bool = False) -> None:
        """`so_far` hears what this hears; `plain`: no live view, whatever stderr is."""
        self.so_far, self.plain = so_far, plain
        self._view: LiveView | None = None

    def __enter__(self) -> Self:
        if not self.plain and has_live_view():
            from autotune.present.live import LiveView  # it imports rich, which other commands need not

            self._view = LiveView(self.so_far).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.__exit__(kind, error, trace)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self.so_far.hear(event)
        match event:
            case StageBegan(trial, candidate, stage):
                if self._view is None:
                    self.note(self._stage(trial, candidate, stage))
            case StageAt(candidate_id, host):
                doing = self.so_far.doing(candidate_id)
                if self._view is None and doing is not None:
                    number = self._number(doing.trial, doing.target)
                    self.note(f"{number} {stage_name(doing.stage)} is at work on {host}")
            case RowWritten(row):
                self.note(self._row(row))
            case Note(text):
                self.note(text)
            case _:
                pass

    def note(self, text: str) -> None:
        """Print a lasting line, without secrets and without what would command a terminal."""
        line = printable(redact(text))
        if self._view is not None:
            self._view.say(line)
        else:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def _stage(self, trial: int, candidate: Candidate, stage: str) -> str:
        return f"{self._number(trial, candidate.target)} {stage_name(stage)} {candidate_name(candidate)}"

    def _row(self, row: Trial) -> str:
        numbers = (score_text(row, name) for name in self.so_far.objectives if row[name] is not None)
        what = ", ".join(numbers) if row.status == "ok" else f"{row.status}: {row.error}"
        number = self._number(row.trial or 0, row.target)
        return f"{number} {settings(row.settings) or 'the untouched model'}: {what}"

    def _number(self, trial: int, target: str | None) -> str:
        """Return a trial's number with its target, if there are several: each target counts its own trials."""
        if target is not None:
            return f"[{target} {trial or '-'}]"
        total = self.so_far.budget.trials
        return "[-]" if not trial else f"[{trial}/{total}]" if total else f"[{trial}]"
