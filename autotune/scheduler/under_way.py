"""Candidates under way: each is a generator of calls, and waits for the result of one call at a time.

All generators run in the thread of the scheduler, so that rows, strategy and folder have one writer; only the calls
themselves are done elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from autotune.artifacts.store import Stored
from autotune.errors import StageError
from autotune.pipeline.measure import Measurement
from autotune.pipeline.steps import Steps, complete
from autotune.stages.jobs import Call
from autotune.strategies.protocol import Proposal

T = TypeVar("T")


class Executor(Protocol):
    """Who does calls: jobs in, futures out."""

    @property
    def width(self) -> int:
        """How many calls can be done at once."""
        ...

    @property
    def parked(self) -> int:
        """How many timings wait for the machine to be quiet."""
        ...

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Do a call, with what it prints going to `log`. The future may raise StageError, MachineError, UsageError, Interrupted."""
        ...

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """Return when one of the futures is done, or a little later."""
        ...

    def close(self) -> None:
        """Begin no call any more; those that wait raise Interrupted."""
        ...


@dataclass(eq=False)
class Flight:
    """One candidate under way."""

    trial: int
    proposal: Proposal
    steps: Steps[Measurement]
    log: Path
    started: str
    """ISO 8601, UTC."""
    began: float
    """By the clock of the scheduler, seconds."""
    future: Future[Stored] | None = None
    measured: Measurement | None = None
    """What became of it, once it has ended."""
    attempt: int = 1
    """Of this run: a lost worker is forgiven once."""


class UnderWay:
    """The candidates under way."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.flights: list[Flight] = []
        """Those whose end was not returned yet, in the order in which they began."""
        self._ended: list[Flight] = []

    @property
    def pending(self) -> list[Proposal]:
        """The proposals of candidates under way that are trials."""
        return [flight.proposal for flight in self.flights if flight.trial]

    @property
    def free(self) -> int:
        """How many more candidates may begin; none while a timing waits: what it says may change what is best next."""
        return 0 if self.executor.parked else self.executor.width - len(self.flights)

    def begin(self, flight: Flight) -> None:
        """Begin a candidate: its first call is submitted."""
        self.flights.append(flight)
        self._go_on(flight)

    def next_ended(self) -> Flight:
        """Wait until a candidate has ended, and return it. Raises what is not the candidate's own trouble."""
        while not self._ended:
            waiting = [flight for flight in self.flights if flight.future is not None]
            self.executor.wait([flight.future for flight in waiting if flight.future is not None])
            for flight in waiting:
                if flight.future is not None and flight.future.done():
                    self._go_on(flight)
        flight = self._ended.pop(0)
        self.flights.remove(flight)
        return flight

    def _go_on(self, flight: Flight) -> None:
        """Send a candidate the result that it waits for, and submit its next call."""
        future, flight.future = flight.future, None
        try:
            if future is None:
                call = next(flight.steps)
            else:
                try:
                    stored = future.result()
                except StageError as error:
                    call = flight.steps.throw(error)
                else:
                    call = flight.steps.send(stored)
        except StopIteration as end:
            flight.measured = end.value
            self._ended.append(flight)
        else:
            flight.future = self.executor.submit(call, flight.log)

    def complete(self, steps: Steps[T], log: Path) -> T:
        """Drive other steps to their end, while what candidates under way have submitted goes on. Raises as their calls do."""

        def do(call: Call) -> Stored:
            future = self.executor.submit(call, log)
            while not future.done():
                self.executor.wait([future])
            return future.result()

        return complete(steps, do)

    def abandon(self) -> list[Flight]:
        """Give up the candidates under way, because the sweep ends early: wait for the calls that are being done, and let no
        other begin. Returns those that have ended by themselves meanwhile, which are not lost.
        """
        if self.flights:
            self.executor.close()
        for flight in self.flights:
            while flight.future is not None and not flight.future.done():
                self.executor.wait([flight.future])
            error = flight.future.exception() if flight.future is not None else None
            if isinstance(error, StageError) and error.status != "lost":
                try:
                    flight.steps.throw(error)
                except StopIteration as end:
                    flight.measured = end.value
            flight.steps.close()
        ended = [flight for flight in self.flights if flight.measured is not None and flight.measured.status != "lost"]
        self.drop()
        return ended

    def drop(self) -> None:
        """Give up the candidates under way, and wait for nobody."""
        for flight in self.flights:
            flight.steps.close()
        self.flights.clear()
        self._ended.clear()
