"""The protocol of an executor, which separates decisions from work: calls in, futures out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from autotune.artifacts.store import Stored
from autotune.errors import StageError
from autotune.stages.protocol import Call, Job


class Executor(Protocol):
    """It does calls: jobs in, futures out."""

    @property
    def width(self) -> int:
        """The number of calls that can run at once."""
        ...

    @property
    def parked(self) -> int:
        """The number of timings that wait until no other stage runs."""
        ...

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Submit a call; its output goes to `log`. The future may raise StageError, MachineError, UsageError, Interrupted."""
        ...

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """Wait until one of the futures is done; it may return a little later."""
        ...

    def close(self) -> None:
        """Start no further call. Calls that have not started raise Interrupted."""
        ...


class Blocking:
    """Calls done one after another by an executor: the caller waits for each."""

    def __init__(self, executor: Executor, log: Path) -> None:
        self._executor, self._log = executor, log

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job; `anew`: the job is done in a fresh process, and its result is not kept. Raises as
        the executor's futures do.
        """
        future = self._executor.submit(Call(job, timeout, anew), self._log)
        while not future.done():
            self._executor.wait([future])
        return future.result()


def follow(future: Future[Stored], done: Future[Stored]) -> None:
    """Give a future the outcome of another one of the same job; a result counts as cached for this one."""
    error = done.exception()
    if isinstance(error, StageError):
        same = StageError(error.status, str(error))
        same.seconds = 0.0  # the other candidate's row has the cost
        future.set_exception(same)
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(replace(done.result(), cached=True))
