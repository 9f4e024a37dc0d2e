"""The executor's stages on this machine: a result comes from the cache, or the engine makes it and the cache keeps it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autotune.artifacts.makers import Maker
from autotune.artifacts.room import Room
from autotune.artifacts.store import Cache, Stored
from autotune.costs.model import CostModel
from autotune.errors import StageError
from autotune.execution.host_lock import Interval
from autotune.execution.job_runner import JobRunner
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
from autotune.execution.sweep_artifacts import SweepArtifacts
from autotune.execution.timeouts import Timeouts
from autotune.stages.jobs import TimeJob, resolved
from autotune.stages.protocol import Job, Result

PATIENCE_S = 3.0
"""The user is told that a stage waits for another process after so many seconds."""
UNKNOWN = "another process makes it"
"""What is said of a maker that is not known."""


class Stages(SweepArtifacts):
    """Call it with a job: the result comes from the cache, or from a worker of this machine and then into the cache.

    A returned result is in use, and stays in the cache, until `let_go`.
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
        """`log` returns the log of the present stage; `say` is called where a stage waits for another process; `left_s` returns
        the seconds that are left of the sweep's budget; `costs` learns the seconds of stages; None: a model of its own.
        """
        super().__init__(cache, model, stop, timeouts, room, costs)
        self.engine, self.log, self.say, self.left_s = engine, log, say, left_s
        self._runner = JobRunner(cache, engine, stop)

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job; `timeout`: a limit in seconds, beside the learned time-out; `anew`: the job is done
        in a fresh process, and its result is not kept.

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
                return self._runner.run(job, out, self.log(), limit)
            finally:
                self.guard.check()  # if inputs changed or vanished meanwhile, the result or error is void

        with self._waiting(job, limit) as waiting:
            stored = self.cache.make(job, run, self.model, self.what(self.log()), waiting)
        self.made(job, stored, first)
        return stored

    def again(self, job: TimeJob) -> tuple[Result, float]:
        """Time once more, without the cache. Returns the result, and the seconds that it took. Raises as a call does."""
        limit = self.admit(job)
        self.guard.check()
        return self.taken(job, *self._runner.time(resolved(job, self.place), self.log(), limit))

    def alone(self, job: Job, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a fresh process, without the cache. Returns and raises as `again`."""
        return self.taken(job, *self.engine.run_fresh(job, self.log(), self.admit(job, timeout)))

    @contextlib.contextmanager
    def _waiting(self, job: Job, limit: float) -> Iterator[Callable[[Maker | None, float], None]]:
        """Yield a function to call while another process or thread makes a job's result; `limit`: seconds to wait at most.

        The wait is noted at the end.
        """
        began, until = 0.0, 0.0
        tell = telling(f"the result of {job.stage}", self.say, self.stop)

        def wait(maker: Maker | None, seconds: float) -> None:
            """Return to go on waiting. Raises Interrupted; StageError (`lost`: it is tried again) after too long a wait."""
            nonlocal began, until
            until = time.time()
            began = began or until - seconds
            tell(maker, seconds)
            waited_enough(job, seconds, limit, self.left_s(), str(maker or UNKNOWN))

        try:
            yield wait
        finally:
            if began:
                self.engine.host.waits.append(Interval("wait", began, until, False))


def telling(what: str, say: Callable[[str], None], stop: Stop | None) -> Callable[[Maker | None, float], None]:
    """Return a function to call while another process makes `what`: after `PATIENCE_S` it tells the user, once. It raises
    Interrupted where the sweep is to end.
    """
    told = False

    def tell(maker: Maker | None, seconds: float) -> None:
        nonlocal told
        if stop is not None:
            stop.check()
        if seconds > PATIENCE_S and not told:
            say(f"waiting for {what}: {maker or UNKNOWN}; Ctrl-C ends the wait")
            told = True

    return tell


def waited_enough(job: Job, seconds: float, limit: float, left_s: float, who: str) -> None:
    """Raise StageError (`lost`) where a job has waited too long for another maker; `who` describes the maker."""
    over = "its time limit" if seconds > limit else "the end of budget.hours" if left_s <= 0 else ""
    if over:
        raise StageError("lost", f"{job.stage}: waited for {seconds:.0f} s, until {over}: {who}")
