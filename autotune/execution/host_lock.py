"""The host's lock: a timing runs alone, everything else side by side, over all sweeps of a user on this machine."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
from filelock import ReadWriteLock, Timeout

_POLL_S = 1.0
"""How long to wait at a time: in between, a signal is heard."""
_PATIENCE_S = 3.0
"""Seconds of waiting after which the user is told."""


def host_file() -> Path:
    """Return the lock's file: one a user and host, wherever the cache is."""
    with warnings.catch_warnings():  # where the system names no folder for it, one below /tmp does
        warnings.simplefilter("ignore")
        folder = platformdirs.user_runtime_path("autotune", appauthor=False)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "host.lock"


class HostLock:
    """Use `shared` around a stage, and `alone` around a timing. It ends with its process."""

    def __init__(self, file: Path | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self._lock = ReadWriteLock(file or host_file())
        self.say = say
        """Who is told that it has to wait."""
        self.waiting: Callable[[], None] = lambda: None
        """Who is told now and then that it still waits; what it raises ends the wait."""

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with others who are not timing."""
        with self._acquired(self._lock.acquire_read, "a timing of another sweep"):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold it with nobody else at work."""
        with self._acquired(self._lock.acquire_write, "a stage of another sweep, to time undisturbed"):
            yield

    @contextlib.contextmanager
    def _acquired(self, acquire: Callable[..., object], what: str) -> Iterator[None]:
        began, told = time.monotonic(), False
        while True:
            try:
                acquire(timeout=_POLL_S)
                break
            except Timeout:
                self.waiting()
                if not told and time.monotonic() - began > _PATIENCE_S:
                    self.say(f"waiting for {what}")
                    told = True
        try:
            yield
        finally:
            self._lock.release()
