"""Files that all candidates share must stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotune.errors import MachineError, UsageError
from autotune.execution.input_guard import Guard


def test_what_is_not_changed_is_no_trouble(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    guard = Guard()
    guard.check()
    guard.watch([file])
    file.read_bytes()
    guard.check()


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    guard = Guard()
    guard.watch([file])
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(1, 1))
    with pytest.raises(UsageError, match=r"model.safetensors: was changed while the sweep was running; put it back"):
        guard.check()


def test_a_file_that_is_gone_is_the_machines_trouble(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    guard = Guard()
    guard.watch([file])
    file.unlink()
    with pytest.raises(MachineError, match=r"model.safetensors is gone or cannot be read .*bring it back"):
        guard.check()
