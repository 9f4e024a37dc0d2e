"""How OpenMP's threads wait for one another in a worker: awake on a quiet machine, asleep beside other programs.

A thread that waits awake goes on at once, but it occupies a core. On a quiet machine nobody else needs that core: threads that
sleep at once make a training step a third slower. Beside another program the slowest thread of the team needs the core, and
a step takes three to four times as long (`benchmarks/measured/busy.md`).

GNU's OpenMP, which PyTorch has on Linux, makes its threads sleep soon while it manages more threads than there are cores
(`gomp_throttled_spin_count_var`, libgomp/config/linux/wait.h). It counts the teams of all threads of the process. So this
module keeps a team of idle threads, one more than there are cores, for as long as other programs are at work. Sums are
computed by the same threads in the same order either way: the results are the same, bit by bit.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from autotune.machine import busy_s, own_processors

FOREIGN = 0.25
"""Cores that other programs keep busy, from which on the threads sleep."""
FULL = 0.95
"""Share of the cores that are busy, from which on a thread that waits awake takes a core from somebody."""
USER_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Environment variables with which a user says how threads wait; nothing is adjusted then."""
IDLE_TEAM = "idle OpenMP team"
"""Name of the thread that keeps it."""


class OpenMPWaiting:
    """Watches the load of the machine, and has OpenMP's threads sleep while other programs need the cores."""

    def __init__(self, now: Callable[[], tuple[float, float, float]] | None = None) -> None:
        """`now` returns the time, the processor seconds of all programs and those of this process; None: the system's."""
        self._processors = len(own_processors())
        self._now = now or _system_now
        self._enabled = sys.platform == "linux" and not any(name in os.environ for name in USER_SETTINGS)
        self._team: IdleTeam | None = None
        self._last = self._now() if self._enabled else None

    @property
    def asleep(self) -> bool:
        """Whether threads sleep while they wait."""
        return self._team is not None

    def adjust(self) -> None:
        """Look at the load since the last call. To be called by one thread, about twice a second."""
        if self._last is None:
            return
        now = self._now()
        passed, busy, own = (after - before for after, before in zip(now, self._last, strict=True))
        if passed <= 0:
            return
        self._last = now
        self.set_for(foreign=(busy - own) / passed, busy=busy / passed)

    def set_for(self, foreign: float, busy: float) -> None:
        """Choose how threads wait where other programs keep `foreign` cores busy, and all programs together `busy`."""
        if not self._enabled:
            return
        if self._team is None and foreign >= FOREIGN and busy >= FULL * self._processors:
            self._team = IdleTeam.start(self._processors + 1)
        elif self._team is not None and foreign < FOREIGN:
            self._team.end()
            self._team = None


def _system_now() -> tuple[float, float, float]:
    return time.perf_counter(), busy_s(), time.process_time()


class IdleTeam:
    """A team of OpenMP's threads that does nothing. It exists as long as the thread that began it."""

    def __init__(self, libraries: list[ctypes.CDLL], threads: int) -> None:
        """Raises AttributeError where a library is too old to start a team by a call."""
        self._threads = threads
        self._parallel = [library.GOMP_parallel for library in libraries]
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name=IDLE_TEAM, daemon=True)
        self._thread.start()
        self._begun.wait()

    @classmethod
    def start(cls, threads: int) -> IdleTeam | None:
        """Return a team in every GNU OpenMP library that this process has loaded; None where it has none."""
        try:
            libraries = [ctypes.CDLL(str(path)) for path in gnu_openmp()]
            return cls(libraries, threads) if libraries else None
        except (OSError, AttributeError):  # the file was replaced since it was loaded
            return None

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _hold(self) -> None:
        # A C function that may be called with a null pointer.
        nothing = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p)
        for parallel in self._parallel:
            # void GOMP_parallel (void (*fn) (void *), void *data, unsigned num_threads, unsigned flags)
            parallel(nothing, None, ctypes.c_uint(self._threads), ctypes.c_uint(0))
        self._begun.set()
        self._over.wait()


def gnu_openmp() -> list[Path]:
    """Return the files of GNU's OpenMP that this process has loaded; none on other systems than Linux."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    mapped = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    return sorted(Path(name) for name in mapped if Path(name).name.startswith("libgomp"))
