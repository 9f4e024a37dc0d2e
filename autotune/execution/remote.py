"""The executor on a cluster. One thread, the scheduler's in `wait`, sends orders, receives answers and books them.

An order whose node is lost gets another attempt on another node. The earlier attempt is then void: if its node comes back,
another maker has its turn (`artifacts/makers.py`), and its result is dropped.

It is one module because sending, looking and booking are about the same calls.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from autotune.artifacts.makers import Maker
from autotune.artifacts.shared_store import HERE as STAYS
from autotune.artifacts.store import Stored
from autotune.errors import AutotuneError, Interrupted, MachineError, StageError, stage_status
from autotune.execution.cluster import (
    Cluster,
    Needs,
    Node,
    Reply,
    cpus_each,
    how_to_start,
    in_words,
    kind_to_time,
    lacking,
    to_time,
    width_of,
)
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.executor import PATIENCE_S, telling, waited_enough
from autotune.execution.host_lock import Interval
from autotune.execution.node import Answer, Order, appears, from_anywhere
from autotune.execution.order_inputs import SentInputs, in_folder, inputs_of
from autotune.execution.placing import Able, Absent, has_room, label_of, needs_of, timed_in
from autotune.execution.protocol import follow
from autotune.execution.runs import STOP, nodes_at_work, run_place, sign
from autotune.execution.sent_call import SentCall
from autotune.execution.worker import to_plain
from autotune.execution.workers import CORES_EACH
from autotune.machine import machine_digest
from autotune.stages.protocol import Call

ATTEMPTS = 5
"""The most attempts at a call whose nodes are lost one after another; then its candidate is lost in this run."""
_POLL_S = 0.5
_NODES_S = 5.0
"""Seconds between two looks at the nodes."""
_LOADS = 16
"""The most nodes that are asked for their load at once."""
_BUSY_AGAIN_S = 2.0
"""An order that found another maker at work is sent again after so many seconds."""


@dataclass(frozen=True)
class NodeJobs:
    """How nodes do the jobs of a sweep."""

    at_once: int | None = None
    """Jobs that one node does at once; None: one for every four processors."""
    memory_mb: float | None = None
    """The memory of one job, 10^6 bytes; None: no limit."""
    offline: bool = True
    """Whether the sweep names nothing on the network."""


@dataclass(frozen=True)
class Patience:
    """How long a job may wait."""

    left_s: Callable[[], float] = lambda: math.inf
    """As in `Stages`."""
    gone_s: float = math.inf
    """A target's jobs are lost in this run after so many seconds without a node that has its label."""


@dataclass(frozen=True)
class Listeners:
    """The functions that are called while jobs are done."""

    say: Callable[[str], None] = lambda _: None
    """With messages about nodes."""
    still: Callable[[], None] = lambda: None
    """Now and then during a wait."""
    at: Callable[[str, str], None] = lambda *_: None
    """With the id of a job's candidate and the host that does the job."""


