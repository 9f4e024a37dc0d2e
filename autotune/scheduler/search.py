"""The search: which candidates begin, until the budget or the space is used up, for one target or for several.

With several targets there is one strategy and one budget, and each candidate belongs to the loop of its target, which
measures it and writes its row. Candidates of different targets are under way side by side; timings are not, because the
executor lets nothing else run beside a timing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from autotune.errors import AutotuneError
from autotune.results.rows import Trial
from autotune.scheduler.loop import Loop, Summary

Target = str | None


def run_loop(loop: Loop) -> Summary:
    """Run the loop of a sweep with one target: measure candidates until the budget or the space is used up, then score the
    finalists. Raises as `Search.run` does.
    """
    return Search([loop], loop.record.results.rows).run()[loop.target]


class Joined(Exception):  # noqa: N818 - no error
    """A node has joined that a target has waited for: the search is to begin anew, from its rows, with that target."""

    def __init__(self, trials: int, stages_s: float) -> None:
        """`trials`: so many were done until now; `stages_s`: seconds inside stages until now, summed over all workers."""
        super().__init__()
        self.trials, self.stages_s = trials, stages_s


class Search:
    """One run of the `run` command, until a node joins that a target has waited for."""

    def __init__(
        self,
        loops: Sequence[Loop],
        rows: Sequence[Trial],
        leave_out: Callable[[Target], None] = lambda _: None,
        trouble: Callable[[Target], str] = lambda _: "",
        missing: Callable[[Target], str] = lambda _: "",
        away: Mapping[Target, str] = MappingProxyType({}),
    ) -> None:
        """`loops`: of the targets, which share strategy and workers; `rows`: of all of them, in the order written; `leave_out`
        has the strategy propose nothing for a target any more; `trouble` says why nothing runs on a target's device, and is
        empty where something does; `missing` says why no node is there for a target, and is empty where one is; `away`: of the
        targets that had no node when the sweep was prepared, why.
        """
        first = loops[0]
        self.loops = {loop.target: loop for loop in loops}
        self.rows, self.leave_out, self.trouble = rows, leave_out, trouble
        self.missing, self.away = missing, dict(away)
        self._joined = False
        """Whether a node has joined that a target has waited for."""
        self.strategy, self.shared, self.budget = first.strategy, first.shared, first.budget
        self.under_way, self.events, self.clock = first.shared.under_way, first.events, first.clock

    def run(self) -> dict[Target, Summary]:
        """Search, and end each target's loop. Returns the summary of each, whose wall-clock is that of all.

        Raises MachineError if no candidate can continue, or rows cannot be written; Interrupted; Joined.
        """
        try:
            return self._run()
        except KeyboardInterrupt:  # at once: leaving the engine ends the workers
            self.under_way.drop()
            raise
        finally:
            self._give_up()
            for loop in self.loops.values():
                loop.pipeline.tidy()

    def _run(self) -> dict[Target, Summary]:
        began = self.clock()
        for target, why in self.away.items():
            self._leave(target, why)
        trusted = {target: self._open(loop) for target, loop in self.loops.items()}
        self._replay_all()
        before = {target: len(loop.ledger.trials) for target, loop in self.loops.items()}
        for target, loop in self.loops.items():
            loop.judge()
            if target not in self.shared.gone and not loop.ledger.base and loop.ledger.aims.need_base:
                what = "the untouched model could not be measured: no candidate can keep a limit that refers to it"
                self.events.note(f"target {target}: {what}" if target else what)
            if not trusted[target]:
                self.leave_out(target)
        ended = self._search() if any(trusted.values()) else "export"
        if self._joined:
            done = sum(len(loop.ledger.trials) - before[target] for target, loop in self.loops.items())
            raise Joined(done, sum(loop.stages_s + loop.stale_timings.seconds for loop in self.loops.values()))
        summaries = {}
        for target, loop in self.loops.items():
            done, gone = len(loop.ledger.trials) - before[target], target in self.shared.gone
            summaries[target] = loop.end(done, ended if trusted[target] else "export", gone)
        for summary in summaries.values():
            summary.wall_s = self.clock() - began
        return summaries

    def _open(self, loop: Loop) -> bool:
        """Measure a target's untouched model, and what was lost in an earlier run. Returns whether any recipe can be trusted."""
        if loop.target in self.shared.gone:
            return True
        if len(self.loops) > 1:
            self.events.note(f"target {loop.target}")
        loop.begin_with_base()
        self._look_after(loop, loop.ledger.base_row)
        for row in loop.lost():
            if loop.target not in self.shared.gone:
                self._look_after(loop, loop.repeat(row))
        trusted = loop.trusts()
        loop.tell_anew(loop.stale_timings.check_pace())
        return trusted

    def _replay_all(self) -> None:
        """Tell the strategy the rows of earlier runs in their order, so that it decides as if the sweep had never stopped."""
        for loop in self.loops.values():
            loop.replay_base()
        for row in list(self.rows):
            if row.target in self.loops:
                self.loops[row.target].replay(row)

    def _search(self) -> str:
        """Keep the workers busy until the budget or the space is used up. Returns why it ended."""
        for loop in self.loops.values():
            loop.forecast.search_began()
        while True:
            ended = self._fill()
            if not self.under_way.flights:
                assert ended is not None
                return ended
            flight = self.under_way.next_ended()
            loop = self.loops[flight.proposal.candidate.target]
            if (row := loop.written(flight)) is not None:
                self.strategy.tell(flight.proposal, loop.ledger.told(row))
                self._look_after(loop, row)
                for each in self.loops.values():
                    if each.target not in self.shared.gone:
                        each.tell_anew(each.stale_timings.at_this_pace())
                        each.settle()

    def _fill(self) -> str | None:
        """Begin candidates while workers are free. Returns why no more may begin; None if no worker is free."""
        while (free := self.under_way.free) > 0:
            self._joined = self._joined or not all(map(self.missing, self.away))
            if self._joined:
                return "joined"
            if self.loops.keys() <= self.shared.gone:
                return "lost"
            pending = self.under_way.pending
            if (trials := self.budget.trials(len(pending))) <= 0:
                return "kept" if trials + self.budget.trials_kept > 0 else "trials"
            if self.budget.at_its_end:
                return "kept" if self.budget.goes_on_with_kept else "hours"
            asked = self.strategy.ask(int(min(free, trials)), pending)
            if not asked:
                # A strategy with lower fidelities leaves out candidates that it expects not to improve the front.
                return "front" if self.strategy.rungs else "space"
            for proposal in asked:
                loop = self.loops[proposal.candidate.target]
                loop.begin(proposal, self._next_trial(loop))
        return None

    def _next_trial(self, loop: Loop) -> int:
        """Return the number of a target's next trial: each counts its own."""
        under_way = (one.trial for one in self.under_way.flights if one.proposal.candidate.target == loop.target)
        return max([loop.ledger.trials.last, *under_way]) + 1

    def _look_after(self, loop: Loop, row: Trial | None) -> None:
        """Leave a target out whose device is gone, where others can go on; `row`: the one that it ended last."""
        if len(self.loops) == 1 or row is None or row.status != "lost" or loop.target in self.shared.gone:
            return
        if why := self.missing(loop.target):
            self.away[loop.target] = why
        if why or (why := self.trouble(loop.target)):
            self._leave(loop.target, why)

    def _leave(self, target: Target, why: str) -> None:
        """Leave a target out for which nothing can be measured now."""
        self.shared.gone.add(target)
        self.leave_out(target)
        later = "its candidates are measured when the same command is run again"
        if target in self.away:
            later = "its candidates wait until such a node joins, or for the next run of the same command"
        self.events.note(f"target {target}: {why}; {later}; the other targets go on")

    def _give_up(self) -> None:
        """Stop the candidates under way, and write the rows of those that have ended."""
        for flight in self.under_way.abandon():
            # The first error is reported, not those that follow from it.
            with contextlib.suppress(OSError, AutotuneError):
                self.loops[flight.proposal.candidate.target].written(flight, forgive=False)
