"""Waiting for what another thread or process does: for the event itself, on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

HANG_S = 300.0
"""Seconds after which something that must happen counts as never to happen: no machine is so slow. Below pytest's own limit."""


def until(true: Callable[[], object], what: str = "what was waited for", seconds: float = HANG_S) -> None:
    """Wait until something is true. Raises AssertionError, with `what`, where that never happens."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come in {seconds:.0f} s"
        time.sleep(0.01)


def ended(process: psutil.Process) -> bool:
    """Whether a process has ended; its parent may not have asked for its exit code yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
