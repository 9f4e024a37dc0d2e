"""What Linux lets this process use: containers, batch systems and systemd limit processors and memory by control groups.

A limit holds for a group and all groups inside it, so the lowest of a group and its ancestors counts. Both versions of control
groups are read (https://docs.kernel.org/admin-guide/cgroup-v2.html and .../cgroup-v1/). Other systems have no limits here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_V1_UNLIMITED = 2**60
"""Version 1 writes a number near 2^63 where there is no limit."""


def cpu_quota() -> float:
    """Return how many processors may be busy on average; infinity where there is no limit."""
    return min(map(_cpus_of, _groups("cpu")), default=math.inf)


def memory_limit() -> float:
    """Return how many bytes of memory may be used; infinity where there is no limit."""
    return min((limit for limit, _ in _memory()), default=math.inf)


def memory_left() -> float:
    """Return how many bytes of memory may still be used, what the kernel gives back on demand included; infinity where there is
    no limit.
    """
    return min((max(0.0, limit - used) for limit, used in _memory()), default=math.inf)


def oom_kills() -> int:
    """Return how many processes the kernel has killed in these groups because their memory ran out."""
    return sum(statistic(folder / "memory.events", "oom_kill") for folder in _groups("memory"))


def _cpus_of(folder: Path) -> float:
    """Return how many processors a group may keep busy on average; infinity where it has no limit of its own."""
    words = _words(folder / "cpu.max") or [
        *_words(folder / "cpu.cfs_quota_us"),
        *_words(folder / "cpu.cfs_period_us"),
    ]
    try:
        quota, period = map(float, words)
    except ValueError:  # no such file; or the quota is `max`
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _memory() -> Iterator[tuple[float, float]]:
    """Yield the limit of each group that has one, and what it uses without the files that the kernel can drop, bytes."""
    for folder in _groups("memory"):
        for limit_file, used_file, droppable in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(ValueError):  # no such file, or `max`
                limit = float(" ".join(_words(folder / limit_file)))
                if limit < _V1_UNLIMITED:
                    used = float(" ".join(_words(folder / used_file)) or 0)
                    yield limit, used - statistic(folder / "memory.stat", droppable)


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group for a controller and of its ancestors, as far as they are to be seen."""
    with contextlib.suppress(OSError):
        for line in MEMBERSHIP.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            number, controllers, group = line.split(":", 2)
            if number == "0" and not controllers:  # version 2
                top = ROOT
            elif controller in controllers.split(","):
                top = ROOT / controllers if (ROOT / controllers).is_dir() else ROOT / controller
            else:
                continue
            inner = Path(group.lstrip("/"))
            if ".." not in inner.parts:  # outside of what a container sees
                yield from (top / folder for folder in (inner, *inner.parents))


def _words(file: Path) -> list[str]:
    """Return the words of a file of one line; none where it is not there."""
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []


def statistic(file: Path, name: str) -> int:
    """Return a number of a file of lines `name number`; 0 where it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
