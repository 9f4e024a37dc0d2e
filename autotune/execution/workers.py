"""How many workers a machine has, and what each may use: trainings a GPU each, other stages cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from autotune.execution.warm_worker import WarmWorker
from autotune.machine import usable_processors
from autotune.providers import NVIDIA
from autotune.stages.jobs import CheckJob, FinetuneJob, ScoreJob
from autotune.stages.protocol import Job

CORES_EACH = 4
"""The number of cores for each worker: a training of a small model gains little from more threads."""
MOST_CPU = 4
"""The most workers on the processor, unless the sweep asks for more: each holds a model in memory."""


@dataclass(frozen=True)
class Slot:
    """The resources of one worker."""

    gpu: str | None = None
    """The GPU that it sees, as CUDA names it; None: none of its own."""
    threads: int | None = None
    """The number of PyTorch's threads in a training; None: PyTorch's default."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a worker at this slot has besides the tuner's."""
        found = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        return found if self.threads is None else found | {"OMP_NUM_THREADS": str(self.threads)}


def slots(
    train: int | Literal["auto"], cpu: int | Literal["auto"], device: str, gpus: int, cores: int | None = None
) -> tuple[Slot, ...]:
    """Return the slots of a machine; `train` and `cpu`: as in `workers` of a sweep file; `device`: of trainings.

    On a CPU all stages share `cpu` slots, and `train` limits how many of them train at once (see `WorkerPool`). The number of
    threads of a training depends on the machine alone, so that its result does not depend on the number of workers.
    """
    cores = cores or usable_processors()
    usual = max(1, min(MOST_CPU, cores // CORES_EACH))
    threads = None if usual == 1 else cores // usual
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    listed = None if value is None else [name for name in value.split(",") if name.strip()]
    visible = [str(number) for number in range(gpus)] if listed is None else listed[:gpus]
    if device != "cuda" or not visible:
        count = max(cpu if isinstance(cpu, int) else usual, train if isinstance(train, int) else 1)
        return tuple(Slot(threads=threads) for _ in range(count))
    trainers = len(visible) if train == "auto" else train
    helpers = usual if cpu == "auto" else cpu
    on_gpus = tuple(Slot(gpu=visible[n % len(visible)], threads=threads) for n in range(trainers))
    return on_gpus + tuple(Slot(threads=threads) for _ in range(helpers))


def needs_gpu(job: Job) -> bool:
    """Whether a job runs on a GPU."""
    if isinstance(job, FinetuneJob):
        return job.device == "cuda"
    if isinstance(job, ScoreJob) and job.provider is None:
        return job.device == "cuda"
    return isinstance(job, ScoreJob | CheckJob) and job.provider in NVIDIA


class WorkerPool:
    """The workers of this machine, one for each slot. A job waits here for a free worker."""

    def __init__(self, memory_mb: float, slots: Sequence[Slot] = (Slot(),), trainers: int | None = None) -> None:
        """`memory_mb`: the memory of one worker, 10^6 bytes; `trainers`: the most trainings at once; None: one a worker."""
        self.memory_mb = memory_mb
        self._changed = threading.Condition()
        self._workers: list[tuple[Slot, WarmWorker]] = []
        self._free: list[int] = []
        self._training = 0
        self.trainers = trainers
        self.resize(slots, trainers)

    @property
    def width(self) -> int:
        """How many jobs can be done at once."""
        return len(self._workers)

    def resize(self, slots: Sequence[Slot], trainers: int | None = None) -> None:
        """Replace the slots. Workers whose slot is among the new ones are kept, the others end."""
        with self._changed:
            kept = list(self._workers)
            self._workers = []
            for slot in slots:
                same = next((e for e in kept if e[0] == slot and e[1].memory_mb == self.memory_mb), None)
                if same is not None:
                    kept.remove(same)
                self._workers.append(same or (slot, WarmWorker(self.memory_mb, slot.environment)))
            self._free = list(range(len(self._workers)))
            self.trainers = trainers
            self._changed.notify_all()
        for _, worker in kept:
            worker.end(gently=True)

    @contextmanager
    def worker(self, job: Job, poll: Callable[[], None] = lambda: None) -> Iterator[WarmWorker]:
        """Wait for a free worker that can do a job, and reserve it. `poll` is called while waiting, and may raise."""
        trains = isinstance(job, FinetuneJob)
        with self._changed:
            while (place := self._place_for(job, trains)) is None:
                self._changed.wait(timeout=0.5)
                poll()
            self._free.remove(place)
            self._training += trains
        try:
            yield self._workers[place][1]
        finally:
            with self._changed:
                self._free.append(place)
                self._training -= trains
                self._changed.notify_all()

    def _place_for(self, job: Job, trains: bool) -> int | None:
        if trains and self.trainers is not None and self._training >= self.trainers:
            return None
        gpus = any(slot.gpu is not None for slot, _ in self._workers)
        wanted = gpus and needs_gpu(job)
        fitting = [n for n in sorted(self._free) if not gpus or (self._workers[n][0].gpu is not None) == wanted]
        return fitting[0] if fitting else None

    def substitute(self, job: Job, memory_mb: float) -> WarmWorker:
        """Return a new worker with the slot of one that can do a job, and with `memory_mb` of memory."""
        slot = next(
            (slot for slot, _ in self._workers if (slot.gpu is not None) == needs_gpu(job)), self._workers[0][0]
        )
        return WarmWorker(memory_mb, slot.environment)

    def end(self, gently: bool = False) -> None:
        """End all worker processes."""
        for _, worker in self._workers:
            worker.end(gently)
