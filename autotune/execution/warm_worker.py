"""A worker process that stays alive: it imports torch once and does task after task.

The process is killed when a task runs past its time limit, and replaced when it dies; either costs that task alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import TimeoutError as TaskTimeout
from concurrent.futures import wait
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from autotune.errors import StageError
from autotune.execution.fresh_process import died
from autotune.execution.worker import perform, start_warm, starting
from autotune.machine import oom_kills
from autotune.stages.protocol import Job, Result

LEAVE_S = 20
"""Seconds in which a worker must end by itself."""
_POLL_S = 0.5
"""Seconds of one wait: on Windows, Python handles signals only between two waits."""


class WarmWorker:
    """One worker process, started when it is first needed."""

    def __init__(self, memory_mb: float, environment: Mapping[str, str] | None = None) -> None:
        """`memory_mb`: its most memory, 10^6 bytes; `environment`: variables beside those of the tuner."""
        self.memory_mb, self.environment = memory_mb, dict(environment or {})
        self._pool: ProcessPool | None = None

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job. Returns its result and its seconds. Raises StageError, MachineError, Interrupted."""
        kills = oom_kills()
        try:
            with starting(tracked=True):  # pebble's threads, which replace a worker that died, keep the mask
                future = self._started().schedule(perform, args=[job, str(out), str(log)], timeout=timeout)
            while not future.done():
                wait([future], timeout=_POLL_S)
            result: tuple[Result, float] = future.result()
        except TaskTimeout:
            raise StageError("timeout", f"{job.stage} ran past {timeout:g} s and was stopped") from None
        except ProcessExpired as error:
            raise died(error.exitcode or 0, job.stage, oom_kills() - kills, self.memory_mb) from None
        except RuntimeError as error:  # pebble's pool is broken
            self.end()
            raise StageError("lost", f"{job.stage}: the worker process was lost ({error})") from None
        return result

    def _started(self) -> ProcessPool:
        # A worker that dies between two tasks (a system short of memory kills the largest process) breaks pebble's pool.
        if self._pool is not None and not self._pool.active:
            self.end()
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=1,
                context=multiprocessing.get_context("spawn"),
                initializer=start_warm,
                initargs=[os.getpid(), self.memory_mb, self.environment],
            )
        return self._pool

    def end(self, gently: bool = False) -> None:
        """End the process; `gently`: it may clean up first, else Python warns of semaphores that libraries left."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if gently and pool.active:
            pool.close()
            with contextlib.suppress(TimeoutError):
                pool.join(timeout=LEAVE_S)
                return
        pool.stop()
        pool.join()
