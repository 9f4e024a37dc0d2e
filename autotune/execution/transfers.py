"""Copies from and to a shared cache, seen from this host: never beside a timing, and noted like a stage."""

from __future__ import annotations

from collections import deque

from autotune.artifacts.shared_store import Transfer
from autotune.artifacts.store import Cache
from autotune.execution.host_lock import HostLock, Interval


def note_transfers(cache: Cache, host: HostLock) -> None:
    """Let results be copied from and to the cache's shared store while nothing is timed here; note each copy on the host."""
    if cache.shared is not None:
        cache.shared.around, cache.shared.moved = host.shared, lambda one: host.intervals.append(_interval(one))


def note_own_transfers(cache: Cache, intervals: deque[Interval]) -> None:
    """Note what a tuner copies that does no jobs itself."""
    if cache.shared is not None:
        cache.shared.moved = lambda one: intervals.append(_interval(one))


def _interval(one: Transfer) -> Interval:
    return Interval(one.kind, one.began, one.ended, False, "", one.result, one.bytes / 1e6)
