"""One maker for each result, over all threads, processes, containers and hosts that share the cache's folder.

A maker is a process that makes the result KEY. It owns the file `KEY.N.maker`, which describes it. Only one process can create
the file of the next number, and the highest number counts. A process may take the next number once the maker before has ended:

- on the same boot of the same system: when the lock file `KEY.lock`, which the maker holds, is free (the system shows that to
  other containers, too);
- elsewhere: when the maker's lease was not renewed for `MAKER_S`; who waits is told when that will be;
- anywhere: when the process that sent the maker declares it lost (`over`).

A maker may be suspended or cut off for longer than that, and then go on. So before it publishes its result it takes the next
number itself, by a hard link to its own file: the file system refuses the link where another process has the next number, or
has removed the maker's file. Where there are no hard links, the maker looks for those files instead.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from filelock import FileLock, Timeout

from autotune.artifacts.leases import Leases, Process, lives, this_process
from autotune.durable import ASIDE, remove_tree

MAKER = ".maker"
MAKER_S = 60.0
"""A maker on another host loses its turn so many seconds after the last touch of its lease. Less than `LEASE_S`: a maker that
continues later does no harm, while waiting for one costs time.
"""
_POLL_S = 0.5
"""Seconds between two looks while waiting for a maker."""


@dataclass(frozen=True)
class Maker:
    """The process that makes a result now, as far as it is known."""

    pid: int
    host: str
    since: str
    """ISO 8601, UTC."""
    what: str
    """The candidate and results folder that it works for; empty: not known."""
    token: str = ""
    """The unique name of this turn."""
    lease: str = ""
    boot: str = ""
    """The boot of its system; empty: not known."""
    locked: bool = True
    """Whether it holds the system's lock."""
    namespace: str = ""
    """The namespace of its process id; empty: not known."""
    began: float | None = None
    """When its process began, as `leases.Process`."""
    until: str = ""
    """For who waits: when its turn ends if nothing more is heard of it, ISO 8601, UTC; empty: at once where it has ended."""

    def __str__(self) -> str:
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        what = f" for {self.what}" if self.what else ""
        until = f"; if it was killed, this goes on at {self.until}" if self.until else ""
        return f"process {self.pid}{where} makes it since {self.since}{what}{until}"

    @property
    def ended(self) -> bool:
        """Whether its process has ended, as far as it can be looked up from here."""
        return lives(Process(self.pid, self.host, self.boot, self.namespace, self.began)) is False

    def waited_for(self, left_s: float) -> Maker:
        """Return it for who waits: its turn ends in so many seconds if nothing more is heard of it."""
        return replace(self, until=_utc(left_s)) if math.isfinite(left_s) else self


def maker_here(what: str, token: str, lease: str, *, locked: bool) -> Maker:
    """Return this process as a maker that begins now."""
    own = this_process()
    return Maker(own.pid, own.host, _utc(), what, token, lease, own.boot, locked, own.namespace, own.began)


def _utc(later_s: float = 0.0) -> str:
    when = datetime.now(UTC) + timedelta(seconds=later_s)
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


class Turns(Protocol):
    """The turn of a maker: the right to make one result."""

    @property
    def aside(self) -> Path:
        """The folder in which it makes the result."""

    def still(self) -> bool:
        """Whether no other maker has taken over."""

    def confirm(self) -> bool:
        """Whether the result may be published."""


class Turn:
    """The turn of one maker on hosts that share a folder."""

    def __init__(self, folder: Path, number: int, maker: Maker) -> None:
        self.folder, self.number, self.token = folder, number, maker.token
        self.aside = folder.with_name(f".{folder.name}.{maker.token[:12]}{ASIDE}")
        """The folder in which it makes the result."""

    def still(self) -> bool:
        """Whether no other maker has taken over, as far as this host sees."""
        number, maker = newest(self.folder)
        return number == self.number and maker is not None and maker.token == self.token

    def confirm(self) -> bool:
        """Take the next number, without which the result must not be published. Returns whether that succeeded."""
        own, following = (_file(self.folder, number) for number in (self.number, self.number + 1))
        try:
            os.link(own, following)
        except FileExistsError:
            return False
        except OSError:  # no links here, or its own file is gone
            return self.still()
        self.number += 1
        return True

    def end(self) -> None:
        """End this turn: remove its files, both where it was confirmed. A maker that took over has removed them before."""
        for number in (self.number - 1, self.number):
            file = _file(self.folder, number)
            maker = _read(file)
            if maker is not None and maker.token == self.token:
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def making(
    folder: Path,
    leases: Leases,
    what: str = "",
    waiting: Callable[[Maker | None, float], None] = lambda *_: None,
    token: str = "",
    over: Collection[str] = (),
) -> Iterator[Turn]:
    """Become the only maker of a result. Yields the turn.

    While another maker has the turn, `waiting` is called with that maker and the seconds waited; it may raise to end the wait.
    `what`: see `Maker.what`; `token`: the name of this turn; `over`: tokens of turns that are lost. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with leases.held():
        while True:
            lock = FileLock(str(folder) + ".lock")
            locked = _acquired(lock)
            try:
                taken = _take(folder, leases, locked, what, token or uuid.uuid4().hex, over)
                if isinstance(taken, Turn):
                    try:
                        yield taken
                    finally:
                        with contextlib.suppress(OSError):
                            taken.end()
                    return
            finally:
                lock.release()
            waiting(taken, time.monotonic() - began)


def newest(folder: Path) -> tuple[int, Maker | None]:
    """Return the highest number of a result's makers, and that maker if it can be read; 0 and None where there is none."""
    return _newest(folder, _beside(folder).numbers)


