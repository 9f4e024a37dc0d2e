"""A cluster of Ray: an order is a Ray task with resources. The only module that imports `ray`.

The tuner joins, as its driver, a cluster that was started before; when the driver ends, Ray ends its tasks. Ray retries no
task on its own: `remote.py` decides on another attempt.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import queue
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from autotune.distribution import pip_install
from autotune.errors import MachineError, Problem, UsageError
from autotune.execution.cluster import Needs, Node, Reply
from autotune.execution.node import SEEN_S, NodeProcess, Order
from autotune.execution.runs import trouble_of
from autotune.machine import foreign_cpu, machine_digest, packages

_OWN = ("CPU", "GPU", "memory", "object_store_memory")
_GONE_S = 20.0
"""The cluster counts as gone after so many seconds of silence from the head. Ray itself waits longer, and ends the process then."""
_REACH_S = 10.0
"""Seconds in which the head must take a connection."""
_SURVEY_S = 60.0
_SLICE_S = 2.0
"""Seconds between two checks of the head during a longer wait."""
_LOAD_S = 20.0
"""Seconds that a node may take to report its load."""

_process: NodeProcess | None = None


def _perform(text: str) -> tuple[str, str]:
    """Do an order, in a process of a node. Returns the answer, and the node's id."""
    global _process  # Ray keeps the process between tasks, and its warm worker with it
    if _process is None:
        import __main__

        # A worker started by `spawn` would import Ray's own main module, which takes a second.
        with contextlib.suppress(AttributeError):
            del __main__.__file__
        _process = NodeProcess()
    import ray

    node: str = ray.get_runtime_context().get_node_id()
    return _process.do(Order.model_validate_json(text), node).model_dump_json(), node


@dataclass(frozen=True)
class _Surveyed:
    """The report of a node about itself."""

    host: str = ""
    machine: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    trouble: str = ""


def _survey(sees: str) -> tuple[str, str, dict[str, str], str]:
    """Return a node's host, the digest of its hardware, the versions of its packages, and why it can do no job (or empty)."""
    versions = packages() | {"python": platform.python_version()}
    trouble = trouble_of(sees, SEEN_S) if sees else ""
    return socket.gethostname(), machine_digest(), versions, trouble


def _load() -> float:
    """Return how many cores of a node are busy with processes that Ray has not started."""
    return foreign_cpu(own=os.getppid())


def is_installed() -> bool:
    """Whether Ray is installed."""
    return importlib.util.find_spec("ray") is not None


