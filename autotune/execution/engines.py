"""Who does the jobs of a sweep: this machine, or a cluster. What the sweep needs of either is an executor and what it says."""

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
from autotune.execution.remote import RemoteExecutor
from autotune.execution.runs import run_in, run_place
from autotune.execution.stop import Stop
from autotune.execution.threads import LogOfThread, ThreadedExecutor
from autotune.execution.timeouts import Timeouts
from autotune.execution.transfers import note_own_transfers, note_transfers
from autotune.execution.workers import posts
from autotune.machine import foreign_cpu
from autotune.providers import NVIDIA
from autotune.sweepfile.schema import Sweep, Workers

GONE_S = 60.0
"""Seconds without a node that has a target's label after which the other targets of a sweep go on without that target."""


@dataclass(frozen=True)
class Setting:
    """What an engine is told of a sweep."""

    cache: Cache
    model: str
    workers: Workers
    offline: bool
    """Whether the sweep names nothing on the network."""
    stop: Stop
    costs: CostModel
    room: Room
    log: Path
    """The log of what belongs to no candidate."""
    left_s: Callable[[], float]
    """Seconds of the budget that are left."""
    say: Callable[[str], None]
    still: Callable[[], None]
    """Called now and then while jobs are at work."""
    intervals: deque[Interval]
    """Takes what ran, and has ended."""
    at: Callable[[str, str], None] = lambda *_: None
    """Of a cluster: told the name of a job's log, which is its candidate's, and the host on which the job is done."""
    several: bool = False
    """Whether the sweep has several targets: others go on where one's device is gone."""

    @property
    def timeouts(self) -> Timeouts:
        """The time-outs of its jobs."""
        return Timeouts(self.costs, self.workers.time_limit_s)


@dataclass(frozen=True)
class Work:
    """An engine at work for a sweep."""

    executor: Executor
    stages: Stages | ClusterStages
    employ: Callable[[str, int], str]
    """Have as many workers as the sweep asks for, given the device of trainings and how many GPUs there are; return in words
    how many there are, where that is worth a word.
    """
    asked: Callable[[str | None, bool], tuple[str, int] | tuple[()]] = lambda *_: ()
    """Of a cluster, for a target's label and whether it takes a GPU: the digest of the machines that its models are timed on, and
    how many GPUs the cluster has. Raises MachineError where no node will do.
    """
    missing: Callable[[str | None, bool], str] = lambda *_: ""
    """Of a cluster, for a target's label and whether it takes a GPU: why no node can work for that target now; empty: one can."""
    foreign_cpu: Callable[[str | None, bool], float] = lambda *_: foreign_cpu()
    """How many cores other programs keep busy now where a target's models are timed, for its label and whether it takes a GPU."""
    described: dict[str, Any] = field(default_factory=dict)
    """Of a cluster: its nodes, for people."""


@contextlib.contextmanager
def local(setting: Setting) -> Iterator[Work]:
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
            places = posts(train, workers.cpu, device, gpus)
            engine.enlarge(places, train if isinstance(train, int) else None)
            on_gpus = sum(post.gpu is not None for post in places)
            if len(places) == 1:
                return ""
            return f"{len(places)} workers" + (f", {on_gpus} of them on GPUs" if on_gpus else "")

        engine.host.intervals = setting.intervals
        note_transfers(setting.cache, engine.host)
        yield Work(ThreadedExecutor(stages, engine, log, setting.still), stages, employ)


@contextlib.contextmanager
def on_ray(setting: Setting, address: str | None) -> Iterator[Work]:
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
            cluster, stages, run, at_once, workers.memory_mb, setting.offline, setting.say, setting.still, setting.left_s,
            GONE_S if setting.several else math.inf, setting.at,
        )  # fmt: skip
        executor.intervals = setting.intervals
        stages.blocking = Blocking(executor, setting.log)
        nodes = [
            {"host": node.host, "processors": node.cpus, "gpus": node.gpus, "resources": dict(node.resources)}
            for node in executor.nodes
        ]
        yield Work(
            executor, stages, lambda *_: executor.described(),
            lambda label, gpu: (executor.machine_of(label, gpu), executor.gpus),
            executor.missing, executor.foreign_cpu, {"cluster": nodes},
        )  # fmt: skip


def takes_gpu(sweep: Sweep) -> bool:
    """Whether a target's builds run on a GPU that a cluster hands out; `sweep`: of that target."""
    return bool(sweep.space.recipes) and sweep.target.provider in NVIDIA


def check_address(engine: str, address: str | None) -> None:
    """Raises UsageError where the command line names a cluster and the engine is another."""
    if engine != "ray" and address is not None:
        rule, remedy = "belongs to --engine ray", "add --engine ray, or leave it out"
        raise UsageError(Problem(rule, "--address", file="command line", value=address, remedy=remedy))


def engine_of(name: str, setting: Setting, address: str | None = None) -> contextlib.AbstractContextManager[Work]:
    """Return the engine that a sweep names. Raises as `on_ray` and `check_address`."""
    check_address(name, address)
    if name == "ray":
        return on_ray(setting, address)
    return local(setting)