def is_made(folder: Path, leases: Leases) -> bool:
    """Whether a result is being made now, as far as this host sees."""
    with unmade(folder, leases) as (_, idle):
        return not idle


@contextlib.contextmanager
def unmade(folder: Path, leases: Leases) -> Iterator[tuple[bool, bool]]:
    """Keep makers of this host away from a result. Yields whether the system's lock is held, and whether no maker is at work."""
    lock = FileLock(str(folder) + ".lock")
    locked = _acquired(lock, 0.0)
    try:
        yield locked, _may_begin(*newest(folder), leases, locked, ())
    finally:
        lock.release()


def result_of(place: Path) -> Path:
    """Return the folder of the result to which a maker's file, or its folder aside, belongs."""
    return place.with_name(place.name.removeprefix(".").partition(".")[0])


# --- turns -----------------------------------------------------------------------------------------------------------


def _take(
    folder: Path, leases: Leases, locked: bool, what: str, token: str, over: Collection[str]
) -> Turn | Maker | None:
    """Take the next number, if it is free. Returns the turn; else the maker of the result, or None if it is unknown."""
    there = _beside(folder)
    before, maker = _newest(folder, there.numbers)
    if not _may_begin(before, maker, leases, locked, over):
        counts = maker is not None and _by_lease(before, maker)
        return maker.waited_for(leases.left_s(maker.lease, MAKER_S)) if maker is not None and counts else maker
    mine = maker_here(what, token, leases.id, locked=locked)
    if not _create(_file(folder, before + 1), json.dumps(asdict(mine)), token):
        return newest(folder)[1]
    for number in there.numbers:
        with contextlib.suppress(OSError):
            _file(folder, number).unlink(missing_ok=True)
    for left in there.asides:  # of earlier makers, which must not publish them
        with contextlib.suppress(OSError):
            remove_tree(left)  # it renames the folder first: one that is being published stays whole
    return Turn(folder, before + 1, mine)


def _may_begin(number: int, maker: Maker | None, leases: Leases, locked: bool, over: Collection[str]) -> bool:
    """Whether a new maker may begin, because the last one, `maker` with this number, has ended. `locked`: whether the system's
    lock was free.
    """
    if maker is None:  # there is none, or its file is unreadable, and then it holds the lock
        return locked
    if maker.token and maker.token in over:
        return True
    if not _by_lease(number, maker):
        return locked
    return maker.ended or not leases.lasts(maker.lease, MAKER_S)


def _by_lease(number: int, maker: Maker) -> bool:
    """Whether the lease of a maker with this number says when it has ended: the system's lock does not show it here."""
    return bool(number) and not (maker.boot == this_process().boot and maker.locked)


def _create(file: Path, content: str, token: str) -> bool:
    """Create a file with all of its content. Returns whether it was not there. Raises OSError."""
    aside = file.with_name(f"{file.name}.{token[:12]}{ASIDE}")
    try:
        aside.write_text(content, encoding="utf-8")
        try:
            os.link(aside, file)
        except FileExistsError:
            return False
        except OSError:  # no links here
            try:
                with file.open("x", encoding="utf-8") as stream:
                    stream.write(content)
            except FileExistsError:
                return False
        return True
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _acquired(lock: FileLock, patience_s: float | None = None) -> bool:
    try:
        lock.acquire(timeout=_POLL_S if patience_s is None else patience_s)
    except Timeout:
        return False
    return True


def _file(folder: Path, number: int) -> Path:
    """Return a maker's file; earlier versions have no numbers."""
    return folder.with_name(f"{folder.name}.{number}{MAKER}" if number else f"{folder.name}{MAKER}")


class _Beside(NamedTuple):
    """What makers have put beside a result."""

    numbers: list[int]
    asides: list[Path]
    """The folders in which they make it."""


def _beside(folder: Path) -> _Beside:
    """Look beside a result, once: its folder may have tens of thousands of entries."""
    try:
        names = os.listdir(folder.parent)  # noqa: PTH208 - names are all that is needed, of very many
    except FileNotFoundError:
        return _Beside([], [])
    own, aside = folder.name, f".{folder.name}"
    ours = [name for name in names if name.startswith((own, aside))]
    middles = [name[len(own) : -len(MAKER)] for name in ours if name.startswith(own) and name.endswith(MAKER)]
    numbers = [int(part[1:] or "0") for part in middles if part == "" or (part[0] == "." and part[1:].isdecimal())]
    return _Beside(
        numbers, [folder.with_name(name) for name in ours if name.startswith(aside) and name.endswith(ASIDE)]
    )


def _newest(folder: Path, numbers: Collection[int]) -> tuple[int, Maker | None]:
    number = max(numbers, default=-1)
    return (0, None) if number < 0 else (number, _read(_file(folder, number)))


def _read(file: Path) -> Maker | None:
    try:
        return read_maker(file.read_bytes())
    except OSError:
        return None


def read_maker(content: bytes) -> Maker | None:
    """Return the maker that a file describes; None where it cannot be read."""
    try:
        said: Any = json.loads(content)
        token, lease, boot = (str(said.get(name, "")) for name in ("token", "lease", "boot"))
        who = (int(said["pid"]), str(said["host"]), str(said["since"]), str(said["what"]))
        began = float(said["began"]) if said.get("began") is not None else None
        return Maker(*who, token, lease, boot, bool(said.get("locked", True)), str(said.get("namespace", "")), began)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
