"""A timing runs alone, everything else side by side, and a process that is killed leaves no lock."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import ReadWriteLock, Timeout
from waiting import HANG_S, until

from autotune.errors import Interrupted, MachineError
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


def had(file: Path, how: str, patience_s: float) -> bool:
    lock = ReadWriteLock(str(file))
    try:
        with lock.read_lock(timeout=patience_s) if how == "shared" else lock.write_lock(timeout=patience_s):
            return True
    except Timeout:
        return False


def free(file: Path, how: str) -> bool:
    """Whether the lock can be had, however slow the machine is."""
    return had(file, how, HANG_S)


def taken(file: Path, how: str) -> bool:
    """Whether the lock cannot be had."""
    return not had(file, how, 0.2)


def test_stages_run_side_by_side_and_a_timing_waits(file: Path, holding: Holding) -> None:
    process = holding("shared")
    assert free(file, "shared")
    assert taken(file, "alone")
    process.kill()
    process.communicate()
    assert free(file, "alone")  # no lock outlives its process


def test_while_one_times_nobody_works(file: Path, holding: Holding) -> None:
    process = holding("alone")
    assert taken(file, "shared")
    assert taken(file, "alone")
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

    lock = HostLock(file, say)
    with lock.alone("time"):
        assert said == ["waiting for a stage of another sweep, to time undisturbed"]
        assert process.poll() is not None or process.wait(HANG_S) is not None
    with lock.shared():
        pass
    assert len(said) == 1
    (wait,) = lock.waits
    assert wait.ended - wait.began > 0.1
    assert wait.ended <= lock.intervals[0].began


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_the_first_ctrl_c_ends_a_wait(
    file: Path, tmp_path: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(quiet, "_POLL_S", 0.05)
    monkeypatch.setattr(quiet, "_PATIENCE_S", 0.1)
    process, stop = holding("alone"), Stop(tmp_path / "stop")
    lock = HostLock(file, lambda _: stop.file.touch(), stop.check)
    with pytest.raises(Interrupted), getattr(lock, how)():
        raise AssertionError("it was held by another")
    process.kill()
    process.communicate()
    assert free(file, "alone")  # and nothing of it is left


def test_there_is_one_lock_a_user_wherever_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = host_file()
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path))
    assert host_file() == before


class Threads:
    """Threads that hold a lock until they are let go."""

    def __init__(self, lock: HostLock) -> None:
        self.lock = lock
        self.holding: list[str] = []
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def start(self, name: str, how: str) -> None:
        self._ends[name] = threading.Event()

        def work() -> None:
            with getattr(self.lock, how)(name):
                self.holding.append(name)
                assert self._ends[name].wait(HANG_S)
                self.holding.remove(name)

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def end(self, name: str) -> None:
        self._ends[name].set()

    def become(self, *names: str) -> bool:
        """Whether, after a while, just these hold the lock."""
        until(lambda: sorted(self.holding) == sorted(names), f"{names} alone hold the lock: that")
        time.sleep(0.05)
        return sorted(self.holding) == sorted(names)


def test_threads_share_it_and_a_timing_waits_for_quiet(file: Path) -> None:
    threads = Threads(HostLock(file))
    threads.start("build", "shared")
    threads.start("score", "shared")
    assert threads.become("build", "score")
    timings = ["time 1", "time 2"]
    for name in timings:
        threads.start(name, "alone")
    while threads.lock.waiting_alone < len(timings):
        time.sleep(0.01)
    threads.start("check", "shared")  # no stage begins before a timing that waits
    threads.end("build")
    assert threads.become("score")
    threads.end("score")
    for _ in timings:
        while threads.holding in ([], ["score"]):
            time.sleep(0.01)
        (name,) = threads.holding
        assert name in timings
        threads.end(name)
        while name in threads.holding:
            time.sleep(0.01)
    assert threads.become("check")
    threads.end("check")
    assert threads.become()
    alone = [interval for interval in threads.lock.intervals if interval.alone]
    others = [interval for interval in threads.lock.intervals if not interval.alone]
    assert (len(alone), len(others)) == (2, 3)
    assert all(one.ended <= timing.began or one.began >= timing.ended for timing in alone for one in others)


STAGES = """
import sys, time
from pathlib import Path
from threading import Thread
from autotune.execution.host_lock import HostLock
lock = HostLock(Path(sys.argv[1]))
def work(pause):
    while True:
        with lock.shared():
            time.sleep(pause)
for pause in (0.11, 0.17, 0.23, 0.31):
    Thread(target=work, args=(pause,), daemon=True).start()
time.sleep(0.3)
print("at work", flush=True)
sys.stdin.read()
"""


def test_a_timing_gets_its_turn_though_another_sweep_always_has_a_stage_at_work(file: Path) -> None:
    command = [sys.executable, "-c", STAGES, str(file)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "at work"
        deadline = time.monotonic() + HANG_S

        def late() -> None:
            assert time.monotonic() < deadline

        with HostLock(file, check=late).alone():
            assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


def test_a_runtime_folder_that_cannot_be_used_is_replaced_by_one_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `su` the variable names another user's folder; in a container one that is not there."""
    (tmp_path / "a file").touch()
    monkeypatch.setattr(quiet.platformdirs, "user_runtime_path", lambda *_, **__: tmp_path / "a file" / "x")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = host_file()
    assert (file.parent.parent, host_file()) == (tmp_path, file)
    with HostLock(file).alone():
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a file"))
    with pytest.raises(MachineError, match="set XDG_RUNTIME_DIR to a folder of yours, or TMPDIR"):
        host_file()


@pytest.mark.skipif(sys.platform == "win32", reason="users have numbers on other systems")
def test_nothing_is_made_in_the_runtime_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo -E` keeps the variable, and root can write everywhere: that user could not use the folder afterwards."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setattr(quiet.platformdirs, "user_runtime_path", lambda *_, **__: theirs / "autotune")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(MachineError, match="set XDG_RUNTIME_DIR"):  # nor is the folder for temporary files that user's
        host_file()
    assert not list(theirs.iterdir())
    monkeypatch.setattr(os, "getuid", lambda: me)
    assert host_file() == theirs / "autotune" / "host.lock"
