"""What a node of a cluster does with one call: an order comes in, an answer goes out, both plain data.

Nodes share the folder of the cache with the tuner: a node finds the inputs of a job there by their keys, makes the result
there as the only maker of its key, and reports it. Where nodes share a store instead, each has a cache of its own in front
of it (`order_inputs.py`). The output of the stage goes back with the answer.

It is one module because an order, its answer and what ends it early are one exchange.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from autotune.artifacts.makers import Maker, Turns
from autotune.artifacts.shared_store import SharedStore, folder_of
from autotune.artifacts.store import Cache, Stored
from autotune.errors import Interrupted, MachineError, StageError
from autotune.execution.job_runner import JobRunner
from autotune.execution.local import LocalEngine
from autotune.execution.order_inputs import bring, brought, in_use
from autotune.execution.placing import timed_in
from autotune.execution.runs import BEAT_S, STOP, at_work, signed, trouble_of
from autotune.execution.stop import Stop
from autotune.execution.transfers import note_transfers
from autotune.execution.worker import from_plain
from autotune.execution.workers import Slot
from autotune.machine import machine_digest, usable_processors
from autotune.remote.objects import is_store
from autotune.scratch import scratch
from autotune.secrets import redact
from autotune.stages.jobs import TimeJob, TurnsJob, resolved
from autotune.stages.protocol import Job, Result

BUSY_S = 2.0
"""Seconds that an order waits for another maker on its node; then it frees the node, and is sent again."""
SEEN_S = 30.0
"""Seconds within which a file written by another host must be visible: clients of NFS refresh that often."""
LOG_BYTES = 2_000_000
"""The most bytes of a log's end that an answer holds."""
_WATCH_S = 1.0
_WATCH_STORE_S = 10.0
"""Seconds between two checks of a node whether the sweep is to end; in a store each check is a request."""
_OURS = ("keep_dir", "stop_file", "engines_dir")
"""Paths of a job that are not its inputs."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")


class Order(_Plain):
    """A call, as a node is given it."""

    job: dict[str, Any]
    """As `worker.to_plain`."""
    key: str
    """The tuner's key. A node with other versions of packages would compute another key."""
    packages: dict[str, str | None]
    """The versions that are part of the key."""
    cache: str
    """The folder that nodes share; or the address of the store, in front of which each node has a cache of its own."""
    run: str
    """The folder of the run, or its address, which has `HERE` and `STOP`."""
    places: dict[str, str]
    """By key, the paths of inputs from outside the cache in a shared folder."""
    there: dict[str, str] = {}
    """The places of inputs in the store, by key or by path on the tuner's machine."""
    again: dict[str, dict[str, Any]] = {}
    """By key, the jobs that make inputs anew: results that stay on the machine that made them."""
    publish: bool = False
    """Whether the result goes to the store although its kind stays on the machine that made it."""
    done_with: tuple[str, ...] = ()
    """Large results that the sweep needs no more."""
    model: str = ""
    what: str = ""
    """The candidate and the results folder, for messages to others who wait for the result."""
    limit_s: float | None = None
    anew: bool = False
    token: str
    """The name of this attempt."""
    lost: tuple[str, ...] = ()
    """The tokens of earlier attempts, whose nodes were lost."""
    cpus: int = 1
    """Processors that it may use."""
    memory_mb: float | None = None
    offline: bool = True


Kind = Literal["done", "failed", "machine", "interrupted", "busy", "bug"]


class Span(_Plain):
    """When a stage ran on this host, as `host_lock.Interval`."""

    stage: str
    began: float
    ended: float
    alone: bool
    result: str = ""
    moved_mb: float | None = None


class Answer(_Plain):
    """The answer to an order."""

    kind: Kind
    host: str
    message: str = ""
    status: str = ""
    """The status of an order that failed."""
    result: Result = {}
    seconds: float | None = None
    made: float = 0.0
    cached: bool = False
    damaged: str = ""
    """The key of an input that is damaged."""
    spans: tuple[Span, ...] = ()
    log: str = ""


class BusyError(Exception):
    """Another maker makes the result."""


class _SpoiltError(StageError):
    """An input is gone from the cache, or damaged."""

    def __init__(self, key: str, how: str) -> None:
        super().__init__("lost", f"what was made as {key[:12]} is {how} the cache")
        self.key = key


