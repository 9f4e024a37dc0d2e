"""What the tuner itself costs on a simulated cluster of 1,000 workers, each of which does an order at once.

Sending, booking, cache, record, pipeline and loop are the real ones. The cost of the simulated nodes, which write the files
that later stages read, is subtracted. The script counts processor time, so that other work on this machine changes little.
"""

from __future__ import annotations

import hashlib
import json
import resource
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import psutil

from autotune.artifacts.store import Cache, Stored
from autotune.execution.cluster import Needs, Node, Reply
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.node import Answer, Order
from autotune.execution.remote import RemoteExecutor
from autotune.execution.runs import run_folder
from autotune.execution.worker import from_plain
from autotune.machine import machine_digest
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.measure import Pipeline
from autotune.results.record import Record
from autotune.scheduler.events import Event, Events, RowWritten
from autotune.scheduler.loop import Loop
from autotune.scheduler.search import run_loop
from autotune.scheduler.status_note import Running
from autotune.scheduler.timeline import Timeline
from autotune.stages.jobs import TimeJob, TurnsJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Call, Job
from autotune.strategies.named import make_strategy
from benchmarks.scale import ITEMS, Idle, sweep_of

NODES = 1_000
_CPUS = 4.0
"""Processors of a node: one job takes them all."""


class Simulated:
    """A cluster of nodes that have done an order at once; the processor time of that is in `own_s`."""

    def __init__(self, nodes: int) -> None:
        self._nodes = [Node(f"{n:032x}", f"host-{n}", machine_digest(), _CPUS) for n in range(nodes)]
        self._replies: deque[Reply] = deque()
        self._idle = Idle()
        self.own_s, self.orders = 0.0, 0

    def nodes(self) -> Sequence[Node]:
        """As of a cluster."""
        return self._nodes

    def idle(self) -> Mapping[str, Mapping[str, float]]:
        """As of a cluster."""
        return {}

    def use_others(self) -> None:
        """As of a cluster."""

    def send(self, order: int, text: str, needs: Needs) -> None:
        """Do the order."""
        began = time.process_time()
        node = needs.node or self._nodes[self.orders % len(self._nodes)].id
        self.orders += 1
        asked = Order.model_validate_json(text)
        answer = self._done(asked, from_plain(asked.job))
        self._replies.append(Reply(order, answer.model_dump_json(), node))
        self.own_s += time.process_time() - began

    def _done(self, asked: Order, job: Job) -> Answer:
        if isinstance(job, TimeJob | TurnsJob):
            fresh = dict(self._idle.run_fresh(job, Path())[0])
            rounds = [[fresh] * len(job.graphs)] * 8 if isinstance(job, TurnsJob) else []
            result = {"rounds": rounds} if rounds else {"processes": [fresh] * getattr(job, "processes", 1)}
            if asked.anew:
                return Answer(kind="done", host="host", result=result, seconds=1.0)
        folder, made = Path(asked.cache) / job.stage / asked.key, time.time()
        folder.mkdir(parents=True)
        if not isinstance(job, TimeJob | TurnsJob):
            result = dict(self._idle.run(job, folder, Path())[0])
        files = {
            file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            for file in folder.iterdir()
        }
        manifest = {"described": job.described(), "result": result, "seconds": 1.0, "made": made, "model": asked.model}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"files": files}), encoding="utf-8")
        return Answer(kind="done", host="host", result=result, seconds=1.0, made=made, log="done\n")

    def foreign_cpu(self, nodes: Sequence[str]) -> float:
        """As of a cluster."""
        del nodes
        return 0.0

    def reply(self, patience_s: float) -> Reply | None:
        """As of a cluster."""
        del patience_s  # everything is done already
        return self._replies.popleft() if self._replies else None


