"""What `doctor --engine ray` and `plan` say of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_inputs import write_demo
from conftest import Ran
from fakes import make_sweep

from autotune.cli import main
from autotune.errors import Exit
from autotune.execution import ray_cluster
from autotune.execution.cluster import QUIET, Node
from autotune.machine import machine_digest
from autotune.present import cluster as cluster_command
from autotune.present.cluster import as_lines, clustered, summary, waiting

HERE = {"torch": "2.13.0", "peft": "0.21.2", "python": "3.11.7"}


def node(name: str, cpus: float = 8.0, **more: object) -> Node:
    return Node(name * 8, f"host-{name}", machine_digest(), cpus, packages=HERE, **more)  # type: ignore[arg-type]


def test_a_cluster_that_lacks_nothing_is_ready() -> None:
    found = summary([node("a", 0.0), node("b"), node("c", resources={QUIET: 1.0})], "head:6379", "/cache", HERE)
    assert found["ready"]
    assert found["jobs_at_once"] == 4
    assert as_lines(found) == [
        "Ray cluster at head:6379: 4 jobs at once",
        "cache: /cache",
        "node host-a (aaaaaa): 0 processors",
        "node host-b (bbbbbb): 8 processors",
        "node host-c (cccccc): 8 processors, quiet 1, times",
        "ready",
    ]


def test_what_is_missing_is_said_of_each_node_that_does_jobs() -> None:
    other = Node(
        "c" * 8, "host-c", "another", 4.0, 1.0, packages={"torch": "2.12.0", "python": "3.12.0", "onnx": "1.19"}
    )
    blind = Node("d" * 8, "host-d", "", 4.0, trouble="it does not see /cache/x")
    head = Node("e" * 8, "head", "", 0.0, trouble="autotune cannot be run there")
    found = summary([node("a"), other, blind, head], "head:6379", "/cache", HERE)
    assert not found["ready"]
    assert found["problems"] == [
        "host-c (cccccc): onnx 1.19, the tuner has none",
        "host-c (cccccc): peft is missing, the tuner has 0.21.2",
        "host-c (cccccc): torch 2.12.0, the tuner has 2.13.0",
        "host-d (dddddd): it does not see /cache/x",
    ]
    lines = as_lines(found)
    assert "node host-c (cccccc): 4 processors, 1 GPUs" in lines
    assert (
        "no node has the resource `quiet`: models are timed on any node of one kind, each timing alone on its host"
        in lines
    )
    assert lines[-1] == "not ready: see the problems above"
    assert summary([head], "head:6379", "/cache", HERE)["problems"] == ["the cluster has no node with processors"]


WAITS = "its candidates wait until one has joined, in the same run or in a later one; the other targets go on"
PHONE = """start one with `ray start --address HEAD:PORT --resources '{"phone": 1}'`"""


@pytest.mark.parametrize(
    ("targets", "nodes", "lines"),
    [
        ({"a": {"label": "phone"}, "b": {}}, [node("b", resources={"phone": 1.0})], []),
        ({"a": {"label": "phone"}, "b": {}}, [node("b")], [f"target a: no node of the cluster has the resource phone: {WAITS}; {PHONE}"]),
        ({"a": {"label": "phone"}, "b": {}}, [node("b"), node("c", resources={"phone": 1.0}, trouble="ill")], [
            f"target a: no node of the cluster has the resource phone: {WAITS}; {PHONE}"]),
        ({"a": {"provider": "cuda"}, "b": {}}, [node("b")], [
            f"target a: no node of the cluster has a GPU: {WAITS}; start one with `ray start --address HEAD:PORT` on a machine with a GPU"]),
        ({"a": {"provider": "cuda"}, "b": {}}, [node("b", gpus=1.0)], []),
        ({"a": {"label": "phone"}}, [node("b")], [
            f"target a: no node of the cluster has the resource phone: `run` refuses to begin before one has joined; {PHONE}"]),
    ],
)  # fmt: skip
def test_a_plan_says_which_targets_wait_for_a_node(
    targets: dict[str, dict[str, str]], nodes: list[Node], lines: list[str]
) -> None:
    sweep = make_sweep(
        targets={name: {"provider": "cpu"} | keys for name, keys in targets.items()}, build=[{"precision": "int4"}]
    )
    assert waiting(sweep, nodes) == lines


def test_a_plan_of_one_target_says_that_its_node_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_command, "_seen", lambda address: ([node("b")], "head:6379", "/cache"))
    monkeypatch.setattr(cluster_command, "packages", lambda: HERE)
    sweep = make_sweep(engine="ray", target={"provider": "cpu", "label": "phone"})
    found = clustered(sweep, None)
    assert found.jobs == 2
    assert found.notes == (
        "Ray cluster at head:6379: 1 nodes, 2 jobs at once",
        f"target: no node of the cluster has the resource phone: `run` refuses to begin before one has joined; {PHONE}",
    )
    assert clustered(make_sweep(), None).notes == ()


def test_a_plan_without_the_cluster_is_for_this_machine_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "is_installed", lambda: False)
    monkeypatch.chdir(tmp_path)
    write_demo(tmp_path)
    assert main(["plan", "sweep.yaml", "--engine", "ray"]) == 0
    assert "engine ray needs the package ray" in (out := capsys.readouterr().out)
    assert "what follows is for this machine alone" in out.replace("\n", " ")


def test_the_doctor_without_ray_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "is_installed", lambda: False)
    assert main(["doctor", "--engine", "ray"]) == 3
    assert capsys.readouterr().err.startswith("autotune: engine ray needs the package ray; pip install ")


@pytest.mark.parametrize("command", [["plan", "sweep.yaml"], ["run", "sweep.yaml"], ["doctor"]])
def test_the_address_of_a_cluster_is_refused_where_the_engine_is_another(
    command: list[str], autotune: Callable[..., Ran]
) -> None:
    write_demo(Path())
    done = autotune(*command, "--address", "head:6379")
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "--address: belongs to --engine ray" in done.err
