"""The rows of a sweep, by candidate: which of them count, the footprint of each recipe, and what a strategy is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.analysis.limits import Aims
from autotune.candidate import Candidate
from autotune.metrics import METRICS
from autotune.results.columns import STAGES, Cell
from autotune.results.judge import named_candidate
from autotune.results.rows import Trial
from autotune.results.trials import Trials
from autotune.strategies.protocol import Proposal, Told


class Ledger:
    """The rows of one sweep. `learn` adds a row."""

    def __init__(self, aims: Aims, score: str, untouched: Candidate, rows: list[Trial], file: Path) -> None:
        """`score`: the column of scores; `untouched`: the untouched model; `rows`: all attempts so far, in the order written;
        `file`: the table that they are in, for messages.
        """
        self.aims, self.score, self.untouched, self.file = aims, score, untouched, file
        self.rows: dict[str, Trial] = {}
        """The last attempt of each candidate that the strategy proposed."""
        self.base_row: Trial | None = None
        """The untouched model measured first, which limits refer to."""
        self.base_id = untouched.id
        self.trials = Trials()
        self.attempts: Counter[str] = Counter()
        self.footprints: dict[Any, dict[str, float]] = {}
        """The measured values of a built graph other than scores, by recipe and session; the size also by recipe alone."""
        for row in rows:
            self.learn(row)

    def learn(self, row: Trial) -> None:
        """Add a row that was written."""
        name, trial = row.candidate, row.trial or 0
        self.attempts[name] += 1
        self.trials.learn(row)
        if trial:
            self.rows[name] = row
        elif name == self.base_id:
            self.base_row = row
        # These values depend on recipe and session only, so that they hold for other adapters too, also where this candidate
        # failed later. A latency that was measured beside other work is not passed on.
        kinds = ("score", "latency") if row.timing.disturbed else ("score",)
        values = {n: v for n, v in row.values.items() if METRICS[n].kind not in kinds}
        recipe, session = _settings_of(row.cells, "build_"), _settings_of(row.cells, "session_")
        self.footprints.setdefault((recipe, session), {}).update(values)
        if "size_mb" in values:
            self.footprints.setdefault(recipe, {})["size_mb"] = values["size_mb"]

    @property
    def base(self) -> dict[str, float]:
        """The measured values of the untouched model, which limits may refer to."""
        return self.base_row.values if self.base_row is not None else {}

    @property
    def base_is_open(self) -> bool:
        """Whether the untouched model was scored on some of the items only."""
        return self.base_row is not None and self.base_row.status == "stopped"

    def ended(self) -> list[Trial]:
        """Return the rows that count, the untouched model first."""
        return [*([self.base_row] if self.base_row is not None else []), *self.rows.values()]

    def timed(self) -> list[Trial]:
        """Return the rows that have a timing."""
        return [row for row in self.ended() if row.status == "ok" and row["itl_ms_p50"] is not None]

    def timed_as(self, graph: str) -> list[Trial]:
        """Return the rows that share one timing: a graph, and the session that serves it."""
        return [row for row in self.timed() if str(row.served_as) == graph]

    def known(self, candidate: Candidate) -> dict[str, float]:
        """Return the values measured of other candidates with the same recipe and session."""
        cells = candidate.columns()
        recipe, session = _settings_of(cells, "build_"), _settings_of(cells, "session_")
        return self.footprints.get(recipe, {}) | self.footprints.get((recipe, session), {})

    def candidate_of(self, row: Trial) -> Candidate:
        """Return the candidate of a row. Raises UsageError where its settings cannot be read."""
        return named_candidate(row, self.file)

    def proposal_of(self, row: Trial) -> Proposal:
        """Return the proposal that a row came from."""
        return Proposal(self.candidate_of(row), rung=row.rung or 1.0, items=row.items)

    def told(self, row: Trial) -> Told:
        """Return a row as the strategy is told of it. A row that was not fully measured has no `values`."""
        values = row.values
        gaps = {}
        for limit in self.aims.limits:
            gap = limit.gap(values.get(limit.metric), self.base.get(limit.metric))
            if gap is not None:
                gaps[limit] = gap
        objectives = [values.get(name) for name in self.aims.objectives]
        complete = row.status == "ok" and all(value is not None for value in objectives)
        costs = {stage: row.cost_s(stage) for stage in STAGES}
        return Told(
            tuple(v for v in objectives if v is not None) if complete else None,
            gaps,
            measured=values,
            seconds={stage: float(cost) for stage, cost in costs.items() if cost is not None},
            rung=row.rung or 1.0,
            items=row.behind(self.score) or 0,
            status=row.status,
            probability=row.probability,
        )


def _settings_of(cells: Mapping[str, Cell], *prefixes: str) -> tuple[tuple[str, Cell], ...]:
    return tuple(sorted((n, v) for n, v in cells.items() if n.startswith(prefixes) and v is not None))
