"""Eviction: which results the cache removes to make room, and in which order.

It never removes what a living process uses, or what the front of an existing results folder needs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from autotune.artifacts.store import Cache, Entry
from autotune.errors import MachineError, Problem, UsageError
from autotune.machine import free_disk_mb
from autotune.paths import size_mb
from autotune.scratch import left

LEAST_MB = 0.1
"""Results below this size (scores, timings) stay: they took long to make, and removing them frees nothing."""


def budget_mb() -> float | None:
    """Return the cache's size budget, `AUTOTUNE_CACHE_MB` (10^6 bytes), or None. Raises UsageError."""
    text = os.environ.get("AUTOTUNE_CACHE_MB", "").strip()
    if not text:
        return None
    try:
        value = float(text)
        if 0 < value < float("inf"):
            return value
    except ValueError:
        pass
    raise UsageError(
        Problem("must be a number of megabytes above 0", "AUTOTUNE_CACHE_MB", value=text, remedy="unset or correct it")
    )


@dataclass(frozen=True)
class Removed:
    """A result or leftover that housekeeping removed, or would remove."""

    what: str
    size_mb: float


def by_worth(entries: Iterable[Entry], now: float) -> list[Entry]:
    """Return the entries that may be removed, in that order: damaged ones, merged models, then the least worth.

    The worth is the seconds to make a result again, per MB and per day unused.
    """

    def worth(entry: Entry) -> float:
        days = max(0.0, now - entry.used) / 86400
        return entry.seconds / max(entry.size_mb, 1e-3) / (1 + days)

    loose = [entry for entry in entries if not entry.kept_for and entry.size_mb >= LEAST_MB]
    return sorted(loose, key=lambda entry: (entry.state != "damaged", entry.stage != "merge", worth(entry)))


def tidy(cache: Cache, dry: bool = False) -> list[Removed]:
    """Remove leftovers of killed processes, in the cache and among temporary folders, and damaged results."""
    removed = []
    for folder in [*cache.leftovers(), *left()]:
        try:
            size = folder.stat().st_size / 1e6 if folder.is_file() else size_mb(folder)
        except OSError:  # another process has removed it just now
            continue
        if not dry:
            _remove_any(folder)
        removed.append(Removed(f"leftover {folder.parent.name}/{folder.name}", size))
    damaged = [entry for entry in cache.entries() if entry.state == "damaged"]
    return removed + _remove(cache, damaged, dry)


def _remove_any(place: Path) -> None:
    """Remove a file or folder, and ignore errors."""
    shutil.rmtree(place, ignore_errors=True)
    with contextlib.suppress(OSError):
        place.unlink(missing_ok=True)


def evict(cache: Cache, enough: Callable[[float], bool], entries: list[Entry], dry: bool = False) -> list[Removed]:
    """Remove results, the least worth first, until `enough(MB removed so far)`."""
    removed: list[Removed] = []
    for entry in by_worth(entries, time.time()):
        if enough(sum(item.size_mb for item in removed)):
            break
        removed += _remove(cache, [entry], dry)
    return removed


def _remove(cache: Cache, entries: Iterable[Entry], dry: bool) -> list[Removed]:
    return [
        Removed(f"{entry.stage}/{entry.path.name[:16]}", entry.size_mb)
        for entry in entries
        if not entry.kept_for and (dry or cache.remove(entry.path))
    ]


class Room:
    """Keeps a cache inside its budget and its disk, between the stages of a sweep."""

    def __init__(self, cache: Cache, budget: float | None) -> None:
        self.cache, self.budget = cache, budget
        self._guard = threading.Lock()
        self._size_mb: float | None = None
        """The cache's size as it was counted last, and what this process has added since."""

    def clear(self) -> None:
        """Remove the leftovers of killed processes, which may be large."""
        for folder in [*self.cache.leftovers(), *left()]:
            _remove_any(folder)

    def added(self, folder: Path) -> None:
        """Count a result that was made."""
        size = size_mb(folder)
        with self._guard:
            if self._size_mb is not None:
                self._size_mb += size

    def make(self, need_mb: float) -> list[Removed]:
        """Make room for `need_mb` more, 10^6 bytes. Returns what was removed for it.

        Raises MachineError where the disk still has less room after everything removable was removed.
        """
        with self._guard:  # two threads must not make the same room
            return self._make(need_mb)

    def _make(self, need_mb: float) -> list[Removed]:
        removed: list[Removed] = []
        over = 0.0
        if self.budget is not None:
            if self._size_mb is None or self._size_mb + need_mb > self.budget:
                self._size_mb = sum(entry.size_mb for entry in self.cache.entries())
            over = self._size_mb + need_mb - self.budget
        short = need_mb - free_disk_mb(self.cache.root)
        if over > 0 or short > 0:
            removed = tidy(self.cache)
            gone = sum(item.size_mb for item in removed)
            removed += evict(self.cache, lambda more: gone + more >= max(over, short), self.cache.entries())
            self._size_mb = None
        free = free_disk_mb(self.cache.root)
        if free < need_mb:
            message = (
                f"the disk of the cache ({self.cache.root}) has {free:.0f} MB free, and the next stage needs about"
            )
            remedy = "free some space (`autotune cache prune`), or set AUTOTUNE_CACHE to a folder on another disk"
            raise MachineError(f"{message} {need_mb:.0f} MB; {remedy}; then run the same command again")
        return removed
