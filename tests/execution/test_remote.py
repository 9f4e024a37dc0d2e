"""Orders to the nodes of a cluster, which are threads here: what is booked, what is tried again, and who wins."""

from __future__ import annotations

import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import inputs_in, make_sweep
from s3_server import BUCKET, serving
from stages_for_tests import QuickTimeJob, TroubleJob
from waiting import HANG_S

from autotune.artifacts import makers, shared_store
from autotune.artifacts.shared_store import SharedStore
from autotune.artifacts.store import Cache, Stored
from autotune.costs.model import CostModel
from autotune.errors import Interrupted, MachineError, StageError
from autotune.execution import executor, remote, sent_call
from autotune.execution import node as node_module
from autotune.execution.cluster import QUIET, Needs, Node, Reply, cpus_each, kind_to_time, to_time, width_of
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.local import LocalEngine
from autotune.execution.node import Answer, NodeProcess, Order, from_anywhere
from autotune.execution.remote import ATTEMPTS, Listeners, RemoteExecutor
from autotune.execution.runs import run_folder
from autotune.execution.sent_call import SentCall
from autotune.execution.stop import Stop
from autotune.execution.timeouts import Timeouts
from autotune.execution.worker import from_plain, to_plain
from autotune.machine import machine_digest
from autotune.pipeline.graph import Graph, base_candidate
from autotune.remote.objects import Objects
from autotune.stages.jobs import MergeJob, ScoreJob, TimeJob, TurnsJob
from autotune.stages.preparation_jobs import DevicesJob, MetricJob, TinyJob
from autotune.stages.protocol import Call, Job, Result

HERE = machine_digest()
Act = Callable[[Job, Path], None]


class InProcess(LocalEngine):
    """An engine that calls a function."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        log.write_text(f"did {job.stage} in at most {timeout} s\n", encoding="utf-8")
        with self.host.shared(job.stage):
            self.act(job, out)
        return {"answer": 42}, 30.0

    def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        return {"fresh": job.stage}, 3.0


class Worker(NodeProcess):
    """A process of a node, whose engine is a function."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act

    def _engine_for(self, order: Order) -> LocalEngine:
        self._engine = InProcess(self.act)
        return self._engine


class Threads:
    """A cluster whose nodes are threads of this process; orders go to its nodes by turns, unless one is named."""

    def __init__(self, *nodes: Node) -> None:
        self.there = list(nodes or (Node("a", "host-a", HERE, 4.0), Node("b", "host-b", HERE, 4.0)))
        self.act: Act = lambda job, out: None
        self.orders: list[tuple[Order, Needs, str]] = []
        self.replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self.lost: set[str] = set()
        self.gone = False
        self.afresh = 0
        self.threads: list[threading.Thread] = []

    def nodes(self) -> Sequence[Node]:
        if self.gone:
            raise MachineError("the cluster is gone")
        return [node for node in self.there if node.id not in self.lost]

    def idle(self) -> Mapping[str, Mapping[str, float]]:
        return {}

    def use_others(self) -> None:
        self.afresh += 1

    def send(self, order: int, text: str, needs: Needs) -> None:
        there = self.nodes()
        node = needs.node or there[len(self.orders) % len(there)].id
        self.orders.append((Order.model_validate_json(text), needs, node))

        def do() -> None:
            reply = Worker(self.act).do(Order.model_validate_json(text), node).model_dump_json()
            if node not in self.lost:
                self.replies.put(Reply(order, reply))

        self.threads.append(threading.Thread(target=do, daemon=True))
        self.threads[-1].start()

    def lose(self, order: int, node: str) -> None:
        """Lose a node that does an order; it works on."""
        self.lost.add(node)
        self.replies.put(Reply(order, lost=f"node {node} is dead"))

    def reply(self, patience_s: float) -> Reply | None:
        try:
            return self.replies.get(timeout=patience_s) if patience_s else self.replies.get_nowait()
        except queue.Empty:
            return None


