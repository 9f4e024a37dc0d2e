"""Work as a generator: it yields calls and is sent their results. Who does a call, and where, is another's business."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from autotune.artifacts.store import Stored
from autotune.errors import StageError
from autotune.stages.jobs import Call, Job, TimeJob

T = TypeVar("T")


Steps = Generator[Call, Stored, T]
"""Work that yields calls, is sent their results (or thrown their StageError), and returns a T."""


def complete(steps: Steps[T], do: Callable[[Call], Stored]) -> T:
    """Drive steps to their end, one call after another. What they raise passes, and what `do` raises but StageError."""
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
    """Do one job in a process of its own, whatever is kept already. Its result is not kept. Raises StageError."""
    return (yield Call(job, anew=True))


class Do(Protocol):
    """Do a stage, or find its result."""

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        """Return the stored result. Raises StageError."""
        ...

    def find(self, job: Job) -> Stored | None:
        """Return the result if it is there already (a merge is needed only for a build that is not)."""
        ...

    def discard(self, job: Job) -> None:
        """Remove a result that is large and made again in seconds, unless another sweep uses it."""
        ...

    def again(self, job: TimeJob) -> tuple[dict[str, Any], float]:
        """Time once more, whatever is there already, and keep nothing. Returns the result, and the seconds that it took.
        Raises StageError.
        """
        ...

    def alone(self, job: Job) -> tuple[dict[str, Any], float]:
        """Do a job in a process of its own that holds nothing else, and keep nothing. Returns and raises as `again`."""
        ...

    def let_go(self, *needed: Job) -> None:
        """Say that no result is in use any more but those of `needed`."""
        ...

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        """Keep the results of `jobs`, and of no others, for a results folder, as long as that is there."""
        ...


def call_with(do: Do) -> Callable[[Call], Stored]:
    """Return what does a call with `do` and waits for its end."""

    def run(call: Call) -> Stored:
        if not call.anew:
            return do(call.job, call.timeout)
        result, seconds = do.again(call.job) if isinstance(call.job, TimeJob) else do.alone(call.job)
        return Stored(Path(), result, seconds, cached=False)

    return run
