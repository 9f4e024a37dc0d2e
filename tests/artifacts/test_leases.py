"""What somebody uses is never removed, wherever he is; and what nobody uses any more can be."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import ended, until

from autotune.artifacts import leases as leases_module
from autotune.artifacts.leases import Leases, Process, lives, this_process
from autotune.artifacts.room import evict, tidy
from autotune.artifacts.store import Cache
from autotune.errors import MachineError
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Result

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and signals of Linux")
TINY = TinyJob()
LONG_S = 3600.0

HOLDING = """
import sys
from pathlib import Path
from autotune.stages.preparation_jobs import TinyJob
from autotune.artifacts.leases import Leases
from autotune.artifacts.store import Cache
root, beat_s = Path(sys.argv[1]), float(sys.argv[2])
cache = Cache(root, Leases(root, beat_s=beat_s))
cache.hold(TinyJob())
print("held", flush=True)
sys.stdin.readline()
cache.let_go(TinyJob())
print("let go", flush=True)
sys.stdin.readline()
"""

Holding = Callable[..., subprocess.Popen[str]]


def fill(out: Path) -> tuple[Result, float]:
    (out / "weights").write_bytes(bytes(200_000))
    return {}, 1.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Cache(tmp_path).make(TINY, fill)
    return tmp_path


@pytest.fixture
def holding(root: Path) -> Iterator[Holding]:
    """Start a process that holds a result, in another namespace of process ids if it is asked for."""
    started: list[subprocess.Popen[str]] = []

    def start(*before: str, beat_s: float = 0.2) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", HOLDING, str(root), str(beat_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def evictor(root: Path, lease_s: float = LONG_S) -> Cache:
    """Return a cache as another process has it."""
    return Cache(root, Leases(root, lease_s=lease_s))


def age(lease: Path) -> None:
    """Let a lease be touched last so long ago that it has ended."""
    os.utime(lease, (time.time() - LONG_S - 60,) * 2)


def removable(root: Path, lease_s: float = LONG_S) -> bool:
    """Whether nobody holds the result, as each way of removing sees it; it is then removed."""
    cache = evictor(root, lease_s)
    held = [bool(entry.kept_for) for entry in cache.entries()]
    gone = bool(evict(cache, lambda _: False, cache.entries()))
    tidy(cache)
    assert held == [not gone]
    assert gone == (cache.find(TINY) is None)
    return gone


def lease_in(root: Path) -> Path:
    """Return the one lease that is there."""
    (lease,) = (path for path in (root / "leases").iterdir() if not path.name.startswith("."))
    return lease


def child_of(process: subprocess.Popen[str]) -> psutil.Process:
    """Return the process that `unshare` has started, as it is known outside its namespace."""
    (child,) = psutil.Process(process.pid).children()
    return child


def stop(pid: int) -> None:
    """Stop a process, and wait until every thread of it stands still."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    until(lambda: all((one / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"T" for one in threads.iterdir()))


NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")


