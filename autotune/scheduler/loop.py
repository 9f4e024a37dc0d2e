"""The sweep: ask, measure, tell, write a row; then the winner, once on test.

The rows of results.csv are the state. Run again, the same command reads them, tells the strategy what is known, and
goes on.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.analysis.latency import Turns, disturbed
from autotune.analysis.selection import Choice
from autotune.candidate import Candidate
from autotune.errors import Exit, MachineError, StageError, stage_status
from autotune.metrics import METRICS, is_task
from autotune.pipeline.graph import base_candidate
from autotune.pipeline.measure import LOOKS, Measurement, Pipeline
from autotune.results.columns import STAGES, Row
from autotune.results.folder import Record, now
from autotune.results.judge import candidate_of, front_of, judge, served_as, values_of
from autotune.results.trials import Trials, rounded
from autotune.results.trust import inherited, is_another_model, is_in_doubt, only_rounds
from autotune.scheduler.events import Watcher
from autotune.scheduler.finalists import TIMING, Finalists
from autotune.scheduler.provisional import PATIENCE_S, Provisional
from autotune.strategies.protocol import LEAST_ITEMS, Proposal, Strategy, Told
from autotune.sweepfile.schema import Sweep

RETIMED = TIMING - {"graph", "size_mb"} | {"pace"}
"""The cells of a timing."""
ATTEMPTS = 2
"""Times that a candidate is tried whose worker was lost."""
_RECENT = 10
"""Rows by which it is guessed how long the next takes."""
_SHOWING_S, _SHOWING_SHARE = 1.0, 0.01
"""What looking for the best so far may cost, seconds and share of the wall-clock: it is only shown."""


@dataclass
class Summary:
    """What a run of the command did."""

    choice: Choice
    trials: int
    wall_s: float
    stages_s: float
    ended: str
    """Why it ended: trials, hours, space (all done), front (no candidate that is left promises to move it), export (no
    recipe builds the untouched model).
    """
    exit_code: Exit = Exit.OK
    finalists: list[Row] = field(default_factory=list)
    turns: Turns | None = None
    """How the finalists' latencies relate, where they were timed in turns."""
    kept: bool = False
    """Whether the winner is in `best/`."""


