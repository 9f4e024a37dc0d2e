"""The interface of a tracker, and rows as trackers want them: parameters, metrics and tags, under the names of results.csv."""

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
"""The columns by which users look up a candidate in a tracker."""
_IDENTITY = ("trial", "attempt")


@dataclass(frozen=True)
class About:
    """A sweep, as trackers know it."""

    key: str
    """The id of its results folder: two sweeps may have the same name."""
    folder: Path
    sweep: Mapping[str, Any]
    """As resolved, without secrets."""

    @property
    def name(self) -> str:
        """The sweep's name."""
        return str(self.sweep.get("name") or "sweep")

    @property
    def place(self) -> Path:
        """The folder for the trackers' files."""
        return self.folder / "trackers"


@dataclass(frozen=True)
class Ending:
    """How a run of the command ended."""

    ended: str
    """done, interrupted or stopped, as in runs.csv."""
    winners: Sequence[Trial] = ()
    """The winner of each target."""
    best: Sequence[str] = ()
    """The URIs of the winners' folders."""
    text: str = ""
    """The choice in words."""
    files: Sequence[Path] = field(default_factory=list)
    """Pictures and tables to upload."""

    def values(self) -> dict[str, str | float]:
        """Return the metrics of each target's winner by `winner/METRIC`, or `winner/TARGET/METRIC`; `candidate` is its id."""
        found: dict[str, str | float] = {}
        for winner in self.winners:
            prefix = f"winner/{winner.target}" if winner.target else "winner"
            found[f"{prefix}/candidate"] = winner.candidate
            found |= {f"{prefix}/{name.replace('@', '/')}": value for name, value in winner.values.items()}
        return found


class Tracker(Protocol):
    """A tracker that is open for one sweep.

    After a crash a method may be called again with the same row. Whatever a method raises ends the tracker for this run of
    the command, and nothing else.
    """

    @property
    def place(self) -> str:
        """Where it logs. Each place has its own journal."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether the place holds nothing of this sweep, so that all of it is logged, whatever the journal says."""
        ...

    def row(self, row: Trial) -> None:
        """Log one attempt at a candidate. The last attempt counts."""
        ...

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:
        """Log points of an adapter's learning curve. `known`: points that were logged before; `of`: a row of the adapter."""
        ...

    def end(self, ending: Ending) -> None:
        """Log the end, and close."""
        ...


def params_of(row: Trial) -> dict[str, Cell]:
    """Return a candidate's settings that are not empty."""
    return {name: _clean(value) for name, value in row.settings.items() if value is not None}


def adapter_params(row: Trial) -> dict[str, Cell]:
    """Return the settings of a row's adapter that are not empty."""
    return {name: value for name, value in params_of(row).items() if name.startswith("lora_")}


def numbers_of(point: CurvePoint) -> dict[str, float]:
    """Return the numbers of a point of a learning curve: training loss and learning rate, or a score, or all."""
    numbers = {"train_loss": point.train_loss, "learning_rate": point.learning_rate}
    numbers |= {str(point.metric): point.score} if point.metric else {}
    return {name: value for name, value in numbers.items() if value is not None}


def metrics_of(row: Trial) -> dict[str, float]:
    """Return every measured number of a row: metrics, the ends of their intervals, losses, costs.

    The metric of a workload, `itl_ms_p50@long`, becomes `itl_ms_p50/long`: trackers take no `@`.
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
    """Return the texts of a row, and the numbers of its trial and attempt as texts."""
    texts = {c.name: row[c.name] for c in COLUMNS if c.type is str and not c.name.startswith(SETTINGS)}
    texts |= {name: row[name] for name in _IDENTITY}
    return {name: str(_clean(value)) for name, value in texts.items() if value is not None}


def title_of(row: Trial) -> str:
    """Return a candidate's title for people: the trial and the settings."""
    who = f"trial {row.trial}" if row.trial else "base"
    what = settings(row.settings) or "the untouched model"
    return f"{who}: {what}" + (f" on {row.target}" if row.target else "")


def adapter_title(row: Trial) -> str:
    """Return an adapter's title for people: its settings."""
    lora = {name: value for name, value in row.settings.items() if name.startswith("lora_")}
    return f"adapter: {settings(lora)}"


def seconds_of(time: str | None) -> float | None:
    """Return an ISO 8601 time as seconds since 1970; None where it is none."""
    try:
        return datetime.fromisoformat(time or "").timestamp()
    except ValueError:
        return None


def flat(sweep: Mapping[str, Any], key: str = "") -> dict[str, Cell]:
    """Return a resolved sweep with dotted keys, and lists as texts."""
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
