"""Copies from and to a shared cache, on this host: none runs beside a timing, and each is noted as stages are."""

from __future__ import annotations

from collections import deque

from autotune.artifacts.shared_store import Transfer
from autotune.artifacts.store import Cache
from autotune.execution.host_lock import HostLock, Interval


def note_transfers(cache: Cache, host: HostLock) -> None:
    """Make copies from and to the cache's shared store wait for timings on this host, and note each copy in its intervals."""
    if cache.shared is not None:
        cache.shared.around, cache.shared.moved = host.shared, lambda one: host.intervals.append(_interval(one))


def note_own_transfers(cache: Cache, intervals: deque[Interval]) -> None:
    """Note the copies of a tuner that does no jobs itself."""
    if cache.shared is not None:
        cache.shared.moved = lambda one: intervals.append(_interval(one))


def _interval(one: Transfer) -> Interval:
    return Interval(one.kind, one.began, one.ended, False, "", one.result, one.bytes / 1e6)
