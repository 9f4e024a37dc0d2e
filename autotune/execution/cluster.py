"""A cluster as the executor sees it: nodes that are asked for, orders that are sent there, and what comes back.

`ray_cluster.py` is the one that runs on Ray; tests have one of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

QUIET = "quiet"
"""The resource of hosts on which models are timed, one each; where no node has it, all may time."""


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
    """Those that whoever started the node gave it."""
    trouble: str = ""
    """Why it can do no job of a sweep."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """The versions of what is installed there."""

    def __str__(self) -> str:
        return f"{self.host} ({self.id[:6]})"


@dataclass(frozen=True)
class Needs:
    """What an order takes of its node."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mb: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    node: str = ""
    """The id of the only node that will do; empty: any."""
    near: str = ""
    """The id of the node that has what the order reads: it goes there if that node is free."""

    def __str__(self) -> str:
        parts = [
            f"{self.cpus:g} processors",
            "a GPU" if self.gpus else "",
            *(f"the resource {name}" for name in self.resources),
        ]
        return ", ".join(filter(None, [*parts, f"{self.memory_mb:.0f} MB of memory" if self.memory_mb else ""]))

    def met_by(self, node: Node) -> bool:
        """Whether a node has that, once it does nothing else."""
        sizes = ((node.cpus, self.cpus), (node.gpus, self.gpus), (node.memory_mb, self.memory_mb))
        own = all(node.resources.get(name, 0.0) >= value for name, value in self.resources.items())
        return own and all(there >= needed for there, needed in sizes) and self.node in ("", node.id)


@dataclass(frozen=True)
class Reply:
    """What came back of an order: the text of an answer; or why there is none."""

    order: int
    text: str = ""
    node: str = ""
    """The id of the node that answered; empty: not known."""
    lost: str = ""
    """Its node or its process was lost, in words."""
    trouble: str = ""
    """No node can do it, in words."""


class Cluster(Protocol):
    """Nodes that do orders."""

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that are there now. Raises MachineError where the cluster is gone."""
        ...

    def idle(self) -> Mapping[str, Mapping[str, float]]:
        """Return what nobody has taken of the nodes, by their ids: under CPU, GPU, memory (bytes) and the names of resources."""
        ...

    def use_others(self) -> None:
        """Give no process, or place in a queue of a node, to orders that are sent from now on because an order sent before had
        it: one of them says nothing any more.
        """
        ...

    def foreign_cpu(self, nodes: Sequence[str]) -> float:
        """Return how many cores other programs keep busy on the busiest of these nodes; 0: none of them says it in time."""
        ...

    def send(self, order: int, text: str, needs: Needs) -> None:
        """Send an order, which has this number, to a node that has what it needs; it waits for one."""
        ...

    def reply(self, patience_s: float) -> Reply | None:
        """Return what came back next; None where nothing did in so many seconds."""
        ...


def kind_to_time(nodes: Sequence[Node], own: str, label: str | None = None, gpu: bool = False) -> str:
    """Return the digest of the machines on which models are timed: of nodes that have the resource QUIET, or of all if none has;
    with a label, of those that have it; with `gpu`, of those that have a GPU. The tuner's own kind comes first, then the most frequent. Empty: there is none.
    """
    kinds = Counter(node.machine for node in _able(nodes, label, gpu) if node.machine)
    return own if own in kinds else min(kinds, key=lambda kind: (-kinds[kind], kind), default="")


def to_time(nodes: Sequence[Node], machine: str, label: str | None = None, gpu: bool = False) -> list[Node]:
    """Return the nodes on which models may be timed for a kind of machine; the rest is as in `kind_to_time`."""
    return [node for node in _able(nodes, label, gpu) if node.machine == machine]


def lacking(nodes: Sequence[Node], label: str | None = None, gpu: bool = False) -> str:
    """Return what no node has that a target asks for; empty: one has it. Arguments as of `kind_to_time`."""
    if kind_to_time(nodes, "", label, gpu):
        return ""
    wanted = ([f"the resource {label}"] if label else []) + ["a GPU"] * gpu
    return f"no node of the cluster has {' and '.join(wanted) or 'processors'}"


def how_to_start(label: str | None, gpu: bool) -> str:
    """Return how a node is started that has what a target asks for."""
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
    """Return the processors that one job takes: so that the smallest node does `at_once` jobs; None: `usual`, or all it has."""
    least = max(1, int(min((node.cpus for node in nodes if node.cpus >= 1), default=1)))
    return min(usual, least) if at_once is None else max(1, least // at_once)


def width_of(nodes: Sequence[Node], cpus: int) -> int:
    """Return how many jobs of so many processors the nodes do at once."""
    return max(1, sum(int(node.cpus // cpus) for node in nodes if not node.trouble))


def in_words(nodes: Sequence[Node], width: int, timed: Collection[str]) -> str:
    """Return in words what there is; `width`: jobs at once; `timed`: the hosts on which models are timed."""
    sound = [node for node in nodes if not node.trouble]
    hosts = Counter(node.host for node in sound)
    named = ", ".join(host + (f" ({count})" if count > 1 else "") for host, count in sorted(hosts.items())[:8])
    more = ", ..." if len(hosts) > 8 else ""
    gpus = int(sum(node.gpus for node in nodes))
    what = f"{len(sound)} nodes: {named}{more}; {int(sum(node.cpus for node in sound))} processors"
    on = f"{', '.join(sorted(timed)[:4])}{', ...' if len(timed) > 4 else ''}"
    return f"{what}{f', {gpus} GPUs' if gpus else ''}; {width} jobs at once; timed on {on}"
