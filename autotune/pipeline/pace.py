"""Whether timings of earlier hours still hold on this machine: a reference is timed again before they are trusted.

A laptop on its battery, a busy neighbour, a new driver: the same graph runs at another pace, and timings from before
are no longer to be compared with timings from now.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotune.analysis.latency import disturbed
from autotune.durable import write_aside
from autotune.metrics import PRECISION, RESOLUTION_MS

TRUST_S = 600.0
"""Seconds for which an agreement is taken to hold."""
TOLERANCE = 0.05
"""By what share of the shorter a reference may differ, though its intervals do not meet."""


WIDE = 2
"""How many times the precision that a sweep asks for the half-width of an interval may be."""


def provisional(cells: Mapping[str, Any], precision: float = PRECISION) -> bool:
    """Whether a timing (cells of results.csv) should be made again: it was disturbed by other work, or its interval stayed
    wide.
    """
    low, high, itl = (cells.get(f"itl_ms_p50{end}") for end in ("_low", "_high", ""))
    if itl is None:
        return False
    wide = low is not None and high is not None and high - low > 2 * max(WIDE * precision * itl, RESOLUTION_MS)
    return wide or disturbed(cells)


def quieter(than: Mapping[str, Any], now: float) -> bool:
    """Whether this machine does less beside its sweep than while a timing was made (cells of results.csv), so that it is
    worth making again; `now`: cores that others keep busy.
    """
    then = float(than.get("foreign_cpu") or 0.0)
    return now < then / 2 if disturbed(than) else not disturbed({"foreign_cpu": now})


def agree(before: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
    """Whether two timings of one graph (cells of results.csv) are of one pace."""
    old, new = float(before["itl_ms_p50"]), float(again["itl_ms_p50"])
    if abs(old - new) <= max(TOLERANCE * min(old, new), RESOLUTION_MS):
        return True
    ends = [cells.get(f"itl_ms_p50_{end}") for cells in (before, again) for end in ("low", "high")]
    if any(end is None for end in ends):
        return False
    low, high, new_low, new_high = (float(end) for end in ends if end is not None)
    return low <= new_high and new_low <= high


def recent(then: float) -> bool:
    """Whether a moment, seconds since 1970, is so near that the machine is taken to have had its present pace."""
    return 0 <= time.time() - then < TRUST_S


class Pace:
    """The pace that this machine is known to have; kept in the cache, for all its sweeps."""

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
        """What rows say of it: those of one name can be compared."""
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
        """Say that something was timed: where nothing is known yet, that is the pace."""
        if self._agreed is None:
            self.confirm()

    def confirm(self) -> None:
        """Say that something was timed again just now, and found to agree."""
        self._agreed = time.time()
        self._keep()

    def renew(self) -> None:
        """Say that it is another one from now on."""
        self.since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.confirm()

    def _keep(self) -> None:
        with contextlib.suppress(OSError):  # a cache that cannot be written is noticed by the stages
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_aside(self._file, json.dumps({"since": self.since, "agreed": self._agreed}))
