"""Which node an order goes to: sound ones, those of a target's label as long as one is there, and near to what it reads."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from stages_for_tests import QuickTimeJob
from test_remote import HERE, Sweeping, Threads, cluster, in_time
from waiting import HANG_S

from autotune.errors import MachineError, StageError
from autotune.execution import remote, sent_call
from autotune.execution.cluster import Needs, Node
from autotune.execution.placing import Able, Absent, label_of, needs_of
from autotune.execution.ray_cluster import _load
from autotune.execution.remote import Listeners, Patience, RemoteExecutor
from autotune.stages.jobs import MergeJob, ScoreJob, TurnsJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Job

__all__ = ["cluster"]  # the fixture
SOUND = [Node("a", "host-a", HERE, 4.0), Node("b", "host-b", HERE, 4.0)]
BAD = Node("c", "host-c", HERE, 4.0, trouble="autotune cannot be run there")
TIMING = QuickTimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine=HERE, processes=1, most=1)


def test_an_order_goes_anywhere_while_all_nodes_are_sound() -> None:
    assert needs_of(TinyJob(), SOUND, 2.0, 0.0, {}) == Needs(2.0)
    assert needs_of(TinyJob(), SOUND, 2.0, 0.0, {}, near="b") == Needs(2.0, near="b")


def test_with_a_node_in_trouble_an_order_goes_to_the_sound_node_that_has_least_to_do() -> None:
    assert needs_of(TinyJob(), [*SOUND, BAD], 2.0, 0.0, {"a": 2, "b": 1}) == Needs(2.0, node="b")
    assert needs_of(TinyJob(), [BAD, replace(SOUND[0], cpus=1.0)], 2.0, 0.0, {}) is None  # none is large enough
    head = replace(BAD, cpus=0.0)  # it gets no orders anyway
    assert needs_of(TinyJob(), [*SOUND, head], 2.0, 0.0, {}) == Needs(2.0)


def test_which_needs_some_node_can_meet() -> None:
    able = Able([SOUND[0], replace(SOUND[1], cpus=8.0, resources={"phone": 1.0})])
    assert able.some(Needs(4.0))
    assert able.some(Needs(4.0, near="gone"))
    assert able.some(Needs(8.0, resources={"phone": 0.001}))
    assert not able.some(Needs(8.0, resources={"tablet": 0.001}))
    assert not able.some(Needs(9.0))
    assert able.some(Needs(4.0, node="a"))
    assert not able.some(Needs(8.0, node="a"))  # another has them
    assert not able.some(Needs(1.0, node="gone"))


@pytest.mark.parametrize("job", [TIMING, TurnsJob(graphs=(TIMING,))])
def test_the_label_is_that_of_what_is_timed(job: Job) -> None:
    labelled = TIMING.model_copy(update={"label": "phone"})
    update = {"graphs": (labelled,)} if isinstance(job, TurnsJob) else {"label": "phone"}
    assert label_of(job) is None
    assert label_of(job.model_copy(update=update)) == "phone"
    assert label_of(MergeJob(adapter="a", base="b")) is None


def test_since_when_a_label_is_absent() -> None:
    absent, phone = Absent(), replace(SOUND[0], resources={"phone": 1.0})
    assert absent.seconds("phone", [phone]) == 0.0
    first = absent.seconds("phone", SOUND)
    assert absent.seconds("phone", [replace(phone, trouble="ill")]) >= first
    assert absent.seconds("phone", [phone]) == 0.0
    assert absent.seconds("phone", []) < 1.0  # counted anew


# --- in an executor --------------------------------------------------------------------------------------------------


def test_a_node_that_joins_with_a_trouble_gets_no_order(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    cluster.there.append(BAD)
    sweeping.executor._looked = -math.inf
    sweeping(TinyJob(seed=0))  # it is seen
    before = len(cluster.orders)
    sweeping.ended(*(sweeping.submit(TinyJob(seed=seed)) for seed in range(1, 7)))
    assert {node for *_, node in cluster.orders[before:]} == {"a", "b"}
    assert f"node {BAD} has joined, but {BAD.trouble}" in sweeping.said


def test_an_order_that_a_node_got_before_its_trouble_was_known_is_done_elsewhere(
    tmp_path: Path, cluster: Threads
) -> None:
    sweeping = Sweeping(tmp_path, cluster)

    def act(job: Job, out: Path) -> None:
        if BAD not in cluster.there:
            cluster.there.append(BAD)
            raise MachineError("a package is missing there")

    cluster.act = act
    assert not sweeping(TinyJob()).cached
    assert len(cluster.orders) == 2
    assert any("is done again, for host" in line for line in sweeping.said)


def test_a_node_that_leaves_without_a_word_costs_another_attempt(tmp_path: Path, cluster: Threads) -> None:
    """It is stopped, or cut off: the cluster notices that it has left, and nothing comes back of what it does."""
    sweeping, told = Sweeping(tmp_path, cluster), list[tuple[str, str]]()
    sweeping.executor = RemoteExecutor(
        cluster,
        sweeping.artifacts,
        sweeping.executor.run,
        listeners=Listeners(sweeping.said.append, at=lambda *one: told.append(one)),
    )
    begun, over = threading.Event(), threading.Event()

    def act(job: Job, out: Path) -> None:
        first = not begun.is_set()
        begun.set()
        if first:
            assert over.wait(HANG_S)
        (out / "who").write_text("first" if first else "second", encoding="utf-8")

    cluster.act = act
    future = sweeping.submit(TinyJob())
    assert begun.wait(HANG_S)
    cluster.there = [node for node in cluster.there if node.id != cluster.orders[0][2]]
    sweeping.ended(future)
    assert (future.result().path / "who").read_text(encoding="utf-8") == "second"
    over.set()
    cluster.threads[0].join(HANG_S)
    sweeping.executor.wait([Future()])  # its late answer counts no more
    assert (future.result().path / "who").read_text(encoding="utf-8") == "second"
    assert len(cluster.orders) == 2
    assert cluster.afresh == 1  # what it held of the node that has left is of no use
    assert any("is done again, for its node" in line for line in sweeping.said)
    assert told[0] == ("abc", socket.gethostname())
    assert not list(sweeping.executor.run.glob("at-*"))


@pytest.mark.parametrize("when", ["before it left", "after it left"])
def test_an_order_that_never_began_on_a_node_that_has_left_is_sent_again(
    tmp_path: Path, cluster: Threads, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had reached a node that was stopped: nobody says that it has begun, nor that it is lost."""
    monkeypatch.setattr(sent_call, "BEGIN_S", 0.2)
    sweeping, sent = Sweeping(tmp_path, cluster), cluster.send
    if when == "after it left":
        cluster.there = cluster.there[:1]
        sweeping.executor._looked = -math.inf
        sweeping.executor._look()
    lost: list[int] = []
    cluster.send = lambda order, text, needs: lost.append(order)  # type: ignore[method-assign]
    future = sweeping.submit(TinyJob())
    cluster.send = in_time(sent, "BEGIN_S", monkeypatch)  # type: ignore[method-assign]
    assert lost == [0]
    assert not cluster.orders
    cluster.there = cluster.there[:1]
    sweeping.ended(future)
    assert not future.result().cached
    ((order, _, node),) = cluster.orders
    assert (order.lost, node) == ((), "a")


