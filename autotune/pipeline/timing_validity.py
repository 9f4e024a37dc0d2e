"""Whether earlier timings still hold on this machine: one of their graphs is timed again before they are trusted.

On battery, beside a busy neighbour, or with a new driver the same graph takes another time, and earlier timings cannot be
compared with new ones. A *pace* is a machine and a period in which its speed did not change; each timing belongs to one.
"""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from autotune.analysis.latency import FOREIGN, TokenTiming
from autotune.durable import write_aside
from autotune.metrics import PRECISION, RESOLUTION_MS

TRUST_S = 600.0
"""Seconds for which two timings that agree prove the pace of the machine."""
TOLERANCE = 0.05
"""Two timings agree whose difference is at most this share of the shorter, even where their intervals do not overlap."""
WIDE = 2
"""The half-width of an interval is wide above this multiple of the precision that the sweep asks for."""


def provisional(timing: TokenTiming, precision: float = PRECISION) -> bool:
    """Whether a timing should be repeated: other work disturbed it, or its interval stayed wide."""
    low, high, itl = timing.low, timing.high, timing.itl_ms
    if itl is None:
        return False
    wide = low is not None and high is not None and high - low > 2 * max(WIDE * precision * itl, RESOLUTION_MS)
    return wide or timing.disturbed


def quieter(than: TokenTiming, now: float) -> bool:
    """Whether the machine is now quieter than during a timing, so that repeating it is worth while; `now`: cores that other
    programs keep busy.
    """
    return now < than.foreign_cpu / 2 if than.disturbed else now <= FOREIGN


def agree(before: TokenTiming, again: TokenTiming) -> bool:
    """Whether two timings of one graph agree: they differ by TOLERANCE at most, or their intervals overlap."""
    if before.itl_ms is None or again.itl_ms is None:
        return False
    if abs(before.itl_ms - again.itl_ms) <= max(TOLERANCE * min(before.itl_ms, again.itl_ms), RESOLUTION_MS):
        return True
    if before.low is None or before.high is None or again.low is None or again.high is None:
        return False
    return before.low <= again.high and again.low <= before.high


def recent(then: float) -> bool:
    """Whether the machine's speed counts as unchanged since a moment (seconds since 1970)."""
    return 0 <= time.time() - then < TRUST_S


class Pace:
    """The present pace of a machine; kept in the cache, for all its sweeps."""

    def __init__(self, root: Path, machine: str) -> None:
        self._file, self._machine = root / "pace" / f"{machine[:16]}.json", machine
        self.since: str | None = None
        self._agreed: float | None = None
        self._read()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            self.since = None if kept["since"] is None else str(kept["since"])
            self._agreed = float(kept["agreed"])

    @property
    def name(self) -> str:
        """Its name in rows: timings of one name can be compared."""
        return self._machine[:8] + (f" since {self.since}" if self.since else "")

    @property
    def trusted(self) -> bool:
        """Whether it was found to hold within the last minutes, by this sweep or another."""
        if not self._fresh:
            self._read()
        return self._fresh

    @property
    def _fresh(self) -> bool:
        return self._agreed is not None and recent(self._agreed)

    def begin(self) -> None:
        """Note the first timing on this machine, which begins its first pace. Later calls change nothing."""
        if self._agreed is None:
            self.confirm()

    def confirm(self) -> None:
        """Note that a graph was timed again just now, and agrees with its earlier timing."""
        self._agreed = time.time()
        self._keep()

    def renew(self) -> None:
        """Begin a new pace now: earlier timings no longer count."""
        self.since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.confirm()

    def _keep(self) -> None:
        with contextlib.suppress(OSError):  # a cache that cannot be written is noticed by the stages
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_aside(self._file, json.dumps({"since": self.since, "agreed": self._agreed}))
