"""A cluster of Ray on this machine, and drivers of sweeps on it, for `benchmarks.ray_engine` and the tests.

python -m benchmarks.ray_nodes --folder FOLDER --name NAME --address HOST:PORT     # one driver, so that it can be killed
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from autotune.artifacts.shared_store import SharedStore, folder_of
from autotune.artifacts.store import Cache, Stored
from autotune.durable import write_aside
from autotune.errors import AutotuneError
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.execution.protocol import Blocking, Executor
from autotune.execution.ray_cluster import RayCluster
from autotune.execution.remote import Listeners, Patience, RemoteExecutor
from autotune.execution.runs import run_in
from autotune.execution.threads import LogOfThread, ThreadedExecutor
from autotune.execution.transfers import note_own_transfers
from autotune.execution.workers import Slot
from autotune.machine import machine_digest
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.measure import Pipeline
from autotune.results.record import Record
from autotune.scheduler.events import Event, Events, Note
from autotune.scheduler.loop import Loop
from autotune.scheduler.search import Joined
from autotune.scheduler.shared import Shared
from autotune.scheduler.status_note import Running
from autotune.scheduler.targets import run_loops
from autotune.scheduler.timeline import Timeline
from autotune.stages.protocol import Call, Job
from autotune.strategies.named import make_strategy
from autotune.strategies.several import make_for_targets
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep
from benchmarks.sleeping import ITEMS, sleeping

NODES = 3
_JOINED = "joined by node "
GONE_S = 5.0
"""Seconds without a node of a target after which the other targets go on without it."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_RECORD_ACTOR_TASK_LOGGING": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "3000",
}
"""No telemetry, and a cluster that notices within seconds that a node has left."""


class AsSleeping:
    """An executor whose jobs sleep."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    @property
    def width(self) -> int:
        """As the inner one's."""
        return self._inner.width

    @property
    def parked(self) -> int:
        """As the inner one's."""
        return self._inner.parked

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        """Submit the call of a job that sleeps."""
        return self._inner.submit(Call(sleeping(call.job), call.timeout, call.anew), log)

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        """As the inner one's."""
        self._inner.wait(futures)

    def close(self) -> None:
        """As the inner one's."""
        self._inner.close()


class SleepingStages(ClusterStages):
    """What a sweep on a cluster knows of its jobs, which sleep: also those that a node makes again."""

    def find(self, job: Job) -> Stored | None:
        """As of `ClusterStages`."""
        return super().find(sleeping(job))


# --- a cluster on this machine ---------------------------------------------------------------------------------------


