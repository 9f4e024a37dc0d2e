"""What can go wrong, and the exit code that says so.

    AutotuneError
    +-- UsageError      2  the command line, a sweep file or data is wrong, or does not fit the results there
    +-- MachineError    3  this machine cannot run it: provider, package, memory, disk
    +-- StageError         one candidate's own trouble; costs a row, never the sweep
    +-- Interrupted   130  somebody ended it; run again to go on

Every bad input becomes a `Problem`: file, key, rule, value, remedy. A `UsageError` carries all that were found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line (a contract with scripts)."""

    OK = 0
    BUG = 1
    USAGE = 2
    MACHINE = 3
    NO_FEASIBLE = 4
    NO_RESULT = 5
    INTERRUPTED = 130


@dataclass(frozen=True)
class Problem:
    """One mistake in an input: where it is, which rule it breaks, and what to do."""

    rule: str
    key: str = ""
    file: str = ""
    line: int | None = None
    value: object = None
    remedy: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        head = ": ".join(part for part in (place, self.key) if part)
        text = f"{head}: {self.rule}" if head else self.rule
        if self.value is not None:
            shown = repr(self.value)
            text += f", got {shown if len(shown) <= 80 else shown[:77] + '...'}"
        return f"{text}; {self.remedy}" if self.remedy else text


class AutotuneError(Exception):
    """The root of the errors that users see."""

    exit_code: Exit = Exit.BUG


class UsageError(AutotuneError):
    """An input is wrong; `problems` lists everything that was found."""

    exit_code = Exit.USAGE

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MachineError(AutotuneError):
    """This machine lacks what the sweep needs."""

    exit_code = Exit.MACHINE


class Interrupted(AutotuneError):  # noqa: N818 - not an error of anybody
    """Somebody ended the sweep, and what could be kept is kept."""

    exit_code = Exit.INTERRUPTED

    def __init__(self, message: str = "interrupted; run the same command again to go on") -> None:
        super().__init__(message)


class StageError(AutotuneError):
    """A candidate's own trouble inside a stage; `status` is what its row says."""

    def __init__(self, status: str, message: str) -> None:
        self.status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[type[StageError], tuple[str, str]]:
        return type(self), (self.status, str(self))


# What other tools call the same thing.
_MEANT = {
    "rank": "r", "lora_r": "r", "lora_rank": "r", "lr": "learning_rate", "max_steps": "steps", "lora_alpha": "alpha",
    "bits": "precision", "gpu": "cuda", "directml": "dml", "latency": "itl_ms_p50", "size": "size_mb",
    "memory": "peak_memory_mb", "recipes": "build", "bayesian": "tpe", "optuna": "tpe",
}  # fmt: skip


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a remedy for an unknown name: the nearest right one, or all of them."""
    meant = _MEANT.get(name.lower(), "")
    close = [meant] if meant in known else get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "use one of: " + ", ".join(known) if known else "remove it"
