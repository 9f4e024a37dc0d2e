"""The sweep: ask, measure, tell, write a row; then the winner, once on test.

The rows of results.csv are the state. Run again, the same command reads them, tells the strategy what is known, and
goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from autotune.candidate import Candidate
from autotune.errors import Exit
from autotune.metrics import METRICS
from autotune.search.judge import judge, values_of
from autotune.search.pipeline import Measurement, Pipeline, base_candidate
from autotune.search.strategy import Strategy, Told
from autotune.search.winner import Choice
from autotune.store.record import Record, now
from autotune.store.results import LATENCY, Row, rounded, text_of
from autotune.sweep import Sweep

ATTEMPTS = 2
"""Times that a candidate is tried whose worker was lost."""


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


@dataclass
class Summary:
    """What a run of the command did."""

    choice: Choice
    trials: int
    wall_s: float
    stages_s: float
    ended: str
    """Why it ended: trials, hours, space."""
    exit_code: Exit = Exit.OK
    finalists: list[Row] = field(default_factory=list)


def seconds_between(row: Mapping[str, Any]) -> float:
    """Return the wall-clock of a row, seconds."""
    times = [row.get("started"), row.get("ended")]
    try:
        first, last = (datetime.fromisoformat(str(t).replace("Z", "+00:00")) for t in times)
    except ValueError:
        return 0.0
    return max(0.0, (last - first).total_seconds())


class Loop:
    """One run of the `run` command over one record."""

    def __init__(
        self,
        sweep: Sweep,
        record: Record,
        pipeline: Pipeline,
        strategy: Strategy,
        watcher: Watcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sweep, self.record, self.pipeline = sweep, record, pipeline
        self.strategy, self.watcher, self.clock = strategy, watcher, clock
        self.rows: dict[str, Row] = {}
        self.stages_s = 0.0
        self.base_id = base_candidate(sweep).id
        for row in record.results.rows:
            self.rows[str(row["candidate"])] = row

    @property
    def base(self) -> dict[str, float]:
        """What was measured of the untouched model, for limits that refer to it."""
        return values_of(self.rows.get(self.base_id, {}))

    def run(self) -> Summary:
        """Go on until the budget or the space is used up, then score the finalists. Returns what was done."""
        began = self.clock()
        for row in self.rows.values():
            self._replay(row)
        base = base_candidate(self.sweep)
        if self.rows.get(self.base_id, {}).get("status") != "ok":
            self._try(base, 0)
        if not self.base and any(limit.needs_base for limit in self.sweep.limits):
            self.watcher.note(
                "the untouched model could not be measured: no candidate can keep a limit that refers to it"
            )
        begun = {r["trial"] for r in self.record.results.rows if r["trial"]}
        spent_before = sum(seconds_between(row) for row in self.record.results.rows) - (self.clock() - began)
        trials, ended = 0, "space"
        while True:
            budget = self.sweep.budget
            if budget.trials is not None and len(begun) >= budget.trials:
                ended = "trials"
                break
            if budget.hours is not None and spent_before + self.clock() - began >= budget.hours * 3600:
                ended = "hours"
                break
            proposal = self.strategy.ask()
            if proposal is None:
                break
            number = 1 + max((int(str(r["trial"])) for r in self.record.results.rows), default=0)
            begun.add(number)
            trials += 1
            row = self._try(proposal.candidate, number)
            self.strategy.tell(proposal, self._told(row))
        summary = self._finish(trials, ended)
        summary.wall_s = self.clock() - began
        summary.stages_s = self.stages_s
        return summary

    def _known(self, candidate: Candidate) -> dict[str, float]:
        """Return what other candidates of the same recipe were measured at: no adapter changes that."""
        settings = Candidate(recipe=candidate.recipe).columns()
        for row in self.rows.values():
            if (
                row["status"] == "ok"
                and {n: v for n, v in row.items() if n.startswith("build_") and v is not None} == settings
            ):
                return {n: v for n, v in values_of(row).items() if METRICS[n].kind != "score"}
        return {}

    def _try(self, candidate: Candidate, trial: int) -> Row:
        """Measure one candidate and write its row; a lost worker is forgiven once."""
        row: Row = {}
        for attempt in range(1, ATTEMPTS + 1):
            row = {
                "candidate": candidate.id,
                "trial": trial,
                "attempt": attempt,
                "kind": candidate.kind,
                "started": now(),
            }

            def on_stage(stage: str, trial: int = trial) -> None:
                self.record.busy(trial=trial, candidate=candidate.id, stage=stage, since=time.time())
                self.watcher.stage(trial, candidate, stage)

            self.current = candidate.id
            measured = self.pipeline.measure(
                candidate,
                limits=self.sweep.limits if trial else (),
                base=self.base,
                known=self._known(candidate) if trial and candidate.recipe else None,
                on_stage=on_stage,
            )
            self.stages_s += measured.seconds
            row |= {"status": measured.status, "error": measured.error or None, "ended": now()}
            row = rounded(row | dict(candidate.columns()) | measured.cells)
            self._keep(candidate, measured)
            self.record.results.append(row)
            self.rows[candidate.id] = row
            if measured.status != "lost":
                break
        best = judge(self.rows.values(), self.sweep, self.base_id, self.record.folder).winner
        self.watcher.row(row, self.rows[best.id] if best else None)
        return row

    def _keep(self, candidate: Candidate, measured: Measurement) -> None:
        """Keep outcomes and training curve beside the rows; drop merged models that are used no more."""
        if measured.outcomes is not None:
            self.record.keep_outcomes(candidate.id, "validation", self.sweep.data.metric, measured.outcomes)
        adapter = measured.cells.get("adapter")
        if adapter and measured.curve and not any(r["adapter"] == adapter for r in self.record.curves.rows):
            for step, loss, rate in measured.curve:
                cells: Row = {"adapter": str(adapter), "step": int(step), "train_loss": loss, "learning_rate": rate}
                self.record.curves.add(cells)
            self.record.curves.flush()

    def _told(self, row: Row) -> Told:
        """Return a row as the strategy sees it; what is not fully measured has no values."""
        values = values_of(row)
        gaps = {}
        for limit in self.sweep.limits:
            gap = limit.gap(values.get(limit.metric), self.base.get(limit.metric))
            if gap is not None:
                gaps[str(limit)] = gap
        objectives = [values.get(name) for name in self.sweep.objectives]
        complete = row["status"] == "ok" and all(value is not None for value in objectives)
        return Told(tuple(v for v in objectives if v is not None) if complete else None, gaps)

    def _replay(self, row: Row) -> None:
        if row["trial"] == 0 or row["status"] == "lost":
            return
        candidate = Candidate.from_columns({name: text_of(value) for name, value in row.items()})
        self.strategy.replay(candidate, self._told(row))

    def _finish(self, trials: int, ended: str) -> Summary:
        """Choose the winner, score it and the untouched model once on test, and keep it in `best/`."""
        choice = judge(self.rows.values(), self.sweep, self.base_id, self.record.folder)
        summary = Summary(choice, trials, 0.0, 0.0, ended)
        searched = [row for row in self.rows.values() if row["trial"]]
        if not any(row["status"] == "ok" for row in searched):
            summary.exit_code = Exit.NO_RESULT
        elif choice.winner is None:
            summary.exit_code = Exit.NO_FEASIBLE
        if choice.winner is not None:
            summary.finalists = self._finalists(choice.winner.id)
        return summary

    def _finalists(self, winner: str) -> list[Row]:
        finalists: list[Row] = []
        split = "test" if "test" in self.pipeline.inputs.items else "validation"
        for role, name in (("winner", winner), ("base", self.base_id)):
            row = self.rows.get(name)
            if row is None or row["status"] != "ok":
                continue
            candidate = Candidate.from_columns({key: text_of(value) for key, value in row.items()})
            self.current = f"{name}.{split}"

            def on_stage(stage: str, candidate: Candidate = candidate, role: str = role) -> None:
                if stage == "score":
                    self.watcher.stage(0, candidate, f"score on {split}, {role}")

            measured = self.pipeline.measure(candidate, split, on_stage=on_stage)
            self.stages_s += measured.seconds
            if measured.status != "ok":
                self.watcher.note(f"{role} {name}: {measured.error}")
                continue
            if split == "test" and measured.outcomes is not None:
                self.record.keep_outcomes(name, split, self.sweep.data.metric, measured.outcomes)
            cells = {
                n: v for n, v in measured.cells.items() if n.split("_")[0] in METRICS or n in {c.name for c in LATENCY}
            }
            finalists.append(rounded({"role": role, "candidate": name, "split": split, **cells}))
            if role == "winner":
                parts = {"onnx": measured.build, "adapter": measured.adapter}
                about = {
                    "candidate": name,
                    "settings": candidate.model_dump(exclude_none=True),
                    "model": self.sweep.model,
                }
                self.record.keep_best({n: stored.path for n, stored in parts.items() if stored is not None}, about)
        self.record.write_finalists(finalists)
        return finalists
