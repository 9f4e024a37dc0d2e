"""Orders of which nothing is heard: on a process that was stopped before it began, or in the middle, while its node goes on."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import pytest
from s3_server import BUCKET, serving
from stages_for_tests import QuickTimeJob
from test_remote import HERE, Sweeping, Threads, Worker, cluster, in_time
from waiting import HANG_S, until

from autotune.artifacts import makers
from autotune.execution import node as node_module
from autotune.execution import remote, sent_call
from autotune.execution.cluster import QUIET, Needs, Node
from autotune.execution.placing import has_room
from autotune.execution.runs import AtWork, at_work, nodes_at_work
from autotune.execution.sent_call import SentCall
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Call, Job

__all__ = ["cluster"]  # the fixture
TIMING = QuickTimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine=HERE, processes=1, most=1)


def sent() -> SentCall:
    return SentCall(Call(TinyJob()), Path("x.log"), Future(), 1.0)


def test_a_sent_call_knows_for_how_long_nothing_new_was_said_of_it() -> None:
    one = sent()
    one.begin(7, Needs(node="a"))
    assert (one.number, one.node, one.begun) == (7, "a", False)
    assert not one.hear(None, sent_call.BEGIN_S - 1)
    assert not one.stuck
    one.hear(None, 2.0)
    assert one.stuck
    assert not one.silent
    assert one.hear(AtWork("b", "host-b", 0), 5.0)
    assert (one.node, one.host, one.begun, one.quiet_s) == ("b", "host-b", True, 0.0)
    assert not one.hear(AtWork("b", "host-b", 0), sent_call.SILENT_S - 1)
    assert not one.hear(AtWork("b", "host-b", 1), 5.0)
    assert one.quiet_s == 0.0
    one.hear(None, 5.0)  # it has ended: its answer is on the way
    one.hear(None, sent_call.SILENT_S + 1)
    assert one.silent
    assert not one.stuck
    token = one.token
    one.begin(8, Needs())
    assert (one.begun, one.node, one.quiet_s) == (False, "", 0.0)
    assert one.token != token


@pytest.mark.parametrize("place", ["folder", "store"])
def test_signs_say_who_does_an_order_and_that_it_goes_on(tmp_path: Path, place: str) -> None:
    with contextlib.ExitStack() as stack:
        where = str(tmp_path)
        if place == "store":
            stack.enter_context(serving())
            where = f"s3://{BUCKET}/cache/cluster-x"
        assert nodes_at_work(where) == {}
        with at_work(where, "token", "node") as still, at_work(where, "other", "node"):
            found = nodes_at_work(where) or {}
            assert set(found) == {"token", "other"}
            assert (found["token"].node, found["token"].beat) == ("node", 0)
            still()
            still()
            found = nodes_at_work(where) or {}
            assert {token: one.beat for token, one in found.items()} == {"token": 2, "other": 0}
        assert nodes_at_work(where) == {}


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    assert nodes_at_work(str(tmp_path / "gone")) is None


def test_a_node_says_again_and_again_that_it_is_at_work(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "_WATCH_S", 0.01)
    monkeypatch.setattr(node_module, "BEAT_S", 0.0)
    sweeping = Sweeping(tmp_path, cluster)

    def act(job: Job, out: Path) -> None:
        until(lambda: any(one.beat > 2 for one in (nodes_at_work(str(sweeping.executor.run)) or {}).values()))

    cluster.act = act
    assert sweeping(TinyJob()).result == {"answer": 42}
    assert not list(sweeping.executor.run.glob("at-*"))


def test_an_order_of_which_nothing_is_heard_is_done_elsewhere(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is stopped, and its node goes on: the cluster says nothing. What the process brings later is dropped."""
    monkeypatch.setattr(node_module, "BEAT_S", math.inf)
    sweeping, over, calls = Sweeping(tmp_path, cluster), threading.Event(), list[Path]()

    def act(job: Job, out: Path) -> None:
        calls.append(out)
        first = len(calls) == 1
        if first:
            monkeypatch.setattr(sent_call, "SILENT_S", 0.3)
            assert over.wait(HANG_S)
        (out / "who").write_text("first" if first else "second", encoding="utf-8")

    cluster.act, sent = act, cluster.send
    again = in_time(sent, "SILENT_S", monkeypatch)
    cluster.send = lambda *order: (again if cluster.orders else sent)(*order)  # type: ignore[method-assign]
    future = sweeping.submit(TinyJob())
    sweeping.ended(future)
    (first, _, one), (second, _, other) = cluster.orders
    assert second.lost == (first.token,)
    assert one != other
    assert cluster.afresh == 1
    over.set()
    cluster.threads[0].join(HANG_S)
    sweeping.executor.wait([Future()])
    assert (future.result().path / "who").read_text(encoding="utf-8") == "second"
    assert len(calls) == 2
    assert any("is done again, for nothing was heard of it from" in line for line in sweeping.said)


