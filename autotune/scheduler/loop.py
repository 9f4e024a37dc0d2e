"""The loop of one target: it begins candidates, writes a row for each, and scores the winner on test.

The rows of results.csv are its state. Which candidates begin is decided in `search`, for all targets of a sweep. Only the
thread of these modules decides, writes rows and tells the strategy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autotune.analysis.latency import Turns
from autotune.analysis.selection import Choice
from autotune.candidate import Candidate
from autotune.costs.model import CostModel
from autotune.errors import Exit, MachineError, StageError, stage_status
from autotune.machine import foreign_cpu
from autotune.metrics import is_task
from autotune.pipeline.expected import Prices
from autotune.pipeline.measure import Measurement, Pipeline
from autotune.results.columns import Cells
from autotune.results.judge import front_of, judge
from autotune.results.record import Record, now
from autotune.results.rows import Finalist, Trial
from autotune.results.trials import rounded
from autotune.results.trust import inherited, is_another_model, is_in_doubt, only_rounds
from autotune.scheduler.budget import BudgetLeft
from autotune.scheduler.disturbed_timings import PATIENCE_S
from autotune.scheduler.events import BestSoFar, CandidateEnded, Events, RowWritten, TimeLeft
from autotune.scheduler.finalists import Finalists
from autotune.scheduler.first_estimates import first_items
from autotune.scheduler.forecast import Forecast
from autotune.scheduler.ledger import Ledger
from autotune.scheduler.shared import Shared
from autotune.scheduler.stale_timings import StaleTimings
from autotune.scheduler.under_way import Executor, Flight
from autotune.strategies.protocol import Proposal, Strategy
from autotune.sweepfile.schema import Budget

ATTEMPTS = 2
"""The most attempts of a candidate whose worker was lost."""
_SHOWING_S, _SHOWING_SHARE = 1.0, 0.01
"""The most time for judging the best candidate so far, which is only displayed: seconds, and a share of the wall-clock."""


@dataclass
class Summary:
    """The result of a run of the command."""

    choice: Choice
    trials: int
    wall_s: float
    stages_s: float
    """Seconds inside stages, summed over all workers."""
    ended: str
    """Why it ended: trials, hours, space (all candidates were measured), front (the strategy expects no other candidate to
    improve it), export (no recipe builds the untouched model), lost (the device of every target is gone), kept (what is
    left of the budget is kept for targets whose device is gone).
    """
    exit_code: Exit = Exit.OK
    finalists: list[Finalist] = field(default_factory=list)
    turns: Turns | None = None
    """The latencies of the finalists relative to each other, where they were timed in turns."""
    kept: bool = False
    """Whether the winner is in `best/`."""
    targets: dict[str | None, Summary] = field(default_factory=dict)
    """Where the sweep has several: the summary of each."""
    own_s: float = 0.0
    """The tuner's own cost: seconds of the wall-clock in which no stage was running, nor waited."""
    waited_s: float = 0.0
    """Seconds in which no stage was running because one waited for another process, such as a sweep that timed its models."""


