"""Choose the node for an order: what the order needs, and which nodes can do it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autotune.execution.cluster import QUIET, Needs, Node, to_time
from autotune.execution.workers import needs_gpu
from autotune.providers import NVIDIA
from autotune.stages.jobs import TimeJob, TurnsJob
from autotune.stages.preparation_jobs import DevicesJob, ProbeJob
from autotune.stages.protocol import DeviceJob, Job

_SOME = 0.001
"""The amount of a label that an order takes: so small that any number of orders fits on the node."""


def timed_in(job: Job) -> Sequence[TimeJob]:
    """Return the timings that a job consists of: itself, those in turns, or none."""
    return job.graphs if isinstance(job, TurnsJob) else (job,) if isinstance(job, TimeJob) else ()


def label_of(job: Job) -> str | None:
    """Return the label of the nodes that may do a job; None: it needs no labelled device."""
    on = next(iter(timed_in(job)), job)
    return on.label if isinstance(on, DeviceJob | DevicesJob) else None


def needs_of(
    job: Job, nodes: Sequence[Node], cpus: float, memory_mb: float, taken: Mapping[str, int], near: str = ""
) -> Needs | None:
    """Return the resources that a job needs of its node; None: no present node has them.

    `taken`: the number of orders sent to each node; `near`: the preferred node, which has the job's inputs.
    """
    timed, label = timed_in(job), label_of(job)
    on = timed[0] if timed else job
    provider = getattr(on, "provider", None) if isinstance(on, DeviceJob | DevicesJob) else None
    gpu = needs_gpu(job) or provider in NVIDIA or (isinstance(job, ProbeJob) and any(node.gpus for node in nodes))
    needs = Needs(cpus, float(gpu), memory_mb, {label: _SOME} if label else {}, "", near)
    if not timed:
        if not any(node.trouble and node.cpus >= 1 for node in nodes):
            return needs
        # The cluster does not know which of its nodes are unusable, so the order names a usable one.
        able = [node for node in nodes if not node.trouble and needs.met_by(node)]
        return Needs(cpus, float(gpu), memory_mb, needs.resources, _least(able, taken).id) if able else None
    able = to_time(nodes, timed[0].machine, label, gpu)
    if not able:
        return None
    node = _least(able, taken)
    resources = {QUIET: 1.0} if node.resources.get(QUIET) else {}
    return Needs(min(cpus, node.cpus), float(gpu), memory_mb, resources, node.id)


def has_room(job: Job, needs: Needs, nodes: Sequence[Node], idle: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a suitable node has the free resources for a job at this moment; `idle`: from `Cluster.idle`."""
    timed = timed_in(job)
    able = to_time(nodes, timed[0].machine, label_of(job), needs.gpus >= 1) if timed else nodes
    anywhere = replace(needs, node="")
    for node in able:
        left = idle.get(node.id, {})
        cpus, gpus, memory_mb = left.get("CPU", 0.0), left.get("GPU", 0.0), left.get("memory", 0.0) / 1e6
        now = replace(node, cpus=cpus, gpus=gpus, memory_mb=memory_mb, resources=left)
        if not node.trouble and anywhere.met_by(now):
            return True
    return False


def _least(nodes: Sequence[Node], taken: Mapping[str, int]) -> Node:
    return min(nodes, key=lambda one: (taken.get(one.id, 0), one.id))


class Able:
    """Remembers which needs some node can meet: many orders have the same needs."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.id: node for node in nodes}
        self._known: dict[object, bool] = {}

    def some(self, needs: Needs) -> bool:
        """Whether some idle node has these resources."""
        if needs.node:
            return needs.node in self._nodes and needs.met_by(self._nodes[needs.node])
        alike = needs.cpus, needs.gpus, needs.memory_mb, tuple(sorted(needs.resources.items()))
        if alike not in self._known:
            self._known[alike] = any(map(needs.met_by, self._nodes.values()))
        return self._known[alike]


class Absent:
    """Remembers since when no node has a label."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def seconds(self, label: str, nodes: Sequence[Node]) -> float:
        """Return for how many seconds no node had a label; 0: one has it."""
        if any(node.resources.get(label) and not node.trouble for node in nodes):
            self._since.pop(label, None)
            return 0.0
        return time.monotonic() - self._since.setdefault(label, time.monotonic())
