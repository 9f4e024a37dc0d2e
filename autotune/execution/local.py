"""Run stages on this machine: in warm worker processes, and timings in fresh processes that have the machine to themselves."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from autotune.analysis.latency import Round, disturbed, laps_of
from autotune.analysis.statistics import column_levels, paired_ratio, t_interval
from autotune.analysis.stopping import stretch
from autotune.durable import empty_folder
from autotune.errors import Interrupted, StageError
from autotune.execution.fresh_process import Fresh
from autotune.execution.host_lock import HostLock
from autotune.execution.logs import CleanLogs
from autotune.execution.overlap import Overlaps
from autotune.execution.worker import OFFLINE, QUIET
from autotune.execution.workers import Slot, WorkerPool
from autotune.machine import free_memory_mb, total_memory_mb
from autotune.metrics import ENOUGH_FOR_P90, RESOLUTION_MS
from autotune.stages.jobs import SLICE, TimeJob, TurnsJob
from autotune.stages.protocol import Job, Result

MEMORY_SHARE = 0.95
"""The share of this machine's memory above which it would swap."""
SEQUENCES = 8
"""The least sequences of each length in turns; more where their tokens are too few for a percentile."""
MOST_S = 20.0
"""Seconds of turns, for each model, after which a round ends (with two sequences of each length at least)."""
SURE_ROUNDS, SLOWER, ERROR_RATE = 3, 1.1, 0.05
"""Rounds of turns after which a model may leave that is clearly slower; how much slower it must be; and the error rate of
the winner's rule over all pairs."""
_ROOM = 1.5
"""The memory of a loaded model, at most, as a multiple of the size of its files."""


def narrow(rounds: Sequence[Round], precision: float, wider: float = 1.0) -> bool:
    """Whether the times between tokens are known within `precision` (a share), or within `RESOLUTION_MS`.

    A single model is judged by the interval of its mean over processes, several by the intervals of their ratios to the first
    one, without those that have left. `rounds`: [round][model]. `wider`: the stretch of the intervals.
    """
    if len(rounds) < 2:
        return False
    levels = _levels(rounds)
    first, *others = (level for place, level in enumerate(levels) if rounds[-1][place] is not None)
    enough = max(precision, RESOLUTION_MS / statistics.fmean(first))
    if not others:
        low, high = t_interval(first, stretch=wider)
        return high - low <= 2 * enough * statistics.fmean(first)
    ratios = [paired_ratio(other, first, stretch=wider) for other in others]
    return all(ratio.high - ratio.low <= 2 * enough * ratio.value for ratio in ratios)


def clearly_slower(rounds: Sequence[Round], places: Sequence[int], wider: float = 1.0) -> list[int]:
    """Return the models of `places` that are significantly slower than the fastest model, and at least by the factor `SLOWER`.

    The error rate, over all pairs, is half of that of the winner's rule.
    """
    if len(rounds) < SURE_ROUNDS:
        return []
    levels = _levels(rounds)
    present = [place for place, found in enumerate(rounds[-1]) if found is not None]
    fastest = min(present, key=lambda place: sum(math.log(level) for level in levels[place]))
    confidence = 1 - ERROR_RATE / 2 / math.comb(max(2, len(levels)), 2)
    found = []
    for place in places:
        if place in present and place != fastest:
            ratio = paired_ratio(levels[place], levels[fastest], confidence, wider)
            if ratio.low > 1 and ratio.value >= SLOWER:
                found.append(place)
    return found


def _levels(rounds: Sequence[Round]) -> list[list[float]]:
    """Return the time between tokens of each model [model][round], milliseconds, for the rounds in which it took part."""
    levels: list[list[float]] = [[] for _ in rounds[0]]
    for results in rounds:
        present = [place for place, result in enumerate(results) if result is not None]
        laps = [[statistics.median(gaps) for gaps in laps_of(results[place] or {}, "itl_ms")] for place in present]
        for place, level in zip(present, column_levels(list(zip(*laps, strict=True))), strict=True):
            levels[place].append(float(level))
    return levels


