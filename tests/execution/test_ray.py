"""The engine on a real cluster of Ray, whose nodes are processes of this machine; and what is said where there is none."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import TONES

from autotune.cli import main
from autotune.errors import Exit, MachineError, UsageError
from autotune.execution import ray_cluster
from autotune.execution.cluster import Needs, Reply
from autotune.execution.ray_cluster import RayCluster
from autotune.results.rows import StageSpan, Trial
from autotune.results.table import read_table
from benchmarks import ray_engine
from benchmarks.ray_nodes import Nodes, nodes_in


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "is_installed", lambda: False)
    with pytest.raises(
        MachineError, match=r"engine ray needs the package ray; pip install \"autotune-genai\[ray\]\".*, on all nodes"
    ):
        RayCluster()


@pytest.mark.parametrize("address", ["ray://head:10001", "local"])
def test_an_address_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(ray_cluster, "is_installed", lambda: True)
    with pytest.raises(UsageError, match="--address: must be HOST:PORT of the cluster's head"):
        RayCluster(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"])
def test_a_head_that_nobody_listens_at_is_named_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself asks for minutes: it is not asked at all."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    with pytest.raises(MachineError, match=rf"no Ray cluster answers at {re.escape(address)} \(.+\); start one with"):
        RayCluster(address)


class Going:
    """A module `ray` whose head goes while it is asked."""

    class exceptions:  # noqa: N801 - as in Ray
        class RayError(Exception):
            pass

    def __init__(self, times: int) -> None:
        self.times = times

    def nodes(self) -> list[dict[str, object]]:
        self.times -= 1
        if self.times >= 0:
            raise self.exceptions.RayError("RPC error: Deadline Exceeded")
        return []


def joined(monkeypatch: pytest.MonkeyPatch, ray: object) -> RayCluster:
    """A cluster whose head takes connections, with another `ray`."""
    cluster = RayCluster.__new__(RayCluster)
    cluster.address, cluster._ray, cluster._asked, cluster._surveyed = "head:6379", ray, {}, {}
    cluster._replies, cluster._more_bytes = queue.SimpleQueue(), 0
    monkeypatch.setattr(cluster, "_check_head", lambda: None)
    monkeypatch.setattr(ray_cluster.time, "sleep", lambda seconds: None)
    return cluster


def test_a_head_that_does_not_answer_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joined(monkeypatch, Going(2)).nodes() == []


def test_a_head_that_answers_nothing_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_GONE_S", 0.0)
    with pytest.raises(
        MachineError, match=r"the Ray cluster at head:6379 does not answer \(RPC error: Deadline Exceeded\)"
    ):
        joined(monkeypatch, Going(10**9)).nodes()


def test_a_head_that_goes_while_nodes_are_asked_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray ends a process that has waited for a minute without a head."""
    looks: list[float] = []

    class Silent(Going):
        def wait(self, refs: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
            looks.append(timeout)
            return refs[:1], refs[1:]

    def gone() -> None:
        if len(looks) == 3:
            raise MachineError("the Ray cluster is gone")

    cluster = joined(monkeypatch, Silent(0))
    monkeypatch.setattr(cluster, "_check_head", gone)
    with pytest.raises(MachineError, match="the Ray cluster is gone"):
        cluster._answered(["one", "two"], 60.0)
    assert max(looks) < 20.0
    assert cluster._answered(["one"], 60.0) == ["one"]
    assert cluster._answered(["one", "two"], 0.0) == ["one"]
    assert cluster._answered([], 60.0) == []


def test_an_order_that_the_cluster_does_not_take_is_lost_and_none_asks_for_what_was_granted_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []

    class Function:
        def options(self, **options: object) -> Function:
            asked.append(options)
            return self

        def remote(self, text: str) -> object:
            raise Going.exceptions.RayError("the head is gone. More")

    cluster = joined(monkeypatch, Going(0))
    cluster._perform = Function()
    for memory_mb in (0.0, 100.0):
        cluster.send(1, "", Needs(memory_mb=memory_mb))
        cluster.use_others()
        cluster.send(2, "", Needs(memory_mb=memory_mb))
    assert [options.get("memory") for options in asked] == [None, 1, 100_000_001, 100_000_002]
    assert cluster.reply(0.0) == Reply(1, lost="the head is gone")


# --- on a real cluster -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with nodes_in(3) as there:
        yield there


@pytest.mark.slow
def test_a_cluster_gives_the_rows_of_this_machine(nodes: Nodes) -> None:
    """`rows` compares them itself; a second look here, so that nobody leaves that out."""
    ray_engine.rows(nodes, candidates=4, strategies=["grid"])
    own, theirs = (ray_engine.rows_of(nodes.folder, f"{where}-grid") for where in ("local", "ray"))
    assert len(own) >= 4
    assert own == theirs
    spans = read_table(nodes.folder / "ray-grid" / "timeline.csv", StageSpan)
    assert all(span.host for span in spans)
    assert ray_engine.overlaps([nodes.folder / "ray-grid" / "timeline.csv"])[0] == 0


@pytest.mark.slow
def test_the_doctor_and_the_plan_know_the_cluster(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "autotune", "doctor", "--engine", "ray", "--address", nodes.address, "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout)
    assert found["ready"]
    assert found["jobs_at_once"] == 3
    assert sum(node["processors"] for node in found["nodes"]) == 3
    assert all(not node["differs"] for node in found["nodes"])


@pytest.mark.slow
@pytest.mark.marathon
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with nodes_in(3, scale=0.1) as there:
        found = dict(ray_engine.Kills(there, seed=1).run(8, candidates=6))
    assert found["of them begun again after they were finished"] == "0"
    assert found["candidates that are not ok"] == "0"
    sweeps, equal = found["sweeps, and how many ended with the rows of one that nobody disturbed"].split(", ")
    assert sweeps == equal


@pytest.mark.slow
@pytest.mark.marathon
def test_a_whole_sweep_of_the_tiny_model_runs_on_a_cluster(
    nodes: Nodes, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is faked: the command, in a process of its own, and every stage on the nodes."""
    for split, count in (("train", 16), ("validation", 12)):
        rows = ({"text": f"{n} I felt {TONES[n % 4]} {split}", "tone": TONES[n % 4]} for n in range(count))
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sweep = {
        "name": "on-ray", "model": str(tiny_llama), "engine": "ray", "strategy": "random", "budget": {"trials": 2},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
        "train": {"max_length": 64}, "space": {"lora": {"r": 2, "steps": 2, "batch_size": 4}, "build": [{"precision": "fp32"}]},
        "target": {"threads": 1, "timing": {"processes": 2, "most": 2, "repeats": 0}},
    }  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    command = [sys.executable, "-m", "autotune", "run", "sweep.yaml", "--address", nodes.address]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False, timeout=500
    )
    assert done.returncode in (Exit.OK, Exit.NO_FEASIBLE), done.stderr
    out = tmp_path / "results" / "on-ray"
    assert {row.status for row in read_table(out / "results.csv", Trial)} == {"ok"}
    spans = read_table(out / "timeline.csv", StageSpan)
    assert {"finetune", "build", "score", "time"} <= {span.stage for span in spans if span.host}
    assert "jobs at once; timed on" in done.stderr
    assert (out / "best" / "onnx").is_dir()
    assert len(json.loads((out / "machine.json").read_text(encoding="utf-8"))["cluster"]) == 4


@pytest.mark.marathon
@pytest.mark.slow
def test_a_target_without_a_node_waits_and_is_measured_when_one_joins(
    nodes: Nodes, tiny_llama: Path, tmp_path: Path
) -> None:
    """The command, in a process of its own: the plan says what waits, the run goes on without it, and takes it in."""
    for split, count in (("train", 16), ("validation", 12)):
        rows = ({"text": f"{n} I felt {TONES[n % 4]} {split}", "tone": TONES[n % 4]} for n in range(count))
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    target = {"threads": 1, "timing": {"processes": 2, "most": 2, "repeats": 0}}
    sweep = {
        "name": "waits", "model": str(tiny_llama), "engine": "ray", "strategy": "grid", "budget": {"trials": 8},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
        "train": {"max_length": 64}, "space": {"lora": {"r": {"choice": [2, 4, 8, 16]}, "steps": 2, "batch_size": 4}, "build": [{"precision": "fp32"}]},
        "targets": {"laptop": target, "phone": target | {"label": "phone"}},
    }  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    command = [sys.executable, "-m", "autotune", "plan", "sweep.yaml", "--address", nodes.address, "--json"]
    plan = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=True)
    why = "target phone: no node of the cluster has the resource phone"
    assert [
        note for note in json.loads(plan.stdout)["notes"] if note.startswith(f"{why}: its candidates wait until one")
    ]

    command = [sys.executable, "-m", "autotune", "run", "sweep.yaml", "--address", nodes.address]
    results, said = tmp_path / "results" / "waits", tmp_path / "said.txt"
    with said.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=stream, stderr=stream)
    try:
        end = time.monotonic() + 300
        while why not in " ".join(said.read_text(encoding="utf-8").split()):
            assert time.monotonic() < end, said.read_text(encoding="utf-8")
            assert process.poll() is None, said.read_text(encoding="utf-8")
            time.sleep(0.3)
        nodes.add("phone")
        code = process.wait(timeout=400)
    finally:
        process.kill()
    text = said.read_text(encoding="utf-8")
    assert code in (Exit.OK, Exit.NO_FEASIBLE), text
    assert f"{why}; its candidates wait until such a node joins" in " ".join(text.split())
    rows = read_table(results / "results.csv", Trial)
    assert Counter(row.target for row in rows if row.trial and row.status == "ok") == {"laptop": 4, "phone": 4}
    assert not any(row.status == "lost" for row in rows)
    assert {path.name for path in (results / "best").iterdir()} == {"laptop", "phone"}
    phone = [row for row in rows if row.target == "phone"]
    assert all(
        row.cost_s("train") is None
        for row in phone
        if row.adapter in {one.adapter for one in rows if one.target == "laptop"}
    )


def test_an_address_without_the_engine_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bad_inputs import write_demo

    write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "sweep.yaml", "--address", "head:6379"]) == Exit.USAGE
    assert "--address: belongs to --engine ray" in capsys.readouterr().err


def test_trainings_at_once_are_no_matter_of_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bad_inputs import write_demo

    write_demo(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "sweep.yaml", "--engine", "ray", "--set", "workers.train=2"]) == Exit.USAGE
    assert "workers.train: has no meaning on Ray" in capsys.readouterr().err
