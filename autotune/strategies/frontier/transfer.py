"""Transfer: the prior mean of LoRA settings, corrected by the user's earlier sweeps of the same model.

A resumed sweep must decide as if it had never stopped. So a sweep notes the earlier sweeps that it began with in
`inputs.json` (names and digests of their tables, numbers of adapters), and keeps their adapters in `earlier_sweeps.json`.
Later changes of the folders beside it have no effect.
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
from autotune.results.folder import check_whole, read_results
from autotune.results.judge import candidate_of
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.space.space import Space
from autotune.strategies.frontier.constants import (
    TRANSFER_ADAPTERS,
    TRANSFER_BYTES,
    TRANSFER_LEAST,
    TRANSFER_SWEEPS,
    TRANSFER_TRUST,
)
from autotune.strategies.frontier.kernel import place_of
from autotune.strategies.frontier.priors import Prior, decades_from_best, prior_mean
from autotune.strategies.frontier.score_scale import ScoreScale
from autotune.strategies.frontier.surrogate import Observation, Surrogate, variance

NOTED, KEPT = "earlier_sweeps", "earlier_sweeps.json"
"""The key in inputs.json that names the earlier sweeps, and the file that keeps their adapters."""


@dataclass(frozen=True)
class EarlierSweep:
    """A sweep of another task on the same model."""

    name: str
    adapters: Sequence[tuple[Lora, float, int]]
    """Its fully trained adapters: settings, score (a share), and the number of items that were scored."""
    sha256: str = ""
    """The digest of its results table."""

    def noted(self) -> dict[str, Any]:
        """Return its entry in inputs.json."""
        return {"name": self.name, "sha256": self.sha256, "adapters": len(self.adapters)}


def earlier_sweeps(folder: Path, model: str) -> list[EarlierSweep]:
    """Return the sweeps in the folders beside `folder` that tuned the same model, the latest first.

    `model`: its key. A sweep is left out if it cannot be read, tuned another model, or has less than `TRANSFER_LEAST` adapters.
    """
    found: list[EarlierSweep] = []
    for table in _tables(folder):
        if len(found) == TRANSFER_SWEEPS:
            break
        with contextlib.suppress(OSError, UsageError, ValueError, KeyError, RecursionError):
            if _model_of(table.parent) == model:
                sha256 = _sha256(table)
                adapters = _adapters_of(read_results(table), table)
                if len(adapters) >= TRANSFER_LEAST:
                    found.append(EarlierSweep(table.parent.name, adapters, sha256))
    return found


def _sha256(table: Path) -> str:
    return hashlib.sha256(table.read_bytes()).hexdigest()


def sweeps_for(record: Record, model: str, say: Callable[[str], None]) -> list[EarlierSweep]:
    """Return the earlier sweeps that a sweep uses: those that were beside it when it began, with the adapters that they had
    then.

    `model`: its key; `say` takes messages: which they are, and which have changed or are gone. Raises OSError.
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


def _kept(folder: Path, noted: Sequence[Any], say: Callable[[str], None]) -> list[EarlierSweep]:
    """Return the noted earlier sweeps: from the kept file, or from a table that has not changed since."""
    kept: dict[str, EarlierSweep] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        for data in json.loads((folder / KEPT).read_text(encoding="utf-8")):
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                one = _from_plain(data)
                kept[one.sha256] = one
    found = []
    for note in noted:
        name, sha256 = (str(note.get(key)) if isinstance(note, dict) else "" for key in ("name", "sha256"))
        if Path(name).name != name or not sha256:
            say(f"{folder / 'inputs.json'} is damaged: one of its earlier sweeps cannot be used")
            continue
        table = folder.resolve().parent / name / "results.csv"
        try:
            now = _sha256(table)
        except OSError:
            now = ""
        one_kept = kept.get(sha256)
        if one_kept is None and now == sha256:
            with contextlib.suppress(OSError, UsageError, ValueError, KeyError, RecursionError):
                one_kept = EarlierSweep(name, _adapters_of(read_results(table), table), sha256)
        became = "" if now == sha256 else "has changed" if now else "is gone"
        if one_kept is None:
            why = f"its copy in {KEPT} is lost, and its table {became or 'cannot be read'}"
            say(f"the earlier sweep {name} is no longer used: {why}")
        else:
            found.append(one_kept)
            if became:
                say(f"the earlier sweep {name} {became} since this one began: its kept adapters are used")
    return found


def _plain(sweep: EarlierSweep) -> dict[str, Any]:
    """Return an earlier sweep as plain data, in which the settings that all its adapters have in common stand once."""
    settings = [lora.model_dump(mode="json", exclude_none=True) for lora, _, _ in sweep.adapters]
    shared = {k: v for k, v in settings[0].items() if all(k in other and other[k] == v for other in settings)}
    adapters = [
        [{k: v for k, v in own.items() if k not in shared}, score, items]
        for own, (_, score, items) in zip(settings, sweep.adapters, strict=True)
    ]
    return {"name": sweep.name, "sha256": sweep.sha256, "shared": shared, "adapters": adapters}


