"""What the user's earlier sweeps of the same model say of LoRA settings: a prior, beside what is commonly found.

A sweep that goes on must decide as if it had never stopped. So what it was taught when it began is noted in `inputs.json`
(names and digests of the tables, numbers of adapters) and kept in `earlier_sweeps.json`, whatever becomes of the folders
beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune.candidate import Lora
from autotune.durable import write_aside
from autotune.errors import UsageError
from autotune.metrics import METRICS
from autotune.results.columns import Row
from autotune.results.folder import Record, read_results
from autotune.results.judge import candidate_of
from autotune.space.space import Space
from autotune.strategies.frontier.priors import decades_of, worth_of
from autotune.strategies.frontier.score_scale import Scale
from autotune.strategies.frontier.surrogate import Seen, Surrogate, place_of, variance

TRUST = 0.5
"""How much of what other tasks say is taken over: tasks differ."""
LEAST = 4
"""Adapters from which on a sweep says something."""
_SWEEPS, _ADAPTERS = 4, 48
"""Sweeps at most, the latest, and adapters of each."""
_LARGEST_BYTES = 50_000_000


@dataclass(frozen=True)
class Earlier:
    """A sweep of another task on the same model: its adapters, trained to the end, by score (a share), and items."""

    name: str
    adapters: Sequence[tuple[Lora, float, int]]
    sha256: str = ""
    """Of its table."""

    def noted(self) -> dict[str, Any]:
        """Return what inputs.json says of it."""
        return {"name": self.name, "sha256": self.sha256, "adapters": len(self.adapters)}


def earlier_sweeps(folder: Path, model: str) -> list[Earlier]:
    """Return the sweeps in the folders beside `folder` that tuned the same model (its key), the latest first.

    What cannot be read, or tuned another model, or too few adapters, is left out.
    """
    found: list[Earlier] = []
    for table in _tables(folder):
        if len(found) == _SWEEPS:
            break
        with contextlib.suppress(OSError, UsageError, ValueError, KeyError, RecursionError):  # KeyError: a lost column
            if _model_of(table.parent) == model:
                sha256 = _sha256(table)
                adapters = _adapters_of(read_results(table), table)
                if len(adapters) >= LEAST:
                    found.append(Earlier(table.parent.name, adapters, sha256))
    return found


def _sha256(table: Path) -> str:
    return hashlib.sha256(table.read_bytes()).hexdigest()


NOTED, KEPT = "earlier_sweeps", "earlier_sweeps.json"
"""Their key in inputs.json, and the file that keeps what they taught."""


def sweeps_for(record: Record, model: str, say: Callable[[str], None]) -> list[Earlier]:
    """Return the earlier sweeps that a sweep goes by: those beside it when it began, as they were then.

    `model`: its key; `say` is told which they are, and what has become of them. Raises OSError.
    """
    noted = record.inputs().get(NOTED)
    if isinstance(noted, list):
        found = _kept(record.folder, noted, say)
    else:
        found = earlier_sweeps(record.folder, model)
        write_aside(record.folder / KEPT, json.dumps([_plain(one) for one in found], separators=(",", ":")))
        record.note_input(NOTED, [one.noted() for one in found])
    if found:
        names = ", ".join(one.name for one in found)
        say(f"earlier sweeps of this model say where to begin: {names} (`earlier_sweeps: false` leaves them out)")
    return found


def _kept(folder: Path, noted: Sequence[Any], say: Callable[[str], None]) -> list[Earlier]:
    """Return the earlier sweeps that are noted: as kept in the folder, or read again from a table that has not changed."""
    kept: dict[str, Earlier] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        for data in json.loads((folder / KEPT).read_text(encoding="utf-8")):
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                one = _from_plain(data)
                kept[one.sha256] = one
    found = []
    for note in noted:
        name, sha256 = (str(note.get(key)) if isinstance(note, dict) else "" for key in ("name", "sha256"))
        if Path(name).name != name or not sha256:
            say(f"{folder / 'inputs.json'} is damaged: an earlier sweep in it cannot be used")
            continue
        table = folder.resolve().parent / name / "results.csv"
        try:
            now = _sha256(table)
        except OSError:
            now = ""
        one_kept = kept.get(sha256)
        if one_kept is None and now == sha256:
            with contextlib.suppress(OSError, UsageError, ValueError, KeyError, RecursionError):
                one_kept = Earlier(name, _adapters_of(read_results(table), table), sha256)
        became = "" if now == sha256 else "has changed" if now else "is gone"
        if one_kept is None:
            why = f"its copy in {KEPT} is lost, and its table {became or 'cannot be read'}"
            say(f"the earlier sweep {name} says no more where to look: {why}")
        else:
            found.append(one_kept)
            if became:
                say(f"the earlier sweep {name} {became} since this one began: what it said then is used")
    return found


def _plain(sweep: Earlier) -> dict[str, Any]:
    """Return an earlier sweep as plain data: settings that all its adapters share stand once."""
    settings = [lora.model_dump(mode="json", exclude_none=True) for lora, _, _ in sweep.adapters]
    shared = {k: v for k, v in settings[0].items() if all(k in other and other[k] == v for other in settings)}
    adapters = [
        [{k: v for k, v in own.items() if k not in shared}, score, items]
        for own, (_, score, items) in zip(settings, sweep.adapters, strict=True)
    ]
    return {"name": sweep.name, "sha256": sweep.sha256, "shared": shared, "adapters": adapters}


def _from_plain(data: dict[str, Any]) -> Earlier:
    """The inverse of `_plain`. Raises ValueError, TypeError, KeyError, AttributeError where it is damaged."""
    adapters = []
    for own, score, items in data["adapters"]:
        lora = Lora.model_validate(data["shared"] | own)
        if not _sound(lora) or not abs(score) <= 1 or not isinstance(items, int) or items < 1:
            raise ValueError(own)
        adapters.append((lora, float(score), items))
    if len(adapters) < LEAST:
        raise ValueError(len(adapters))
    return Earlier(str(data["name"]), adapters, str(data["sha256"]))


def _tables(folder: Path) -> list[Path]:
    """Return the results tables, of a size that can be read, in the folders beside a folder, the latest first."""
    found: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError):
        for beside in folder.resolve().parent.iterdir():
            with contextlib.suppress(OSError):
                table, inputs = beside / "results.csv", beside / "inputs.json"
                small = max(table.stat().st_size, inputs.stat().st_size) <= _LARGEST_BYTES
                if beside.resolve() != folder.resolve() and table.is_file() and inputs.is_file() and small:
                    found.append((-table.stat().st_mtime, table))
    return [table for _, table in sorted(found)]


def _model_of(folder: Path) -> str | None:
    inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    return inputs.get("model") if isinstance(inputs, dict) else None


def _adapters_of(rows: Sequence[Row], table: Path) -> list[tuple[Lora, float, int]]:
    """Return adapters that were trained to the end, each with the best of its scores on most items, the best first: all of
    them, or some from everywhere between the best and the worst.
    """
    score = next(
        (
            name
            for name, metric in METRICS.items()
            if metric.kind == "score" and not metric.turns and any(row.get(name) is not None for row in rows)
        ),
        None,
    )
    if score is None:
        return []
    scale = Scale(score, METRICS[score].direction)
    for row in rows:
        if row.get(score) is not None:
            scale.see(float(row[score] or 0.0), untouched=not row["trial"])
    best: dict[Lora, tuple[int, float]] = {}
    for row in rows:
        lora = candidate_of(row, table).lora
        if lora is not None and row.get(score) is not None and row.get("rung") is None and _sound(lora):
            own = int(row.get(f"{score}_n") or 1), scale.share(float(row[score] or 0.0))
            best[lora] = max(best.get(lora, own), own)
    ranked = sorted(((lora, share, items) for lora, (items, share) in best.items()), key=lambda one: -one[1])
    some = np.linspace(0, len(ranked) - 1, min(len(ranked), _ADAPTERS)).round().astype(int)
    return [ranked[place] for place in some]


def _sound(lora: Lora) -> bool:
    """Whether settings are such as can be trained: a table may be damaged."""
    return (
        lora.r > 0 and lora.alpha > 0 and 0 < lora.learning_rate < math.inf and (lora.steps is None or lora.steps > 0)
    )


class Taught:
    """What settings are worth: what is commonly found, moved by what earlier sweeps found instead."""

    def __init__(self, space: Space, sweeps: Sequence[Earlier]) -> None:
        self._space, self._sweeps = space, sweeps
        self._levels = [self._learned(sweep, None)[1] for sweep in sweeps]
        """Of each sweep by how much its scores are above what was thought of them, in the mean: that is its task."""

    def __call__(self, lora: Lora) -> float:
        """Return what an adapter's settings are worth, in units of the score."""
        worth = worth_of(lora)
        if not self._sweeps:
            return worth
        moved = [self._learned(sweep, lora)[0] - level for sweep, level in zip(self._sweeps, self._levels, strict=True)]
        return worth + TRUST * float(np.mean(moved))

    def _learned(self, sweep: Earlier, lora: Lora | None) -> tuple[float, float]:
        """Return by how much what was thought is moved by a sweep: of these settings, and the mean of its own adapters."""
        loras = [one for one, _, _ in sweep.adapters] + ([lora] if lora is not None else [])
        priors = [worth_of(one) for one in loras]
        surrogate = Surrogate(
            [place_of(one, self._space) for one in loras], [decades_of(one) for one in loras], priors, (1.0,)
        )
        seen = [Seen(n, 0, share, items, variance(share)) for n, (_, share, items) in enumerate(sweep.adapters)]
        moved = surrogate.posterior(seen).mean - surrogate.posterior([]).mean
        return float(moved[-1]), float(moved[: len(sweep.adapters)].mean())
