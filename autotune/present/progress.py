"""What a running sweep says on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from autotune.candidate import Candidate
from autotune.errors import printable
from autotune.present.tables import score_text, settings
from autotune.results.rows import Trial
from autotune.results.trials import Trials
from autotune.scheduler.events import CandidateEnded, Event, Note, RowWritten, StageBegan, TimeLeft
from autotune.secrets import redact
from autotune.sweepfile.schema import Budget

_DOING = {
    "finetune": "fine-tuning",
    "merge": "merging",
    "build": "building",
    "check": "checking",
    "time": "timing",
    "score": "scoring",
}


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Prints what happens; as a context it owns the live line."""

    def __init__(self, budget: Budget, objectives: Sequence[str], rows: Iterable[Trial] = ()) -> None:
        """`rows`: of earlier runs, whose trials count towards the budget."""
        self.budget, self.objectives = budget, objectives
        self.trials = Trials(rows)
        self._left: tuple[float, float] | None = None
        """The seconds that the sweep still takes, and since when that holds."""
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.began = time.monotonic()
        self._jobs: dict[str, tuple[str, float]] = {}
        """By candidate under way, what is being done for it, and since when."""
        self.best = "none yet"

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live = Live(get_renderable=self._line, console=self.console, refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        match event:
            case StageBegan(trial, candidate, stage):
                self._stage(trial, candidate, stage)
            case CandidateEnded(_, candidate):
                self._jobs.pop(candidate.id, None)
            case RowWritten(row, best):
                self._row(row, best)
            case TimeLeft(seconds):
                self._left = None if seconds is None else (seconds, time.monotonic())
            case Note(text):
                self.note(text)
            case _:
                pass

    def _stage(self, trial: int, candidate: Candidate, stage: str) -> None:
        first = stage.split(" ")[0]
        what = _DOING.get(first, first) + stage.removeprefix(first)
        doing = f"{self._number(trial)} {what} {settings(candidate.columns()) or 'the untouched model'}"
        self._jobs.pop(candidate.id, None)
        self._jobs[candidate.id] = (doing, time.monotonic())
        if self.live is None:
            self.note(doing)

    def _row(self, row: Trial, best: Trial | None) -> None:
        trial = row.trial or 0
        self.trials.learn(row)
        numbers = ", ".join(score_text(row, name) for name in self.objectives if row[name] is not None)
        what = numbers if row.status == "ok" else f"{row.status}: {row.error}"
        self.note(f"{self._number(trial)} {settings(row.settings) or 'the untouched model'}: {what}")
        if best is not None:
            self.best = f"{best.candidate[:8]} ({score_text(best, self.objectives[0])})"

    def note(self, text: str) -> None:
        """Print a line, without secrets and without what would command a terminal."""
        self.console.print(Text(printable(redact(text))))

    def _number(self, trial: int) -> str:
        total = self.budget.trials
        return "[-]" if not trial else f"[{trial}/{total}]" if total else f"[{trial}]"

    def left(self) -> float | None:
        """Return the seconds that are left, or None where that is not known."""
        left = self._left  # a copy: this runs in the thread that draws
        return None if left is None else max(0.0, left[0] - (time.monotonic() - left[1]))

    def _line(self) -> Text:
        now = time.monotonic()
        left = self.left()
        jobs = list(self._jobs.values())  # a copy: this runs in the thread that draws
        doing = " | ".join(f"{what} ({duration(now - since)})" for what, since in jobs) or "starting"
        text = f"{doing} | best {self.best} | {duration(now - self.began)} gone"
        return Text(
            printable(redact(text)) + (f", about {duration(left)} left" if left is not None else ""),
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