def _from_plain(data: dict[str, Any]) -> EarlierSweep:
    """Return an earlier sweep from what `_plain` returned. Raises ValueError, TypeError, KeyError, AttributeError for damaged data."""
    adapters = []
    for own, score, items in data["adapters"]:
        lora = Lora.model_validate(data["shared"] | own)
        if not _sound(lora) or not abs(score) <= 1 or not isinstance(items, int) or items < 1:
            raise ValueError(own)
        adapters.append((lora, float(score), items))
    if len(adapters) < TRANSFER_LEAST:
        raise ValueError(len(adapters))
    return EarlierSweep(str(data["name"]), adapters, str(data["sha256"]))


def _tables(folder: Path) -> list[Path]:
    """Return the results tables in the folders beside a folder, the latest first; none is larger than `TRANSFER_BYTES`."""
    found: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError):
        for beside in folder.resolve().parent.iterdir():
            with contextlib.suppress(OSError):
                table, inputs = beside / "results.csv", beside / "inputs.json"
                small = max(table.stat().st_size, inputs.stat().st_size) <= TRANSFER_BYTES
                if beside.resolve() != folder.resolve() and table.is_file() and inputs.is_file() and small:
                    found.append((-table.stat().st_mtime, table))
    return [table for _, table in sorted(found)]


def _model_of(folder: Path) -> str | None:
    inputs = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    return inputs.get("model") if isinstance(inputs, dict) else None


def _adapters_of(rows: Sequence[Trial], table: Path) -> list[tuple[Lora, float, int]]:
    """Return the fully trained adapters, each with its best score among those on the most items, the best first.

    If there are more than `TRANSFER_ADAPTERS`, it returns that many, evenly spaced between the best and the worst. Raises
    UsageError where columns are missing.
    """
    check_whole(rows, table)
    score = next(
        (
            name
            for name, metric in METRICS.items()
            if metric.kind == "score" and not metric.turns and any(row[name] is not None for row in rows)
        ),
        None,
    )
    if score is None:
        return []
    scale = ScoreScale(score, METRICS[score].direction)
    for row in rows:
        if (value := row.number(score)) is not None:
            scale.add(value, untouched=not row.trial)
    best: dict[Lora, tuple[int, float]] = {}
    for row in rows:
        lora = candidate_of(row, table).lora
        value = row.number(score)
        if lora is not None and value is not None and row.rung is None and _sound(lora):
            own = row.behind(score) or 1, scale.share(value)
            best[lora] = max(best.get(lora, own), own)
    ranked = sorted(((lora, share, items) for lora, (items, share) in best.items()), key=lambda one: -one[1])
    some = np.linspace(0, len(ranked) - 1, min(len(ranked), TRANSFER_ADAPTERS)).round().astype(int)
    return [ranked[place] for place in some]


def _sound(lora: Lora) -> bool:
    """Whether settings are in the range of trainable ones: a table may be damaged."""
    return (
        lora.r > 0 and lora.alpha > 0 and 0 < lora.learning_rate < math.inf and (lora.steps is None or lora.steps > 0)
    )


class TransferPrior:
    """The prior mean of an adapter's settings, corrected by the posteriors of earlier sweeps."""

    def __init__(self, space: Space, sweeps: Sequence[EarlierSweep], prior: Prior = prior_mean) -> None:
        """`prior`: the prior mean that is corrected."""
        self._space, self._sweeps, self._prior = space, sweeps, prior
        self._levels = [self._corrections(sweep, None)[1] for sweep in sweeps]
        """The mean correction of each sweep's own adapters, which is due to its task and not to their settings."""
        self._moved: dict[Lora, float] = {}
        """How much the earlier sweeps change the prior mean of settings."""

    def __call__(self, lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:
        """Return the prior mean of an adapter's settings, in units of the score (a share), if the best learning rate is `shift`
        decades above the usual one, and a wrong rate costs `steepness` times as much as usual.
        """
        if self._sweeps and lora not in self._moved:
            both = zip(self._sweeps, self._levels, strict=True)
            moved = [self._corrections(sweep, lora)[0] - level for sweep, level in both]
            self._moved[lora] = TRANSFER_TRUST * float(np.mean(moved))
        return self._prior(lora, shift, steepness) + self._moved.get(lora, 0.0)

    def _corrections(self, sweep: EarlierSweep, lora: Lora | None) -> tuple[float, float]:
        """Return the difference between posterior and prior mean given a sweep: for these settings, and the mean over the
        sweep's own adapters.
        """
        loras = [one for one, _, _ in sweep.adapters] + ([lora] if lora is not None else [])
        prior = [self._prior(one, 0.0) for one in loras]
        places = [place_of(one, self._space) for one in loras]
        surrogate = Surrogate(places, [decades_from_best(one) for one in loras], [prior], (1.0,))
        observed = [
            Observation(n, 0, share, items, variance(share)) for n, (_, share, items) in enumerate(sweep.adapters)
        ]
        moved = surrogate.posterior(observed).mean - surrogate.posterior([]).mean
        return float(moved[-1]), float(moved[: len(sweep.adapters)].mean())
