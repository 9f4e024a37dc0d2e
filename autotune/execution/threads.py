"""The executor on this machine: each call waits in a thread of its own for a worker, and its result is a future.

Two calls of one job are one: the second is given the result of the first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from pathlib import Path

from autotune.artifacts.store import Stored
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.execution.protocol import follow
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Call

_POLL_S = 0.5
"""Seconds of one wait: on Windows, Python handles signals only between two waits."""


class LogOfThread:
    """The log of each thread's stages."""

    def __init__(self, otherwise: Path) -> None:
        """`otherwise`: the log of threads that have set none."""
        self._otherwise, self._own = otherwise, threading.local()

    def here(self, log: Path) -> None:
        """Set the log of this thread's stages."""
        self._own.log = log

    def __call__(self) -> Path:
        """Return the log of this thread's stages."""
        log: Path = getattr(self._own, "log", self._otherwise)
        return log


class ThreadedExecutor:
    """Does calls with `stages`, as many at once as the engine has workers."""

    def __init__(
        self, stages: Stages, engine: LocalEngine, log: LogOfThread, still: Callable[[], None] = lambda: None
    ) -> None:
        """`log`: the log of `stages`; `still` is called now and then during a wait for a future."""
        self._stages, self._engine, self._log, self._still = stages, engine, log, still
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Stored]] = {}

    @property
    def width(self) -> int:
        """The number of calls that can run at once."""
        return self._engine.width

    @property
    def parked(self) -> int:
        """The number of timings that wait until no other stage runs."""
        return self._engine.host.waiting_alone

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Submit a call; its output goes to `log`. The future may raise StageError, MachineError, UsageError, Interrupted."""
        future: Future[Stored] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            before = None if call.anew else self._under_way.get(call.job.key)
            if before is None and not call.anew:
                self._under_way[call.job.key] = future
        if before is not None:
            before.add_done_callback(lambda done: follow(future, done))
        else:
            # A daemon thread: it must not outlive a tuner that ends at once.
            threading.Thread(target=self._do, args=(call, log, future), daemon=True).start()
        return future

    def close(self) -> None:
        """Start no further call: calls that wait for a worker end, and trainings keep a checkpoint and end."""
        self._engine.close()
        if self._stages.stop is not None:
            self._stages.stop.file.touch()

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """Wait until one of the futures is done, at most half a second."""
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
        except BaseException as error:  # noqa: BLE001 - the waiting caller raises it
            self._forget(call)
            future.set_exception(error)
        else:
            self._forget(call)
            future.set_result(stored)

    def _forget(self, call: Call) -> None:
        if not call.anew:
            with self._lock:
                self._under_way.pop(call.job.key, None)
