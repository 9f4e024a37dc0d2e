"""Calls done by the nodes of a cluster. One thread sends orders, takes answers, and books them: the scheduler's own, in `wait`.

A node that is lost costs its orders another attempt, on another node. The attempt before is then over, whatever became of
it: should it come back, another maker has its turn (`artifacts/makers.py`), and its result is left.
"""

from __future__ import annotations

import itertools
import math
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from autotune.artifacts.store import HERE, RUN, Cache, Stored
from autotune.errors import AutotuneError, Interrupted, MachineError, StageError, stage_status
from autotune.execution.cluster import QUIET, Cluster, Needs, Node, Reply, cpus_each, kind_to_time, to_time, width_of
from autotune.execution.executor import PATIENCE_S, waited_enough
from autotune.execution.host_lock import Interval
from autotune.execution.node import STOP, Answer, Order, appears, from_anywhere
from autotune.execution.protocol import Blocking, follow
from autotune.execution.sweep_artifacts import SweepArtifacts
from autotune.execution.worker import to_plain
from autotune.execution.workers import CORES_EACH, needs_gpu
from autotune.machine import machine_digest
from autotune.providers import NVIDIA
from autotune.stages.jobs import Call, DeviceJob, DevicesJob, Job, ProbeJob, Result, TimeJob, TurnsJob

ATTEMPTS = 5
"""Attempts at a call whose nodes are lost, one after another; then it is the candidate that is lost, for this time."""
_POLL_S = 0.5
_NODES_S = 5.0
"""How often the nodes are looked at."""
_SOME = 0.001
"""Of a resource that says what a node has, and is not used up."""
_BUSY_AGAIN_S = 2.0
"""After so long an order is sent again that found another maker at work."""


@dataclass(eq=False)
class _Flight:
    """A call under way."""

    number: int
    call: Call
    log: Path
    future: Future[Stored]
    limit_s: float
    token: str = ""
    lost: list[str] = field(default_factory=list)
    first: bool = False
    node: str = ""
    needs: Needs = field(default_factory=Needs)
    busy_since: float | None = None  # since when another makes its result, by the monotonic clock
    waits: bool = False  # whether the user was told that it waits


def run_folder(cache: Cache) -> Path:
    """Make a folder for one run of the command in the cache that nodes share; return it. Raises OSError."""
    run = cache.root / f"{RUN}{uuid.uuid4().hex}"
    run.mkdir(parents=True)
    (run / HERE).write_text(cache.leases.id, encoding="utf-8")
    return run


