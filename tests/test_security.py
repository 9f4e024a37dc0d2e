"""Everything of `security.py`, tried for real."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("signals, terminals and namespaces of POSIX", allow_module_level=True)

from security import ANYWHERE, WITHOUT_NETWORK, Scenario, may_be_apart
from troubles import Place, params


@pytest.fixture
def place(tmp_path: Path, tiny_llama: Path) -> Place:
    """A folder with a model of its own: some spoil it."""
    shutil.copytree(tiny_llama, tmp_path / "model")
    return Place(tmp_path, tmp_path / "model")


FAST = ("secrets_on_command_lines", "tables_run_nothing")
"""Those that the fast tests try; the others run whole sweeps, and take minutes together."""


@pytest.mark.parametrize("scenario", params(ANYWHERE, FAST))
def test_what_is_tried_comes_to_nothing(scenario: Scenario, place: Place) -> None:
    assert scenario(place)


@pytest.mark.skipif(not may_be_apart(), reason="a network namespace needs Linux, and root or user namespaces")
@pytest.mark.parametrize("scenario", params(WITHOUT_NETWORK, FAST))
def test_a_local_sweep_needs_no_network_and_runs_no_code_of_a_model(scenario: Scenario, place: Place) -> None:
    assert scenario(place)
