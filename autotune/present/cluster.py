"""`doctor --engine ray`: shows what each node of a cluster has, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.artifacts.store import Cache, default_root
from autotune.errors import MachineError
from autotune.execution.cluster import QUIET, Node, cpus_each, how_to_start, kind_to_time, lacking, to_time, width_of
from autotune.execution.engines import check_address
from autotune.execution.ray_cluster import RayCluster
from autotune.execution.runs import run_in, run_place
from autotune.execution.workers import CORES_EACH
from autotune.machine import machine_digest, packages
from autotune.sweepfile.schema import Sweep


@dataclass(frozen=True)
class Clustered:
    """The cluster of a sweep, as far as `plan` knows it."""

    jobs: int = 0
    """The number of jobs that it does at once; 0: there is no cluster, or it does not answer."""
    notes: tuple[str, ...] = ()
    """Notes for the user, one line each, also about targets without a node."""


def clustered(sweep: Sweep, address: str | None) -> Clustered:
    """Return the cluster of a sweep; if it does not answer, a note says that the plan is for this machine alone.

    Raises UsageError for an address if the engine is no cluster.
    """
    check_address(sweep.engine, address)
    if sweep.engine != "ray":
        return Clustered()
    try:
        nodes, joined, cache = _seen(address)
    except MachineError as error:
        return Clustered(notes=(f"{error}; what follows is for this machine alone",))
    found = summary(nodes, joined, cache, packages(), sweep.workers.cpu if isinstance(sweep.workers.cpu, int) else None)
    doing = [node for node in nodes if node.cpus >= 1]
    what = f"Ray cluster at {found['address']}: {len(doing)} nodes, {found['jobs_at_once']} jobs at once"
    return Clustered(found["jobs_at_once"], (what, *found["problems"], *waiting(sweep, nodes)))


def waiting(sweep: Sweep, nodes: Sequence[Node]) -> list[str]:
    """Return lines about the sweep's targets without a node in the cluster, and what `run` does about them."""
    asked = {name: one.needs for name, one in sweep.by_target.items()}
    why = {name: found for name, wanted in asked.items() if any(wanted) and (found := lacking(nodes, *wanted))}
    if len(why) == len(asked):
        later = "`run` refuses to begin before one has joined"
    else:
        later = "its candidates wait until one has joined, in the same run or in a later one; the other targets go on"
    return [
        f"{f'target {name}' if name else 'target'}: {found}: {later}; {how_to_start(*asked[name])}"
        for name, found in why.items()
    ]


def examine_cluster(address: str | None, at_once: int | None = None) -> dict[str, Any]:
    """Join a cluster of Ray and return what its nodes have; `at_once`: jobs that one node does at once. Raises MachineError where there is none, UsageError, OSError."""
    nodes, joined, cache = _seen(address)
    return summary(nodes, joined, cache, packages(), at_once)


def _seen(address: str | None) -> tuple[list[Node], str, str]:
    """Return the nodes of a cluster, its address, and the place of the cache. Raises as `examine_cluster`."""
    cache = Cache(default_root())
    with run_in(cache) as run, RayCluster(address, run_place(cache, run)) as cluster:
        nodes = sorted(cluster.nodes(), key=lambda node: (node.host, node.id))
        return nodes, cluster.address, str(cache.shared or cache.root)


def summary(
    nodes: list[Node], address: str, cache: str, here: dict[str, str], at_once: int | None = None
) -> dict[str, Any]:
    """Return the findings about nodes as plain data; `here`: the versions of the tuner's packages."""
    doing = [node for node in nodes if node.cpus >= 1]
    timed = {node.id for node in to_time(doing, kind_to_time(doing, machine_digest()))}
    problems = [] if doing else ["the cluster has no node with processors"]
    listed = []
    for node in nodes:
        differ = _differences(node, here) if node in doing and not node.trouble else []
        if node in doing:
            problems += [f"{node}: {what}" for what in ([node.trouble] if node.trouble else differ)]
        listed.append({
            "host": node.host, "id": node.id, "processors": node.cpus, "gpus": node.gpus,
            "memory_mb": round(node.memory_mb), "resources": dict(node.resources), "times": node.id in timed,
            "trouble": node.trouble, "differs": differ,
        })  # fmt: skip
    jobs = width_of(doing, cpus_each(doing, at_once, CORES_EACH)) if doing else 0
    return {
        "address": address, "cache": cache, "nodes": listed, "jobs_at_once": jobs, "problems": problems,
        "quiet": any(node.resources.get(QUIET) for node in doing), "ready": not problems,
    }  # fmt: skip


def _differences(node: Node, here: dict[str, str]) -> list[str]:
    names = sorted(name for name in {*here, *node.packages} - {"python"} if here.get(name) != node.packages.get(name))
    return [
        f"{name} {node.packages.get(name) or 'is missing'}, the tuner has {here.get(name) or 'none'}" for name in names
    ]


def as_lines(found: dict[str, Any]) -> list[str]:
    """Return the findings for people."""
    lines = [f"Ray cluster at {found['address']}: {found['jobs_at_once']} jobs at once", f"cache: {found['cache']}"]
    for node in found["nodes"]:
        what = f"{node['processors']:g} processors" + (f", {node['gpus']:g} GPUs" if node["gpus"] else "")
        own = "".join(f", {name} {value:g}" for name, value in sorted(node["resources"].items()))
        lines.append(f"node {node['host']} ({node['id'][:6]}): {what}{own}" + (", times" if node["times"] else ""))
    if not found["quiet"]:
        lines.append(
            "no node has the resource `quiet`: models are timed on any node of one kind, each timing alone on its host"
        )
    lines += [f"problem: {problem}" for problem in found["problems"]]
    return [*lines, "ready" if found["ready"] else "not ready: see the problems above"]