def test_the_trouble_of_a_sound_node_still_ends_the_sweep(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)

    def act(job: Job, out: Path) -> None:
        raise MachineError("the disk is full")

    cluster.act = act
    with pytest.raises(MachineError, match="the disk is full"):
        sweeping(TinyJob())


@pytest.mark.parametrize("kind", ["time", "score"])
def test_jobs_of_a_label_that_no_node_has_are_lost_for_this_time(tmp_path: Path, cluster: Threads, kind: str) -> None:
    """The last node of a phone leaves while its job waits; others are done meanwhile, and it is done when one is there again."""
    phone = Node("p", "phone", HERE, 4.0, resources={"phone": 1.0})
    cluster.there = [*SOUND, phone]
    sweeping = Sweeping(tmp_path, cluster)
    sweeping.executor = RemoteExecutor(
        cluster,
        sweeping.artifacts,
        sweeping.executor.run,
        patience=Patience(gone_s=0.2),
        listeners=Listeners(sweeping.said.append),
    )
    score = ScoreJob(
        source="s", provider="cpu", data="d", metric="choice", max_length=8, model_dir=tmp_path, data_file=tmp_path, label="phone",
    )  # fmt: skip
    job: Job = TIMING.model_copy(update={"label": "phone"}) if kind == "time" else score
    assert sweeping.executor.missing("phone") == ""
    cluster.there = list(SOUND)
    sweeping.executor._looked = -math.inf
    assert sweeping.executor.missing("phone") == "no node of the cluster has the resource phone"
    cluster.send = lambda *_: None  # type: ignore[method-assign] - Ray waits for a node that has what is asked for
    future = sweeping.submit(job)
    sweeping.ended(future)
    with pytest.raises(StageError, match=f"{kind}: no node of the cluster has the resource phone") as raised:
        future.result()
    assert raised.value.status == "lost"
    assert sweeping.executor.missing(None) == ""
    del cluster.send  # type: ignore[method-assign]
    cluster.there.append(phone)
    sweeping.executor._looked = -math.inf
    assert sweeping.executor.missing("phone") == ""
    sweeping(job)
    assert cluster.orders[-1][1].resources or cluster.orders[-1][2] == "p"


def test_without_other_targets_a_job_waits_for_its_label(tmp_path: Path, cluster: Threads) -> None:
    sweeping = Sweeping(tmp_path, cluster)
    future = sweeping.submit(TIMING.model_copy(update={"label": "phone"}))
    for _ in range(5):
        sweeping.executor.wait([future])
    assert not future.done()
    assert sweeping.said == ["time waits for a node of the kind that models are timed on"]


def test_the_load_that_counts_is_that_of_the_nodes_that_time(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.there = [*SOUND, Node("p", "phone", "a phone", 4.0, resources={"phone": 1.0})]
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(Threads, "foreign_cpu", lambda self, nodes: asked.append(nodes) or 1.5, raising=False)
    monkeypatch.setattr(remote, "machine_digest", lambda: "the tuner")
    executor = Sweeping(tmp_path, cluster).executor
    executor.machine_of()
    executor.machine_of("phone")
    assert executor.foreign_cpu("phone", False) == executor.foreign_cpu(None, False) == 1.5
    assert asked == [["p"], ["a", "b"]]


def test_a_node_says_how_busy_others_keep_it() -> None:
    assert 0.0 <= _load() < 1000.0