class RayCluster:
    """A cluster that was joined. Use it as a context: leaving it leaves the cluster."""

    def __init__(self, address: str | None = None, sees: str = "") -> None:
        """`address`: HOST:PORT of the head; None: that of RAY_ADDRESS, or the cluster that runs on this machine. `sees`: the
        folder of a run in the cache that all nodes must see, or its address in a store; empty: nodes are not asked for it.

        Raises MachineError where Ray is not installed, or no cluster answers; UsageError for an address of another kind.
        """
        if not is_installed():
            raise MachineError(f"engine ray needs the package ray; {pip_install('ray')}, on all nodes")
        address = address or os.environ.get("RAY_ADDRESS") or "auto"
        if address.startswith("ray://") or address == "local":
            rule = "must be HOST:PORT of the cluster's head: the tuner runs on a machine of the cluster"
            raise UsageError(Problem(rule, "--address", value=address, remedy="leave it out on the head itself"))
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        self._ray: Any = ray
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()
        self._sees = sees
        self._asked: dict[str, Any] = {}
        self._surveyed: dict[str, _Surveyed] = {}
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            if why := _unreachable(address):
                raise ConnectionError(why)
            ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=None)
            self.address: str = ray.get_runtime_context().gcs_address
            self.joined_by: str = ray.get_runtime_context().get_node_id()
            """The id of this machine's node, through which the cluster was joined."""
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            remedy = "start one with `ray start --head --disable-usage-stats`, or name its head by --address HOST:PORT"
            raise MachineError(f"no Ray cluster answers at {address} ({said}); {remedy}") from None
        finally:
            with contextlib.suppress(ValueError):  # not in the main thread
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        self._perform = ray.remote(max_retries=0, retry_exceptions=False)(_perform)
        self._ask = ray.remote(max_retries=0, num_cpus=0)(_survey)
        self._load = ray.remote(max_retries=0, num_cpus=0)(_load)
        self._more_bytes = 0
        self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def nodes(self) -> Sequence[Node]:
        """Return the present nodes that have reported. Raises MachineError where the head is gone."""
        began = time.monotonic()
        while True:
            self._check_head()
            try:
                return self._nodes_now()
            except (self._ray.exceptions.RayError, ConnectionError) as error:  # the head went between two questions
                if time.monotonic() - began > _GONE_S:
                    raise MachineError(
                        f"the Ray cluster at {self.address} does not answer ({_line(error, 'no reason')})"
                    ) from None
                time.sleep(1.0)

    def _nodes_now(self) -> list[Node]:
        there = [node for node in self._ray.nodes() if node["Alive"]]
        first = not self._asked
        for node in there:
            if (one := node["NodeID"]) not in self._asked:
                self._asked[one] = self._ask.options(**self._at(one)).remote(self._sees)
        waiting = [ref for one, ref in self._asked.items() if one not in self._surveyed]
        answered = self._answered(waiting, _SURVEY_S if first else 0.0)
        for one, ref in list(self._asked.items()):
            if ref in answered:
                if (said := self._answer_of(ref)) is None:
                    del self._asked[one]
                else:
                    self._surveyed[one] = said
        return [self._node(node) for node in there if node["NodeID"] in self._surveyed]

    def _answered(self, refs: Sequence[Any], patience_s: float) -> list[Any]:
        """Return which of these requests are answered within `patience_s` seconds.

        Raises MachineError where the head is gone: Ray itself would end the process after a minute of silence.
        """
        end = time.monotonic() + patience_s
        while refs:
            left_s = end - time.monotonic()
            found, waiting = self._ray.wait(refs, num_returns=len(refs), timeout=min(_SLICE_S, max(0.0, left_s)))
            if not waiting or left_s <= _SLICE_S:
                return list(found)
            self._check_head()
        return []

    def _answer_of(self, ref: Any) -> _Surveyed | None:
        """Return the report of a node; None where it was about to leave: it is asked again if it stays."""
        errors = self._ray.exceptions
        try:
            return _Surveyed(*self._ray.get(ref))
        except (errors.TaskUnschedulableError, errors.NodeDiedError):
            return None
        except self._ray.exceptions.RayTaskError as error:
            return _Surveyed(trouble=f"autotune cannot be run there ({_last_line(error)}); install it on all nodes")
        except self._ray.exceptions.RayError as error:
            return _Surveyed(trouble=_line(error, "it does not answer"))

    def idle(self) -> Mapping[str, Mapping[str, float]]:
        """As `Cluster.idle`."""
        from ray._private.state import available_resources_per_node

        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):
            found: dict[str, dict[str, float]] = available_resources_per_node()
            return found
        return {}

    def use_others(self) -> None:
        """As `Cluster.use_others`, by asking for one more byte of memory.

        Ray reuses processes, and waiting requests for processes, that a node granted to earlier tasks with the same resources.
        It does so for minutes with a node that was suspended or cut off, even after it reports that the node has left. Tasks
        with another amount of memory get new ones.
        """
        self._more_bytes += 1

    def foreign_cpu(self, nodes: Sequence[str]) -> float:
        """As `Cluster.foreign_cpu`. Stages of other sweeps do not count: a timing waits for them."""
        refs = [self._load.options(**self._at(node)).remote() for node in nodes]
        found = [0.0]
        for ref in self._ray.wait(refs, num_returns=len(refs), timeout=_LOAD_S)[0] if refs else ():
            with contextlib.suppress(self._ray.exceptions.RayError):  # the node is lost
                found.append(float(self._ray.get(ref)))
        return max(found)

    def send(self, order: int, text: str, needs: Needs) -> None:
        """Send an order as a task."""
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "resources": dict(needs.resources)}
        if memory := int(needs.memory_mb * 1e6) + self._more_bytes:
            options["memory"] = memory
        if needs.node:
            options |= self._at(needs.node)
        elif needs.near:
            options |= self._at(needs.near, wish=True)
        try:
            future: Future[tuple[str, str]] = self._perform.options(**options).remote(text).future()
        except self._ray.exceptions.RayError as error:  # the head went just now: the next look at the nodes says so
            self._replies.put(Reply(order, lost=_line(error, "the cluster took no order")))
            return
        future.add_done_callback(lambda done: self._replies.put(self._reply(order, done)))

    def reply(self, patience_s: float) -> Reply | None:
        """As `Cluster.reply`."""
        try:
            return self._replies.get(timeout=patience_s) if patience_s else self._replies.get_nowait()
        except queue.Empty:
            return None

    def _reply(self, order: int, done: Future[tuple[str, str]]) -> Reply:
        errors = self._ray.exceptions
        try:
            text, node = done.result()
            return Reply(order, text, node)
        except errors.RayTaskError as error:  # before the order is read: autotune is missing there, or another version
            remedy = "`autotune doctor --engine ray` looks at all nodes"
            return Reply(order, trouble=f"a node could not do its order: {_last_line(error)}; {remedy}")
        except errors.TaskUnschedulableError as error:
            return Reply(order, lost=_line(error, "no node would do"))
        except errors.OutOfMemoryError as error:
            return Reply(order, lost=_line(error, "the node ran out of memory"))
        except errors.RayError as error:
            return Reply(order, lost=_line(error, "its node was lost"))

    def _at(self, node: str, wish: bool = False) -> dict[str, Any]:
        """Return the option that binds a task to a node; `wish`: the task prefers it, and runs elsewhere if it is busy."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=wish, _spill_on_unavailable=wish)}

    def _node(self, found: dict[str, Any]) -> Node:
        resources, said = found["Resources"], self._surveyed[found["NodeID"]]
        own = {name: value for name, value in resources.items() if name not in _OWN and not name.startswith("node:")}
        sizes = (resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0) / 1e6)
        host = said.host or found["NodeManagerHostname"]
        return Node(found["NodeID"], host, said.machine, *sizes, own, said.trouble, said.packages)

    def _check_head(self) -> None:
        """Raise MachineError where the cluster's head has been silent for too long."""
        host, _, port = self.address.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=2.0).close()
            except OSError:
                if time.monotonic() - self._spoken > _GONE_S:
                    remedy = "start a cluster, then run the same command again: what has ended is kept"
                    raise MachineError(f"the Ray cluster at {self.address} is gone; {remedy}") from None
                time.sleep(1.0)
            else:
                self._spoken = time.monotonic()
                return


def _unreachable(address: str) -> str:
    """Return why HOST:PORT takes no connection; empty where it does, or the address has no port. Ray would need minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _line(error: BaseException, otherwise: str) -> str:
    """Return the first sentence of Ray's error; `otherwise`: where it has none."""
    return " ".join(str(error).split()).partition(". ")[0][:200] or otherwise


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
