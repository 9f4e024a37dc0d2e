"""Stages as the search calls them: found in the cache, or done by the engine and kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from autotune.artifacts.makers import Maker
from autotune.artifacts.room import Room
from autotune.artifacts.store import Cache, Stored
from autotune.costs.model import CostModel
from autotune.errors import StageError
from autotune.execution.doing import Doing
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
from autotune.execution.sweep_artifacts import SweepArtifacts
from autotune.execution.timeouts import Timeouts
from autotune.stages.jobs import Job, Result, TimeJob, resolved

PATIENCE_S = 3.0
"""Seconds of waiting for another process after which the user is told."""


class Stages(SweepArtifacts):
    """Call it with a job: the result comes from the cache, or from a worker of this machine and then into the cache.

    What it returns is in use, and stays in the cache, until `let_go`.
    """

    def __init__(
        self,
        cache: Cache,
        engine: LocalEngine,
        log: Callable[[], Path],
        model: str = "",
        stop: Stop | None = None,
        timeouts: Timeouts | None = None,
        room: Room | None = None,
        say: Callable[[str], None] = lambda _: None,
        left_s: Callable[[], float] = lambda: math.inf,
        costs: CostModel | None = None,
    ) -> None:
        """`log` returns where a stage writes; `say` is told that a stage waits for another process; `left_s` returns how many
        seconds of the sweep's budget are left; `costs` is told what stages took; None: a model of its own.
        """
        super().__init__(cache, model, stop, timeouts, room, costs)
        self.engine, self.log, self.say, self.left_s = engine, log, say, left_s
        self._doing = Doing(cache, engine, stop)

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job; `timeout`: seconds that it may take at most, besides what was learned; `anew`: it
        is done in a process of its own, and not kept.

        Raises StageError (a failure is not kept); Interrupted; MachineError; UsageError where an input was changed.
        """
        if anew:
            return Stored(Path(), *self.alone(job, timeout), cached=False)
        found = self.find(job)
        if found is not None:
            return found
        limit = self.admit(job, timeout)
        job = resolved(job, self.place)
        first = False

        def run(out: Path) -> tuple[Result, float]:
            nonlocal first
            self.guard.check()
            first = self.costs.first(job.stage)
            try:
                return self._doing.into(job, out, self.log(), limit)
            finally:
                self.guard.check()  # what a stage made while its inputs changed, or said when they vanished, is void

        stored = self.cache.make(job, run, self.model, self.what(self.log()), self._waiting(job, limit))
        self.made(job, stored, first)
        return stored

    def again(self, job: TimeJob) -> tuple[Result, float]:
        """Time once more, whatever the cache holds, and keep nothing. Returns what was measured, and the seconds that it took.
        Raises as a call does.
        """
        limit = self.admit(job)
        self.guard.check()
        return self.taken(job, *self._doing.timed(resolved(job, self.place), self.log(), limit))

    def alone(self, job: Job, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a fresh process that holds nothing else, and keep nothing. Returns and raises as `again`."""
        return self.taken(job, *self.engine.run_fresh(job, self.log(), self.admit(job, timeout)))

    def _waiting(self, job: Job, limit: float) -> Callable[[Maker | None, float], None]:
        """Return who is told, while another process or thread makes a job's result, that this one waits: seconds at most."""
        told = False

        def wait(maker: Maker | None, seconds: float) -> None:
            """Go on. Raises Interrupted; StageError (`lost`: it is tried again) where it takes too long."""
            nonlocal told
            if self.stop is not None:
                self.stop.check()
            who = str(maker or "another process makes it")
            if seconds > PATIENCE_S and not told:
                self.say(f"waiting for the result of {job.stage}: {who}; Ctrl-C ends the wait")
                told = True
            waited_enough(job, seconds, limit, self.left_s(), who)

        return wait


def waited_enough(job: Job, seconds: float, limit: float, left_s: float, who: str) -> None:
    """Raise StageError (`lost`) where a job has waited too long for another maker, who is named by `who`."""
    over = "its time limit" if seconds > limit else "the end of budget.hours" if left_s <= 0 else ""
    if over:
        raise StageError("lost", f"{job.stage}: waited for {seconds:.0f} s, until {over}: {who}")