def _settings_of(cells: Mapping[str, Any], *prefixes: str) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((n, v) for n, v in cells.items() if n.startswith(prefixes) and v is not None))


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
        pipeline.rungs = strategy.rungs
        self.rows: dict[str, Row] = {}
        """Of each candidate that the strategy proposed the last attempt."""
        self.base_row: Row | None = None
        """The untouched model measured first, which limits refer to."""
        self.stages_s = 0.0
        self.base_id = base_candidate(sweep).id
        self.current = self.base_id
        """The candidate at work, for its log."""
        self._attempts: Counter[str] = Counter()
        self._trials = Trials()
        self._footprints: dict[Any, dict[str, float]] = {}
        """By recipe and session what belongs to the built graph; its size, which no session changes, by recipe."""
        self._best: Row | None = None
        """The winner so far."""
        self._judged_s = 0.0
        self._untimed: set[str] = set()
        """What could not be timed anew in this run: a graph and the session that serves it."""
        self.provisional = Provisional(sweep.target.timing.precision, watcher)
        self._began = clock()
        for row in record.results.rows:
            self._learn(row)

    def _learn(self, row: Row) -> None:
        """Take in a row that has been written."""
        name, trial = str(row["candidate"]), int(row["trial"] or 0)
        self._attempts[name] += 1
        self._trials.learn(row)
        if trial:
            self.rows[name] = row
        elif name == self.base_id:
            self.base_row = row
        # No adapter changes these: they belong to recipe and session, whatever became of the candidate.
        # But what was timed beside other work proves nothing of others.
        kinds = ("score", "latency") if disturbed(row) else ("score",)
        values = {n: v for n, v in values_of(row).items() if METRICS[n].kind not in kinds}
        recipe, session = _settings_of(row, "build_"), _settings_of(row, "session_")
        self._footprints.setdefault((recipe, session), {}).update(values)
        if "size_mb" in values:
            self._footprints.setdefault(recipe, {})["size_mb"] = values["size_mb"]

    @property
    def base(self) -> dict[str, float]:
        """What was measured of the untouched model, for limits that refer to it."""
        return values_of(self.base_row or {})

    def ended(self) -> list[Row]:
        """Return the rows that count, the untouched model first."""
        return [*([self.base_row] if self.base_row else []), *self.rows.values()]

    def run(self) -> Summary:
        """Go on until the budget or the space is used up, then score the finalists. Returns what was done.

        Raises MachineError where no candidate could go on, or rows cannot be written.
        """
        try:
            return self._run()
        finally:
            self.pipeline.tidy()

    def _run(self) -> Summary:
        began = self._began = self.clock()
        base = base_candidate(self.sweep)
        look = self._first_items()
        if self.base_row is None or self.base_row["status"] not in ("ok", "stopped" if look else "ok"):
            self._try(Proposal(base, items=look), 0)
        for row in [row for row in self.rows.values() if row["status"] == "lost"]:
            if not self._late():
                self._try(self._proposal_of(row), int(row["trial"] or 0))
        trusted = self._trusts()
        self._check_pace()
        if self.strategy.rungs and (known := self._base_as_begun()) is not None:
            self.strategy.replay(base, self._told(known))
        for row in self.record.results.rows:
            if row["trial"] and (row["status"] == "stopped" or row is self.rows[str(row["candidate"])]):
                self._replay(row)
        self._judge()
        if not self.base and any(limit.needs_base for limit in self.sweep.limits):
            self.watcher.note(
                "the untouched model could not be measured: no candidate can keep a limit that refers to it"
            )
        # Who takes candidates up in parts leaves those that promise nothing.
        before = len(self._trials)
        used_up = "front" if self.strategy.rungs else "space"
        while True:
            if not trusted:
                ended = "export"
                break
            most = self.sweep.budget.trials
            if most is not None and len(self._trials) >= most:
                ended = "trials"
                break
            if self._left_s() <= self._kept_s():
                ended = "hours"
                break
            asked = self.strategy.ask(1, ())
            if not asked:
                ended = used_up
                break
            proposal = asked[0]
            row = self._try(proposal, self._trials.last + 1)
            self.strategy.tell(proposal, self._told(row))
            self._retime()
            self._settle()
        if self._base_is_open:
            self._try(Proposal(base), 0)
        self._resolve()
        self._settle(PATIENCE_S)
        self._pin()
        summary = self._finish(len(self._trials) - before, ended)
        if not self.record.results.flush():
            file = self.record.results.file
            message = f"{file} cannot be written: its last rows are not in it, and what they cost is in the cache"
            raise MachineError(f"{message}; close the program that holds it, then run the same command again")
        summary.wall_s = self.clock() - began
        summary.stages_s = self.stages_s
        return summary

    def _trusts(self) -> bool:
        """Return whether a recipe is left in which an adapter may be tried.

        Where the untouched model was not built as it is, all recipes that only round that build are given up, and each
        other one is tried on the untouched model before anything is trained for it.
        """
        recipes, base = self.sweep.space.recipes, base_candidate(self.sweep).recipe
        row, given_up = self.base_row, self.pipeline.given_up
        if row is None or base is None or not is_in_doubt(row):
            return True
        error = str(row["error"])
        for recipe in recipes:
            if is_another_model(row) and only_rounds(recipe, base):
                given_up[recipe] = StageError("failed", inherited(base, error))
            plain = Candidate(recipe=recipe)
            if plain.id == self.base_id:
                given_up[recipe] = StageError(stage_status(row["status"]), error)
            elif self.sweep.space.lora is not None:  # else it is a candidate like others
                tried = self._try(Proposal(plain, items=0), 0)
                if tried["status"] in ("failed", "unsupported"):
                    given_up[recipe] = StageError(stage_status(tried["status"]), str(tried["error"]))
        return self.sweep.space.lora is None or not recipes or set(recipes) > set(given_up)

    def _first_items(self) -> int | None:
        """Return on how many items the untouched model is scored at first; None: on all, and timed.

        Who takes candidates up in parts needs to know only about where the front begins, unless a limit refers to it.
        """
        referred = any(limit.needs_base for limit in self.sweep.limits)
        if not self.strategy.rungs or referred or is_task(self.sweep.data.metric):
            return None
        items = self.pipeline.inputs.counts["validation"]
        least = max(LEAST_ITEMS, math.ceil(LOOKS[0] * items))
        return least if least < items else None

    def _base_as_begun(self) -> Row | None:
        """Return the untouched model's row as it was when candidates were begun: who goes on decides as if never stopped."""
        rows = [row for row in self.record.results.rows if row["candidate"] == self.base_id and not row["trial"]]
        return next((row for row in rows if row["status"] in ("ok", "stopped")), None)

    @property
    def _base_is_open(self) -> bool:
        """Whether the untouched model was only looked at."""
        return self.base_row is not None and self.base_row["status"] == "stopped"

    def _resolve(self) -> None:
        """Time what is on the front until that is known as precisely as the sweep asks for; the others are left as they are.

        It changes nothing where they were timed so from the start.
        """
        done = set(self._untimed)
        while self.strategy.rungs:
            self._judge()
            graphs = {str(served_as(row)) for row in self._wanted()} - done
            rows = [row for row in self._timed() if str(served_as(row)) == min(graphs, default="")]
            if not rows:
                break
            done.add(min(graphs))  # what else is on the front may have changed with it
            self._time_anew(rows, whole=True)
        self.pipeline.rest()

    def _check_pace(self) -> None:
        """See whether the timings of earlier runs still hold, and make them anew if they do not."""
        pace = self.pipeline.pace
        if pace is None:
            return
        same = [row for row in self._timed() if row.get("pace") == pace.name]
        if same and not pace.trusted:
            began = self.clock()
            try:
                self.pipeline.still_holds(same[0], self._candidate_of(same[0]))
            except StageError as error:
                self.watcher.note(f"whether earlier timings still hold could not be seen: {error}")
            self.stages_s += self.clock() - began
        self._retime()

    def _timed(self) -> list[Row]:
        return [row for row in self.ended() if row["status"] == "ok" and row.get("itl_ms_p50") is not None]

    def _retime(self) -> None:
        """Time graphs anew that were timed at another pace of this machine, or on another, and write their rows anew."""
        pace = self.pipeline.pace
        if pace is None:
            return
        stale = [row for row in self._timed() if row.get("pace") != pace.name and served_as(row) not in self._untimed]
        if not stale:
            return
        graphs: dict[str, list[Row]] = {}
        for row in stale:
            graphs.setdefault(str(served_as(row)), []).append(row)
        self.watcher.note(f"this machine's pace is another than it was: {len(graphs)} graphs are timed anew")
        for rows in graphs.values():
            self._time_anew(rows)
        self.pipeline.rest()

    def _settle(self, patience_s: float = 0.0) -> None:
        """Time graphs again whose timing is provisional, where the machine is quieter now."""
        if not self._late():
            self.provisional.settle(self._timed(), lambda rows: self._time_anew(rows, again=True), patience_s)
            self.pipeline.rest()

    def _time_anew(self, rows: list[Row], whole: bool = False, again: bool = False) -> None:
        """Time the one graph of these rows and write them anew, unless they say it already; `whole` and `again` as in
        `Pipeline.timing`.
        """
        made = [self._candidate_of(row) for row in rows]
        candidate = next(filter(self.pipeline.is_there, made), made[0])
        began, started = self.clock(), now()
        shown = self._shown(0, candidate)
        measured = self.pipeline.timing(
            candidate, on_stage=shown, whole=whole, graph=str(rows[0]["graph"]), again=again
        )
        self.record.keep_timings(measured.timings)
        self.stages_s += measured.seconds
        if measured.status != "ok" or measured.cells["graph"] != rows[0]["graph"]:
            why = measured.error or "its build is another one today"
            self.watcher.note(f"{rows[0]['candidate']} could not be timed anew: {why}; what it was timed at stays")
            if measured.status != "lost":
                self._untimed.add(str(served_as(rows[0])))
            return
        cells = rounded({n: v for n, v in measured.cells.items() if n.partition("@")[0] in RETIMED})
        stale = [row for row in rows if any(row.get(name) != value for name, value in cells.items())]
        for number, row in enumerate(stale):
            times: Row = {
                "started": started,
                "ended": now(),
                "wall_s": self.clock() - began if number == 0 else 0.0,
            }
            attempt: Row = {"attempt": self._attempts[str(row["candidate"])] + 1, "cached": None}
            costs: Row = dict.fromkeys((name for name in row if name.startswith("cost_")), None)
            if number == 0:
                costs["cost_time_s"] = measured.cells.get("cost_time_s")
            written = self.record.results.append(rounded({**row, **costs, **attempt, **times, **cells}))
            self._learn(written)
            if self.strategy.rungs:  # others have made up their mind, and hear of a candidate once
                self.strategy.replay(self._candidate_of(written), self._told(written))

    def _shown(self, trial: int, candidate: Candidate) -> Callable[[str], None]:
        """Return who is told of a candidate's stages."""

        def on_stage(stage: str) -> None:
            self.record.busy(trial=trial, candidate=candidate.id, stage=stage, since=time.time())
            self.watcher.stage(trial, candidate, stage)

        return on_stage

    def _left_s(self) -> float:
        """Return how many seconds of the budget are left."""
        hours = self.sweep.budget.hours
        return math.inf if hours is None else hours * 3600 - self.record.spent_s()

    def _kept_s(self) -> float:
        """Return how much of the time is kept for what is done in the end: that, and as much as a row takes, which may begin
        just before.
        """
        if self.sweep.budget.hours is None:
            return 0.0
        end_s, rows = self._end_s(), list(self.rows.values())[-_RECENT:]
        return end_s + statistics.median(float(row["wall_s"] or 0) for row in rows) if end_s and rows else end_s

    def _end_s(self) -> float:
        """Return about how many seconds it takes to measure an untouched model that was only looked at, and to time what is on
        the front precisely: at most all that was timed.
        """
        if not self.strategy.rungs:
            return 0.0
        timing, times = self.sweep.target.timing, [float(row.get("cost_time_s") or 0.0) for row in self.rows.values()]
        time_s = statistics.median(filter(None, times)) if any(times) else 0.0
        # By recipe and session, because this is asked before every candidate, however many rows there are.
        served = sum("itl_ms_p50" in footprint for footprint in self._footprints.values())
        seconds = (timing.most / timing.processes - 1) * time_s * served
        if self.base_row is not None and self._base_is_open:
            scored = float(self.base_row.get(f"{self.sweep.score}_n") or 1)
            rest = self.pipeline.inputs.counts["validation"] / scored - 1
            seconds += time_s + rest * float(self.base_row.get("cost_score_s") or 0.0)
        return seconds

    def _late(self) -> bool:
        return self._left_s() <= 0

    def _known(self, candidate: Candidate) -> dict[str, float]:
        """Return what other candidates of the same recipe, and session, were measured at."""
        cells = candidate.columns()
        recipe, session = _settings_of(cells, "build_"), _settings_of(cells, "session_")
        return self._footprints.get(recipe, {}) | self._footprints.get((recipe, session), {})

    def _try(self, proposal: Proposal, trial: int) -> Row:
        """Measure one candidate, as far as is asked for, and write its row; a lost worker is forgiven once."""
        row: Row = {}
        candidate = proposal.candidate
        for _ in range(ATTEMPTS):
            began = self.clock()
            row = {
                "candidate": candidate.id,
                "trial": trial,
                "attempt": self._attempts[candidate.id] + 1,
                "kind": candidate.kind,
                "started": now(),
            }
            self.current = candidate.id
            measured = self.pipeline.measure(
                candidate,
                limits=self.sweep.limits if trial else (),
                base=self.base,
                known=self._known(candidate) if trial and candidate.recipe else None,
                on_stage=self._shown(trial, candidate),
                rung=proposal.rung,
                items=proposal.items,
                timed=not (look := trial == 0 and proposal.items is not None),
            )
            self.stages_s += measured.seconds
            status, error = measured.status, measured.error
            if status == "ok" and (left := self._left_at(proposal, measured) or "not timed" * look):
                status, error = "stopped", left + "; measured in the end" * (candidate.id == self.base_id and look)
            asked: Row = {"rung": proposal.rung if proposal.rung < 1 else None, "items": proposal.items}
            row |= {"status": status, "error": error or None, "ended": now()} | asked
            row["wall_s"] = self.clock() - began
            row = rounded(row | dict(candidate.columns()) | measured.cells)
            self._keep(candidate, measured)
            row = self.record.results.append(row)
            self._learn(row)
            self.pipeline.rest()
            if measured.status != "lost":
                break
        if row["status"] == "ok" and self._judged_s < _SHOWING_S + _SHOWING_SHARE * (self.clock() - self._began):
            self._judge()
        self.watcher.row(row, self._best)
        return row

    def _judge(self) -> None:
        """Find the winner so far among all rows: for the eye, so without the outcomes of items, which take longer."""
        began = time.perf_counter()
        best = judge(self.ended(), self.sweep, self.base_id).winner
        self._best = self.rows[best.id] if best else None
        self._pin()
        self._judged_s += time.perf_counter() - began

    def _pin(self) -> None:
        """Let the cache keep what the front and the winner so far are made of."""
        self.pipeline.keep(self.record.folder, map(self._candidate_of, self._wanted()))

    def _wanted(self) -> list[Mapping[str, Any]]:
        """Return the rows of the front so far, and the winner's: limits may keep it off the front."""
        return [*front_of(self.ended(), self.sweep.objectives), *([self._best] if self._best else [])]

    def _keep(self, candidate: Candidate, measured: Measurement) -> None:
        """Keep outcomes and training curve beside the rows."""
        cells, score = measured.cells, self.sweep.score
        self.record.keep_timings(measured.timings)
        if measured.outcomes is not None:
            self.record.keep_outcomes(candidate.id, "validation", self.sweep.data.metric, measured.outcomes)
        if cells.get("adapter") and measured.curve:
            self.record.keep_curve(str(cells["adapter"]), measured.curve)
        if cells.get("adapter") and candidate.recipe is None and cells.get(score) is not None:
            self.record.keep_rung(str(cells["adapter"]), cells["train_steps"], score, cells[score], cells[f"{score}_n"])

    def _told(self, row: Row) -> Told:
        """Return a row as the strategy sees it; what is not fully measured has no values."""
        values = values_of(row)
        gaps = {}
        for limit in self.sweep.limits:
            gap = limit.gap(values.get(limit.metric), self.base.get(limit.metric))
            if gap is not None:
                gaps[limit] = gap
        objectives = [values.get(name) for name in self.sweep.objectives]
        complete = row["status"] == "ok" and all(value is not None for value in objectives)
        return Told(
            tuple(v for v in objectives if v is not None) if complete else None,
            gaps,
            measured=values,
            seconds={
                stage: float(row[f"cost_{stage}_s"] or 0.0)
                for stage in STAGES
                if row.get(f"cost_{stage}_s") is not None
            },
            rung=float(row.get("rung") or 1.0),
            items=int(row.get(f"{self.sweep.score}_n") or 0),
            status=str(row["status"]),
            probability=None if row.get("probability") is None else float(row["probability"] or 0.0),
        )

    def _replay(self, row: Row) -> None:
        """Tell the strategy a row of an earlier run, but for those that may be tried again."""
        told = self._told(row)
        broken = any(gap > 0 for gap in told.gaps.values())
        # A lost worker says nothing about the candidate, nor does a limit that has been relaxed since; and what was left
        # on the way tells only those who go on from there.
        left = row["status"] == "stopped" and not self.strategy.rungs
        if left or row["status"] == "lost" or (row["status"] == "over_limit" and not broken):
            return
        self.strategy.replay(self._candidate_of(row), told)

    def _proposal_of(self, row: Mapping[str, Any]) -> Proposal:
        """Return what was asked for where a row was written."""
        return Proposal(self._candidate_of(row), rung=float(row.get("rung") or 1.0), items=row.get("items"))

    def _left_at(self, proposal: Proposal, measured: Measurement) -> str:
        """Return in words how far a candidate came that is not fully measured; empty where it is."""
        lora, words = proposal.candidate.lora, []
        if lora is not None and proposal.rung < 1:
            words.append(f"trained for {measured.cells['train_steps']} of {self.pipeline.graph.horizon(lora)} steps")
        items, scored = self.pipeline.inputs.counts["validation"], int(measured.cells.get(f"{self.sweep.score}_n") or 0)
        if scored < items and not is_task(self.sweep.data.metric):
            words.append(f"scored on {scored} of {items} items")
        if not words and proposal.candidate.recipe is None and self.sweep.space.recipes:
            words.append("not built in any recipe")
        return ", ".join(words)

    def _candidate_of(self, row: Mapping[str, Any]) -> Candidate:
        return candidate_of(row, self.record.results.file)

    def _finish(self, trials: int, ended: str) -> Summary:
        """Choose the winner among the rows, and do what is done with it at the end."""

        def at_work(log: str, candidate: Candidate) -> Callable[[str], None]:
            self.current = log
            return self._shown(0, candidate)

        finalists = Finalists(
            self.sweep, self.record, self.pipeline, self.watcher, self.rows, self.base_row, at_work
        )  # fmt: skip
        final = finalists.run()
        self.stages_s += final.seconds
        summary = Summary(final.choice, trials, 0.0, 0.0, ended, Exit.OK, final.rows, final.turns, final.kept)
        if not any(row["status"] in ("ok", "over_limit") for row in self.rows.values()):
            summary.exit_code = Exit.NO_RESULT
        elif final.choice.winner is None:
            summary.exit_code = Exit.NO_FEASIBLE
        return summary
