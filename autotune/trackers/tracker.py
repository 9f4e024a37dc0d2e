"""The interface of a tracker, and what it logs of a sweep: rows as parameters, metrics and tags, under the names of
results.csv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from autotune.present.tables import settings
from autotune.results.columns import COLUMNS, Cell
from autotune.results.rows import SETTINGS, CurvePoint, Trial
from autotune.secrets import redact

ABOUT_CANDIDATE = ("candidate", "kind", "status", "target")
"""The columns that a candidate is looked up by in a tracker."""
_IDENTITY = ("trial", "attempt")


@dataclass(frozen=True)
class About:
    """A sweep, as a tracker is told of it."""

    key: str
    """Of its results folder: two sweeps may have one name."""
    folder: Path
    sweep: Mapping[str, Any]
    """As resolved, without secrets."""

    @property
    def name(self) -> str:
        """The sweep's name."""
        return str(self.sweep.get("name") or "sweep")

    @property
    def place(self) -> Path:
        """Where trackers keep what is theirs."""
        return self.folder / "trackers"


@dataclass(frozen=True)
class Ending:
    """How a run of the command ended."""

    ended: str
    """done, interrupted or stopped, as in runs.csv."""
    winners: Sequence[Trial] = ()
    """The winner of each target."""
    best: Sequence[str] = ()
    """The folders in which the winners are."""
    text: str = ""
    """The choice in words."""
    files: Sequence[Path] = field(default_factory=list)
    """What goes along: pictures and tables."""

    def values(self) -> dict[str, str | float]:
        """Return what was measured of the winner of each target, by the names that trackers show; `candidate` is its id."""
        found: dict[str, str | float] = {}
        for winner in self.winners:
            prefix = f"winner/{winner.target}" if winner.target else "winner"
            found[f"{prefix}/candidate"] = winner.candidate
            found |= {f"{prefix}/{name.replace('@', '/')}": value for name, value in winner.values.items()}
        return found


class Tracker(Protocol):
    """A tracker that is open for one sweep. Each method may be told the same thing again after a crash; whatever it raises
    ends the tracker for this run of the command, and costs nothing else.
    """

    @property
    def place(self) -> str:
        """Where it logs: what was logged is noted by place."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether nothing of this sweep is there yet, so that all of it is to be logged, whatever was noted."""
        ...

    def row(self, row: Trial) -> None:
        """Log one attempt at a candidate: the last one counts."""
        ...

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:
        """Log points of an adapter's learning curve, of which so many are known; `of`: a row of that adapter."""
        ...

    def end(self, ending: Ending) -> None:
        """Log the end, and close."""
        ...


def params_of(row: Trial) -> dict[str, Cell]:
    """Return a candidate's settings that are not empty."""
    return {name: _clean(value) for name, value in row.settings.items() if value is not None}


def metrics_of(row: Trial) -> dict[str, float]:
    """Return every number that a row has measured: metrics and the ends of their intervals, losses, costs. The metric of a
    workload, `itl_ms_p50@long`, is `itl_ms_p50/long`: trackers take no `@`.
    """
    return {
        name.replace("@", "/"): float(value)
        for name, value in row.cells.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and not name.startswith(SETTINGS)
        and name not in _IDENTITY
    }


def tags_of(row: Trial) -> dict[str, str]:
    """Return the texts of a row, with its numbers of trial and attempt."""
    texts = {c.name: row[c.name] for c in COLUMNS if c.type is str and not c.name.startswith(SETTINGS)}
    texts |= {name: row[name] for name in _IDENTITY}
    return {name: str(_clean(value)) for name, value in texts.items() if value is not None}


def title_of(row: Trial) -> str:
    """Return what a candidate is called where people read it."""
    who = f"trial {row.trial}" if row.trial else "base"
    what = settings(row.settings) or "the untouched model"
    return f"{who}: {what}" + (f" on {row.target}" if row.target else "")


def adapter_title(row: Trial) -> str:
    """Return what an adapter is called: its settings alone."""
    lora = {name: value for name, value in row.settings.items() if name.startswith("lora_")}
    return f"adapter: {settings(lora)}"


def seconds_of(time: str | None) -> float | None:
    """Return an ISO 8601 time as seconds since 1970; None where it is none."""
    try:
        return datetime.fromisoformat(time or "").timestamp()
    except ValueError:
        return None


def flat(sweep: Mapping[str, Any], key: str = "") -> dict[str, Cell]:
    """Return a resolved sweep with dotted keys; lists are texts."""
    found: dict[str, Cell] = {}
    for name, value in sweep.items():
        here = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and value:
            found |= flat(value, here)
        elif value is None or isinstance(value, str | int | float | bool):
            found[here] = _clean(value)
        else:
            found[here] = redact(str(value))
    return found


def _clean(value: Cell) -> Cell:
    return redact(value) if isinstance(value, str) else value
