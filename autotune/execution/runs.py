"""Signs that the tuner and its nodes exchange beside orders: a run, its end, work in progress. They are files of a shared
folder, or objects of a store.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.artifacts.store import HERE, RUN, Cache
from autotune.errors import AutotuneError
from autotune.remote.objects import Objects, is_store

STOP = "stop"
"""The sign that requests the end of the run."""
BEAT_S = 20.0
"""Seconds between two signs of a node that it is still at work on an order."""
_AT = "at-"
"""The beginning of the sign that names the node of an order."""


@dataclass(frozen=True)
class AtWork:
    """The report of a node about an order at work."""

    node: str
    """The id of the node."""
    host: str
    beat: int
    """The number of the report."""


def run_folder(cache: Cache) -> Path:
    """Make a folder for one run of the command in the cache, or in the store, that nodes share. Raises OSError,
    MachineError.
    """
    run = cache.root / f"{RUN}{uuid.uuid4().hex}"
    run.mkdir(parents=True)
    (run / HERE).write_text(cache.leases.id, encoding="utf-8")
    if cache.shared is not None:
        sign(run_place(cache, run), HERE, cache.leases.id)
    return run


def run_place(cache: Cache, run: Path) -> str:
    """Return the place of a run's signs for nodes: its folder, or its address in the store."""
    return str(run.resolve()) if cache.shared is None else f"{cache.shared}/{run.name}"


@contextlib.contextmanager
def run_in(cache: Cache) -> Iterator[Path]:
    """Make a folder for one run, as `run_folder`, and remove it at the end."""
    run = run_folder(cache)
    try:
        yield run
    finally:
        if cache.shared is not None:
            remove_signs(run_place(cache, run), HERE, STOP)
        shutil.rmtree(run, ignore_errors=True)


def sign(place: str, name: str, text: str = "") -> None:
    """Set a sign for the nodes. Raises OSError, MachineError."""
    if is_store(place):
        Objects(place, "AUTOTUNE_CACHE").write(name, text.encode())
    else:
        (Path(place) / name).write_text(text, encoding="utf-8")


def signed(place: str, name: str) -> bool:
    """Whether a sign is visible here. Raises OSError, MachineError."""
    if is_store(place):
        return Objects(place, "AUTOTUNE_CACHE").read(name) is not None
    return name in os.listdir(place)  # noqa: PTH208 - `exists` may be answered from memory


@contextlib.contextmanager
def at_work(place: str, token: str, node: str) -> Iterator[Callable[[], None]]:
    """Set a sign that names node and host of an order while it is at work; the cluster itself does not report that.

    Yields a function to call every `BEAT_S`, which renews the sign. The number of renewals is part of the sign's name: lists of
    names are always fresh, while clients of NFS cache the time of a file for up to a minute, and in a store it costs a request
    for each object.
    """
    there = Objects(place, "AUTOTUNE_CACHE") if is_store(place) else None

    def name(beat: int) -> str:
        return f"{_AT}{token}-{node}-{beat}-{socket.gethostname()}"

    beat = 0

    def still() -> None:
        nonlocal beat
        with contextlib.suppress(AutotuneError, OSError):
            if there is None:
                (Path(place) / name(beat)).replace(Path(place) / name(beat + 1))
            else:
                there.write(name(beat + 1), b"")
                there.remove(name(beat))
            beat += 1

    with contextlib.suppress(AutotuneError, OSError):
        sign(place, name(beat))
    try:
        yield still
    finally:
        with contextlib.suppress(AutotuneError, OSError):
            if there is None:
                (Path(place) / name(beat)).unlink(missing_ok=True)
            else:
                there.remove(name(beat))


def nodes_at_work(place: str) -> dict[str, AtWork] | None:
    """Return the reports on orders at work, by token; None where they cannot be read now."""
    try:
        if is_store(place):
            names = [name.rpartition("/")[2] for name in Objects(place, "AUTOTUNE_CACHE").names(_AT)]
        else:
            names = [name for name in os.listdir(place) if name.startswith(_AT)]  # noqa: PTH208 - as in `signed`
    except (AutotuneError, OSError):
        return None
    found: dict[str, AtWork] = {}
    for said in names:
        token, node, beat, host = said.removeprefix(_AT).split("-", 3)
        if token not in found or found[token].beat < int(beat):  # in a store two are there for a moment
            found[token] = AtWork(node, host, int(beat))
    return found


def seen_after(place: str, name: str, patience_s: float) -> bool:
    """Whether a sign becomes visible here within `patience_s` seconds. Raises MachineError where a store cannot be read."""
    end = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError):
            if signed(place, name):
                return True
        if time.monotonic() > end or not (is_store(place) or Path(place).parent.exists()):
            return False
        time.sleep(0.2)


def trouble_of(place: str, patience_s: float) -> str:
    """Return why a node cannot use the cache of a run, whose folder or address is `place`; empty: it can."""
    try:
        if seen_after(place, HERE, patience_s):
            return ""
    except AutotuneError as error:
        return f"it cannot use the cache: {error}"
    if is_store(place):
        return f"it does not find {place}/{HERE}: its login or endpoint is that of another store"
    return f"it does not see {place}: AUTOTUNE_CACHE must name a folder that all nodes share, or a store"


def remove_signs(place: str, *names: str) -> None:
    """Remove the signs of a run."""
    with contextlib.suppress(AutotuneError, OSError):
        if is_store(place):
            there = Objects(place, "AUTOTUNE_CACHE")
            there.remove(*names, *there.names(_AT))
        else:
            shutil.rmtree(place, ignore_errors=True)
