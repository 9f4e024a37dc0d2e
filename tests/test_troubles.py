"""Every trouble of `troubles.py`, provoked for real."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from troubles import OF_CANDIDATES, OF_THE_MACHINE, WITH_DISKS, Place, Scenario, may_mount, params

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.fixture
def place(tmp_path: Path, tiny_llama: Path) -> Place:
    """A folder with a model of its own: some spoil it."""
    shutil.copytree(tiny_llama, tmp_path / "model")
    return Place(tmp_path, tmp_path / "model")


FAST = ("stopped_once",)
"""What the fast tests try; the others take minutes together."""
RELEASE = (
    "candidates_own", "results_disk_strikes", "results_read_only", "results_vanish", "model_changes", "model_vanishes", "stopped_twice", "two_at_once",
)  # fmt: skip
"""What is tried before a release only: minutes, on code that the other scenarios run as well."""


@pytest.mark.parametrize("scenario", params([*OF_CANDIDATES, *OF_THE_MACHINE], FAST, RELEASE))
def test_trouble_costs_no_more_than_it_must(scenario: Scenario, place: Place) -> None:
    assert scenario(place)


@pytest.mark.skipif(not may_mount(), reason="a small disk can be mounted by root on Linux only")
@pytest.mark.parametrize("scenario", params(WITH_DISKS, FAST, RELEASE))
def test_trouble_with_disks_costs_no_more_than_it_must(scenario: Scenario, place: Place) -> None:
    assert scenario(place)
