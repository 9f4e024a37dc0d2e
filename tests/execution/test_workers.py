"""Workers at their slots: how many a machine has, who does what, and that a job waits for one that can do it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from waiting import HANG_S

from autotune.candidate import Recipe
from autotune.execution.overlap import Overlaps
from autotune.execution.workers import Slot, WorkerPool, needs_gpu, slots
from autotune.space.adapters import resolve_lora
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, ScoreJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job

LORA = resolve_lora({"steps": 4, "batch_size": 2, "max_length": 64})


def train(device: str = "cpu") -> FinetuneJob:
    return FinetuneJob(base="b", data="d", lora=LORA, seed=0, device=device)


def score(**keys: Any) -> ScoreJob:
    return ScoreJob(source="s", data="d", metric="choice", max_length=64, **keys)


BUILD = BuildJob(source="s", recipe=Recipe(precision="int8"), provider="cuda")
CHECK = CheckJob(source="s", provider="cuda", recipe=Recipe(precision="int8"), data="d", max_length=64)


@pytest.mark.parametrize(
    ("cores", "count", "threads"), [(1, 1, None), (2, 1, None), (7, 1, None), (8, 2, 4), (16, 4, 4), (64, 4, 16)]
)
def test_a_processor_has_a_worker_for_every_four_cores(cores: int, count: int, threads: int | None) -> None:
    assert slots("auto", "auto", "cpu", 0, cores) == (Slot(threads=threads),) * count


@pytest.mark.parametrize("cpu", [1, 3, 9])
def test_the_threads_of_a_training_do_not_depend_on_the_number_of_workers(cpu: int) -> None:
    assert slots("auto", cpu, "cpu", 0, 16) == (Slot(threads=4),) * cpu
    assert slots("auto", cpu, "cpu", 0, 2) == (Slot(),) * cpu


def test_a_gpu_each_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.gpu for slot in slots("auto", "auto", "cuda", 2, 8)] == ["0", "1", None, None]
    assert [slot.gpu for slot in slots(3, 1, "cuda", 2, 8)] == ["0", "1", "0", None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [slot.gpu for slot in slots("auto", 1, "cuda", 2, 8)] == ["4", "6", None]
    assert slots("auto", 1, "cuda", 2, 8)[1].environment == {"CUDA_VISIBLE_DEVICES": "6", "OMP_NUM_THREADS": "4"}
    assert [slot.gpu for slot in slots("auto", 1, "cuda", 8, 8)] == ["4", "6", None]  # the driver has more
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # all are hidden
    assert [slot.gpu for slot in slots("auto", "auto", "cuda", 8, 8)] == [None, None]


@pytest.mark.parametrize(
    ("job", "needed"),
    [
        (train("cuda"), True), (train(), False), (score(provider="cuda"), True), (score(provider="cpu"), False),
        (score(device="cuda"), True), (score(device="cpu"), False), (CHECK, True), (BUILD, False), (TinyJob(), False),
    ],
)  # fmt: skip
def test_what_needs_a_gpu(job: Job, needed: bool) -> None:
    assert needs_gpu(job) == needed


class EndError(Exception):
    """Somebody wants the wait to end."""


def taken(pool: WorkerPool, job: Job) -> str | None:
    """Return the GPU of the worker that a job would get; `none` where all are busy."""

    def poll() -> None:
        raise EndError

    try:
        with pool.worker(job, poll) as worker:
            return worker.environment.get("CUDA_VISIBLE_DEVICES")
    except EndError:
        return "none"


def test_a_job_waits_for_a_worker_that_can_do_it() -> None:
    pool = WorkerPool(1e6, [Slot(gpu="0"), Slot()])
    assert pool.width == 2
    assert taken(pool, train("cuda")) == "0"
    assert taken(pool, BUILD) is None
    with pool.worker(train("cuda")):
        assert taken(pool, score(provider="cuda")) == "none"
        assert taken(pool, BUILD) is None  # another worker is free
        with pool.worker(BUILD):
            assert taken(pool, TinyJob()) == "none"
    assert taken(pool, score(provider="cuda")) == "0"


def test_only_so_many_train_at_once() -> None:
    pool = WorkerPool(1e6, [Slot()] * 3, trainers=1)
    with pool.worker(train()):
        assert taken(pool, train()) == "none"
        assert taken(pool, BUILD) is None
    assert taken(pool, train()) is None


def test_who_waits_goes_on_when_a_worker_is_free() -> None:
    pool, got = WorkerPool(1e6, [Slot()]), threading.Event()

    def work() -> None:
        with pool.worker(BUILD):
            got.set()

    with pool.worker(BUILD):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert not got.wait(0.1)
    assert got.wait(HANG_S)
    thread.join(HANG_S)


def test_more_workers_keep_those_that_are_there() -> None:
    pool = WorkerPool(1e6)
    with pool.worker(BUILD) as first:
        pass
    pool.resize([Slot(), Slot(), Slot(threads=4)])
    with pool.worker(BUILD) as again:
        assert again is first
    assert pool.width == 3
    pool.end()


def test_company_is_noticed_by_both() -> None:
    company = Overlaps()
    with company.counted() as alone:
        assert not alone()
    with company.counted() as one, company.counted() as other:
        assert one()
        assert other()
    with company.counted() as first:
        with company.counted() as second:
            assert second()
        assert first()  # it was there, and has gone
    assert first()
    with company.counted() as last:
        assert not last()


def test_what_ran_out_of_memory_beside_others_is_done_again_alone(tmp_path: Path) -> None:
    from autotune.errors import StageError
    from autotune.execution.local import LocalEngine
    from autotune.stages.protocol import Result

    started, release = threading.Event(), threading.Event()
    ran: list[tuple[str, float]] = []

    class Worker:
        def __init__(self, memory_mb: float, environment: Any = None) -> None:
            self.memory_mb, self.environment = memory_mb, dict(environment or {})

        def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
            ran.append((job.stage, self.memory_mb))
            if isinstance(job, BuildJob):
                started.set()
                assert release.wait(HANG_S)
                ran.append(("build, done", self.memory_mb))
                return {}, 1.0
            if self.memory_mb < engine.memory_mb:
                threading.Timer(0.2, release.set).start()  # the other is still at work when this one asks to be alone
                raise StageError("out_of_memory", "too much beside others")
            return {}, 2.0

        def end(self, gently: bool = False) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotune.execution.workers.WarmWorker", Worker)
        engine = LocalEngine()
        engine.resize([Slot(), Slot()])
        beside = threading.Thread(target=lambda: engine.run(BUILD, tmp_path, tmp_path / "a.log"), daemon=True)
        beside.start()
        assert started.wait(HANG_S)
        assert engine.run(TinyJob(), tmp_path, tmp_path / "b.log") == ({}, 2.0)
        beside.join(HANG_S)
        half = engine.memory_mb / 2
        assert ran == [("build", half), ("tiny", half), ("build, done", half), ("tiny", engine.memory_mb)]