class Sweeping:
    """An executor over such a cluster."""

    def __init__(self, folder: Path, cluster: Threads, **more: Any) -> None:
        self.cluster, self.said = cluster, list[str]()
        self.cache = Cache(folder / "cache")
        self.artifacts = ClusterStages(self.cache, "model", **more)
        self.executor = RemoteExecutor(
            cluster, self.artifacts, run_folder(self.cache), listeners=Listeners(self.said.append)
        )
        self.log = folder / "out" / "logs" / "abc.log"

    def submit(self, job: Job, timeout: float | None = None, anew: bool = False) -> Future[Stored]:
        return self.executor.submit(Call(job, timeout, anew), self.log)

    def ended(self, *futures: Future[Stored]) -> None:
        while not all(future.done() for future in futures):
            self.executor.wait([future for future in futures if not future.done()])

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        future = self.submit(job, timeout, anew)
        self.ended(future)
        return future.result()


def in_time(
    send: Callable[[int, str, Needs], None], limit: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, str, Needs], None]:
    """Return a `send` whose orders are in time, however long they take: it takes away a short limit of `sent_call`."""

    def sent(order: int, text: str, needs: Needs) -> None:
        monkeypatch.setattr(sent_call, limit, math.inf)
        send(order, text, needs)

    return sent


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Threads]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setattr(node_module, "SEEN_S", 0.3)
    monkeypatch.setattr(remote, "_NODES_S", 0.05)
    monkeypatch.setattr(remote, "_BUSY_AGAIN_S", 0.05)
    found = Threads()
    yield found
    for thread in found.threads:
        thread.join(timeout=HANG_S)


def test_a_call_is_done_there_and_booked_here(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster, timeouts=Timeouts(CostModel(), {"tiny": 77.0}))
    cluster.act = lambda job, out: (out / "file").write_text("made", encoding="utf-8") and None
    stored = sweeping(TinyJob())
    assert (stored.path / "file").read_text(encoding="utf-8") == "made"
    assert (stored.result, stored.seconds, stored.cached) == ({"answer": 42}, 30.0, False)
    assert sweeping.artifacts.spent_s == 30.0
    assert sweeping.log.read_text(encoding="utf-8").endswith("did tiny in at most 77.0 s\n")
    (span,) = sweeping.executor.intervals
    assert (span.stage, span.alone) == ("tiny", False)
    assert span.host
    ((order, needs, _),) = cluster.orders
    assert order.what == f"abc in {tmp_path.resolve() / 'out'}"
    assert needs == Needs(4.0)
    assert sweeping(TinyJob()).cached
    assert len(cluster.orders) == 1
    assert not list(sweeping.cache.root.glob("tiny/*.maker"))


