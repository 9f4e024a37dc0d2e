"""Calls done side by side: each waits in a thread of its own for a worker, and its result is a future.

Two calls of one job are one: the second is given the result of the first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from pathlib import Path

from autotune.artifacts.store import Stored
from autotune.errors import StageError
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.stages.jobs import Call, Job, TimeJob

_POLL_S = 0.5
"""How often the tuner looks up from waiting: on Windows a signal is heard only then."""


class LogOfThread:
    """Which log a stage of this thread writes to."""

    def __init__(self, otherwise: Path) -> None:
        """`otherwise`: the log of threads that say nothing."""
        self._otherwise, self._own = otherwise, threading.local()

    def here(self, log: Path) -> None:
        """Say where stages of this thread write from now on."""
        self._own.log = log

    def __call__(self) -> Path:
        """Return where a stage of this thread writes."""
        log: Path = getattr(self._own, "log", self._otherwise)
        return log


class ThreadedExecutor:
    """Does calls by `stages`, as many at once as its engine has workers."""

    def __init__(
        self, stages: Stages, engine: LocalEngine, log: LogOfThread, still: Callable[[], None] = lambda: None
    ) -> None:
        """`log` is where `stages` write; `still` is called now and then while somebody waits for a future."""
        self._stages, self._engine, self._log, self._still = stages, engine, log, still
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Stored]] = {}

    @property
    def width(self) -> int:
        """How many calls can be done at once."""
        return self._engine.width

    @property
    def parked(self) -> int:
        """How many timings wait for the machine to be quiet."""
        return self._engine.host.waiting_alone

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Do a call, with what it prints going to `log`. The future may raise StageError, MachineError, UsageError, Interrupted."""
        future: Future[Stored] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            before = None if call.anew else self._under_way.get(call.job.key)
            if before is None and not call.anew:
                self._under_way[call.job.key] = future
        if before is not None:
            before.add_done_callback(lambda done: _follow(future, done))
        else:
            # A daemon: it must not outlive a tuner that is stopped at once.
            threading.Thread(target=self._do, args=(call, log, future), daemon=True).start()
        return future

    def close(self) -> None:
        """Begin no call any more: those that wait for a worker end, and trainings keep a checkpoint and end."""
        self._engine.close()
        if self._stages.stop is not None:
            self._stages.stop.file.touch()

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """Return when one of the futures is done, or after half a second."""
        wait_for(futures, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        self._still()

    def _do(self, call: Call, log: Path, future: Future[Stored]) -> None:
        self._log.here(log)
        try:
            if call.anew:
                job = call.job
                if isinstance(job, TimeJob):
                    result, seconds = self._stages.again(job)
                else:
                    result, seconds = self._stages.alone(job, call.timeout)
                stored = Stored(Path(), result, seconds, cached=False)
            else:
                stored = self._stages(call.job, call.timeout)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result raises it
            self._forget(call)
            future.set_exception(error)
        else:
            self._forget(call)
            future.set_result(stored)

    def _forget(self, call: Call) -> None:
        if not call.anew:
            with self._lock:
                self._under_way.pop(call.job.key, None)


def _follow(future: Future[Stored], done: Future[Stored]) -> None:
    """Give a future what another was given; what the other made is there already for this one."""
    error = done.exception()
    if isinstance(error, StageError):
        same = StageError(error.status, str(error))
        same.seconds = 0.0  # the other candidate's row has what it cost
        future.set_exception(same)
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(replace(done.result(), cached=True))


class Blocking:
    """Calls done one after another by an executor: the caller waits for each."""

    def __init__(self, executor: ThreadedExecutor, log: Path) -> None:
        self._executor, self._log = executor, log

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job; `anew`: of one that is done in a process of its own, and not kept. Raises as
        `Stages` does.
        """
        future = self._executor.submit(Call(job, timeout, anew), self._log)
        while not future.done():
            self._executor.wait([future])
        return future.result()
