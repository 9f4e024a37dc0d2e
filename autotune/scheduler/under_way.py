"""Candidates under way: each is a generator of calls, and waits for the result of one call at a time.

All generators run in the thread of the scheduler, so that rows, strategy and folder have one writer; only the calls
themselves are done elsewhere.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from autotune.artifacts.store import Stored
from autotune.errors import StageError
from autotune.execution.protocol import Executor as Executor
from autotune.pipeline.measure import Measurement
from autotune.pipeline.steps import Steps, complete
from autotune.stages.protocol import Call
from autotune.strategies.protocol import Proposal

T = TypeVar("T")


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
    """When it began, seconds by the clock of the scheduler."""
    future: Future[Stored] | None = None
    measured: Measurement | None = None
    """Its measurement, once it has ended."""
    attempt: int = 1
    """Its attempt in this run: a candidate whose worker was lost is tried once more."""


class UnderWay:
    """The candidates under way."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.flights: list[Flight] = []
        """The candidates that `next_ended` has not returned yet, in the order in which they began."""
        self._ended: list[Flight] = []

    @property
    def pending(self) -> list[Proposal]:
        """The proposals of candidates under way that are trials."""
        return [flight.proposal for flight in self.flights if flight.trial]

    @property
    def free(self) -> int:
        """How many more candidates may begin; none while a timing waits, because its result may change the next proposal."""
        return 0 if self.executor.parked else self.executor.width - len(self.flights)

    def begin(self, flight: Flight) -> None:
        """Begin a candidate: its first call is submitted."""
        self.flights.append(flight)
        self._go_on(flight)

    def next_ended(self) -> Flight:
        """Wait until a candidate has ended, and return it. Raises errors that concern more than one candidate."""
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
        """Send a candidate the result of its last call, and submit its next call."""
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
        """Run steps that belong to no candidate under way, whose calls go on meanwhile. Raises the errors of the steps' calls."""

        def do(call: Call) -> Stored:
            future = self.executor.submit(call, log)
            while not future.done():
                self.executor.wait([future])
            return future.result()

        return complete(steps, do)

    def abandon(self) -> list[Flight]:
        """Stop the candidates under way because the sweep ends early. It waits for running calls, and starts no other.

        Returns the candidates that ended by themselves meanwhile.
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
        """Stop the candidates under way without waiting for their calls."""
        for flight in self.flights:
            flight.steps.close()
        self.flights.clear()
        self._ended.clear()
