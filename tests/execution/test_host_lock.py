"""A timing runs alone, everything else side by side, and a process that is killed leaves no lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import ReadWriteLock, Timeout

from autotune.errors import Interrupted
from autotune.execution import host_lock as quiet
from autotune.execution.host_lock import HostLock, host_file
from autotune.execution.stop import Stop

Holding = Callable[[str], subprocess.Popen[str]]

CODE = """
import sys
from pathlib import Path
from autotune.execution.host_lock import HostLock
lock = HostLock(Path(sys.argv[1]))
with getattr(lock, sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "host.lock"


@pytest.fixture
def holding(file: Path) -> Iterator[Holding]:
    """Start a process that holds the lock, `shared` or `alone`."""
    started: list[subprocess.Popen[str]] = []

    def start(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CODE, str(file), how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free(file: Path, how: str) -> bool:
    """Whether the lock can be had at once."""
    lock = ReadWriteLock(str(file))
    try:
        with lock.read_lock(timeout=0.2) if how == "shared" else lock.write_lock(timeout=0.2):
            return True
    except Timeout:
        return False


def test_stages_run_side_by_side_and_a_timing_waits(file: Path, holding: Holding) -> None:
    process = holding("shared")
    assert free(file, "shared")
    assert not free(file, "alone")
    process.kill()
    process.communicate()
    assert free(file, "alone")  # no lock outlives its process


def test_while_one_times_nobody_works(file: Path, holding: Holding) -> None:
    process = holding("alone")
    assert not free(file, "shared")
    assert not free(file, "alone")
    process.communicate("")  # it ends by itself
    assert free(file, "shared")


def test_who_waits_is_told_and_goes_on(file: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "_POLL_S", 0.05)
    monkeypatch.setattr(quiet, "_PATIENCE_S", 0.1)
    process = holding("shared")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        process.kill()

    waited: list[bool] = []
    lock = HostLock(file, say)
    lock.waiting = lambda: waited.append(True)
    with lock.alone():
        assert said == ["waiting for a stage of another sweep, to time undisturbed"]
        assert waited
        assert process.poll() is not None or process.wait(10) is not None
    with HostLock(file, say).shared():
        pass
    assert len(said) == 1


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_the_first_ctrl_c_ends_a_wait(
    file: Path, tmp_path: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(quiet, "_POLL_S", 0.05)
    monkeypatch.setattr(quiet, "_PATIENCE_S", 0.1)
    process, stop = holding("alone"), Stop(tmp_path / "stop")
    lock = HostLock(file, lambda _: stop.file.touch())
    lock.waiting = stop.check
    with pytest.raises(Interrupted), getattr(lock, how)():
        raise AssertionError("it was held by another")
    process.kill()
    process.communicate()
    assert free(file, "alone")  # and nothing of it is left


def test_there_is_one_lock_a_user_wherever_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = host_file()
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path))
    assert host_file() == before
