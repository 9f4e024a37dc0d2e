"""Everything that reads an input takes it or refuses it in plain words, whatever it is: a part here, the rest if slow."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import fuzz
import pytest
from fuzz import TARGETS, TOTAL, Tally, Target, row_of, throw, throw_all, total_of
from hypothesis import strategies as st

from autotune.errors import MachineError, Problem, UsageError

FEW = 3000


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    for name in set(os.environ) - set(environment):
        del os.environ[name]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_crashes_or_hangs(target: Target) -> None:
    count = math.ceil(FEW * target.percent / 100)
    tally = throw(target, count)
    assert tally.inputs >= count
    assert tally.taken, "what is thrown must get as far as being taken"
    assert tally.refused


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(3600)
def test_no_input_of_a_hundred_thousand_crashes_or_hangs() -> None:
    tallies = throw_all()
    assert [tally.target for tally in tallies] == [target.name for target in TARGETS]
    assert total_of(tallies).inputs >= 100_000


def test_the_shares_are_of_a_hundred() -> None:
    assert sum(target.percent for target in TARGETS) == 100
    assert TOTAL >= 100_000


# --- What would be found -------------------------------------------------------------------------------------------


def faults() -> Iterator[Any]:
    def crash(value: int) -> None:
        raise KeyError(value)

    def several_lines(value: int) -> None:
        raise MachineError("one\ntwo")

    def escapes(value: int) -> None:
        raise MachineError("\x1b[31m")

    def no_rule(value: int) -> None:
        raise UsageError(Problem("", "key"))

    def slow(value: int) -> None:
        began = time.process_time()
        while time.process_time() - began < 0.02:
            pass

    for fault, error in ((crash, KeyError), (several_lines, AssertionError), (escapes, AssertionError),
                         (no_rule, AssertionError), (slow, AssertionError)):  # fmt: skip
        yield pytest.param(fault, error, id=fault.__name__)


@pytest.mark.parametrize(("meet", "error"), list(faults()))
def test_a_fault_is_found(meet: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MOST_S", 0.01)
    with pytest.raises(error):
        throw(Target("faulty", st.integers(0, 3), meet, 1), 10)


def test_inputs_are_counted() -> None:
    def odd(value: int) -> None:
        if value % 2:
            raise UsageError(Problem("must be even", value=value))

    met: list[int] = []
    tally = throw(Target("numbers", st.integers(), lambda value: (met.append(value), odd(value))[1], 1), 60)
    assert tally.inputs == len(met) >= 60
    assert tally.refused == sum(value % 2 for value in met)
    both = total_of([tally, Tally("other", 1, 2, 3.0, 0.5)])
    assert (both.inputs, both.slowest) == (tally.inputs + 3, 0.5)
    assert row_of(Tally("other", 1, 2, 3.4, 0.0123)) == "| other | 3 | 1 | 2 | 3 | 12 |"