class NodeProcess:
    """One process of a node. It does one order after another, and keeps a warm worker between them."""

    def __init__(self) -> None:
        self._engine: LocalEngine | None = None
        self._engine_of: tuple[Any, ...] = ()
        self._caches: dict[str, Cache] = {}
        self._seen: set[str] = set()
        """The runs whose folder, or address, was visible here."""
        self._stop: Stop | None = None

    def do(self, order: Order, node: str = "") -> Answer:
        """Do an order on the node with this id. An error becomes an answer; only the end of this process raises."""
        host = socket.gethostname()
        with scratch("node") as folder:
            log, stop = folder / "log.txt", Stop(folder / STOP)
            self._stop = stop
            with at_work(order.run, order.token, node) as still, _Watch(order.run, stop, still) as watch:
                try:
                    answer = Answer(kind="done", host=host, **self._done(order, log, stop, watch))
                except StageError as error:
                    said = {
                        "status": error.status,
                        "seconds": error.seconds,
                        "damaged": error.key if isinstance(error, _SpoiltError) else "",
                    }
                    answer = Answer(kind="failed", host=host, message=str(error), **said)
                except MachineError as error:
                    answer = Answer(kind="machine", host=host, message=f"host {host}: {error}")
                except Interrupted:
                    kind: Kind = "busy" if watch.taken and not watch.asked else "interrupted"
                    answer = Answer(kind=kind, host=host, message="another has taken it over" * (kind == "busy"))
                except BusyError as error:
                    answer = Answer(kind="busy", host=host, message=str(error))
                except OSError as error:
                    place = f"{error.filename}: " if error.filename else ""
                    answer = Answer(kind="machine", host=host, message=f"host {host}: {place}{error.strerror or error}")
                except Exception:  # noqa: BLE001 - the tuner shows it as a bug of ours
                    answer = Answer(kind="bug", host=host, message=redact(traceback.format_exc()))
            return answer.model_copy(update={"spans": self._spans(), "log": _tail(log)})

    def close(self) -> None:
        """End the worker."""
        if self._engine is not None:
            self._engine.pool.end()
            self._engine = None

    def _done(self, order: Order, log: Path, stop: Stop, watch: _Watch) -> dict[str, Any]:
        """Return the fields of the answer to an order that is done. Raises StageError, MachineError, Interrupted, BusyError."""
        if order.run not in self._seen:
            if why := trouble_of(order.run, SEEN_S):
                raise MachineError(why)
            self._seen.add(order.run)
        elif not is_store(order.run) and not Path(order.run).exists():
            raise Interrupted  # this process was suspended until the sweep had ended
        job = from_plain(order.job)
        _check_same(order, job)
        cache = self._cache_of(order)
        engine = self._engine_for(order)
        note_transfers(cache, engine.host)
        runner, limit = JobRunner(cache, engine, stop), math.inf if order.limit_s is None else order.limit_s
        used: list[Path] = []

        def place(key: str) -> Path:
            if key in order.there:
                found = bring(cache, order.there[key])
            elif key in order.again:
                made = resolved(from_plain(order.again[key]), place)
                found = cache.make(
                    made, lambda out: runner.run(made, out, log, limit), order.model, order.what, waiting
                ).path
            else:
                return _place(key, order.places, cache)
            used.append(found if found.is_dir() else found.parent)
            return found

        def waiting(maker: Maker | None, seconds: float) -> None:
            stop.check()
            if seconds > BUSY_S:
                raise BusyError(str(maker or "another process makes it"))

        for key in order.done_with:
            if (left := cache.locate(key)) is not None:
                cache.remove(left)
        job = resolved(brought(job, order.there, lambda where: bring(cache, where)), place)
        _check_inputs(job)
        stop.check()
        with in_use(cache, used):
            return self._did(order, job, cache, runner, log, limit, waiting, watch)

    def _did(
        self, order: Order, job: Job, cache: Cache, runner: JobRunner, log: Path, limit: float,
        waiting: Callable[[Maker | None, float], None], watch: _Watch,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the fields of the answer to an order whose inputs are here. Raises as `_done`."""
        if order.anew:
            if isinstance(job, TimeJob):
                result, seconds = runner.time(job, log, limit)
            else:
                result, seconds = self._engine_for(order).run_fresh(job, log, limit)
            return {"result": result, "seconds": seconds}

        ran = False

        def run(out: Path) -> tuple[Result, float]:
            nonlocal ran
            if ran:  # this order has lost its turn, and the other maker's result may have been removed since
                raise BusyError("another has taken it over")
            ran = True
            return runner.run(job, out, log, limit)

        stored: Stored = cache.make(
            job, run, order.model, order.what, waiting, order.token, order.lost, watch.watch
        )  # fmt: skip
        if order.publish and cache.shared is not None:
            cache.shared.offer(stored.folder, always=True, waiting=waiting)
        return {
            "result": stored.result, "seconds": stored.seconds, "made": stored.made, "cached": stored.cached,
        }  # fmt: skip

    def _cache_of(self, order: Order) -> Cache:
        if order.cache not in self._caches:
            if is_store(order.cache):
                self._caches[order.cache] = Cache(folder_of(order.cache), shared=SharedStore(order.cache))
            else:
                self._caches[order.cache] = Cache(Path(order.cache))
        return self._caches[order.cache]

    def _engine_for(self, order: Order) -> LocalEngine:
        """Return the engine of this process. It has a slot for each order of this size that fits on the host, with its share of
        the memory.
        """
        wanted = (order.cpus, order.memory_mb, order.offline, os.environ.get("CUDA_VISIBLE_DEVICES"))
        if self._engine is None or wanted != self._engine_of:
            self.close()
            engine = LocalEngine(order.offline, order.memory_mb, check=self._check)
            count = max(1, usable_processors() // order.cpus)
            engine.resize([Slot(threads=order.cpus)] * count)
            self._engine, self._engine_of = engine, wanted
        return self._engine

    def _check(self) -> None:
        if self._stop is not None:
            self._stop.check()

    def _spans(self) -> tuple[Span, ...]:
        spans = []
        while self._engine is not None and self._engine.host.intervals:
            one = self._engine.host.intervals.popleft()
            times = {"began": one.began, "ended": one.ended, "alone": one.alone}
            spans.append(Span(stage=one.stage, **times, result=one.result, moved_mb=one.moved_mb))
        return tuple(spans)


def appears(path: Path) -> bool:
    """Whether a path exists, or appears soon: clients of a shared folder see each other's files with a delay."""
    end = time.monotonic() + SEEN_S
    while not path.exists():
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # noqa: PTH208 - it makes a client of NFS look anew
        if path.exists():
            break
        if time.monotonic() > end or not path.parent.exists():
            return False
        time.sleep(0.2)
    return True


def from_anywhere(job: Job) -> Job:
    """Return a job with absolute paths, which are valid in any working directory. Empty paths stay empty."""

    def whole(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(whole, value))
        if isinstance(value, Job):
            return from_anywhere(value)
        return value.absolute() if isinstance(value, Path) and value != Path() else value

    return job.model_copy(update={name: whole(getattr(job, name)) for name in type(job).model_fields})


def _check_same(order: Order, job: Job) -> None:
    """Raise MachineError where this host would use another key, or is another kind of machine than the timed one."""
    if job.key != order.key:
        here = dict(job.described()["packages"])
        names = [name for name in dict.fromkeys([*order.packages, *here]) if here.get(name) != order.packages.get(name)]
        differ = ", ".join(f"{name} {here.get(name)} (the tuner: {order.packages.get(name)})" for name in names)
        what = differ or "another version of autotune"
        raise MachineError(f"it has {what}; install the same versions on all nodes")
    if any(one.machine != machine_digest() for one in timed_in(job)):
        raise MachineError("it is another kind of machine than the one whose latency is measured")


def _place(key: str, places: dict[str, str], cache: Cache) -> Path:
    """Return the path of the input with a key. A result of the cache is compared with its digest, once in each process.

    Raises StageError (`lost`) where a result is gone, or damaged.
    """
    if key in places:
        return Path(places[key])
    found = cache.locate(key)
    end = time.monotonic() + SEEN_S
    while found is None and time.monotonic() < end and cache.root.exists():
        time.sleep(0.2)
        found = cache.locate(key)
    if found is None or cache.find_key(found.parent.name, key) is None:
        raise _SpoiltError(key, "gone from" if found is None else "damaged in")
    return found


def _check_inputs(job: Job) -> None:
    """Raise MachineError where this host does not see an input of a job."""
    for one in job.graphs if isinstance(job, TurnsJob) else (job,):
        for name in type(one).model_fields:
            value = getattr(one, name)
            paths = value if isinstance(value, tuple) else (value,)
            for path in paths if name not in _OURS else ():
                if isinstance(path, Path) and path != Path() and not appears(path):
                    remedy = "put the model, the data and your own code into a folder that all nodes share"
                    raise MachineError(f"{path} is not seen there; {remedy}")


def _tail(log: Path) -> str:
    try:
        content = log.read_bytes()
    except OSError:
        return ""
    return content[-LOG_BYTES:].decode(errors="replace")


class _Watch:
    """Ends a training early when the sweep is to end, or another maker has taken over, and reports that the order is being done."""

    def __init__(self, run: str, stop: Stop, still: Callable[[], None]) -> None:
        """`run`: the folder or address of the run; `still`: the function that `at_work` yields."""
        self._run, self._stop, self._still = run, stop, still
        self._every_s = _WATCH_STORE_S if is_store(run) else _WATCH_S
        self.asked = self.taken = False
        """Whether the end was requested, and whether another maker has taken over."""
        self._turn: Turns | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def watch(self, turn: Turns) -> None:
        """Watch whether this turn is still ours, too."""
        self._turn = turn

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        said = time.monotonic()
        for _ in self._moments():
            if time.monotonic() - said >= BEAT_S:
                said = time.monotonic()
                self._still()
            with contextlib.suppress(OSError, MachineError):
                self.asked |= signed(self._run, STOP)
                self.taken |= self._turn is not None and not self._turn.still()
                if self.asked or self.taken:
                    self._stop.file.touch()

    def _moments(self) -> Iterator[None]:
        yield
        while not self._over.wait(self._every_s):
            yield
