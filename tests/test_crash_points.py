"""A sweep that is stopped at any point loses nothing and does nothing twice: some points here, all if slow."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_points import CASES, HOWS, Case, How, memory_folder, stop_everywhere

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a descriptor is")

FEW = {
    "random": 3,
    "random, stopped twice": 2,
    "frontier": 2,
    "adapters only": 2,
    "more trials for a finished sweep": 2,
}
"""How many points of a case are tried always."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="autotune-crash-", dir=memory_folder()) as folder:
        yield Path(folder).resolve()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("case", [case for case in CASES if case.name in FEW], ids=lambda case: case.name)
def test_some_points(folder: Path, case: Case, how: How) -> None:
    few = FEW[case.name]
    every = 300 // few
    first = 17 + 31 * HOWS.index(how)  # other points each
    points, stopped = stop_everywhere(folder, case, how, every, first, few)
    assert points > 200
    assert stopped >= few


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("how", HOWS)
def test_all_points(folder: Path, how: How) -> None:
    total = 0
    for case in CASES:
        total += stop_everywhere(folder / case.name, case, how, case.every)[1]
    assert total >= 1000