class RemoteExecutor:
    """An executor over a cluster. It belongs to one thread."""

    def __init__(
        self,
        cluster: Cluster,
        artifacts: SweepArtifacts,
        run: Path,
        at_once: int | None = None,
        memory_mb: float | None = None,
        offline: bool = True,
        say: Callable[[str], None] = lambda _: None,
        still: Callable[[], None] = lambda: None,
        left_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`run`: a folder in the cache, from `run_folder`. `at_once`: jobs that one node does at once; None: one for every four processors. `memory_mb`: of one job, 10^6 bytes.
        `say` is told what becomes of nodes; `still` is called now and then while somebody waits; `left_s` as in `Stages`.
        Raises MachineError where a node with processors cannot do a job.
        """
        self.cluster, self.artifacts = cluster, artifacts
        self._at_once, self._memory_mb, self._offline = at_once, memory_mb, offline
        self._say, self._still, self._left_s = say, still, left_s
        self._timed: set[tuple[str, str | None, bool]] = set()  # what `machine_of` has returned, and for what
        self.intervals: deque[Interval] = deque()
        """What ran on the nodes, in the order in which it was reported; whoever reads them takes them out."""
        self.run = run
        self._numbers = itertools.count()
        self._flights: dict[int, _Flight] = {}
        self._under_way: dict[str, Future[Stored]] = {}
        self._later: list[tuple[float, _Flight]] = []  # orders to send again, and when
        self._nodes: list[Node] = []
        self._closed, self._looked = False, -math.inf
        self._look()
        if troubles := [f"host {node.host}: {node.trouble}" for node in self._nodes if node.trouble and node.cpus >= 1]:
            said = "; ".join(dict.fromkeys(troubles))
            raise MachineError(f"{said}; `autotune doctor --engine ray` looks at all nodes")
        if not any(node.cpus >= 1 for node in self._nodes):
            raise MachineError("the cluster has no node with processors; add one, then run the same command again")
        self.cpus = cpus_each(self._nodes, at_once, CORES_EACH)  # processors of one job

    # --- an executor -------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """How many calls can be done at once, by the nodes that are there now."""
        return width_of(self._nodes, self.cpus)

    @property
    def parked(self) -> int:
        """None: a timing that waits for one host keeps no other from beginning a job."""
        return 0

    def machine_of(self, label: str | None = None, gpu: bool = False) -> str:
        """Return the digest of the machines that models are timed on: with the label and a GPU, if asked. Raises MachineError."""
        machine = kind_to_time(self._nodes, machine_digest(), label, gpu)
        if not machine:
            wanted = ([f"the resource {label}"] if label else []) + ["a GPU"] * gpu
            remedy = f"`ray start --resources '{{\"{label}\": 1}}'`" if label else "`ray start`"
            what = f"no node of the cluster has {' and '.join(wanted) or 'processors'}; start one with {remedy}"
            raise MachineError(f"target.{'label' if label else 'provider'}: {what}{' on a machine with a GPU' * gpu}")
        self._timed.add((machine, label, gpu))
        return machine

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes that were there when they were last looked at."""
        return self._nodes

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(node.gpus for node in self._nodes))

    def described(self) -> str:
        """Return in words what there is."""
        sound = [node for node in self._nodes if not node.trouble]
        hosts = Counter(node.host for node in sound)
        named = ", ".join(host + (f" ({count})" if count > 1 else "") for host, count in sorted(hosts.items())[:8])
        more = ", ..." if len(hosts) > 8 else ""
        asked = self._timed or {(self.machine_of(), None, False)}
        timed = sorted({node.host for one in asked for node in to_time(self._nodes, *one)})
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        what = f"{len(sound)} nodes: {named}{more}; {int(sum(node.cpus for node in sound))} processors{gpus}"
        return f"{what}; {self.width} jobs at once; timed on {', '.join(timed[:4])}{', ...' if len(timed) > 4 else ''}"

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Do a call, with what it prints going to `log`. The future may raise StageError, MachineError, UsageError, Interrupted."""
        future: Future[Stored] = Future()
        future.set_running_or_notify_cancel()
        if not call.anew:
            if (before := self._under_way.get(call.job.key)) is not None:
                before.add_done_callback(lambda done: follow(future, done))
                return future
            self._under_way[call.job.key] = future
        try:
            found = None if call.anew else self.artifacts.find(call.job)
            if found is None:
                if self._closed:
                    raise Interrupted
                self.artifacts.guard.check()
                limit_s = self.artifacts.admit(call.job, call.timeout)
        except (AutotuneError, OSError) as error:
            self._forget(call)
            future.set_exception(error)
            return future
        if found is not None:
            self._forget(call)
            future.set_result(found)
            return future
        flight = _Flight(next(self._numbers), call, log, future, limit_s)
        flight.first = not call.anew and self.artifacts.costs.first(call.job.stage)
        self._send(flight)
        return future

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """Return when one of the futures is done, or after half a second."""
        self._still()
        patience_s = _POLL_S
        if self.artifacts.stop is not None and self.artifacts.stop.asked:
            (self.run / STOP).touch()  # trainings end between two steps
        while not any(future.done() for future in futures):
            self._look()
            self._send_again()
            if (reply := self.cluster.reply(patience_s)) is None:
                return
            self._take(reply)
            patience_s = 0.0

    def close(self) -> None:
        """Begin no call any more: orders that no node has begun end, and trainings keep a checkpoint and end."""
        self._closed, self._looked = True, -math.inf
        (self.run / STOP).touch()
        waiting, self._later = self._later, []
        for _, flight in waiting:
            self._end(flight, Interrupted())

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self, flight: _Flight) -> None:
        """Send an order, or put it off until there is a node that can do it."""
        if self._closed:
            self._end(flight, Interrupted())
            return
        if (needs := self._needs(flight)) is None:
            stage = flight.call.job.stage
            self._tell_once(flight, f"{stage} waits for a node of the kind that models are timed on")
            self._later.append((time.monotonic() + _NODES_S, flight))
            return
        flight.token, flight.node, flight.needs = uuid.uuid4().hex, needs.node, needs
        self._flights[flight.number] = flight
        job, artifacts = flight.call.job, self.artifacts
        order = Order(
            job=to_plain(from_anywhere(job)), key=job.key, packages=job.described()["packages"], cache=str(artifacts.cache.root.resolve()),
            run=str(self.run.resolve()), places={key: str(place.resolve()) for key, place in artifacts.places.items()},
            model=artifacts.model, what=artifacts.what(flight.log),
            limit_s=flight.limit_s if math.isfinite(flight.limit_s) else None, anew=flight.call.anew,
            token=flight.token, lost=tuple(flight.lost), cpus=self.cpus, memory_mb=self._memory_mb, offline=self._offline,
        )  # fmt: skip
        self.cluster.send(flight.number, order.model_dump_json(), needs)

    def _needs(self, flight: _Flight) -> Needs | None:
        """Return what an order takes of its node; None: no node there will do."""
        job = flight.call.job
        timed = job.graphs if isinstance(job, TurnsJob) else (job,) if isinstance(job, TimeJob) else ()
        on = timed[0] if timed else job
        device = isinstance(on, DeviceJob | DevicesJob)
        provider, label = (getattr(on, name, None) if device else None for name in ("provider", "label"))
        gpu = needs_gpu(job) or provider in NVIDIA or (isinstance(job, ProbeJob) and self.gpus > 0)
        needs = Needs(float(self.cpus), float(gpu), self._memory_mb or 0.0, {label: _SOME} if label else {})
        if not timed:
            return needs
        able = to_time(self._nodes, timed[0].machine, label, gpu)
        if not able:
            return None
        taken = Counter(other.node for other in self._flights.values())
        node = min(able, key=lambda one: (taken[one.id], one.id))
        resources = {QUIET: 1.0} if node.resources.get(QUIET) else {}
        return Needs(min(needs.cpus, node.cpus), float(gpu), needs.memory_mb, resources, node.id)

    def _send_again(self) -> None:
        now = time.monotonic()
        due = [flight for when, flight in self._later if when <= now]
        self._later = [(when, flight) for when, flight in self._later if when > now]
        for flight in due:
            self._send(flight)

    def _look(self) -> None:
        """Look at the nodes, now and then, and say which came and went. Raises MachineError where the cluster is gone."""
        if time.monotonic() - self._looked < _NODES_S:
            return
        self._looked = time.monotonic()
        before = {node.id: node for node in self._nodes}
        try:
            self._nodes = list(self.cluster.nodes())
        except MachineError as error:  # the cluster is gone: nothing comes back any more
            if not self._flights and not self._later:
                raise
            waiting = [*self._flights.values(), *(flight for _, flight in self._later)]
            self._closed, self._later, self._flights = True, [], {}
            for flight in waiting:
                self._end(flight, error)
            return
        now = {node.id for node in self._nodes}
        if before:
            for node in (node for node in self._nodes if node.id not in before):
                self._say(f"node {node} has joined" + (f", but {node.trouble}" if node.trouble else ""))
            for node in (node for one, node in before.items() if one not in now):
                self._say(f"node {node} has left")
        for flight in list(self._flights.values()):
            if any(map(flight.needs.met_by, self._nodes)):
                continue
            if self._closed:  # nobody would begin it
                self._end(self._flights.pop(flight.number), Interrupted())
            elif not flight.needs.node:
                self._tell_once(flight, f"{flight.call.job.stage} waits for a node that has {flight.needs}")

    def _tell_once(self, flight: _Flight, line: str) -> None:
        if not flight.waits:
            flight.waits = True
            self._say(line)

    # --- taking ------------------------------------------------------------------------------------------------------

    def _take(self, reply: Reply) -> None:
        if (flight := self._flights.pop(reply.order, None)) is None:
            return
        if reply.trouble:
            self._end(flight, MachineError(reply.trouble))
            return
        if reply.lost:
            self._again_elsewhere(flight, reply.lost)
            return
        answer = Answer.model_validate_json(reply.text)
        self._note(flight, answer)
        job, key = flight.call.job, flight.call.job.key
        match answer.kind:
            case "done":
                self._done(flight, answer)
            case "busy":
                self._busy(flight, answer.message)
            case "interrupted":
                self._end(flight, Interrupted())
            case "failed":
                if answer.damaged:
                    self.artifacts.cache.doubt(answer.damaged)
                error = StageError(stage_status(answer.status), answer.message)
                error.seconds = answer.seconds
                self._end(flight, error)
            case "machine":
                self._end(flight, MachineError(answer.message))
            case "bug":
                self._end(flight, RuntimeError(f"{job.stage} {key[:12]} on {answer.host}: {answer.message}"))

    def _done(self, flight: _Flight, answer: Answer) -> None:
        call, cache, seconds = flight.call, self.artifacts.cache, answer.seconds or 0.0
        try:
            self.artifacts.guard.check()  # what was made while the sweep's inputs changed is void
            if call.anew:
                stored = Stored(Path(), *self.artifacts.taken(call.job, answer.result, seconds), cached=False)
            else:
                stored = Stored(cache.folder(call.job), answer.result, seconds, answer.cached, answer.made)
                if not appears(stored.path / "manifest.json"):
                    what = f"what host {answer.host} has put into the cache, {cache.root},"
                    raise MachineError(f"{what} is not seen here")
                cache.trust(stored)
                self.artifacts.made(call.job, stored, flight.first)
        except (AutotuneError, OSError) as error:
            self._end(flight, error)
            return
        self._forget(call)
        flight.future.set_result(stored)

    def _note(self, flight: _Flight, answer: Answer) -> None:
        """Keep what an order printed, and when it ran."""
        for span in answer.spans:
            self.intervals.append(Interval(span.stage, span.began, span.ended, span.alone, answer.host))
        if answer.log:
            flight.log.parent.mkdir(parents=True, exist_ok=True)
            with flight.log.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(f"--- on {answer.host}\n{answer.log}")

    def _again_elsewhere(self, flight: _Flight, why: str) -> None:
        flight.lost.append(flight.token)
        if len(flight.lost) >= ATTEMPTS:
            what = f"{flight.call.job.stage}: {len(flight.lost)} nodes were lost, the last: {why}"
            self._end(flight, StageError("lost", what))
            return
        self._say(f"{flight.call.job.stage} {flight.call.job.key[:8]} is done again, for {why}")
        self._looked = -math.inf  # it may be gone
        self._later.append((time.monotonic(), flight))

    def _busy(self, flight: _Flight, who: str) -> None:
        # What it has waited for a node, or was done by one that is lost, does not count.
        flight.busy_since = flight.busy_since or time.monotonic()
        job, waited = flight.call.job, time.monotonic() - flight.busy_since
        if waited > PATIENCE_S:
            self._tell_once(flight, f"waiting for the result of {job.stage}: {who}; Ctrl-C ends the wait")
        try:
            waited_enough(job, waited, flight.limit_s, self._left_s(), who)
        except StageError as error:
            self._end(flight, error)
        else:
            self._later.append((time.monotonic() + _BUSY_AGAIN_S, flight))

    def _end(self, flight: _Flight, error: BaseException) -> None:
        self._forget(flight.call)
        flight.future.set_exception(error)

    def _forget(self, call: Call) -> None:
        if not call.anew:
            self._under_way.pop(call.job.key, None)


class ClusterStages(SweepArtifacts):
    """What a sweep on a cluster knows of its jobs. A call of it waits for the executor that it is given."""

    blocking: Blocking

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        """Return the stored result of a job. Raises as the executor's futures do."""
        return self.blocking(job, timeout, anew)

    def again(self, job: TimeJob) -> tuple[Result, float]:
        """Time once more, whatever the cache holds. Raises as a call does."""
        return self.alone(job)

    def alone(self, job: Job, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job in a process of its own, and keep nothing. Raises as a call does."""
        stored = self.blocking(job, timeout, anew=True)
        return stored.result, stored.seconds
