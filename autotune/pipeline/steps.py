"""Work as a generator: it yields calls and is sent their results. The caller decides who does a call, and where."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from autotune.artifacts.store import Stored
from autotune.errors import StageError
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Call, Job

T = TypeVar("T")


Steps = Generator[Call, Stored, T]
"""Work that yields calls, is sent their results (or thrown their StageError), and returns a T."""


def complete(steps: Steps[T], do: Callable[[Call], Stored]) -> T:
    """Drive steps to their end, one call after another. Raises what the steps raise; `do`'s StageErrors are thrown into
    them.
    """
    try:
        call = next(steps)
        while True:
            try:
                stored = do(call)
            except StageError as error:
                call = steps.throw(error)
            else:
                call = steps.send(stored)
    except StopIteration as end:
        result: T = end.value
        return result


def alone(job: Job) -> Steps[Stored]:
    """Do one job in a process of its own, without the cache: no earlier result is used, and none is kept. Raises StageError."""
    return (yield Call(job, anew=True))


class Do(Protocol):
    """The executor as a pipeline calls it: it does a job, or finds its result in the cache."""

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        """Return the stored result. Raises StageError."""
        ...

    def find(self, job: Job) -> Stored | None:
        """Return the result of a job if the cache has it."""
        ...

    def discard(self, job: Job) -> None:
        """Remove a result, unless another sweep uses it: large ones that are made again in seconds."""
        ...

    def again(self, job: TimeJob) -> tuple[dict[str, Any], float]:
        """Time once more, without the cache. Returns the result, and the seconds that it took. Raises StageError."""
        ...

    def alone(self, job: Job) -> tuple[dict[str, Any], float]:
        """Do a job in a fresh process, without the cache. Returns and raises as `again`."""
        ...

    def let_go(self, *needed: Job) -> None:
        """Release all results except those of `needed`."""
        ...

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        """Keep the results of `jobs`, and no others, for a results folder, as long as that folder exists."""
        ...


def call_with(do: Do) -> Callable[[Call], Stored]:
    """Return a function that does a call with `do` and waits for its result."""

    def run(call: Call) -> Stored:
        if not call.anew:
            return do(call.job, call.timeout)
        result, seconds = do.again(call.job) if isinstance(call.job, TimeJob) else do.alone(call.job)
        return Stored(Path(), result, seconds, cached=False)

    return run