def jobs_cost(nodes: int = NODES, jobs: int = 100_000) -> list[tuple[str, str]]:
    """Give the executor jobs, as many at once as there are nodes. Returns what it costs for each, and its memory."""
    with tempfile.TemporaryDirectory(prefix="ray-cost-", ignore_cleanup_errors=True) as folder:
        cluster, cache = Simulated(nodes), Cache(Path(folder) / "cache")
        executor = RemoteExecutor(cluster, ClusterStages(cache), run_folder(cache))
        began, marks, own = time.process_time(), list[float](), list[float]()
        under_way: set[Future[Stored]] = set()
        cache.hold(TinyJob(seed=-1))  # as of a sweep, which always has something in use
        for seed in range(jobs):
            future = executor.submit(Call(TinyJob(seed=seed)), Path(folder) / "logs" / "x.log")
            under_way.add(future)
            future.add_done_callback(under_way.discard)
            if len(under_way) >= nodes:
                executor.wait(list(under_way))
                executor.artifacts.let_go()
            if seed % (jobs // 10) == jobs // 10 - 1:
                marks.append(psutil.Process().memory_info().rss / 1e6)
                own.append(time.process_time() - began - cluster.own_s)
        while under_way:
            executor.wait(list(under_way))
        spent = time.process_time() - began - cluster.own_s
        assert cluster.orders == jobs
        cache.let_go(TinyJob(seed=-1))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    tenth = jobs / 10
    return [
        (f"{jobs:,} jobs, {nodes:,} workers: processor time to place, send and book them", f"{spent:.0f} s, {spent / jobs * 1e3:.2f} ms a job"),
        ("of the first tenth of the jobs, of the last", f"{own[0] / tenth * 1e3:.2f} ms a job, {(own[-1] - own[-2]) / tenth * 1e3:.2f} ms"),
        ("memory after a tenth of the jobs, after all, and at most", f"{marks[0]:.0f} MB, {marks[-1]:.0f} MB, {most:.0f} MB"),
    ]  # fmt: skip


class _Costs:
    """A listener that notes the tuner's processor time and memory when a row is written."""

    def __init__(self, cluster: Simulated) -> None:
        self._cluster, self._this = cluster, psutil.Process()
        self.own_s, self.memory_mb = list[float](), list[float]()

    def __call__(self, event: Event) -> None:
        """Note them."""
        if isinstance(event, RowWritten):
            self.own_s.append(time.process_time() - self._cluster.own_s)
            self.memory_mb.append(self._this.memory_info().rss / 1e6)


def candidates_cost(nodes: int = NODES, candidates: int = 2_000) -> list[tuple[str, str]]:
    """Run a whole sweep with `random`. Returns what the tuner costs for each candidate: decisions, jobs, row, best so far."""
    with tempfile.TemporaryDirectory(prefix="ray-cost-", ignore_cleanup_errors=True) as name:
        folder, cluster = Path(name), Simulated(nodes)
        sweep = sweep_of("random", candidates)
        timing = sweep.target.timing.model_copy(update={"repeats": 0})
        sweep = sweep.model_copy(update={"target": sweep.target.model_copy(update={"timing": timing})})
        items = {split: (split, folder / f"{split}.json") for split in ("train", "validation")}
        counts = dict.fromkeys(items, ITEMS)
        (folder / "base").mkdir()
        for _, file in items.values():
            file.write_text("[]", encoding="utf-8")
        inputs = Inputs(folder / "base", "base", items, counts, (" fear", " joy"), "cpu", machine_digest())
        cache, costs = Cache(folder / "cache"), _Costs(cluster)
        began = time.process_time()
        with Record(folder / "out", sweep) as record:
            stages = ClusterStages(cache, sweep.model)
            executor = RemoteExecutor(cluster, stages, run_folder(cache))
            stages.settle([], 0.0, inputs.places)
            searching = make_strategy("random", sweep.space, sweep.objectives, sweep.seed)
            events = Events(costs, Running(record), Timeline(record, executor.intervals))
            run_loop(
                Loop(
                    Pipeline(Graph(sweep, inputs), sweep.aims, stages),
                    sweep.budget,
                    record,
                    searching,
                    executor,
                    events,
                )
            )
            stages.close()
        spent, tenth = time.process_time() - began - cluster.own_s, candidates // 10
        own, memory = costs.own_s, costs.memory_mb
    first, last = ((own[end] - own[end - tenth]) / tenth * 1e3 for end in (2 * tenth, -1))
    return [
        (f"a whole sweep of {candidates:,} candidates on {nodes:,} workers: jobs", f"{cluster.orders:,}"),
        ("processor time of the tuner", f"{spent:.0f} s, {spent / candidates * 1e3:.1f} ms a candidate, {spent / cluster.orders * 1e3:.1f} ms a job"),
        ("of the second tenth of the candidates, of the last", f"{first:.1f} ms a candidate, {last:.1f} ms"),
        ("memory after a tenth of the candidates, and at the end", f"{memory[tenth]:.0f} MB, {memory[-1]:.0f} MB"),
    ]  # fmt: skip
