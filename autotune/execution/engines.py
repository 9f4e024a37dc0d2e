"""The engine of a sweep: this machine, or a cluster. The sweep uses either through the same interface, `Work`."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.artifacts.room import Room
from autotune.artifacts.store import Cache
from autotune.costs.model import CostModel
from autotune.errors import Problem, UsageError
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.executor import Stages
from autotune.execution.host_lock import Interval
from autotune.execution.local import LocalEngine
from autotune.execution.protocol import Blocking, Executor
from autotune.execution.ray_cluster import RayCluster
from autotune.execution.remote import Listeners, NodeJobs, Patience, RemoteExecutor
from autotune.execution.runs import run_in, run_place
from autotune.execution.stop import Stop
from autotune.execution.threads import LogOfThread, ThreadedExecutor
from autotune.execution.timeouts import Timeouts
from autotune.execution.transfers import note_own_transfers, note_transfers
from autotune.execution.workers import slots
from autotune.machine import foreign_cpu
from autotune.sweepfile.schema import Workers

GONE_S = 60.0
"""Seconds without a node that has a target's label after which the other targets of a sweep go on without that target."""


@dataclass(frozen=True)
class EngineSettings:
    """What an engine needs to know of a sweep."""

    cache: Cache
    model: str
    workers: Workers
    offline: bool
    """Whether the sweep names nothing on the network."""
    stop: Stop
    costs: CostModel
    room: Room
    log: Path
    """The log of jobs that belong to no candidate."""
    left_s: Callable[[], float]
    """Seconds of the budget that are left."""
    say: Callable[[str], None]
    """Is called with messages for the user."""
    still: Callable[[], None]
    """Is called now and then while jobs are at work."""
    intervals: deque[Interval]
    """Receives the interval of each stage that has ended."""
    waits: deque[Interval] = field(default_factory=deque)
    """Receives when a stage waited for another process of this host."""
    at: Callable[[str, str], None] = lambda *_: None
    """On a cluster: is called with the id of a job's candidate and the host that does the job."""
    several: bool = False
    """Whether the sweep has several targets: the others go on where one's device is gone."""

    @property
    def timeouts(self) -> Timeouts:
        """The time-outs of its jobs."""
        return Timeouts(self.costs, self.workers.time_limit_s)


@dataclass(frozen=True)
class Engine:
    """An engine at work for a sweep. Functions take a target's label and whether its builds need a GPU."""

    executor: Executor
    stages: Stages | ClusterStages
    employ: Callable[[str, int], str]
    """Starts the workers of the sweep, given the device of trainings and the number of GPUs. Returns a message about their
    number, empty for one.
    """
    machine_of: Callable[[str | None, bool], tuple[str, int] | tuple[()]] = lambda *_: ()
    """On a cluster: returns the digest of the machines that time the target's models, and the number of GPUs of the cluster.
    Raises MachineError where no node can.
    """
    missing: Callable[[str | None, bool], str] = lambda *_: ""
    """On a cluster: returns why no node can work for the target now; empty where one can."""
    foreign_cpu: Callable[[str | None, bool], float] = lambda *_: foreign_cpu()
    """Returns how many cores other programs keep busy now where the target's models are timed."""
    described: dict[str, Any] = field(default_factory=dict)
    """On a cluster: its nodes, for `machine.json`."""


@contextlib.contextmanager
def _local(setting: EngineSettings) -> Iterator[Engine]:
    """Let this machine do the jobs."""
    workers = setting.workers
    with LocalEngine(setting.offline, workers.memory_mb, setting.say, setting.stop.check) as engine:
        log = LogOfThread(setting.log)
        stages = Stages(
            setting.cache, engine, log, setting.model, setting.stop, setting.timeouts, setting.room, setting.say,
            setting.left_s, setting.costs,
        )  # fmt: skip

        def employ(device: str, gpus: int) -> str:
            train = workers.train
            ours = slots(train, workers.cpu, device, gpus)
            engine.resize(ours, train if isinstance(train, int) else None)
            on_gpus = sum(slot.gpu is not None for slot in ours)
            if len(ours) == 1:
                return ""
            return f"{len(ours)} workers" + (f", {on_gpus} of them on GPUs" if on_gpus else "")

        engine.host.intervals, engine.host.waits = setting.intervals, setting.waits
        note_transfers(setting.cache, engine.host)
        yield Engine(ThreadedExecutor(stages, engine, log, setting.still), stages, employ)


@contextlib.contextmanager
def _on_ray(setting: EngineSettings, address: str | None) -> Iterator[Engine]:
    """Let a cluster of Ray do the jobs. Raises MachineError where there is none, UsageError for an address of another kind."""
    workers = setting.workers
    if isinstance(workers.train, int):
        rule = "has no meaning on Ray, where each training takes its processors, or a GPU"
        raise UsageError(Problem(rule, "workers.train", value=workers.train, remedy="leave it out"))
    stages = ClusterStages(
        setting.cache, setting.model, setting.stop, setting.timeouts, setting.room, setting.costs
    )  # fmt: skip
    at_once = workers.cpu if isinstance(workers.cpu, int) else None
    note_own_transfers(setting.cache, setting.intervals)
    with run_in(setting.cache) as run, RayCluster(address, run_place(setting.cache, run)) as cluster:
        executor = RemoteExecutor(
            cluster, stages, run, NodeJobs(at_once, workers.memory_mb, setting.offline),
            Patience(setting.left_s, GONE_S if setting.several else math.inf),
            Listeners(setting.say, setting.still, setting.at),
        )  # fmt: skip
        executor.intervals = setting.intervals
        stages.blocking = Blocking(executor, setting.log)
        nodes = [
            {"host": node.host, "processors": node.cpus, "gpus": node.gpus, "resources": dict(node.resources)}
            for node in executor.nodes
        ]
        yield Engine(
            executor, stages, lambda *_: executor.described(),
            lambda label, gpu: (executor.machine_of(label, gpu), executor.gpus),
            executor.missing, executor.foreign_cpu, {"cluster": nodes},
        )  # fmt: skip


def check_address(engine: str, address: str | None) -> None:
    """Raise UsageError where the command line names a cluster although the engine is none."""
    if engine != "ray" and address is not None:
        rule, remedy = "belongs to --engine ray", "add --engine ray, or leave it out"
        raise UsageError(Problem(rule, "--address", file="command line", value=address, remedy=remedy))


def engine_of(
    name: str, setting: EngineSettings, address: str | None = None
) -> contextlib.AbstractContextManager[Engine]:
    """Return the engine that a sweep names. Raises UsageError for an address that does not fit it; MachineError on entry."""
    check_address(name, address)
    if name == "ray":
        return _on_ray(setting, address)
    return _local(setting)