@pytest.mark.parametrize("job", [TinyJob(), TIMING])
def test_an_order_that_does_not_begin_is_sent_again_where_a_node_has_room(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    """The process that got it was stopped before it began. An order that waits for its turn is left alone."""
    monkeypatch.setattr(sent_call, "BEGIN_S", 0.2)
    room: dict[str, dict[str, float]] = {}
    monkeypatch.setattr(Threads, "idle", lambda self: room)
    sweeping, sent, swallowed = Sweeping(tmp_path, cluster), cluster.send, list[Needs]()
    cluster.send = lambda order, text, needs: swallowed.append(needs)  # type: ignore[method-assign]
    future = sweeping.submit(job)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        sweeping.executor.wait([future])
    assert len(swallowed) == 1  # no node has room
    assert not cluster.afresh
    cluster.send = in_time(sent, "BEGIN_S", monkeypatch)  # type: ignore[method-assign]
    room |= {"b": {"CPU": 4.0}}
    sweeping.ended(future)
    assert not future.result().cached
    ((order, needs, node),) = cluster.orders
    assert order.lost == ()
    assert cluster.afresh == 1
    if isinstance(job, QuickTimeJob):  # it is not sent to the node that says nothing
        assert (swallowed[0].node, needs.node, node) == ("a", "b", "b")


def test_an_order_that_never_begins_is_sent_a_few_times_and_then_waits(
    tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sent_call, "BEGIN_S", 0.05)
    monkeypatch.setattr(Threads, "idle", lambda self: {"a": {"CPU": 4.0}})
    sweeping, swallowed = Sweeping(tmp_path, cluster), list[Needs]()
    cluster.send = lambda order, text, needs: swallowed.append(needs)  # type: ignore[method-assign]
    future = sweeping.submit(TinyJob())
    end = time.monotonic() + HANG_S
    while len(swallowed) < remote.ATTEMPTS + 1:
        assert time.monotonic() < end
        sweeping.executor.wait([future])
    for _ in range(3):
        sweeping.executor.wait([future])
    assert len(swallowed) == remote.ATTEMPTS + 1
    assert not future.done()


@pytest.mark.parametrize(
    ("job", "idle", "room"),
    [
        (TinyJob(), {}, False),
        (TinyJob(), {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}, False),  # not on one node
        (TinyJob(), {"a": {"CPU": 1.0}, "b": {"CPU": 2.0}}, True),
        (TinyJob(), {"c": {"CPU": 2.0}}, False),  # one in trouble
        (TIMING, {"a": {"CPU": 2.0}}, False),  # not one that times
        (TIMING, {"q": {"CPU": 2.0}}, False),  # one is timing there
        (TIMING, {"q": {"CPU": 2.0, QUIET: 1.0}}, True),
        (TIMING.model_copy(update={"label": "phone"}), {"q": {"CPU": 2.0, QUIET: 1.0}}, False),
        (TIMING.model_copy(update={"label": "phone"}), {"p": {"CPU": 2.0, "phone": 0.9}}, True),
    ],
)
def test_room_is_what_a_node_that_would_do_has_left(
    job: Job, idle: Mapping[str, Mapping[str, float]], room: bool
) -> None:
    nodes = [
        Node("a", "host-a", HERE, 4.0), Node("b", "host-b", HERE, 4.0), Node("c", "host-c", HERE, 4.0, trouble="ill"),
        Node("q", "host-q", HERE, 4.0, resources={QUIET: 1.0}), Node("p", "host-p", HERE, 4.0, resources={"phone": 1.0}),
    ]  # fmt: skip
    resources = {QUIET: 1.0} if job == TIMING else {}
    needs = Needs(2.0, resources=resources, node="a")  # where it was sent
    assert has_room(job, needs, nodes, idle) is room


# --- a process that goes on too late ---------------------------------------------------------------------------------


def test_a_late_process_does_not_make_again_what_another_made(tmp_path: Path, cluster: Threads) -> None:
    """It was stopped for so long that the other's result was used, and removed as a merged model is."""
    sweeping, calls = Sweeping(tmp_path, cluster), list[int]()

    def act(job: Job, out: Path) -> None:
        calls.append(len(cluster.orders))
        if len(calls) == 1:
            folder = sweeping.cache.folder(job)
            number, _ = makers.newest(folder)
            following = folder.with_name(f"{job.key}.{number + 1}.maker")
            following.write_text("{}", encoding="utf-8")
            (folder.with_name(f"{job.key}.{number}.maker")).unlink()
            following.unlink()

    cluster.act = act
    assert sweeping(TinyJob()).result == {"answer": 42}
    assert calls == [1, 2]  # one job for each order, and the first order has left the second to the tuner


def test_a_process_that_was_stopped_until_the_sweep_had_ended_does_no_job(tmp_path: Path, cluster: Threads) -> None:
    sweeping, calls = Sweeping(tmp_path, cluster), list[Job]()
    cluster.act = lambda job, out: calls.append(job)
    sweeping(TinyJob())
    order = cluster.orders[0][0]
    process = Worker(cluster.act)
    assert process.do(order, "a").kind == "done"
    for file in sweeping.executor.run.iterdir():
        file.unlink()
    sweeping.executor.run.rmdir()
    later = order.model_copy(update={"job": order.job, "token": "later"})
    sweeping.cache.remove(sweeping.cache.folder(TinyJob()))
    assert process.do(later, "a").kind == "interrupted"
    assert calls == [TinyJob()]