class RemoteExecutor:
    """An executor over a cluster. It belongs to one thread."""

    def __init__(
        self,
        cluster: Cluster,
        artifacts: ClusterStages,
        run: Path,
        jobs: NodeJobs = NodeJobs(),
        patience: Patience = Patience(),
        listeners: Listeners = Listeners(),
    ) -> None:
        """`run`: a folder in the cache, from `run_folder`. Raises MachineError where a node with processors cannot do a job."""
        self.cluster, self.artifacts = cluster, artifacts
        self._jobs, self._patience, self._listeners, self._absent = jobs, patience, listeners, Absent()
        self._made_on: dict[str, str] = {}  # by key, the node of a result that stays where it was made
        self._timed: set[tuple[str, str | None, bool]] = set()  # results of `machine_of` with its arguments
        self.intervals: deque[Interval] = deque()
        """The stages that have ended on nodes, in the order of their reports; the reader removes them."""
        self.run = run
        shared = artifacts.cache.shared
        self._sent_inputs = None if shared is None else SentInputs(artifacts.cache, self._waits_for)
        self._run_at = run_place(artifacts.cache, run)
        self._numbers = itertools.count()
        self._sent: dict[int, SentCall] = {}
        self._under_way: dict[str, Future[Stored]] = {}
        self._later: list[tuple[float, SentCall]] = []  # orders to send again, and when
        self._nodes: list[Node] = []
        self._some_ill = False  # whether some node can do no job
        self._left: set[str] = set()  # the ids of nodes that have left
        self._unheard: Counter[str] = Counter()  # by node, its orders without a report since its last one
        self._closed, self._looked, self._listened = False, -math.inf, time.monotonic()
        self._look()
        if troubles := [f"host {node.host}: {node.trouble}" for node in self._nodes if node.trouble and node.cpus >= 1]:
            said = "; ".join(dict.fromkeys(troubles))
            raise MachineError(f"{said}; `autotune doctor --engine ray` looks at all nodes")
        if not any(node.cpus >= 1 for node in self._nodes):
            raise MachineError("the cluster has no node with processors; add one, then run the same command again")
        self.cpus = cpus_each(self._nodes, jobs.at_once, CORES_EACH)  # processors of one job

    # --- an executor -------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """How many calls the present nodes can do at once."""
        return width_of(self._nodes, self.cpus)

    @property
    def parked(self) -> int:
        """Always 0: a timing that waits for its host does not keep other hosts from beginning a job."""
        return 0

    def machine_of(self, label: str | None = None, gpu: bool = False) -> str:
        """Return the digest of the machines that time models, with the label and a GPU if asked. Raises MachineError."""
        if lack := lacking(self._nodes, label, gpu):
            raise MachineError(f"target.{'label' if label else 'provider'}: {lack}; {how_to_start(label, gpu)}")
        machine = kind_to_time(self._nodes, machine_digest(), label, gpu)
        self._timed.add((machine, label, gpu))
        return machine

    def missing(self, label: str | None, gpu: bool = False) -> str:
        """Return a sentence about the label or GPU that no node has now; empty where one has it, or none is needed."""
        self._look()
        return lacking(self._nodes, label, gpu) if label or gpu else ""

    def foreign_cpu(self, label: str | None, gpu: bool) -> float:
        """Return how many cores other programs keep busy on the busiest of the nodes that time a target's models."""
        able = {node.id for one in self._timed if one[1:] == (label, gpu) for node in to_time(self._nodes, *one)}
        return self.cluster.foreign_cpu(sorted(able)[:_LOADS])

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes at the last look."""
        return self._nodes

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return int(sum(node.gpus for node in self._nodes))

    def described(self) -> str:
        """Return a description of the cluster."""
        asked = self._timed or {(self.machine_of(), None, False)}
        timed = {node.host for one in asked for node in to_time(self._nodes, *one)}
        return in_words(self._nodes, self.width, timed)

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Submit a call; its output goes to `log`. The future may raise StageError, MachineError, UsageError, Interrupted."""
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
        sent = SentCall(call, log, future, limit_s)
        sent.first = not call.anew and self.artifacts.costs.first(call.job.stage)
        self._send(sent)
        return future

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """Wait until one of the futures is done and all present answers are booked, at most half a second."""
        self._listeners.still()
        patience_s = _POLL_S
        if self.artifacts.stop is not None and self.artifacts.stop.asked:
            sign(self._run_at, STOP)  # trainings end between two steps
        while patience_s == 0.0 or not any(future.done() for future in futures):
            self._look()
            self._send_again()
            if (reply := self.cluster.reply(patience_s)) is None:
                return
            self._take(reply)
            patience_s = 0.0

    def close(self) -> None:
        """Start no further call: orders that no node has begun end, and trainings keep a checkpoint and end."""
        self._closed, self._looked = True, -math.inf
        with contextlib.suppress(MachineError):  # a store that does not answer: nodes end with their driver
            sign(self._run_at, STOP)
        waiting, self._later = self._later, []
        for _, sent in waiting:
            self._end(sent, Interrupted())

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send(self, sent: SentCall) -> None:
        """Send an order, or delay it until a node can do it."""
        if self._closed:
            self._end(sent, Interrupted())
            return
        stage, label = sent.call.job.stage, label_of(sent.call.job)
        if label and self._absent.seconds(label, self._nodes) > self._patience.gone_s:
            self._end(sent, StageError("lost", f"{stage}: {self.missing(label)}"))
            return
        if (needs := self._needs(sent)) is None:
            self._tell_once(sent, f"{stage} waits for a node of the kind that models are timed on")
            self._later.append((time.monotonic() + _NODES_S, sent))
            return
        sent.begin(next(self._numbers), needs)
        self._sent[sent.number] = sent
        job, artifacts = from_anywhere(sent.call.job), self.artifacts
        try:
            where = in_folder(artifacts) if self._sent_inputs is None else self._sent_inputs.fields(job, artifacts)
        except (AutotuneError, OSError) as error:
            self._end(self._sent.pop(sent.number), error)
            return
        order = Order(
            job=to_plain(job), key=job.key, packages=job.described()["packages"], run=self._run_at, **where, model=artifacts.model, what=artifacts.what(sent.log),
            limit_s=sent.limit_s if math.isfinite(sent.limit_s) else None, anew=sent.call.anew,
            token=sent.token, lost=tuple(sent.lost), cpus=self.cpus, memory_mb=self._jobs.memory_mb, offline=self._jobs.offline,
        )  # fmt: skip
        self.cluster.send(sent.number, order.model_dump_json(), needs)

    def _waits_for(self, what: str) -> Callable[[Maker | None, float], None]:
        """Return a function to call while another process puts `what` into the store."""
        tell = telling(what, self._listeners.say, self.artifacts.stop)

        def wait(maker: Maker | None, seconds: float) -> None:
            self._listeners.still()
            tell(maker, seconds)

        return wait

    def _needs(self, sent: SentCall) -> Needs | None:
        """Return the resources that an order needs of its node; None: no present node has them."""
        taken: Counter[str] = Counter()
        if timed_in(sent.call.job) or self._some_ill:  # else the cluster finds a node itself
            taken = Counter(other.node for other in self._sent.values()) + self._unheard
        near = next(filter(None, (self._made_on.get(key, "") for key in inputs_of(sent.call.job))), "")
        return needs_of(sent.call.job, self._nodes, float(self.cpus), self._jobs.memory_mb or 0.0, taken, near)

    def _send_again(self) -> None:
        now = time.monotonic()
        due = [sent for when, sent in self._later if when <= now]
        self._later = [(when, sent) for when, sent in self._later if when > now]
        for sent in due:
            self._send(sent)

    def _look(self) -> None:
        """Look at the nodes, every few seconds, and report which came and went. Raises MachineError where the cluster is gone."""
        if time.monotonic() - self._looked < _NODES_S:
            return
        self._looked = time.monotonic()
        # While this process is suspended it hears no node: that time does not count as silence of the nodes.
        passed_s, self._listened = min(self._looked - self._listened, 2 * _NODES_S), self._looked
        before = {node.id: node for node in self._nodes}
        try:
            self._nodes = list(self.cluster.nodes())
        except MachineError as error:  # the cluster is gone: nothing comes back any more
            if not self._sent and not self._later:
                raise
            waiting = [*self._sent.values(), *(sent for _, sent in self._later)]
            self._closed, self._later, self._sent = True, [], {}
            for sent in waiting:
                self._end(sent, error)
            return
        self._some_ill = any(node.trouble for node in self._nodes)
        now = {node.id for node in self._nodes}
        self._left = (self._left | before.keys()) - now
        self._listen(passed_s, bool(before.keys() - now))
        if before:
            for node in (node for node in self._nodes if node.id not in before):
                self._listeners.say(f"node {node} has joined" + (f", but {node.trouble}" if node.trouble else ""))
            for node in (node for one, node in before.items() if one not in now):
                self._listeners.say(f"node {node} has left")
        able = Able(self._nodes)
        for sent in list(self._sent.values()):
            if able.some(sent.needs):
                continue
            label = label_of(sent.call.job)
            if label and self._absent.seconds(label, self._nodes) > self._patience.gone_s:
                why = f"{sent.call.job.stage}: {self.missing(label)}"
                self._end(self._sent.pop(sent.number), StageError("lost", why))
                continue
            if self._closed:  # nobody would begin it
                self._end(self._sent.pop(sent.number), Interrupted())
            elif not sent.needs.node:
                self._tell_once(sent, f"{sent.call.job.stage} waits for a node that has {sent.needs}")

    def _listen(self, passed_s: float, some_left: bool) -> None:
        """Read the nodes' reports on their orders, and send again the orders that are lost. `passed_s`: seconds since the last
        time; `some_left`: whether a node was found gone just now.
        """
        said, idle, before = nodes_at_work(self._run_at), None, len(self._later)
        for sent in list(self._sent.values()):
            if said is not None and sent.hear(said.get(sent.token), passed_s):
                self._listeners.at(sent.log.stem, sent.host)
            if sent.said is not None and not sent.quiet_s:
                self._unheard.pop(sent.node, None)
            if sent.node in self._left:
                # Ray reports nothing for minutes about orders on a node that was cut off or suspended.
                self._again_elsewhere(self._sent.pop(sent.number), f"its node, {sent.node[:6]}, has left")
            elif sent.silent:
                self._unheard[sent.node] += 1
                why = f"nothing was heard of it from {sent.host} for {sent.quiet_s:.0f} s"
                self._again_elsewhere(self._sent.pop(sent.number), why)
            elif not sent.begun and not sent.node and (some_left or (sent.stuck and self._left)):
                # It has not begun: it waits for a node, or lies on the one that has left. If both attempts begin after all, one
                # of the two finds the other's result, or the other at work.
                self._send_anew(sent)
            elif sent.stuck and sent.unbegun < ATTEMPTS:
                idle = self.cluster.idle() if idle is None else idle
                if has_room(sent.call.job, sent.needs, self._nodes, idle):
                    self._unheard[sent.node] += 1
                    sent.unbegun += 1
                    self._send_anew(sent)
        if some_left or len(self._later) > before:
            self.cluster.use_others()

    def _send_anew(self, sent: SentCall) -> None:
        """Send an order again that has not begun."""
        del self._sent[sent.number]
        self._later.append((time.monotonic(), sent))

    def _tell_once(self, sent: SentCall, line: str) -> None:
        if not sent.waits:
            sent.waits = True
            self._listeners.say(line)

    # --- taking ------------------------------------------------------------------------------------------------------

    def _take(self, reply: Reply) -> None:
        if (sent := self._sent.pop(reply.order, None)) is None:
            return
        if reply.trouble and self._unsound(reply.node):
            self._again_elsewhere(sent, reply.trouble)
            return
        if reply.trouble:
            self._end(sent, MachineError(reply.trouble))
            return
        if reply.lost:
            self._again_elsewhere(sent, reply.lost)
            return
        answer = Answer.model_validate_json(reply.text)
        self._note(sent, answer)
        job, key = sent.call.job, sent.call.job.key
        match answer.kind:
            case "done":
                if self._sent_inputs is not None and job.stage in STAYS:
                    self._made_on[key] = reply.node
                self._done(sent, answer)
            case "busy":
                self._busy(sent, answer.message)
            case "interrupted":
                self._end(sent, Interrupted())
            case "failed":
                if answer.damaged:
                    self.artifacts.cache.doubt(answer.damaged)
                error = StageError(stage_status(answer.status), answer.message)
                error.seconds = answer.seconds
                self._end(sent, error)
            case "machine" if self._unsound(reply.node):
                self._again_elsewhere(sent, answer.message)
            case "machine":
                self._end(sent, MachineError(answer.message))
            case "bug":
                self._end(sent, RuntimeError(f"{job.stage} {key[:12]} on {answer.host}: {answer.message}"))

    def _unsound(self, node: str) -> bool:
        """Whether an order went to an unusable node that has joined since the start; `node`: its id, empty if unknown."""
        self._looked = -math.inf
        self._look()
        sound = {one.id for one in self._nodes if not one.trouble}
        return bool(sound) and (node not in sound if node else len(sound) < len(self._nodes))

    def _done(self, sent: SentCall, answer: Answer) -> None:
        call, cache, seconds = sent.call, self.artifacts.cache, answer.seconds or 0.0
        try:
            self.artifacts.guard.check()  # a result is void if the sweep's inputs changed meanwhile
            if call.anew:
                stored = Stored(Path(), *self.artifacts.taken(call.job, answer.result, seconds), cached=False)
            else:
                afar = cache if cache.shared is not None else None
                stored = Stored(cache.folder(call.job), answer.result, seconds, answer.cached, answer.made, afar)
                if afar is None:
                    if not appears(stored.path / "manifest.json"):
                        what = f"what host {answer.host} has put into the cache, {cache.root},"
                        raise MachineError(f"{what} is not seen here")
                    cache.trust(stored)
                self.artifacts.made(call.job, stored, sent.first)
        except (AutotuneError, OSError) as error:
            self._end(sent, error)
            return
        self._forget(call)
        sent.future.set_result(stored)

    def _note(self, sent: SentCall, answer: Answer) -> None:
        """Append an order's output to its log, and note its intervals."""
        for span in answer.spans:
            copied = span.result, span.moved_mb
            self.intervals.append(Interval(span.stage, span.began, span.ended, span.alone, answer.host, *copied))
        if answer.log:
            sent.log.parent.mkdir(parents=True, exist_ok=True)
            with sent.log.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(f"--- on {answer.host}\n{answer.log}")

    def _again_elsewhere(self, sent: SentCall, why: str) -> None:
        sent.lost.append(sent.token)
        if len(sent.lost) >= ATTEMPTS:
            what = f"{sent.call.job.stage}: {len(sent.lost)} nodes were lost, the last: {why}"
            self._end(sent, StageError("lost", what))
            return
        self._listeners.say(f"{sent.call.job.stage} {sent.call.job.key[:8]} is done again, for {why}")
        self._looked = -math.inf  # it may be gone
        self._later.append((time.monotonic(), sent))

    def _busy(self, sent: SentCall, who: str) -> None:
        # Time spent waiting for a node, or on a node that was lost, does not count.
        sent.busy_since = sent.busy_since or time.monotonic()
        job, waited = sent.call.job, time.monotonic() - sent.busy_since
        if waited > PATIENCE_S:
            self._tell_once(sent, f"waiting for the result of {job.stage}: {who}; Ctrl-C ends the wait")
        try:
            waited_enough(job, waited, sent.limit_s, self._patience.left_s(), who)
        except StageError as error:
            self._end(sent, error)
        else:
            self._later.append((time.monotonic() + _BUSY_AGAIN_S, sent))

    def _end(self, sent: SentCall, error: BaseException) -> None:
        self._forget(sent.call)
        sent.future.set_exception(error)

    def _forget(self, call: Call) -> None:
        if not call.anew:
            self._under_way.pop(call.job.key, None)
