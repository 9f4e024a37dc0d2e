"""Stages as the search calls them: found in the cache, or done by the engine and kept."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from autotune.artifacts.room import Room
from autotune.artifacts.store import Cache, Maker, Stored
from autotune.candidate import digest
from autotune.costs.evidence import costs_of
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.errors import StageError
from autotune.execution.input_guard import Guard
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop
from autotune.execution.timeouts import Timeouts
from autotune.providers import PROVIDERS, installed
from autotune.stages.jobs import FinetuneJob, Job, Result, TimeJob, TurnsJob, resolved

PATIENCE_S = 3.0
"""Seconds of waiting for another process after which the user is told."""
_GOES_ON = ("lost", "timeout")
"""Ends of a training after which its checkpoint is of use."""


class Stages:
    """Call it with a job: the result comes from the cache, or from a worker and then into the cache.

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
        self.cache, self.engine, self.log, self.model = cache, engine, log, model
        self.costs = costs or costs_of(cache, Subject(model))
        self.stop, self.timeouts, self.room = stop, timeouts or Timeouts(self.costs), room
        self.guard = Guard()
        self._needs_mb = 0.0
        self.spent_s = 0.0
        """Seconds inside stages that were done here and ended well."""
        self.say, self.left_s = say, left_s
        self._guard = threading.Lock()
        self._in_use: dict[str, Job] = {}
        self._settled: set[str] = set()
        self._places: dict[str, Path] = {}
        """Where what has a key lies: inputs from outside the cache, and results that were found or made."""

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
        if self.stop is not None:
            self.stop.check()
        if self.room is not None:
            self.room.make(self._needs_mb if job.stage in ("merge", "build") else 0.0)
        limit = min(self.timeouts.of(job), timeout or math.inf)
        job = resolved(job, self._place)
        first = False

        def run(out: Path) -> tuple[Result, float]:
            nonlocal first
            self.guard.check()
            first = self.costs.first(job.stage)
            try:
                if isinstance(job, TimeJob | TurnsJob):
                    done = self._timed(job, limit)
                else:
                    done = self.engine.run(self._resumable(job), out, self.log(), limit)
            finally:
                self.guard.check()  # what a stage made while its inputs changed, or said when they vanished, is void
            return done

        try:
            stored = self.cache.make(job, run, self.model, self._what(), self._waiting(job, limit))
        except StageError as error:
            if error.status not in _GOES_ON:
                shutil.rmtree(self.cache.checkpoint(job), ignore_errors=True)
            raise
        if not stored.cached:
            with self._guard:
                self.spent_s += stored.seconds
            self.costs.learn(job, stored.result, stored.seconds, first)
            if self.room is not None:
                self.room.added(stored.path)
        return stored

    def again(self, job: TimeJob) -> tuple[Result, float]:
        """Time once more, whatever the cache holds, and keep nothing. Returns what was measured, and the seconds that it took.
        Raises as a call does.
        """
        if self.stop is not None:
            self.stop.check()
        self.guard.check()
        result, seconds = self._timed(resolved(job, self._place), self.timeouts.of(job))
        self.costs.learn(job, result, seconds)
        with self._guard:
            self.spent_s += seconds
        return result, seconds

    def alone(self, job: Job, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a fresh process that holds nothing else, and keep nothing. Returns and raises as `again`."""
        if self.stop is not None:
            self.stop.check()
        result, seconds = self.engine.run_fresh(job, self.log(), min(self.timeouts.of(job), timeout or math.inf))
        self.costs.learn(job, result, seconds)
        with self._guard:
            self.spent_s += seconds
        return result, seconds

    def _timed(self, job: TimeJob | TurnsJob, limit: float) -> tuple[Result, float]:
        if isinstance(job, TurnsJob):
            job = job.model_copy(update={"graphs": tuple(map(self._with_engines, job.graphs))})
            rounds, seconds = self.engine.time_in_turns(job, self.log(), limit)
            return {"rounds": rounds}, seconds
        processes, seconds = self.engine.time(self._with_engines(job), self.log(), limit)
        # `begun`: the seconds are not those of all processes.
        return {"processes": processes} | ({"begun": len(job.begun)} if job.begun else {}), seconds

    def _with_engines(self, job: TimeJob) -> TimeJob:
        """Let a provider that compiles engines keep them beside the cache's results: of one graph, device with its driver,
        version and options each.
        """
        provider = PROVIDERS.get(job.provider)
        if provider is None or not provider.engines_option:
            return job
        versions = provider.packages | {package: installed(package) for package in job.packages}
        where = [job.device_index, job.hardware, job.machine]
        key = digest([job.graph, job.provider, versions, *where, job.provider_options])
        return job.model_copy(update={"engines_dir": self.cache.root / "engines" / key[:32]})

    def _resumable(self, job: Job) -> Job:
        """Let a training keep checkpoints, go on from the last, and end early when it is asked to."""
        if not isinstance(job, FinetuneJob):
            return job
        stop_file = self.stop.file if self.stop is not None else None
        return job.model_copy(update={"keep_dir": self.cache.checkpoint(job), "stop_file": stop_file})

    def find(self, job: Job) -> Stored | None:
        """Return the result if it is there already."""
        self.costs.note(job)
        self._use(job)
        return self.cache.find(job)

    def _place(self, key: str) -> Path:
        """Return where what has a key lies. Raises StageError where it is gone: the candidate that made it must make it anew."""
        place = self._places.get(key) or self.cache.locate(key)
        if place is None:
            raise StageError("lost", f"what was made as {key[:12]} is no longer in the cache")
        return place

    def _use(self, job: Job) -> None:
        with self._guard:
            if job.key not in self._in_use:
                self.cache.hold(job)
                self._in_use[job.key] = job

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
            over = "its time limit" if seconds > limit else "the end of budget.hours" if self.left_s() <= 0 else ""
            if over:
                raise StageError("lost", f"{job.stage}: waited for {seconds:.0f} s, until {over}: {who}")

        return wait

    def _what(self) -> str:
        """Return for which candidate and results folder a stage is done, for others who wait for it."""
        log = self.log()
        return f"{log.stem} in {log.parent.parent.resolve()}"

    def discard(self, job: Job) -> None:
        """Remove a result that is large and made again in seconds, unless another sweep uses it."""
        with self._guard:
            self._in_use.pop(job.key, None)
            self.cache.discard(job)

    def let_go(self, *needed: Job) -> None:
        """Say that no result is in use any more but those of `needed`, and what `settle` was said of."""
        keys = {job.key for job in needed} | self._settled
        with self._guard:
            for key in set(self._in_use) - keys:
                self.cache.let_go(self._in_use.pop(key))

    def settle(self, files: Iterable[Path], model_mb: float, places: Mapping[str, Path] | None = None) -> None:
        """Say that preparation is over: what is in use now (the base model) is needed until `close`, and `files` must
        not change; `model_mb`, 10^6 bytes, is what a merge or a build may need of the disk; `places` says where inputs
        from outside the cache lie, by their keys. Raises OSError.
        """
        self._places |= places or {}
        self._settled |= set(self._in_use)
        self._needs_mb = model_mb
        if self.room is not None:
            self.room.clear()
        self.guard.watch(files)

    def close(self) -> None:
        """Say that nothing is in use any more."""
        self._settled.clear()
        self.let_go()

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        """Keep the results of `jobs`, and of no others, for a results folder, as long as that is there."""
        self.cache.pin(folder, [*jobs, *(self._in_use[key] for key in self._settled)])