class Nodes:
    """A head without processors and some nodes, as processes of this machine."""

    def __init__(
        self,
        folder: Path,
        nodes: int,
        cpus: int = 1,
        scale: float = 0.01,
        apart: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        """`scale`: how many times as long as usual stages sleep; `apart`: each node has a lock and a cache of its own, as another
        host has; `labels`: of the first nodes, one each.
        """
        self.folder, self.wanted, self.cpus, self.apart, self._count = folder, nodes, cpus, apart, 0
        self.labels = labels
        os.environ.update(_QUIET | {"SLEEPING_SCALE": str(scale), "SLEEPING_JOURNAL": str(folder / "journal.txt")})
        runtime = folder / "runtime"  # other sweeps on this host do not wait for this one, nor it for them
        runtime.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        self.start()

    def start(self) -> None:
        """Start a cluster."""
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
        self.cluster: Any = Cluster(initialize_head=True, connect=False, head_node_args=head)
        for place in range(self.wanted):
            self.add(*self.labels[place : place + 1])

    def add(self, label: str = "") -> None:
        """Add a node, which may have a label."""
        more: dict[str, Any] = {"resources": {label: 1}} if label else {}
        if self.apart:
            self._count += 1
            runtime = self.folder / f"runtime-{self._count}"
            runtime.mkdir(mode=0o700)
            more["env_vars"] = {
                "XDG_RUNTIME_DIR": str(runtime),
                "XDG_CACHE_HOME": str(self.folder / f"home-{self._count}"),
            }
        self.cluster.add_node(num_cpus=self.cpus, object_store_memory=100_000_000, wait=False, **more)

    @property
    def address(self) -> str:
        """The head's."""
        return str(self.cluster.address)

    @property
    def workers(self) -> list[Any]:
        """The nodes but the head."""
        return list(self.cluster.worker_nodes)

    def with_label(self, label: str) -> Any:
        """Return the node that has a label."""
        return next(node for node in self.workers if label in (node.get_resource_and_label_spec().resources or {}))

    def node_of_driver(self, name: str, patience_s: float = 60.0) -> str:
        """Return the id of the node by which a driver has joined the cluster, as it says."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            lines = (self.folder / f"{name}.log").read_text(encoding="utf-8").splitlines()
            if joined := [line for line in lines if line.startswith(_JOINED)]:
                return joined[-1].removeprefix(_JOINED)
            time.sleep(0.2)
        raise TimeoutError(name)

    def kill_node(self, node: Any) -> None:
        """Kill a node with all its processes, as a machine that loses its power."""
        kill_tree([info.process.pid for infos in node.all_processes.values() for info in infos])
        with contextlib.suppress(Exception):
            self.cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """Kill the head, and then the rest: a new cluster is needed."""
        head = self.cluster.head_node
        kill_tree([info.process.pid for infos in head.all_processes.values() for info in infos])
        self.stop()

    def stop(self) -> None:
        """End every process of the cluster."""
        pids = [
            info.process.pid
            for node in (self.cluster.head_node, *self.workers)
            if node is not None
            for infos in node.all_processes.values()
            for info in infos
        ]
        kill_tree(pids)
        with contextlib.suppress(Exception):
            self.cluster.shutdown()


def kill_tree(pids: Sequence[int]) -> None:
    """Kill processes that this one started, and those below them."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=10)


@contextlib.contextmanager
def nodes_in(
    nodes: int, cpus: int = 1, scale: float = 0.01, apart: bool = False, labels: Sequence[str] = ()
) -> Iterator[Nodes]:
    """Have a cluster in a folder of its own. Afterwards the environment of this process is as it was."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="ray-nodes-", ignore_cleanup_errors=True) as folder:
        there = Nodes(Path(folder), nodes, cpus, scale, apart, labels)
        try:
            yield there
        finally:
            there.stop()
            os.environ.clear()
            os.environ.update(before)


# --- a driver --------------------------------------------------------------------------------------------------------


def sweep_of(candidates: int, strategy: str, labels: Sequence[str] = ()) -> Sweep:
    """Return a sweep of so many candidates, with a target for each label."""
    timing = {"timing": {"processes": 2, "most": 2, "repeats": 0}}
    # With another prompt each target has timings of its own, although all nodes are one kind of machine.
    each = {
        label: timing | {"label": label, "workload": {"prompt_tokens": 16 * place}}
        for place, label in enumerate(labels, 1)
    }
    targets: dict[str, Any] = {"targets": each} if labels else {"target": timing}
    rates = {"loguniform": [1e-5, 1e-2]} if strategy == "random" else {"choice": [1e-4, 3e-4, 1e-3, 3e-3]}
    return parse_sweep({
        "name": "ray-engine",
        "model": "smollm2-135m-instruct",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"},
        "space": {
            "lora": {"r": {"choice": [4, 8, 16, 32]}, "learning_rate": rates, "steps": 30},
            "build": [{"precision": "int8"}, {"precision": "int4"}],
        },
        **targets,
        "strategy": strategy,
        "budget": {"trials": candidates},
    })  # fmt: skip


def inputs_in(folder: Path) -> Inputs:
    """Return the inputs of the sweeps in a folder, and write their files where they are missing."""
    items = {split: (split, folder / f"{split}.json") for split in ("train", "validation")}
    for _, file in items.values():
        if not file.exists():
            write_aside(file, json.dumps([{"id": str(n)} for n in range(ITEMS)]))
    (folder / "base").mkdir(exist_ok=True)
    counts = dict.fromkeys(items, ITEMS)
    return Inputs(folder / "base", "base", items, counts, (" fear", " joy"), "cpu", machine_digest())


@contextlib.contextmanager
def executor_of(
    cache: Cache, sweep: Sweep, log: Path, address: str | None, intervals: deque[Any], labels: Sequence[str]
) -> Iterator[tuple[Any, Any]]:
    """Yield the executor of a sweep and its artifacts: on a cluster, or where there is no address on this machine."""
    with contextlib.ExitStack() as stack:
        if address is None:
            engine = stack.enter_context(LocalEngine())
            engine.resize([Slot() for _ in range(NODES)])
            engine.host.intervals = intervals
            own_log = LogOfThread(log)
            stages = Stages(cache, engine, own_log, sweep.model)
            yield ThreadedExecutor(stages, engine, own_log), stages
            return
        cluster = stack.enter_context(RayCluster(address))
        sleeping = SleepingStages(cache, sweep.model)
        say(_JOINED + cluster.joined_by)
        run = stack.enter_context(run_in(cache))
        patience = Patience(gone_s=GONE_S if labels else math.inf)
        executor = RemoteExecutor(cluster, sleeping, run, patience=patience, listeners=Listeners(say))
        executor.intervals = intervals
        sleeping.blocking = Blocking(executor, log)
        yield executor, sleeping


def drive(
    folder: Path,
    name: str,
    candidates: int,
    strategy: str,
    address: str | None,
    labels: Sequence[str] = (),
    store: str | None = None,
) -> None:
    """Run a sweep whose jobs sleep, or go on with it, as `executor_of` says. `store`: the address of the cache, where nodes share
    that alone.
    """
    sweep, inputs = sweep_of(candidates, strategy, labels), inputs_in(folder)
    cache, intervals = Cache(folder / f"cache-{name.partition('-')[0]}"), deque[Any]()
    if store is not None:
        cache = Cache(folder_of(store), shared=SharedStore(store))
        note_own_transfers(cache, intervals)
    with (
        Record(folder / name, sweep) as record,
        executor_of(cache, sweep, record.log("x"), address, intervals, labels) as (executor, stages),
    ):
        stages.settle([], 0.0, inputs.places)
        sweeps, events = sweep.by_target, Events(Running(record), Timeline(record, intervals), Told())

        def missing(target: str | None) -> str:
            return str(executor.missing(sweeps[target].target.label)) if labels else ""

        def search() -> None:
            spaces, given = [one.space for one in sweeps.values()], (sweep.objectives, sweep.seed)
            several = make_for_targets(sweep.strategy, spaces, *given) if labels else None
            strategy_made = several or make_strategy(sweep.strategy, sweep.space, *given)

            def loop_of(target: str | None, own: Record, beside: Shared | None) -> Loop:
                others = beside.others if beside is not None else None
                pipeline = Pipeline(Graph(sweeps[target], inputs), sweeps[target].aims, stages, others=others)
                return Loop(
                    pipeline, sweeps[target].budget, own, strategy_made, AsSleeping(executor), events, shared=beside
                )

            away = {name: why for name in sweeps if (why := missing(name))}
            run_loops(list(sweeps), record, AsSleeping(executor), loop_of, several, missing=missing, away=away)

        while True:
            try:
                search()
                break
            except Joined:
                say("a node has joined that a target has waited for")
        stages.close()


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


class Told:
    """A listener that prints notes."""

    def __call__(self, event: Event) -> None:
        """Print a note."""
        if isinstance(event, Note):
            say(event.text)


def driver(
    folder: Path,
    name: str,
    candidates: int,
    strategy: str,
    address: str | None,
    labels: Sequence[str] = (),
    store: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `drive` in a process of its own, whose output goes to a file; `environment`: what it has beside this process's."""
    arguments = [sys.executable, "-m", "benchmarks.ray_nodes", "--folder", str(folder), "--name", name]
    arguments += ["--candidates", str(candidates), "--strategy", strategy]
    arguments += [] if address is None else ["--address", address]
    arguments += [f"--label={label}" for label in labels]
    arguments += [] if store is None else ["--store", store]
    variables = os.environ | (environment or {})
    with (folder / f"{name}.log").open("ab") as stream:
        return subprocess.Popen(arguments, stdout=stream, stderr=subprocess.STDOUT, env=variables)


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a driver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", default="sweep")
    parser.add_argument("--address", help="none: this machine does the jobs")
    parser.add_argument("--strategy", default="grid")
    parser.add_argument("--label", action="append", default=[], help="of a target; give it for each target")
    parser.add_argument("--store", help="the address of the cache, where nodes share that alone")
    parser.add_argument("--candidates", type=int, default=8)
    asked = parser.parse_args(arguments)
    try:
        drive(asked.folder, asked.name, asked.candidates, asked.strategy, asked.address, asked.label, asked.store)
    except AutotuneError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
