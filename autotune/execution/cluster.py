"""A cluster as the executor sees it: nodes, orders that are sent to them, and replies.

`ray_cluster.py` is the one that runs on Ray; tests have one of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

QUIET = "quiet"
"""The resource of hosts that time models, one each; where no node has it, all nodes may time."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    id: str
    host: str
    machine: str
    """Digest of its hardware; empty: it was not asked yet."""
    cpus: float
    gpus: float = 0.0
    memory_mb: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    """The custom resources with which the node was started."""
    trouble: str = ""
    """Why it can do no job of a sweep; empty: it can."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """The versions of the installed packages."""

    def __str__(self) -> str:
        return f"{self.host} ({self.id[:6]})"


@dataclass(frozen=True)
class Needs:
    """The resources that an order needs of its node."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mb: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    node: str = ""
    """The id of the only node that can do it; empty: any."""
    near: str = ""
    """The id of the node that has the order's inputs: the order goes there if that node is free."""

    def __str__(self) -> str:
        parts = [
            f"{self.cpus:g} processors",
            "a GPU" if self.gpus else "",
            *(f"the resource {name}" for name in self.resources),
        ]
        return ", ".join(filter(None, [*parts, f"{self.memory_mb:.0f} MB of memory" if self.memory_mb else ""]))

    def met_by(self, node: Node) -> bool:
        """Whether an idle node has these resources."""
        sizes = ((node.cpus, self.cpus), (node.gpus, self.gpus), (node.memory_mb, self.memory_mb))
        own = all(node.resources.get(name, 0.0) >= value for name, value in self.resources.items())
        return own and all(there >= needed for there, needed in sizes) and self.node in ("", node.id)


@dataclass(frozen=True)
class Reply:
    """The reply to an order: the text of an answer, or the reason why there is none."""

    order: int
    text: str = ""
    node: str = ""
    """The id of the node that answered; empty: not known."""
    lost: str = ""
    """How its node or its process was lost; empty: it was not."""
    trouble: str = ""
    """Why no node can do it; empty: one can."""


class Cluster(Protocol):
    """Nodes that do orders."""

    def nodes(self) -> Sequence[Node]:
        """Return the present nodes. Raises MachineError where the cluster is gone."""
        ...

    def idle(self) -> Mapping[str, Mapping[str, float]]:
        """Return the free resources by node id: CPU, GPU, memory (bytes) and the names of custom resources."""
        ...

    def use_others(self) -> None:
        """Give later orders no process or queue place that an earlier order had: such a process has become silent."""
        ...

    def foreign_cpu(self, nodes: Sequence[str]) -> float:
        """Return how many cores other programs keep busy on the busiest of these nodes; 0 where none answers in time."""
        ...

    def send(self, order: int, text: str, needs: Needs) -> None:
        """Send the order with this number to a node that has what it needs; the order waits for one."""
        ...

    def reply(self, patience_s: float) -> Reply | None:
        """Return the next reply; None where none came within `patience_s` seconds."""
        ...


def kind_to_time(nodes: Sequence[Node], own: str, label: str | None = None, gpu: bool = False) -> str:
    """Return the digest of the kind of machine that times models; empty: there is none.

    Nodes with the resource QUIET count, or all if none has it; with a label, only nodes that have it; with `gpu`, only nodes
    with a GPU. The tuner's own kind (`own`) comes first, then the most frequent one.
    """
    kinds = Counter(node.machine for node in _able(nodes, label, gpu) if node.machine)
    return own if own in kinds else min(kinds, key=lambda kind: (-kinds[kind], kind), default="")


def to_time(nodes: Sequence[Node], machine: str, label: str | None = None, gpu: bool = False) -> list[Node]:
    """Return the nodes that may time models for a kind of machine; other arguments as in `kind_to_time`."""
    return [node for node in _able(nodes, label, gpu) if node.machine == machine]


def lacking(nodes: Sequence[Node], label: str | None = None, gpu: bool = False) -> str:
    """Return a sentence about what the target needs and no node has; empty where one has it. Arguments as in `kind_to_time`."""
    if kind_to_time(nodes, "", label, gpu):
        return ""
    wanted = ([f"the resource {label}"] if label else []) + ["a GPU"] * gpu
    return f"no node of the cluster has {' and '.join(wanted) or 'processors'}"


def how_to_start(label: str | None, gpu: bool) -> str:
    """Return the remedy: how to start a node that has what a target needs."""
    command = (
        f"`ray start --address HEAD:PORT --resources '{{\"{label}\": 1}}'`"
        if label
        else "`ray start --address HEAD:PORT`"
    )
    return f"start one with {command}{' on a machine with a GPU' * gpu}"


def _able(nodes: Sequence[Node], label: str | None, gpu: bool) -> list[Node]:
    sound = [node for node in nodes if not node.trouble and (label is None or node.resources.get(label))]
    sound = [node for node in sound if node.gpus >= 1 or not gpu]
    return [node for node in sound if node.resources.get(QUIET)] or sound


def cpus_each(nodes: Sequence[Node], at_once: int | None, usual: int) -> int:
    """Return the processors of one job, so that the smallest node does `at_once` jobs; None: `usual`, or all that it has."""
    least = max(1, int(min((node.cpus for node in nodes if node.cpus >= 1), default=1)))
    return min(usual, least) if at_once is None else max(1, least // at_once)


def width_of(nodes: Sequence[Node], cpus: int) -> int:
    """Return how many jobs with `cpus` processors each the nodes do at once."""
    return max(1, sum(int(node.cpus // cpus) for node in nodes if not node.trouble))


def in_words(nodes: Sequence[Node], width: int, timed: Collection[str]) -> str:
    """Return a description of the cluster; `width`: jobs at once; `timed`: the hosts that time models."""
    sound = [node for node in nodes if not node.trouble]
    hosts = Counter(node.host for node in sound)
    named = ", ".join(host + (f" ({count})" if count > 1 else "") for host, count in sorted(hosts.items())[:8])
    more = ", ..." if len(hosts) > 8 else ""
    gpus = int(sum(node.gpus for node in nodes))
    what = f"{len(sound)} nodes: {named}{more}; {int(sum(node.cpus for node in sound))} processors"
    on = f"{', '.join(sorted(timed)[:4])}{', ...' if len(timed) > 4 else ''}"
    return f"{what}{f', {gpus} GPUs' if gpus else ''}; {width} jobs at once; timed on {on}"
