"""The host's lock: a timing runs alone, other stages run side by side, over all sweeps of a user on this machine."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock, ReadWriteLock, Timeout

from autotune.errors import MachineError
from autotune.scratch import temporary_folder

_POLL_S = 1.0
"""Seconds of one wait: between two waits, Python handles signals."""
_RETRY_S = 0.05
"""Seconds between two attempts at a lock of another process. We wait, and not the library: a signal during SQLite's own wait
leaves its connection half closed, and Python prints a traceback about that."""
_PATIENCE_S = 3.0
"""The user is told of a wait after so many seconds."""
_NOTED_S = 0.01
"""A wait for another process that took less is none."""


@dataclass(frozen=True)
class Interval:
    """A stage at work on a host, from `began` to `ended`, seconds since 1970; `alone`: nothing else may run there meanwhile."""

    stage: str
    began: float
    ended: float
    alone: bool
    host: str = ""
    """Empty: the tuner's own."""
    result: str = ""
    """Of a copy from or to a shared cache (`fetch`, `send`): `STAGE/KEY` of the result."""
    moved_mb: float | None = None
    """Of such a copy: 10^6 bytes."""


def host_file() -> Path:
    """Return the lock's file: one for each user and host, wherever the cache is. Raises MachineError where there is no place.

    XDG_RUNTIME_DIR may name the folder of another user (after `su` or `sudo -E`), or one that nobody has made (in a container).
    """
    with warnings.catch_warnings():  # where the system names no folder for it, one below /tmp does
        warnings.simplefilter("ignore")
        named = platformdirs.user_runtime_path("autotune", appauthor=False)
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    for folder in (named, temporary_folder() / f"autotune-runtime{user}"):
        with contextlib.suppress(OSError):
            if folder is named and folder.parent.exists() and not _is_own(folder.parent):
                continue  # root could make one there, which would then be closed to that user
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_own(folder) and os.access(folder, os.W_OK):
                return folder / "host.lock"
    raise MachineError(
        f"neither {named} nor the folder for temporary files can be written: set XDG_RUNTIME_DIR to a folder of yours, or TMPDIR"
    )


def _is_own(folder: Path) -> bool:
    """Whether a folder belongs to this user. Raises OSError."""
    return sys.platform == "win32" or folder.lstat().st_uid == os.getuid()


class HostLock:
    """Use `shared` around a stage, and `alone` around a timing. It ends with its process. Threads may share it.

    While a timing waits, no other stage begins, so it waits only for those that run; timings that arrive meanwhile follow it at
    once. In replays, searches with 16 workers took 1.6 times as long where stages could still begin before a waiting timing
    (`benchmarks.search.workers`): timings are few, and the strategy waits for their results.
    """

    def __init__(
        self,
        file: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`say` is called where this process waits for another one; `check` is called now and then during a wait, and may raise
        to end it.
        """
        self._file = file or host_file()
        self.say, self.check = say, check
        self.intervals: deque[Interval] = deque()
        """The stages of this process that have ended, in that order; the reader removes them."""
        self.waits: deque[Interval] = deque()
        """When a stage of this process waited for another process."""
        self._changed = threading.Condition()
        self._sharing = 0
        self._timing = False
        self._asked: list[float] = []
        """The times at which the waiting timings arrived."""

    @property
    def waiting_alone(self) -> int:
        """The number of timings that wait."""
        return len(self._asked)

    @contextlib.contextmanager
    def shared(self, what: str = "") -> Iterator[None]:
        """Hold it beside other stages that are no timings. `what`: the stage, for `intervals`; empty: it is not noted."""
        with self._changed:
            while self._timing or self._asked:
                self._changed.wait(timeout=_POLL_S)
                self.check()
            self._sharing += 1
        try:
            with self._acquired("read", "a timing of another sweep"), self._recorded(what, False):
                yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self, what: str = "") -> Iterator[None]:
        """Hold it while no other stage runs. `what`: the stage, for `intervals`."""
        since = time.monotonic()
        with self._changed:
            self._asked.append(since)
            try:
                while self._timing or self._sharing:
                    self._changed.wait(timeout=_POLL_S)
                    self.check()
            finally:
                self._asked.remove(since)
            self._timing = True
        try:
            with self._acquired("write", "a stage of another sweep, to time undisturbed"), self._recorded(what, True):
                yield
        finally:
            with self._changed:
                self._timing = False
                self._changed.notify_all()

    @contextlib.contextmanager
    def _recorded(self, what: str, alone: bool) -> Iterator[None]:
        began = time.time()
        try:
            yield
        finally:
            if what:
                self.intervals.append(Interval(what, began, time.time(), alone))

    @contextlib.contextmanager
    def _acquired(self, mode: Literal["read", "write"], what: str) -> Iterator[None]:
        """Hold the lock between processes."""
        # The waiting process holds the gate: else stages of another sweep that overlap would make a timing wait for ever.
        gate = FileLock(f"{self._file}.gate")
        lock = ReadWriteLock(self._file, is_singleton=False)  # one instance keeps processes apart, not threads
        acquire = lock.acquire_read if mode == "read" else lock.acquire_write
        since, began, told = time.time(), time.monotonic(), False

        def until(get: Callable[..., object]) -> None:
            nonlocal told
            while True:
                try:
                    get(blocking=False)
                    return
                except Timeout:
                    if not told and time.monotonic() - began > _PATIENCE_S:
                        self.say(f"waiting for {what}")
                        told = True
                    self.check()
                    time.sleep(_RETRY_S)

        try:
            until(gate.acquire)
            try:
                until(acquire)
            finally:
                gate.release()
            if (now := time.time()) - since > _NOTED_S:
                self.waits.append(Interval("wait", since, now, False))
            try:
                yield
            finally:
                lock.release()
        finally:
            lock.close()