def _laps(job: TimeJob) -> tuple[int, int]:
    """Return the least and the most turns of a process."""
    gaps = [new - 1 for _, new in job.lengths or ((job.prompt_tokens, job.new_tokens),)]
    each = sum(1 + math.ceil(gap / SLICE) for gap in gaps)
    return 2 * each, each * max(SEQUENCES, math.ceil(ENOUGH_FOR_P90 / max(1, sum(gaps))))


@contextlib.contextmanager
def costed() -> Iterator[None]:
    """Set the `seconds` of a StageError to the time inside the block."""
    began = time.perf_counter()
    try:
        yield
    except StageError as error:
        error.seconds = time.perf_counter() - began
        raise


class LocalEngine:
    """Workers of this machine. Use it as a context: leaving it ends every process. Several threads may call it at once."""

    def __init__(
        self,
        offline: bool = True,
        memory_mb: float | None = None,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`memory_mb`: the memory of one worker, 10^6 bytes; None: nearly all of this machine, divided among the workers.
        `say` is called where a stage waits for another sweep. `check` is called while a stage waits for a worker, and before
        it begins; it may raise to end the wait.
        """
        os.environ.update(QUIET)
        if offline:
            os.environ.update(OFFLINE)
        self._shared = memory_mb is None
        self.memory_mb = memory_mb if memory_mb is not None else MEMORY_SHARE * total_memory_mb()
        self._check, self._closing = check, threading.Event()
        self.host = HostLock(say=say, check=self.check)
        self.pool = WorkerPool(self.memory_mb)
        self._logs = CleanLogs()
        self._overlaps = Overlaps()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.pool.end(gently=error is None)
        finally:
            self._logs.clean_all()

    def check(self) -> None:
        """Raise Interrupted after `close`, or the error of the given check."""
        if self._closing.is_set():
            raise Interrupted
        self._check()

    def close(self) -> None:
        """Interrupt stages that wait for a worker or for a quiet machine."""
        self._closing.set()

    @property
    def width(self) -> int:
        """How many stages can run at once."""
        return self.pool.width

    def resize(self, slots: Sequence[Slot], trainers: int | None = None) -> None:
        """Replace the workers by one for each slot; `trainers` of them may train at once; None: all. No stage may be running."""
        self.pool.memory_mb = self.memory_mb / (len(slots) if self._shared else 1)
        self.pool.resize(slots, trainers)

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a warm worker. Returns its result and its seconds. Raises StageError, MachineError, Interrupted.

        A job that ran out of memory beside others, or with a share of the machine's memory, is done again, alone and with all
        of it: so a candidate's status does not depend on the number of workers.
        """
        try:
            with self._overlaps.counted() as overlapped:
                try:
                    with self.pool.worker(job, self.check) as worker, self.host.shared(job.stage):
                        self.check()
                        with costed():
                            return worker.run(job, out, log, timeout)
                except StageError as error:
                    whole = self.pool.memory_mb >= self.memory_mb and not overlapped()
                    if error.status != "out_of_memory" or whole:
                        raise
            with self.host.alone(job.stage):
                empty_folder(out)  # leftovers of the first attempt are no part of the result
                alone = self.pool.substitute(job, self.memory_mb)
                try:
                    with costed():
                        return alone.run(job, out, log, timeout)
                finally:
                    alone.end(gently=True)
        finally:
            self._logs.clean(log)

    def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a fresh process. Returns and raises as `run`."""
        try:
            with Fresh(job, log, self.memory_mb, timeout) as fresh:
                return fresh.result()
        finally:
            self._logs.clean(log)

    def time(self, job: TimeJob, log: Path, timeout: float | None = None) -> tuple[list[Result], float]:
        """Time a model in fresh processes, one after another and alone on this host.

        There are at least `job.processes`, the earlier ones in `job.begun` included, and more until so many were undisturbed and
        their mean is known within `job.precision`, or `job.most` have run. Returns the measurements of all processes, and the
        seconds that it took now. Raises as `run`.
        """
        processes: list[Result] = list(job.begun)
        job = job.model_copy(update={"begun": ()})
        total, wider = 0.0, stretch(job.processes, job.most) if job.processes > 1 else 1.0

        def known() -> bool:
            quiet = [result for result in processes if not disturbed(result)]
            return len(quiet) >= job.processes and narrow([[result] for result in quiet], job.precision, wider)

        with self.host.alone(job.stage), costed():
            while len(processes) < job.processes or (len(processes) < job.most and not known()):
                self.check()
                result, seconds = self.run_fresh(job, log, timeout)
                processes.append(result)
                total += seconds
        return processes, total

    def time_in_turns(
        self, job: TurnsJob, log: Path, timeout: float | None = None
    ) -> tuple[list[list[Result | None]], float]:
        """Time models in turns, alone on this host, so that drifts and disturbances hit all alike.

        A round is a fresh process of each model. They live side by side and take turns of a few tokens, in an order that
        is drawn anew for each lap; where memory is too small for that, the processes run one after another. There are at least
        `job.processes` rounds, and more until the ratios to the first model are known within `job.precision`, or `job.most`
        have run. A model of `job.may_leave` leaves once it is clearly slower than another. `timeout`: for one process that has
        the machine to itself, seconds. Returns the measurements [round][model], None for models that had left, and the seconds
        in all. Raises as `run`.
        """
        rounds: list[list[Result | None]] = []
        left: set[int] = set()
        wider = stretch(job.processes, job.most) if job.processes > 1 else 1.0
        together = _room_for(job.graphs)
        with self.host.alone(job.stage), costed():
            began = time.perf_counter()
            while len(rounds) < job.processes or (len(rounds) < job.most and not narrow(rounds, job.precision, wider)):
                self.check()
                left |= set(clearly_slower(rounds, sorted(set(job.may_leave or ()) - left), wider))
                order = [place for place in range(len(job.graphs)) if place not in left]
                order = order[:: 1 if len(rounds) % 2 == 0 else -1]
                if together:
                    try:
                        found = self._side_by_side(job, order, len(rounds), log, timeout)
                        rounds.append([found.get(place) for place in range(len(job.graphs))])
                        continue
                    except StageError as error:
                        if error.status != "out_of_memory":
                            raise
                        together = False
                        rounds.clear()
                        left.clear()
                        continue
                alone = {place: self.run_fresh(job.graphs[place], log, timeout)[0] for place in order}
                rounds.append([alone.get(place) for place in range(len(job.graphs))])
            seconds = time.perf_counter() - began
        return rounds, seconds

    def _side_by_side(
        self, job: TurnsJob, order: Sequence[int], seed: int, log: Path, timeout: float | None
    ) -> dict[int, Result]:
        """Do one round of turns, with the processes started in this order. Returns the measurements by place."""
        limit = timeout * len(order) if timeout is not None else None
        try:
            with contextlib.ExitStack() as stack:
                living: dict[int, Fresh] = {}
                for place in order:
                    fresh = Fresh(job.graphs[place], log, self.memory_mb, limit, turns=True)
                    living[place] = stack.enter_context(fresh)
                    fresh.ready()
                began = time.perf_counter()
                least, most = map(max, zip(*(_laps(job.graphs[place]) for place in order), strict=True))
                draw, last = np.random.default_rng(seed), -1
                for lap in range(most):
                    if lap >= least and time.perf_counter() - began > MOST_S * len(order):
                        break
                    turns = draw.permutation(order).tolist()
                    if turns[0] == last:  # no model takes two turns in a row, with a warm processor cache
                        turns.reverse()
                    for place in turns:
                        living[place].turn()
                    last = turns[-1]
                return {place: living[place].result()[0] for place in order}
        finally:
            self._logs.clean(log)


def _room_for(jobs: Sequence[TimeJob]) -> bool:
    """Whether the memory that this process may use holds the models all at once."""
    sizes = [sum(file.stat().st_size for file in job.model_dir.rglob("*") if file.is_file()) for job in jobs]
    return _ROOM * sum(sizes) < free_memory_mb() * 1e6