class Loop:
    """One run of the `run` command for one target: `search.run_loop` runs it."""

    def __init__(
        self,
        pipeline: Pipeline,
        budget: Budget,
        record: Record,
        strategy: Strategy,
        executor: Executor,
        events: Events,
        clock: Callable[[], float] = time.monotonic,
        costs: CostModel | None = None,
        shared: Shared | None = None,
        foreign_cpu: Callable[[], float] = foreign_cpu,
    ) -> None:
        """`foreign_cpu`: cores that other programs keep busy where the target is timed; `costs`: what stages are expected to take; None: nothing was measured yet; `shared`: with the loops of other targets."""
        graph = pipeline.graph
        self.target, self.shared = pipeline.target, shared or Shared(executor)
        self.record, self.pipeline = record, pipeline
        self.metric, self.recipes = graph.data.metric, graph.space.recipes
        self.tunes_adapters = graph.space.lora is not None
        self.strategy, self.events, self.clock = strategy, events, clock
        pipeline.rungs = strategy.rungs
        self.ledger = Ledger(pipeline.aims, graph.score, graph.untouched, record.results.rows, record.results.file)
        self.under_way = self.shared.under_way
        prices = Prices(graph, costs or CostModel())
        self.forecast = Forecast(prices, self.ledger, clock, executor.width, bool(strategy.rungs), self.shared.done)
        self.shared.add(self.target, self.ledger, self.forecast)
        self.budget = BudgetLeft(budget, self.shared, record.spent_s, self.forecast)
        self.stale_timings = StaleTimings(
            self.ledger, record, pipeline, self.under_way, events, graph.target.timing, clock, foreign_cpu
        )
        self._like: Candidate | None = None
        """A candidate like those that come."""
        self.stages_s = 0.0
        self._best: Trial | None = None
        """The winner so far."""
        self._front: list[Trial] = []
        self._judged_s = 0.0
        self._began = clock()

    # --- before the search -------------------------------------------------------------------------------------------

    def begin_with_base(self) -> None:
        """Measure the untouched model, in full or on the first items, unless an earlier run did."""
        self._began = self.clock()
        items, in_parts = self.pipeline.inputs.counts["validation"], bool(self.strategy.rungs)
        look, row = first_items(self.ledger.aims, self.metric, items, in_parts), self.ledger.base_row
        if row is None or row.status not in ("ok", "stopped" if look else "ok"):
            self._alone(Proposal(self.ledger.untouched, items=look), 0)

    def lost(self) -> list[Trial]:
        """Return the rows whose worker was lost, which are tried again."""
        return [row for row in self.ledger.rows.values() if row.status == "lost"]

    def repeat(self, row: Trial) -> Trial:
        """Try the candidate of a row again, unless the hours are used up. Returns its row."""
        return row if self.budget.late else self._alone(self.ledger.proposal_of(row), row.trial or 0)

    def trusts(self) -> bool:
        """Return whether any recipe can be trusted to build an adapter.

        If the build of the untouched model is faulty, recipes that only round that build are given up. Each other recipe is
        tried on the untouched model before an adapter is trained.
        """
        recipes, base = self.recipes, self.ledger.untouched.recipe
        row, given_up = self.ledger.base_row, self.pipeline.given_up
        if row is None or base is None or not is_in_doubt(row):
            return True
        error = str(row.error)
        for recipe in recipes:
            if is_another_model(row) and only_rounds(recipe, base):
                given_up[recipe] = StageError("failed", inherited(base, error))
            plain = Candidate(recipe=recipe, target=self.ledger.untouched.target)
            if plain.id == self.ledger.base_id:
                given_up[recipe] = StageError(stage_status(row.status), error)
            elif self.tunes_adapters:  # else it is a candidate like others
                tried = self._alone(Proposal(plain, items=0), 0)
                if tried.status in ("failed", "unsupported"):
                    given_up[recipe] = StageError(stage_status(tried.status), str(tried.error))
        return not self.tunes_adapters or not recipes or set(recipes) > set(given_up)

    def replay_base(self) -> None:
        """Tell a strategy with lower fidelities the first row of the untouched model, which it knew when it began; a later row
        completes it at the end.
        """
        if self.strategy.rungs:
            rows = (row for row in self.record.results.rows if row.candidate == self.ledger.base_id and not row.trial)
            known = next((row for row in rows if row.status in ("ok", "stopped")), None)
            if known is not None:
                self.strategy.replay(self.ledger.untouched, self.ledger.told(known))

    def replay(self, row: Trial) -> None:
        """Tell the strategy a row of an earlier run, unless it counts no more, or its candidate may be tried again."""
        if not row.trial or (row.status != "stopped" and row is not self.ledger.rows[row.candidate]):
            return
        told = self.ledger.told(row)
        broken = any(gap > 0 for gap in told.gaps.values())
        # A lost worker shows nothing about the candidate, nor does a limit that was relaxed since. A row at a lower fidelity
        # is of use only to strategies that have lower fidelities.
        left = row.status == "stopped" and not self.strategy.rungs
        if left or row.status == "lost" or (row.status == "over_limit" and not broken):
            return
        self.strategy.replay(self.ledger.candidate_of(row), told)

    def tell_anew(self, rows: list[Trial]) -> None:
        """Tell a strategy with lower fidelities of rows that were timed anew."""
        if self.strategy.rungs:  # other strategies are told of each candidate once
            for row in rows:
                self.strategy.replay(self.ledger.candidate_of(row), self.ledger.told(row))

    # --- a candidate -------------------------------------------------------------------------------------------------

    def settle(self, patience_s: float = 0.0) -> None:
        """Repeat provisional timings, unless candidates are under way, which would disturb them."""
        if not self.budget.late and not self.under_way.flights:
            self.tell_anew(self.stale_timings.settle(patience_s))

    def begin(self, proposal: Proposal, trial: int) -> None:
        """Begin to measure a candidate at the fidelity of its proposal."""
        candidate = proposal.candidate
        looked_at = trial == 0 and proposal.items is not None
        if trial and self._like is None:
            self._like = candidate
            self._say_left()
        elif trial and proposal.rung == 1 and candidate.recipe is not None:
            self._like = candidate
        steps = self.pipeline.steps(
            candidate,
            limits=self.ledger.aims.limits if trial else (),
            base=self.ledger.base,
            known=self.ledger.known(candidate) if trial and candidate.recipe else None,
            on_stage=self.events.stages_of(candidate, trial),
            rung=proposal.rung,
            items=proposal.items,
            timed=not looked_at,
        )
        self.under_way.begin(Flight(trial, proposal, steps, self.record.log(candidate.id), now(), self.clock()))

    def _alone(self, proposal: Proposal, trial: int) -> Trial:
        """Measure one candidate while no other is under way. Returns its row."""
        self.begin(proposal, trial)
        while True:
            if (row := self.written(self.under_way.next_ended())) is not None:
                return row

    def written(self, flight: Flight, forgive: bool = True) -> Trial | None:
        """Write the row of a candidate that has ended. Returns the row; None if its worker was lost and it begins again."""
        measured, candidate, trial = flight.measured, flight.proposal.candidate, flight.trial
        assert measured is not None
        self.stages_s += measured.seconds
        status, error = measured.status, measured.error
        looked_at = trial == 0 and flight.proposal.items is not None
        if status == "ok" and (left := self._left_at(flight.proposal, measured) or "not timed" * looked_at):
            later = "; measured in the end" * (looked_at and candidate.id == self.ledger.base_id)
            status, error = "stopped", left + later
        about: Cells = {
            "candidate": candidate.id,
            "trial": trial,
            "attempt": self.ledger.attempts[candidate.id] + 1,
            "kind": candidate.kind,
            "status": status,
            "error": error or None,
            "started": flight.started,
            "ended": now(),
            "rung": flight.proposal.rung if flight.proposal.rung < 1 else None,
            "items": flight.proposal.items,
            "wall_s": self.clock() - flight.began,
        }
        self._keep(candidate, measured)
        row = self.record.results.append(Trial(rounded(about | dict(candidate.columns()) | measured.cells)))
        self.ledger.learn(row)
        again = forgive and measured.status == "lost" and flight.attempt < ATTEMPTS
        if not again and row.status == "ok" and self._may_show():
            self.judge()  # before its results are released: those of a new winner must not be evicted
        self.pipeline.rest()
        self.events(CandidateEnded(trial, candidate))
        if again:
            self.begin(flight.proposal, trial)
            self.under_way.flights[-1].attempt = flight.attempt + 1
            return None
        self.events(RowWritten(row, self._best))
        self._say_left()
        return row

    def _say_left(self) -> None:
        if self._like is not None:
            self.events(TimeLeft(self.budget.left_s(self._like)))

    def _left_at(self, proposal: Proposal, measured: Measurement) -> str:
        """Return in words what was measured of a candidate that is not fully measured; empty if it is."""
        lora, words = proposal.candidate.lora, []
        if lora is not None and proposal.rung < 1:
            words.append(f"trained for {measured.cells['train_steps']} of {self.pipeline.graph.horizon(lora)} steps")
        items = self.pipeline.inputs.counts["validation"]
        scored = int(measured.cells.get(f"{self.ledger.score}_n") or 0)
        if scored < items and not is_task(self.metric):
            words.append(f"scored on {scored} of {items} items")
        if not words and proposal.candidate.recipe is None and self.recipes:
            words.append("not built in any recipe")
        return ", ".join(words)

    def _keep(self, candidate: Candidate, measured: Measurement) -> None:
        """Keep outcomes and training curve beside the rows."""
        cells, score = measured.cells, self.ledger.score
        self.record.keep_timings(measured.timings)
        if measured.outcomes is not None:
            self.record.keep_outcomes(candidate.id, "validation", self.metric, measured.outcomes)
        if cells.get("adapter") and measured.curve:
            self.record.keep_curve(str(cells["adapter"]), measured.curve)
        if cells.get("adapter") and candidate.recipe is None and cells.get(score) is not None:
            self.record.keep_rung(str(cells["adapter"]), cells["train_steps"], score, cells[score], cells[f"{score}_n"])

    # --- the best so far ---------------------------------------------------------------------------------------------

    def _may_show(self) -> bool:
        return self._judged_s < _SHOWING_S + _SHOWING_SHARE * (self.clock() - self._began)

    def judge(self) -> None:
        """Find the winner so far. It is only displayed, so that the tests on outcomes of items, which take longer, are left out."""
        began = time.perf_counter()
        best = judge(self.ledger.ended(), self.ledger.aims, self.ledger.base_id).winner
        self._best = self.ledger.rows[best.id] if best else None
        self._pin()
        self.events(BestSoFar(self._best, tuple(self._front), self.target))
        self._judged_s += time.perf_counter() - began

    def _pin(self) -> None:
        """Pin the artifacts of the front and of the winner so far, so that the cache does not evict them."""
        self.pipeline.keep(self.record.folder, map(self.ledger.candidate_of, self._wanted()))

    def _wanted(self) -> list[Trial]:
        """Return the rows of the front so far, and the winner's: limits may keep it off the front."""
        self._front = front_of(self.ledger.ended(), self.ledger.aims.objectives)
        return [*self._front, *([self._best] if self._best is not None else [])]

    def _wanted_now(self) -> list[Trial]:
        self.judge()
        return self._wanted()

    def end(self, trials: int, ended: str, gone: bool = False) -> Summary:
        """Complete what was begun, then choose the winner among the rows, and time, score and keep it.

        `trials`: so many were done in this run; `gone`: the target's device is, so that nothing more is measured there.
        Raises MachineError if rows cannot be written.
        """
        if not gone:
            if self.ledger.base_is_open:
                self._alone(Proposal(self.ledger.untouched), 0)
            if self.strategy.rungs:
                self.tell_anew(self.stale_timings.resolve(self._wanted_now))
            self.settle(PATIENCE_S)
        self._pin()
        summary = self._finish(trials, ended, gone)
        if not self.record.results.flush():
            file = self.record.results.file
            message = f"{file} cannot be written: its last rows are not in it, and what they cost is in the cache"
            raise MachineError(f"{message}; close the program that holds it, then run the same command again")
        summary.stages_s = self.stages_s + self.stale_timings.seconds
        return summary

    def _finish(self, trials: int, ended: str, gone: bool) -> Summary:
        """Choose the winner among the rows, and time, score and keep it, unless the target's device is gone."""
        finalists = Finalists(
            self.record, self.pipeline, self.under_way.complete, self.events, self.ledger
        )  # fmt: skip
        final = finalists.chosen() if gone else finalists.run()
        self.stages_s += final.seconds
        summary = Summary(final.choice, trials, 0.0, 0.0, ended, Exit.OK, final.rows, final.turns, final.kept)
        if not any(row.status in ("ok", "over_limit") for row in self.ledger.rows.values()):
            summary.exit_code = Exit.NO_RESULT
        elif final.choice.winner is None:
            summary.exit_code = Exit.NO_FEASIBLE
        return summary
