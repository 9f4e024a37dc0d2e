"""Leases: a process tells other processes, also those in other containers and on other hosts, which results it uses.

A holder is a process with one file, `leases/ID`, which describes the process; a thread touches the file every `BEAT_S`. For
each result that the holder uses there is a mark, `KEY.use/ID`. A mark counts as long as the lease of its holder does:

- Where the holder's process can be looked up (same boot of the same system, same namespace of process ids), the lease counts
  while the process lives.
- Elsewhere the lease ends `LEASE_S` after the last touch, by the clock of the file system on which the cache lies.

Earlier versions named a mark by a process id alone. Such a mark counts while a process of that id lives here that is older.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from autotune.durable import write_aside
from autotune.errors import MachineError

FOLDER, USE = "leases", ".use"
BEAT_S = 20.0
"""Seconds between two touches of a lease."""
LEASE_S = 600.0
"""A lease whose holder's process cannot be looked up ends so many seconds after the last touch: a process may be suspended,
and a disk may hang, for minutes."""
_LOCK_S = 60.0
"""Seconds to wait for a process that sets or removes marks, which takes milliseconds."""
_SLACK_S = 2.0
"""The largest difference between the clocks of process table and file system on one machine, seconds."""


@dataclass(frozen=True)
class Process:
    """The identity of a process, by which others look it up."""

    pid: int
    host: str
    boot: str
    """The boot of the system; empty: not known."""
    namespace: str
    """The namespace of its process id; empty: not known."""
    began: float | None
    """When it began, by a clock of that boot: another process may get the same id later."""

    def __str__(self) -> str:
        here = self.host == socket.gethostname()
        return f"process {self.pid}" if here else f"process {self.pid} on {self.host}"


def this_process() -> Process:
    """Return this process."""
    return _identity(os.getpid())


@cache
def _identity(pid: int) -> Process:
    """Return the identity of this process, whose id is `pid`: a process that it forks has another id."""
    boot, namespace = _place()
    return Process(pid, socket.gethostname(), boot, namespace, _began(pid) if namespace else None)


def _place() -> tuple[str, str]:
    """Return this boot and the namespace of process ids here; empty where process ids cannot be looked up."""
    if sys.platform != "linux":
        return f"{socket.gethostname()} {round(psutil.boot_time(), -1)}", "host"
    try:
        if Path("/proc/self").readlink() != Path(str(os.getpid())):  # /proc shows another namespace than ours
            return "", ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, str(Path("/proc/self/ns/pid").readlink())
    except (OSError, ValueError):
        return "", ""


def _began(pid: int) -> float | None:
    """Return when a process began; None where that is not visible, -1 where it has ended and waits for its parent."""
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).create_time()
        return None
    try:  # in ticks since the boot, which no change of the clock moves
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return -1.0 if fields[0] in (b"Z", b"X") else float(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def lives(process: Process) -> bool | None:
    """Whether a process lives; None where it cannot be looked up from here."""
    boot, namespace = _place()
    if not namespace or (process.boot, process.namespace) != (boot, namespace):
        return None
    if not psutil.pid_exists(process.pid):
        return False
    began = _began(process.pid)
    return None if began is None or process.began is None else began == process.began


class Leases:
    """The lease and the marks of this holder, and a view of those of others. Threads may share it."""

    def __init__(self, root: Path, lease_s: float = LEASE_S, beat_s: float = BEAT_S) -> None:
        self.folder = root / FOLDER
        self.id = uuid.uuid4().hex
        self._lease_s, self._beat_s = lease_s, beat_s
        self._guard = threading.RLock()
        self._marked: set[Path] = set()
        self._makes = 0
        """The number of results that this holder makes now."""
        self._ended: threading.Event | None = None
        """Tells the thread that touches the lease to end; None: no lease is held."""
        self._ending: Callable[[], object] = lambda: None

    @property
    def file(self) -> Path:
        """The lease of this holder."""
        return self.folder / self.id

    # --- holding -----------------------------------------------------------------------------------------------------

    def mark(self, folder: Path) -> None:
        """Mark a result, existing or still to be made, as used by this holder. Raises OSError, MachineError."""
        with self._guard:
            if self._ended is None:
                self._begin()
            with self.alone():
                _marks(folder).mkdir(parents=True, exist_ok=True)
                (_marks(folder) / self.id).touch()
            self._marked.add(folder)

    def unmark(self, folder: Path) -> None:
        """Remove the mark of this holder from a result."""
        with self._guard:
            self._marked.discard(folder)
            with contextlib.suppress(OSError):  # another holder has marked it, too; or nobody has
                (_marks(folder) / self.id).unlink(missing_ok=True)
                _marks(folder).rmdir()
            self._end_if_idle()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold a lease inside the block, also without any marked result. Raises OSError."""
        with self._guard:
            if self._ended is None:
                self._begin()
            self._makes += 1
        try:
            yield
        finally:
            with self._guard:
                self._makes -= 1
                self._end_if_idle()

    def _end_if_idle(self) -> None:
        if not self._marked and not self._makes and self._ended is not None:
            self._end()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clean()
        self._write()
        self._ended = threading.Event()
        beat = (weakref.ref(self), self._ended, self._beat_s)
        threading.Thread(target=_beat, args=beat, name="lease", daemon=True).start()
        self._ending = weakref.finalize(self, _forget, self.file, self._ended)

    def _end(self) -> None:
        self._ending()
        self._ended = None

    def _write(self) -> None:
        write_aside(self.file, json.dumps(asdict(this_process())), sync=False)

    def touch(self) -> None:
        """Renew the lease; write it again where another process removed it while this one was suspended."""
        with self._guard, contextlib.suppress(OSError):  # a failing disk: the next touch may succeed
            if self._ended is not None:
                try:
                    os.utime(self.file)
                except FileNotFoundError:
                    self._write()

    # --- seeing who holds --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from setting marks and removing unmarked results. Raises MachineError, OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(self.folder / ".lock"))
        try:
            lock.acquire(timeout=_LOCK_S)
        except Timeout:
            what = f"the cache {self.folder.parent} has been locked by another process for {_LOCK_S:.0f} s"
            raise MachineError(f"{what}; end it if it hangs, then run the same command again") from None
        try:
            yield
        finally:
            lock.release()

    def lasts(self, lease: str, seconds: float) -> bool:
        """Whether a lease was renewed within `seconds`. For holders whose process cannot be looked up."""
        return self.left_s(lease, seconds) >= 0

    def left_s(self, lease: str, seconds: float) -> float:
        """Return for how long a lease lasts that ends `seconds` after it was renewed: below 0 where it has ended, infinity where
        it cannot be read.
        """
        if not lease.isalnum():
            return -math.inf
        try:
            touched = (self.folder / lease).stat().st_mtime
        except FileNotFoundError:
            return -math.inf
        except OSError:  # a disk in trouble
            return math.inf
        now = self._now()
        return math.inf if now is None else seconds - abs(now - touched)

    def holder(self, folder: Path) -> str:
        """Return a holder of a result, in words; empty where nobody holds it."""
        try:
            marks = list(_marks(folder).iterdir())
        except OSError:
            return ""
        return next(filter(None, map(self._counts, marks)), "")

    def clear(self, folder: Path) -> None:
        """Remove the marks of a result that nobody holds."""
        with contextlib.suppress(OSError):
            for mark in _marks(folder).iterdir():
                mark.unlink(missing_ok=True)
            _marks(folder).rmdir()

    def clean(self) -> None:
        """Remove the leases of holders that are gone."""
        with contextlib.suppress(OSError):
            for lease in self.folder.iterdir():
                if not lease.name.startswith(".") and not self._holds(lease):
                    lease.unlink(missing_ok=True)

    def _counts(self, mark: Path) -> str:
        """Return the holder that a mark belongs to, in words; empty where the mark does not count any more."""
        if mark.name == self.id:
            return str(this_process()) if self._ended is not None else ""
        if mark.name.isascii() and mark.name.isdecimal() and len(mark.name) < len(self.id):
            return _old(mark)
        return "" if mark.name.startswith(".") else self._holds(self.folder / mark.name)

    def _holds(self, lease: Path) -> str:
        """Return the holder of a lease, in words; empty where the lease has ended."""
        try:
            touched = lease.stat().st_mtime
        except FileNotFoundError:
            return ""
        except OSError:  # a disk in trouble: nothing is removed
            return "another process"
        process = _read(lease)
        living = None if process is None else lives(process)
        if living is None:
            now = self._now()
            living = now is None or abs(now - touched) <= self._lease_s
        return str(process or "another process") if living else ""

    def _now(self) -> float | None:
        """Return the time by the clock of the cache's file system; None where it cannot be read."""
        probe = self.folder / f".clock.{uuid.uuid4().hex}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)