def permitted(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


WHERE = [
    pytest.param((), id="here"),
    pytest.param(NAMESPACE, id="namespace", marks=[LINUX, pytest.mark.skipif(not permitted(*NAMESPACE), reason="unshare is not permitted")]),
    pytest.param((*NAMESPACE[:-1],), id="namespace without its proc", marks=[LINUX, pytest.mark.skipif(not permitted(*NAMESPACE[:-1]), reason="unshare is not permitted")]),
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
def test_what_a_living_process_holds_is_not_removed(root: Path, holding: Holding, where: tuple[str, ...]) -> None:
    process = holding(*where)
    for _ in range(3):
        assert not removable(root)
        time.sleep(0.2)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "let go"
    assert removable(root)
    assert [path.name for path in (root / "leases").iterdir() if not path.name.startswith(".")] == []


def test_what_a_killed_process_held_here_goes_at_once(root: Path, holding: Holding) -> None:
    process = holding()
    process.kill()
    process.wait()
    assert removable(root)


@LINUX
def test_a_process_that_waits_for_its_parent_is_dead(root: Path, holding: Holding) -> None:
    process = holding()
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert removable(root)


@LINUX
@pytest.mark.skipif(not permitted(*NAMESPACE), reason="unshare is not permitted")
def test_what_a_process_of_another_namespace_held_goes_when_its_lease_ends(root: Path, holding: Holding) -> None:
    process = holding(*NAMESPACE)
    lease, child = lease_in(root), child_of(process)
    age(lease)
    until(lambda: lease.stat().st_mtime > time.time() - LONG_S, "a lease that is renewed")
    assert not removable(root)  # it lives, and renews its lease
    process.kill()
    process.wait()
    until(lambda: ended(child))
    assert not removable(root)  # who knows
    age(lease)
    assert removable(root)


@LINUX
@pytest.mark.parametrize("where", [WHERE[0], WHERE[1]])
def test_a_stopped_process_is_not_robbed_before_its_time(root: Path, holding: Holding, where: tuple[str, ...]) -> None:
    process = holding(*where)
    lease = lease_in(root)
    stopped = child_of(process).pid if where else process.pid
    stop(stopped)
    try:
        assert not removable(root)
        age(lease)
        if where:
            assert removable(root)
            assert not lease.exists()
        else:  # it can be seen that it lives, however long
            assert not removable(root)
    finally:
        os.kill(stopped, signal.SIGCONT)
    if where:  # it goes on: its lease is there again, and what it holds now stays
        until(lease.exists, "the lease of a process that goes on")
        Cache(root).make(TINY, fill)
        assert evictor(root).leases._counts(root / "tiny" / "x.use" / lease.name)


# --- who is who ------------------------------------------------------------------------------------------------------


def held_by(root: Path, process: Process | str, age_s: float = 0.0) -> None:
    """Mark the result as such a process would."""
    lease = root / "leases" / "0123456789abcdef"
    lease.parent.mkdir(exist_ok=True)
    text = process if isinstance(process, str) else json.dumps(asdict(process))
    lease.write_text(text, encoding="utf-8")
    os.utime(lease, (time.time() - age_s,) * 2)
    marks = root / "tiny" / f"{TINY.key}.use"
    marks.mkdir(exist_ok=True)
    (marks / lease.name).touch()


ELSEWHERE: list[dict[str, Any]] = [
    {"boot": "another boot"}, {"namespace": "pid:[1]"}, {"boot": "", "namespace": ""}, {"began": None},
    {"host": "other", "boot": "another", "namespace": "pid:[1]", "pid": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", ELSEWHERE)
@pytest.mark.parametrize("pid", [os.getpid(), 2**22, 1], ids=["own", "gone", "first"])
def test_where_a_process_cannot_be_looked_for_its_lease_decides(root: Path, change: dict[str, Any], pid: int) -> None:
    process = replace(this_process(), **({"pid": pid} | change))
    if "began" in change and pid == 2**22:
        pytest.skip("that it is gone is seen without")
    held_by(root, process, age_s=LONG_S / 2)
    assert lives(process) is None
    assert not removable(root, LONG_S)
    held_by(root, process, age_s=LONG_S + 60)
    assert removable(root, LONG_S)


def test_a_process_that_is_here_decides_for_itself(root: Path) -> None:
    own = this_process()
    assert own.namespace
    assert lives(own)
    held_by(root, own, age_s=LONG_S + 60)
    assert not removable(root)
    gone = replace(own, pid=2**22)
    assert lives(gone) is False
    held_by(root, gone)
    assert removable(root)


def test_a_process_id_that_was_given_again_holds_nothing(root: Path) -> None:
    assert this_process().began is not None
    held_by(root, replace(this_process(), began=1.0))
    assert removable(root)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"pid": "x"}', '{"pid": -1, "host": "h", "boot": "", "namespace": "", "began": 1}'])  # fmt: skip
def test_a_lease_that_cannot_be_read_lasts_its_time(root: Path, text: str) -> None:
    held_by(root, text)
    assert not removable(root)
    held_by(root, text, age_s=LONG_S + 60)
    assert removable(root)


def test_a_mark_without_a_lease_counts_for_nothing(root: Path) -> None:
    held_by(root, this_process())
    (root / "leases" / "0123456789abcdef").unlink()
    assert removable(root)


@pytest.mark.parametrize("skew_s", [-86_400.0, -120.0, 0.0, 120.0, 86_400.0])
def test_the_clock_is_the_file_systems(root: Path, monkeypatch: pytest.MonkeyPatch, skew_s: float) -> None:
    """The clock of this machine may be another one."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew_s)
    elsewhere = replace(this_process(), boot="another")
    lease = root / "leases" / "0123456789abcdef"
    held_by(root, elsewhere)
    lease.touch()
    assert not removable(root, 60.0)
    os.utime(lease, (real() - 90,) * 2)
    assert removable(root, 60.0)


def test_where_the_clock_cannot_be_seen_nothing_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(root, replace(this_process(), boot="another"), age_s=LONG_S + 60)
    cache = evictor(root)
    monkeypatch.setattr(Leases, "_now", lambda self: None)
    assert cache.leases.holder(cache.folder(TINY)) == "process " + str(os.getpid())


# --- marks of earlier versions ---------------------------------------------------------------------------------------


def old_mark(root: Path, pid: int, written: float | None = None) -> None:
    marks = root / "tiny" / f"{TINY.key}.use"
    marks.mkdir(exist_ok=True)
    (marks / str(pid)).touch()
    if written is not None:
        os.utime(marks / str(pid), (written, written))


def test_a_mark_of_an_earlier_version_holds_while_its_process_lives_here(root: Path) -> None:
    old_mark(root, os.getpid())
    assert not removable(root)
    assert evictor(root).leases.holder(root / "tiny" / TINY.key) == f"process {os.getpid()}"
    shutil.rmtree(root / "tiny" / f"{TINY.key}.use")
    old_mark(root, 2**22)
    assert removable(root)


def test_a_mark_of_an_earlier_version_holds_nothing_where_its_number_is_anothers(root: Path) -> None:
    """In a container there is always a process 1."""
    old_mark(root, os.getpid(), written=1_000_000.0)
    assert removable(root)


def test_other_files_among_the_marks_do_no_harm(root: Path) -> None:
    marks = root / "tiny" / f"{TINY.key}.use"
    marks.mkdir()
    for name in (".DS_Store", ".lock", "9" * 40, "\u0663", "x y"):
        (marks / name).touch()
    assert removable(root)


# --- one holder, many threads ----------------------------------------------------------------------------------------


def test_the_lease_is_there_as_long_as_anything_is_held(root: Path) -> None:
    cache = Cache(root)
    jobs = [TinyJob(seed=n) for n in range(1, 9)]
    together = threading.Barrier(len(jobs))

    def use(job: TinyJob, cache: Cache = cache) -> None:
        together.wait()
        for _ in range(3):
            cache.hold(job)
            assert not evictor(root).remove(cache.folder(job))
            cache.let_go(job)

    threads = [threading.Thread(target=use, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not cache.leases.file.exists()
    assert list((root / "tiny").glob("*.use")) == []
    cache.hold(TINY)
    assert cache.leases.file.exists()
    del cache, use, thread, threads
    gc.collect()
    assert [path for path in (root / "leases").iterdir() if not path.name.startswith(".")] == []
    assert removable(root)


def test_a_lease_is_renewed_and_written_anew_where_it_is_gone(root: Path) -> None:
    leases = Leases(root, beat_s=0.05)
    cache = Cache(root, leases)
    cache.hold(TINY)
    for take in (lambda: os.utime(leases.file, (1, 1)), leases.file.unlink):
        take()
        until(lambda: leases.file.exists() and leases.file.stat().st_mtime > 1, "a lease that is renewed")
    cache.let_go(TINY)


def test_who_removes_while_somebody_begins_to_use_it_waits_for_him_or_he_for_it(root: Path) -> None:
    """Either the result is held before it is looked at, and stays; or it is gone, and he sees that."""
    for _ in range(20):
        mine, other = Cache(root), evictor(root)
        mine.make(TINY, fill)
        together = threading.Barrier(2)

        def take(other: Cache = other, together: threading.Barrier = together) -> None:
            together.wait()
            other.remove(other.folder(TINY))

        thread = threading.Thread(target=take)
        thread.start()
        together.wait()
        mine.hold(TINY)
        found = Cache(root).find(TINY)
        thread.join()
        assert (found is not None) == (Cache(root).find(TINY) is not None)
        mine.let_go(TINY)


def test_who_cannot_mark_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "_LOCK_S", 0.1)
    with Leases(root).alone(), pytest.raises(MachineError, match="has been locked by another process"):
        Cache(root).hold(TINY)
