"""Many candidates under way at once: on functions as stages, whose calls end in the order of a simulated clock."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fakes import FINITE, LORA, Clock, FakeStages, Sweeping, make_sweep

from autotune.artifacts.store import Stored
from autotune.errors import Exit, Interrupted, MachineError, StageError
from autotune.pipeline.steps import call_with
from autotune.results.record import Record
from autotune.results.rows import CommandRun, Trial
from autotune.results.table import read_table
from autotune.stages.jobs import FinetuneJob, TimeJob, TurnsJob
from autotune.stages.protocol import Call, Job

SECONDS = {"finetune": 30.0, "merge": 3.0, "build": 10.0, "check": 2.0, "score": 6.0, "time": 8.0, "turns": 20.0}
AIMS = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}
SAME = ("candidate", "kind", "status", "error", "accuracy", "accuracy_n", "size_mb", "graph", "adapter", "train_steps")
"""Columns that do not depend on how many candidates are under way."""


class Simulated:
    """Workers on a simulated clock: a call waits for a free worker; a timing for a quiet machine, which it then has alone."""

    def __init__(self, stages: FakeStages, width: int, jitter: float = 0.0) -> None:
        self.stages, self.width, self.now = stages, width, 0.0
        self.draw, self.jitter = random.Random(width), jitter
        self.queue: list[tuple[Call, Future[Stored]]] = []
        self.running: list[tuple[float, int, Call, Future[Stored]]] = []
        self.ran: list[tuple[float, float, Job]] = []
        self.count = itertools.count()
        self.most = 0
        """Calls at work at once."""
        self.closed = False
        self.clock = Clock()

    @property
    def parked(self) -> int:
        return sum(isinstance(call.job, TimeJob | TurnsJob) for call, _ in self.queue)

    def close(self) -> None:
        """Those that wait end, and what runs goes on."""
        self.closed = True
        for _, future in self.queue:
            future.set_exception(Interrupted())
        self.queue.clear()

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        future: Future[Stored] = Future()
        self.queue.append((call, future))
        self._start()
        return future

    def _start(self) -> None:
        for entry in list(self.queue):
            call, future = entry
            alone = isinstance(call.job, TimeJob | TurnsJob)
            timing = any(isinstance(job.job, TimeJob | TurnsJob) for _, _, job, _ in self.running)
            if timing or (self.running if alone else len(self.running) >= self.width):
                continue
            if any(job.job.key == call.job.key and not call.anew for _, _, job, _ in self.running):
                continue  # the same job: its result will be there
            self.queue.remove(entry)
            known = self.stages.find(call.job) is not None and not call.anew
            length = 0.0 if known else SECONDS.get(call.job.stage, 1.0) * (1 + self.jitter * self.draw.random())
            heapq.heappush(self.running, (self.now + length, next(self.count), call, future))
            self.ran.append((self.now, self.now + length, call.job))
            self.most = max(self.most, len(self.running))

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        while not any(future.done() for future in futures):
            self.now, _, call, future = heapq.heappop(self.running)
            self.clock.now = self.now
            try:
                future.set_result(call_with(self.stages)(call))
            except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
                future.set_exception(error)
            self._start()


def swept(
    folder: Path, width: int, jitter: float = 0.0, trouble: Any = None, **keys: Any
) -> tuple[Sweeping, Simulated]:
    """Run a sweep with so many workers."""
    stages = FakeStages(folder / "cache", *([trouble] if trouble else []))
    sweeping = Sweeping(folder, make_sweep(**keys), stages=stages)
    executor = Simulated(stages, width, jitter)
    sweeping.executor = lambda _: executor
    executor.clock = sweeping.clock
    sweeping.run()
    return sweeping, executor


def rows_of(sweeping: Sweeping) -> list[Trial]:
    return read_table(sweeping.out / "results.csv", Trial)


def content(rows: list[Trial]) -> dict[Any, tuple[Any, ...]]:
    return {(row["candidate"], row["trial"] == 0): tuple(row[name] for name in SAME) for row in rows}


@pytest.mark.parametrize("strategy", ["random", "grid"])
@pytest.mark.parametrize("width", [2, 4, 16])
def test_the_rows_are_those_of_one_worker(tmp_path: Path, strategy: str, width: int) -> None:
    keys: dict[str, Any] = {"strategy": strategy, "budget": {"trials": 12}, "limits": ["size_mb <= 300"]}
    lora = FINITE if strategy == "grid" else LORA
    alone, one = swept(tmp_path / "one", 1, lora=lora, **keys)
    many, executor = swept(tmp_path / "many", width, jitter=0.8, lora=lora, **keys)
    assert content(rows_of(many)) == content(rows_of(alone))
    assert {row["trial"] for row in rows_of(many)} == set(range(13))
    assert executor.most > 1
    _, steady = swept(tmp_path / "steady", width, lora=lora, **keys)
    assert steady.now < one.now


@pytest.mark.parametrize("strategy", ["frontier", "tpe"])
def test_strategies_that_learn_fill_the_workers(tmp_path: Path, strategy: str) -> None:
    sweeping, executor = swept(tmp_path, 4, jitter=0.5, strategy=strategy, budget={"trials": 12}, **AIMS)
    measured = [row for row in rows_of(sweeping) if row["trial"] and row["status"] != "stopped"]
    assert len({row["candidate"] for row in measured}) == 12
    assert executor.most >= 3


@pytest.mark.parametrize("width", [1, 3, 8])
def test_nothing_runs_beside_a_timing_and_nothing_is_made_twice(tmp_path: Path, width: int) -> None:
    sweeping, executor = swept(tmp_path, width, jitter=1.0, lora=FINITE, strategy="grid", budget={"trials": 18})
    timings = [(began, ended) for began, ended, job in executor.ran if isinstance(job, TimeJob | TurnsJob)]
    others = [(began, ended) for began, ended, job in executor.ran if not isinstance(job, TimeJob | TurnsJob)]
    assert timings
    assert all(end <= began or ended <= start for began, ended in timings for start, end in others if start < end)
    trained = [key for (stage, key), times in sweeping.stages.keys.items() for _ in range(times) if stage == "finetune"]
    assert len(trained) == len(set(trained)) == 6


def test_no_merged_model_is_left_and_none_is_taken_from_who_uses_it(tmp_path: Path) -> None:
    sweeping, _ = swept(tmp_path, 6, jitter=1.0, lora=FINITE, strategy="grid", budget={"trials": 18})
    assert {row["status"] for row in rows_of(sweeping)} == {"ok"}
    assert sweeping.stages.merged == []


def test_trials_are_never_overrun(tmp_path: Path) -> None:
    sweeping, _ = swept(tmp_path, 8, budget={"trials": 5})
    assert sorted(int(row["trial"] or 0) for row in rows_of(sweeping)) == list(range(6))


def test_a_lost_worker_is_forgiven_beside_others(tmp_path: Path) -> None:
    seen: list[str] = []

    def trouble(job: Job) -> None:
        if isinstance(job, FinetuneJob) and job.key not in seen:
            seen.append(job.key)
            if len(seen) % 2:
                raise StageError("lost", "the process was ended from outside")

    sweeping, _ = swept(tmp_path, 4, trouble=trouble, budget={"trials": 8})
    last = {row["candidate"]: row["status"] for row in rows_of(sweeping)}
    assert set(last.values()) == {"ok"}
    assert sum(row["status"] == "lost" for row in rows_of(sweeping)) >= 2


@pytest.mark.parametrize("error", [Interrupted(), MachineError("the disk is full")])
def test_an_early_end_loses_nothing_that_was_written_and_goes_on(tmp_path: Path, error: Exception) -> None:
    """Whatever stops it, the same command ends with the rows of a sweep that was never stopped."""
    keys: dict[str, Any] = {"lora": FINITE, "strategy": "grid", "budget": {"trials": 18}}
    whole, _ = swept(tmp_path / "whole", 4, **keys)
    stages = FakeStages(tmp_path / "cache")
    sweeping = Sweeping(tmp_path, make_sweep(**keys), stages=stages)
    sweeping.executor = lambda fakes: Simulated(fakes, 4, 0.5)
    for calls in (3, 9, 12, 10, 8):
        left = itertools.count(calls, -1)

        def trouble(job: Job, left: Any = left) -> None:
            if next(left) <= 0:
                raise error

        stages.trouble = trouble
        before = len(rows_of(sweeping)) if (sweeping.out / "results.csv").exists() else 0
        with pytest.raises(type(error)):
            sweeping.run()
        assert len(rows_of(sweeping)) >= before
    stages.trouble = lambda job: None
    assert sweeping.run().exit_code == Exit.OK
    assert content(rows_of(sweeping)) == content(rows_of(whole))
    assert max(stages.keys[stage, key] for stage, key in stages.keys if stage == "finetune") == 1


def test_what_ended_while_another_ended_the_sweep_has_its_row(tmp_path: Path) -> None:
    """A training that diverges beside a disk that is full: it is not trained again."""
    seen: list[str] = []

    def trouble(job: Job) -> None:
        if isinstance(job, FinetuneJob):
            seen.append(job.key)
            if len(seen) == 1:
                raise MachineError("the disk is full")
            if len(seen) in (2, 3):
                raise StageError("diverged", "the loss became nan")

    stages = FakeStages(tmp_path / "cache", trouble)
    sweeping = Sweeping(
        tmp_path, make_sweep(lora=FINITE, strategy="grid", build=[{"precision": "fp32"}]), stages=stages
    )
    executor = Simulated(stages, 4)
    sweeping.executor = lambda _: executor
    with pytest.raises(MachineError):
        sweeping.run()
    assert executor.closed
    written = [(row["trial"], row["status"]) for row in rows_of(sweeping)]
    assert [status for _, status in written].count("diverged") == 2
    sweeping.executor = lambda fakes: Simulated(fakes, 4)
    sweeping.run()
    assert max(map(seen.count, seen[1:3])) == 1


def test_the_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    stages = FakeStages(tmp_path / "cache")
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 8}), stages=stages)
    executor = Simulated(stages, 4)
    waits = itertools.count()
    wait = executor.wait

    def pressed(futures: Sequence[Future[Stored]]) -> None:
        if next(waits) == 9:
            raise KeyboardInterrupt
        wait(futures)

    executor.wait = pressed  # type: ignore[method-assign]
    sweeping.executor = lambda _: executor
    with pytest.raises(KeyboardInterrupt):
        sweeping.run()
    assert next(waits) == 10
    assert not executor.closed


def test_a_resumed_sweep_with_many_workers_has_spent_what_the_clock_says(tmp_path: Path) -> None:
    left = itertools.count(60, -1)

    def trouble(job: Job) -> None:
        if next(left) <= 0:
            raise MachineError("the disk is full")

    stages = FakeStages(tmp_path / "cache", trouble)
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 40}), stages=stages)
    executor = Simulated(stages, 8)
    executor.clock = sweeping.clock
    sweeping.executor = lambda _: executor
    with pytest.raises(MachineError):
        sweeping.run()
    (run,) = read_table(sweeping.out / "runs.csv", CommandRun)
    assert run["wall_s"] == pytest.approx(executor.now, rel=1e-5)
    assert sum(float(row["wall_s"] or 0.0) for row in rows_of(sweeping)) > 1.5 * executor.now
    with Record(sweeping.out, sweeping.sweep, sweeping.clock) as record:
        assert record.spent_s() == pytest.approx(executor.now, rel=1e-5)