def _beat(holder: weakref.ref[Leases], ended: threading.Event, beat_s: float) -> None:
    while not ended.wait(beat_s):
        leases = holder()
        if leases is None:
            return
        leases.touch()
        del leases


def _forget(lease: Path, ended: threading.Event) -> None:
    ended.set()
    with contextlib.suppress(OSError):
        lease.unlink(missing_ok=True)


def _marks(folder: Path) -> Path:
    return folder.with_name(folder.name + USE)


def _read(lease: Path) -> Process | None:
    """Return the process of a lease; None where the file cannot be read."""
    try:
        data: Any = json.loads(lease.read_text(encoding="utf-8"))
        process = Process(**data)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    sound = isinstance(process.pid, int) and process.pid > 0 and isinstance(process.host, str)
    return process if sound else None


def _old(mark: Path) -> str:
    """Return the holder of a mark of an earlier version, whose name is a process id, in words; empty where it has ended."""
    try:
        pid = int(mark.name)
        older = psutil.Process(pid).create_time() <= mark.stat().st_mtime + _SLACK_S
        return f"process {pid}" if older else ""
    except (OSError, ValueError, OverflowError, psutil.NoSuchProcess):
        return ""
    except psutil.Error:  # it lives, and cannot be looked at
        return f"process {mark.name}"