def test_two_calls_of_one_job_are_one_order(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    futures = [sweeping.submit(TinyJob()) for _ in range(3)]
    sweeping.ended(*futures)
    assert [future.result().cached for future in futures] == [False, True, True]
    assert len(cluster.orders) == 1
    assert sweeping(TinyJob(), anew=True).result == {"fresh": "tiny"}


def test_a_lost_node_costs_another_attempt_and_its_own_result_is_left(tmp_path: Path, cluster: Threads) -> None:
    """The first node is cut off, goes on, and is done after the second has begun: what it made is dropped."""
    sweeping = Sweeping(tmp_path, cluster)
    lost, second = threading.Event(), threading.Event()
    asides: list[Path] = []

    def act(job: Job, out: Path) -> None:
        asides.append(out)
        first = len(asides) == 1
        (out / "who").write_text("first" if first else "second", encoding="utf-8")
        if first:
            lost.set()
            assert second.wait(HANG_S)
        else:
            second.set()
            cluster.threads[0].join(HANG_S)

    cluster.act = act
    future = sweeping.submit(TinyJob())
    assert lost.wait(HANG_S)
    cluster.lose(0, cluster.orders[0][2])
    sweeping.ended(future)
    assert (future.result().path / "who").read_text(encoding="utf-8") == "second"
    assert not future.result().cached
    first, again = (order for order, *_ in cluster.orders)
    assert again.lost == (first.token,)
    assert cluster.orders[0][2] != cluster.orders[1][2]
    assert any(line.startswith("tiny ") and "is done again" in line for line in sweeping.said)
    assert sorted(path.suffix for path in (sweeping.cache.root / "tiny").iterdir()) == ["", ".lock", ".use"]


def test_what_a_lost_node_had_finished_is_not_done_again(tmp_path: Path, cluster: Threads) -> None:
    sweeping, done = Sweeping(tmp_path, cluster), list[Path]()
    cluster.act = lambda job, out: done.append(out)
    future = sweeping.submit(TinyJob())
    node = cluster.orders[0][2]
    cluster.threads[0].join(HANG_S)
    cluster.replies.get()  # its answer gets lost
    cluster.lose(0, node)
    sweeping.ended(future)
    assert future.result().cached
    assert len(done) == 1


def test_a_call_that_loses_every_node_is_lost_for_this_time(tmp_path: Path, cluster: Threads) -> None:
    cluster.there = [Node(str(n), f"host-{n}", HERE, 4.0) for n in range(ATTEMPTS + 1)]
    sweeping, begun = Sweeping(tmp_path, cluster), queue.SimpleQueue[None]()
    over = threading.Event()

    def act(job: Job, out: Path) -> None:
        begun.put(None)
        over.wait(HANG_S)

    cluster.act = act
    future = sweeping.submit(TinyJob())
    for attempt in range(ATTEMPTS):
        while len(cluster.orders) == attempt:
            sweeping.executor.wait([future])
        begun.get(timeout=HANG_S)
        cluster.lose(attempt, cluster.orders[attempt][2])
    sweeping.ended(future)
    over.set()
    with pytest.raises(StageError, match=f"{ATTEMPTS} nodes were lost") as raised:
        future.result()
    assert raised.value.status == "lost"


MAKING = """
import sys
from pathlib import Path
from autotune.artifacts.store import Cache
from autotune.stages.preparation_jobs import TinyJob
def run(out):
    print("making", flush=True)
    sys.stdin.readline()
    return {"answer": 7}, 5.0
Cache(Path(sys.argv[1])).make(TinyJob(), run, what="abc in /results/theirs")
"""


def test_who_finds_another_maker_leaves_the_node_to_others(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "BUSY_S", 0.05)
    monkeypatch.setattr(makers, "_POLL_S", 0.05)
    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    sweeping, pipe = Sweeping(tmp_path, cluster), subprocess.PIPE
    arguments = [sys.executable, "-c", MAKING, str(sweeping.cache.root)]
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "making\n"
        future = sweeping.submit(TinyJob())
        while len(cluster.orders) < 3:
            sweeping.executor.wait([future])
        other.communicate("\n")
    sweeping.ended(future)
    assert (future.result().result, future.result().cached) == ({"answer": 7}, True)
    (line,) = [line for line in sweeping.said if line.startswith("waiting")]
    assert f"process {other.pid} makes it since" in line


def test_what_goes_wrong_there_is_raised_here(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    for trouble, kind, words in (
        (StageError("diverged", "the loss became nan"), StageError, "the loss became nan"),
        (MachineError("the disk is full"), MachineError, r"host .*: the disk is full"),
        (OSError(28, "No space left on device", "/cache/x"), MachineError, r"host .*: /cache/x: No space left"),
        (Interrupted(), Interrupted, "interrupted"),
        (ZeroDivisionError("oh"), RuntimeError, r"(?s)tiny .* on .*ZeroDivisionError: oh"),
    ):

        def act(job: Job, out: Path, trouble: BaseException = trouble) -> None:
            raise trouble

        cluster.act = act
        with pytest.raises(kind, match=words) as raised:
            sweeping(TinyJob())
        if isinstance(raised.value, StageError):
            assert raised.value.status == "diverged"
    cluster.act = lambda job, out: None
    assert not sweeping(TinyJob()).cached


def test_a_node_with_other_packages_or_without_the_files_is_named(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    sent = cluster.send

    def changed(**fields: Any) -> Callable[[int, str, Needs], None]:
        return lambda n, text, needs: sent(
            n, Order.model_validate_json(text).model_copy(update=fields).model_dump_json(), needs
        )

    packages = TinyJob().described()["packages"]
    for fields, words in (
        ({"key": "0" * 64, "packages": packages | {"torch": "1.0"}}, r"host .*: it has torch .* \(the tuner: 1.0\)"),
        ({"key": "0" * 64}, "another version of autotune"),
        (
            {"run": str(tmp_path / "nowhere" / "x")},
            "it does not see .*nowhere.*: AUTOTUNE_CACHE must name a folder that all nodes share, or a store",
        ),
        ({"job": to_plain(TroubleJob(pid_file="x"))}, r"it has torch None \(the tuner: "),
    ):
        monkeypatch.setattr(cluster, "send", changed(**fields))
        with pytest.raises(MachineError, match=words):
            sweeping(TinyJob())
    monkeypatch.setattr(cluster, "send", sent)
    job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine=HERE, model_dir=tmp_path / "not there"
    )
    with pytest.raises(MachineError, match=r"not there is not seen there; put the model"):
        sweeping(job)


def test_a_damaged_input_is_made_again(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    cluster.act = lambda job, out: (out / "file").write_text("made", encoding="utf-8") and None
    source = sweeping(TinyJob())
    (source.path / "file").write_text("rust", encoding="utf-8")  # of the same size
    job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine=HERE, build=TinyJob().key, processes=1, most=1
    )
    with pytest.raises(StageError, match="is damaged in the cache") as raised:
        sweeping(job)
    assert raised.value.status == "lost"  # it is tried again
    assert not sweeping(TinyJob()).cached


def test_timings_go_to_the_kind_that_they_are_of_and_wait_for_it(tmp_path: Path, cluster: Threads) -> None:
    cluster.there = [
        Node("a", "host-a", "other", 8.0),
        Node("b", "host-b", HERE, 2.0, resources={QUIET: 1.0}),
        Node("c", "host-c", HERE, 8.0),
    ]
    sweeping = Sweeping(tmp_path, cluster)
    assert sweeping.executor.machine_of() == HERE
    with pytest.raises(MachineError, match=r"target.label: no node of the cluster has the resource phone"):
        sweeping.executor.machine_of("phone")
    job = QuickTimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine=HERE, processes=1, most=1)
    assert sweeping(job).result["processes"] == [{"fresh": "time"}]
    assert cluster.orders[-1][1:] == (Needs(2.0, resources={QUIET: 1.0}, node="b"), "b")
    assert [span.alone for span in sweeping.executor.intervals] == [True]
    elsewhere = job.model_copy(update={"machine": "a phone"})
    future = sweeping.submit(elsewhere)
    for _ in range(3):
        sweeping.executor.wait([future])
    assert not future.done()
    assert sweeping.said == ["time waits for a node of the kind that models are timed on"]
    sweeping.executor.close()
    with pytest.raises(Interrupted):
        future.result()


def test_what_runs_on_a_device_goes_to_nodes_that_have_it(tmp_path: Path, cluster: Threads) -> None:
    cluster.there = [Node("a", "host-a", HERE, 4.0), Node("b", "host-b", "a phone", 4.0, resources={"phone": 1.0})]
    sweeping = Sweeping(tmp_path, cluster)
    assert sweeping.executor.machine_of("phone") == "a phone"
    score = ScoreJob(
        source="s", provider="webgpu", data="d", metric="choice", max_length=8, model_dir=tmp_path, data_file=tmp_path,
        label="phone",
    )  # fmt: skip
    sweeping(score)
    sweeping(score.model_copy(update={"provider": "cpu"}))
    sweeping(score.model_copy(update={"provider": "cuda", "label": None}))
    sweeping(DevicesJob(provider="webgpu", label="phone"), anew=True)
    sweeping(DevicesJob(provider="cuda"), anew=True)
    assert [(needs.resources, needs.gpus) for _, needs, _ in cluster.orders] == [
        ({"phone": 0.001}, 0.0),
        ({"phone": 0.001}, 0.0),
        ({}, 1.0),
        ({"phone": 0.001}, 0.0),
        ({}, 1.0),
    ]
    cluster.there = [Node("c", "host-c", HERE, 4.0, 1.0)]
    timing = QuickTimeJob(graph="g", provider="cuda", prompt_tokens=8, new_tokens=4, machine=HERE, processes=1, most=1)
    Sweeping(tmp_path / "other", cluster)(timing)
    assert cluster.orders[-1][1].gpus == 1.0


def test_targets_of_one_provider_have_a_label_each(tmp_path: Path, cluster: Threads) -> None:
    cluster.there = [
        Node("a", "host-a", HERE, 4.0, resources={QUIET: 1.0}),
        Node("b", "host-b", HERE, 4.0, resources={"phone": 1.0}),
        Node("c", "host-c", "a tablet", 4.0, resources={"tablet": 1.0}),
        Node("d", "host-d", HERE, 4.0),
    ]
    sweeping = Sweeping(tmp_path, cluster)
    targets = {"laptop": {"provider": "cpu"}, "phone": {"provider": "cpu", "label": "phone"},
               "tablet": {"provider": "cpu", "label": "tablet"}}  # fmt: skip
    sweep = make_sweep(strategy="random", targets=targets)
    for name, node in (("laptop", "a"), ("phone", "b"), ("tablet", "c")):
        one = sweep.targets[name]
        machine = sweeping.executor.machine_of(one.target.label)
        graph = Graph(one, replace(inputs_in(tmp_path / name), machine=machine))
        timing = graph.time_job(base_candidate(one.space.recipes, one.provider), "build", "signature")
        needs = sweeping.executor._needs(SentCall(Call(timing), tmp_path, Future(), 1.0))
        assert needs is not None
        assert needs.node == node
        assert timing.label == one.target.label
        plain = timing.model_copy(update={"label": None})
        assert plain.key == timing.key  # what is in the cache holds
    assert sweeping.executor.described().endswith("timed on host-a, host-b, host-c")


def test_what_needs_a_gpu_is_timed_where_one_is(tmp_path: Path, cluster: Threads) -> None:
    cluster.there = [
        Node("a", "head", HERE, 4.0),
        Node("b", "host-b", "a server", 4.0, 1.0),
        Node("c", "host-c", "a phone", 4.0, resources={"phone": 1.0}),
    ]
    sweeping = Sweeping(tmp_path, cluster)
    assert (sweeping.executor.machine_of(), sweeping.executor.machine_of(gpu=True)) == (HERE, "a server")
    with pytest.raises(MachineError, match=r"target.label: no node of the cluster has the resource phone and a GPU"):
        sweeping.executor.machine_of("phone", gpu=True)
    cluster.there = cluster.there[:1]
    with pytest.raises(MachineError, match=r"target.provider: no node of the cluster has a GPU; start one with"):
        Sweeping(tmp_path / "other", cluster).executor.machine_of(gpu=True)


def test_a_job_that_no_node_can_do_says_what_it_waits_for(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    cluster.send = lambda order, text, needs: None  # type: ignore[method-assign]
    future = sweeping.submit(DevicesJob(provider="webgpu", label="phone"), anew=True)
    time.sleep(0.06)
    for _ in range(3):
        sweeping.executor.wait([future])
    assert sweeping.said == ["devices waits for a node that has 4 processors, the resource phone"]
    sweeping.executor.close()
    sweeping.executor.wait([future])
    with pytest.raises(Interrupted):
        future.result(0)


def test_only_the_wait_for_another_maker_counts(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order may wait for a node for longer than its stage may take: it is not given up where it then finds another maker."""
    sweeping = Sweeping(tmp_path, cluster, timeouts=Timeouts(CostModel(), {"tiny": 60.0}))
    future = sweeping.submit(TinyJob())
    reply = cluster.replies.get()
    later = time.monotonic() + 3600
    monkeypatch.setattr(remote.time, "monotonic", lambda: later)
    busy = Answer(kind="busy", host="host-a", message="process 1 on host-c makes it")
    cluster.replies.put(Reply(reply.order, busy.model_dump_json()))
    sweeping.executor.wait([future])
    assert not future.done()
    monkeypatch.undo()


def test_a_training_that_another_takes_over_ends_no_sweep(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node was cut off for too long, so that a node of another sweep has the turn now: its result is awaited."""
    monkeypatch.setattr(node_module, "_WATCH_S", 0.02)
    sweeping, turns = Sweeping(tmp_path, cluster), list[int]()

    class TakenOver(Worker):
        def _engine_for(self, order: Order) -> LocalEngine:
            engine, own = super()._engine_for(order), self._stop

            def act(job: Job, out: Path) -> None:
                turns.append(1)
                if len(turns) > 1:
                    return
                number, _ = makers.newest(sweeping.cache.folder(job))
                following = sweeping.cache.folder(job).with_name(f"{job.key}.{number + 1}.maker")
                following.write_text("{}", encoding="utf-8")
                assert own is not None
                while not own.asked:
                    time.sleep(0.01)
                following.unlink()  # the other ends without a result
                raise Interrupted

            assert isinstance(engine, InProcess)
            engine.act = act
            return engine

    monkeypatch.setattr(sys.modules[__name__], "Worker", TakenOver)
    assert sweeping(TinyJob()).result == {"answer": 42}
    assert len(turns) == 2


def test_the_end_is_asked_for_on_the_nodes(tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "_WATCH_S", 0.02)
    stop = Stop(tmp_path / "stop")
    sweeping, begun = Sweeping(tmp_path, cluster, stop=stop), threading.Event()

    class Asked(Worker):
        def _engine_for(self, order: Order) -> LocalEngine:
            engine, own = super()._engine_for(order), self._stop

            def act(job: Job, out: Path) -> None:
                begun.set()
                assert own is not None
                while not own.asked:
                    time.sleep(0.01)
                raise Interrupted

            assert isinstance(engine, InProcess)
            engine.act = act
            return engine

    monkeypatch.setattr(sys.modules[__name__], "Worker", Asked)
    future = sweeping.submit(TinyJob())
    assert begun.wait(HANG_S)
    stop.file.touch()  # Ctrl-C
    sweeping.ended(future)
    with pytest.raises(Interrupted):
        future.result()
    with pytest.raises(Interrupted):
        sweeping(TinyJob(seed=1))


def test_a_cluster_that_is_gone_ends_the_calls_with_a_clear_word(tmp_path: Path, cluster: Threads) -> None:
    sweeping, over = Sweeping(tmp_path, cluster), threading.Event()
    cluster.act = lambda job, out: over.wait(HANG_S) and None
    futures = [sweeping.submit(TinyJob(seed=seed)) for seed in range(2)]
    cluster.gone = True
    sweeping.ended(*futures)
    over.set()
    for future in futures:
        with pytest.raises(MachineError, match="the cluster is gone"):
            future.result()


def test_no_node_that_can_do_a_job_is_the_machines_trouble(tmp_path: Path, cluster: Threads) -> None:
    cluster.there = [Node("a", "host-a", "", 4.0, trouble="autotune cannot be imported there")]
    with pytest.raises(MachineError, match="host host-a: autotune cannot be imported there"):
        Sweeping(tmp_path, cluster)
    cluster.there = [Node("a", "head", "", 0.0, trouble="autotune cannot be imported there")]
    with pytest.raises(MachineError, match="the cluster has no node with processors"):
        Sweeping(tmp_path, cluster)
    cluster.there.append(Node("b", "host-b", HERE, 2.0))
    assert Sweeping(tmp_path, cluster).executor.width == 1


def test_nodes_that_come_and_go_are_told_and_counted(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    assert sweeping.executor.width == 2
    cluster.there = [cluster.there[0], Node("c", "host-c", HERE, 9.0)]
    time.sleep(0.06)
    sweeping(TinyJob())
    assert sweeping.said == ["node host-c (c) has joined", "node host-b (b) has left"]
    assert sweeping.executor.width == 3


def test_which_nodes_time_and_how_many_jobs_they_do() -> None:
    a, b = Node("a", "a", "m1", 4.0), Node("b", "b", "m2", 16.0)
    quiet = Node("c", "c", "m2", 2.0, resources={QUIET: 1.0})
    bad = Node("d", "d", "m3", 64.0, trouble="no")
    phone = Node("e", "e", "m4", 4.0, resources={"phone": 1.0})
    assert kind_to_time([a, b], "m1") == "m1"
    assert kind_to_time([a, b, quiet], "m1") == "m2"
    assert kind_to_time([a, b, Node("f", "f", "m2", 1.0)], "elsewhere") == "m2"
    assert kind_to_time([bad], "m3") == kind_to_time([], "m1") == ""
    assert kind_to_time([a, phone], "m1", "phone") == "m4"
    assert to_time([a, b, quiet], "m2") == [quiet]
    assert to_time([a, phone], "m4", "phone") == [phone]
    assert to_time([a, phone], "m1", "phone") == []
    assert [cpus_each([a, b], *given) for given in ((None, 4), (2, 4), (8, 4), (None, 2))] == [4, 2, 1, 2]
    assert [width_of(nodes, 4) for nodes in ([a, b], [a, bad], [quiet], [])] == [5, 1, 1, 1]


def test_paths_of_a_job_are_found_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    job = MetricJob(metric="own:metric", code="c", file=Path("own.py"))
    whole = from_anywhere(job)
    assert whole == job.model_copy(update={"file": tmp_path / "own.py"})
    assert whole.key == job.key
    empty = MergeJob(adapter="a", base="b")
    assert from_anywhere(empty) == empty
    time_job = QuickTimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", model_dir=Path("x"))
    turns = from_anywhere(TurnsJob(graphs=(time_job,)))
    assert isinstance(turns, TurnsJob)
    assert turns.graphs == (time_job.model_copy(update={"model_dir": tmp_path / "x"}),)
    assert type(turns.graphs[0]) is QuickTimeJob


def test_jobs_go_through_plain_text_whole(tmp_path: Path) -> None:
    time_job = QuickTimeJob(
        graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", lengths=((8, 4), (4, 2)),
        model_dir=tmp_path, begun=({"itl_ms": [1.0]},), build="b",
    )  # fmt: skip
    turns = TurnsJob(graphs=(time_job, time_job.model_copy(update={"graph": "h"})), may_leave=(1,))
    for job in (time_job, turns, TinyJob(changes={"a": [1]})):
        order = Order(
            job=to_plain(job), key=job.key, packages={}, cache="c", run="r", places={}, token="t"
        ).model_dump_json()
        again = from_plain(Order.model_validate_json(order).job)
        assert again == job
        assert again.key == job.key
        assert type(again) is type(job)
    assert isinstance(turns.graphs[0], TimeJob)
    assert os.fspath(turns.graphs[0].model_dir) == str(tmp_path)


# --- inputs in a store -----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "home"))
    monkeypatch.setattr(shared_store, "MAKER_S", 1e6)
    with serving():
        yield f"s3://{BUCKET}/inputs"


def sending(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Call a function while the first file is sent to the store."""
    put, begun = Objects.put, list[str]()

    def first(self: Objects, file: Path, name: str) -> None:
        if not begun:
            begun.append(name)
            meanwhile()
        put(self, file, name)

    monkeypatch.setattr(Objects, "put", first)


def weights(out: Path) -> tuple[Result, float]:
    (out / "weights").write_bytes(b"1")
    return {}, 1.0


@pytest.mark.parametrize("kind", ["result", "files"])
def test_who_sends_the_input_that_is_waited_for_is_told_and_ctrl_c_ends_the_wait(
    tmp_path: Path, cluster: Threads, store: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Else a tuner that was killed while it sent an input would stop the next one for a minute, without a word."""
    monkeypatch.setattr(executor, "PATIENCE_S", -1.0)
    cache, other = (Cache(tmp_path / name, shared=SharedStore(store)) for name in ("cache", "other"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "genai_config.json").write_text("{}", encoding="utf-8")
    made = [one.make(TinyJob(), weights).folder for one in (cache, other)]
    artifacts = ClusterStages(cache, "model", stop=Stop(tmp_path / "stop"))
    said: list[str] = []
    found: list[BaseException | None] = []

    def say(line: str) -> None:
        said.append(line)
        (tmp_path / "stop").touch()  # Ctrl-C

    ours = RemoteExecutor(cluster, artifacts, run_folder(cache), listeners=Listeners(say))
    where = made[0] if kind == "result" else tmp_path / "model"
    job = QuickTimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine=HERE, model_dir=where)

    def meanwhile() -> None:
        found.append(ours.submit(Call(job), tmp_path / "out" / "logs" / "abc.log").exception(timeout=0))

    sending(monkeypatch, meanwhile)
    assert other.shared is not None
    if kind == "result":
        other.shared.offer(made[1], always=True)
    else:
        other.put_inputs({"genai_config.json": tmp_path / "model" / "genai_config.json"})
    assert isinstance(found[0], Interrupted)
    (line,) = said
    what = f"tiny {TinyJob().key[:8]}" if kind == "result" else str(tmp_path / "model")
    began = f"waiting for {what} in the shared cache: process {os.getpid()} makes it since "
    assert line.startswith(began)
    assert "for the shared cache; if it was killed, this goes on at 20" in line
    assert line.endswith("; Ctrl-C ends the wait")
    assert not cluster.orders


def test_a_node_whose_result_is_being_sent_already_frees_itself(
    tmp_path: Path, cluster: Threads, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "BUSY_S", -1.0)
    other = Cache(tmp_path / "other", shared=SharedStore(store))
    folder = other.make(TinyJob(), weights).folder
    tiny, answers = TinyJob(), list[Answer]()
    order = Order(
        job=to_plain(tiny), key=tiny.key, packages=tiny.described()["packages"], cache=store, publish=True, token="t",
        run=str(run_folder(Cache(tmp_path / "runs"))), places={},
    )  # fmt: skip
    sending(monkeypatch, lambda: answers.append(Worker(lambda job, out: None).do(order)))
    assert other.shared is not None
    other.shared.offer(folder, always=True)
    assert answers[0].kind == "busy", answers[0].message
    assert f"process {os.getpid()} makes it since" in answers[0].message
    assert Worker(lambda job, out: None).do(order).kind == "done"
