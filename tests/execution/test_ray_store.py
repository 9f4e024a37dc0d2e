"""A sweep on nodes of Ray that share a store and no folder, each the only one with the device of one of the sweep's targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import TONES
from s3_server import BUCKET, serving

from autotune.errors import Exit
from autotune.remote.objects import Objects
from autotune.results.rows import StageSpan, Trial
from autotune.results.table import read_table
from benchmarks.ray_nodes import Nodes, nodes_in

pytestmark = [pytest.mark.slow, pytest.mark.marathon]
CACHE = f"s3://{BUCKET}/cache"
COMMAND = "import sys; from autotune.execution import engines; engines.GONE_S = 3.0; from autotune.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with serving(), nodes_in(2, apart=True, labels=("left", "right")) as there:
        yield there


@pytest.fixture
def begin(nodes: Nodes, tiny_llama: Path, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """A sweep file, and the processes of a test, which are ended."""
    for split, count in (("train", 16), ("validation", 12)):
        rows = ({"text": f"{n} I felt {TONES[n % 4]} {split}", "tone": TONES[n % 4]} for n in range(count))
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    timing = {"timing": {"processes": 2, "most": 2, "repeats": 0}}
    sweep = {
        "name": "apart", "model": str(tiny_llama), "strategy": "grid", "budget": {"trials": 4},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
        "train": {"max_length": 64}, "targets": {name: timing | {"label": name, "threads": threads} for threads, name in ((1, "left"), (2, "right"))},
        "space": {"lora": {"r": {"choice": [2, 4]}, "steps": 2, "batch_size": 4}, "build": [{"precision": "fp32"}]},
    }  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def run(nodes: Nodes, folder: Path, processes: list[subprocess.Popen[str]], name: str) -> subprocess.Popen[str]:
    """Start the command, on a machine with a home of its own."""
    arguments = ["run", "sweep.yaml", "--set", f"name={name}", "--engine", "ray", "--address", nodes.address]
    environment = os.environ | {"AUTOTUNE_CACHE": CACHE, "XDG_CACHE_HOME": str(folder / "home")}
    with (folder / f"{name}.txt").open("a", encoding="utf-8") as log:
        command = [sys.executable, "-c", COMMAND, *arguments]
        processes.append(subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=log, stderr=log))
    return processes[-1]


def ended(process: subprocess.Popen[str], folder: Path, name: str, without: str = "") -> str:
    """Return what was said, once the command has ended well; `without`: a target that may end without a result."""
    code = process.wait(timeout=400)
    said = (folder / f"{name}.txt").read_text(encoding="utf-8")
    found = {row.target for row in trials(folder, name) if row.kind == "pair" and row.status == "ok"}
    assert code == (Exit.NO_RESULT if without and without not in found else Exit.OK), said
    return said


def trials(folder: Path, name: str) -> list[Trial]:
    file = folder / "results" / name / "results.csv"
    return read_table(file, Trial) if file.exists() else []


def trainings(folder: Path, name: str) -> int:
    spans = read_table(folder / "results" / name / "timeline.csv", StageSpan)
    return sum(span.stage == "finetune" for span in spans)


def test_two_targets_on_two_nodes_that_share_a_store_alone(
    nodes: Nodes, tmp_path: Path, begin: list[subprocess.Popen[str]]
) -> None:
    ended(run(nodes, tmp_path, begin, "both"), tmp_path, "both")
    rows = trials(tmp_path, "both")
    assert {row.status for row in rows} == {"ok"}
    pairs = Counter(row.target for row in rows if row.kind == "pair")
    assert pairs == {"left": 2, "right": 2}
    assert len({row.adapter for row in rows if row.kind == "pair"}) == trainings(tmp_path, "both") == 2
    for target in ("left", "right"):  # a winner each, brought from the store
        assert (tmp_path / "results" / "both" / "best" / target / "onnx").is_dir()
    for place in (1, 2):  # each node has a cache of its own, and timed its own target
        (cache,) = (nodes.folder / f"home-{place}" / "autotune" / "shared").iterdir()
        assert any((cache / "time").iterdir())
    spans = read_table(tmp_path / "results" / "both" / "timeline.csv", StageSpan)
    moved = Counter[str]()
    for span in spans:
        if span.moved_mb is not None:
            moved[f"{span.stage} {str(span.result).partition('/')[0]}"] += 1
    assert moved["send finetune"] == 2
    assert moved["send merge"] == moved["fetch merge"] == 0
    assert moved["fetch inputs"] >= 2  # the model and the items, to each node once
    assert moved["fetch build"] >= 2  # to the tuner, for best/
    objects = Objects(CACHE, "")
    assert objects.names("build/")
    assert not [name for folder in ("makers", "leases", "merge", "cluster-") for name in objects.names(f"{folder}/")]


def test_what_waits_for_a_node_that_is_gone_keeps_nothing_else_waiting(
    nodes: Nodes, tmp_path: Path, begin: list[subprocess.Popen[str]]
) -> None:
    process = run(nodes, tmp_path, begin, "gone")
    end = time.monotonic() + 300
    while not any(row.target == "right" for row in trials(tmp_path, "gone")):  # its untouched model
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    nodes.kill_node(nodes.with_label("right"))
    # The target whose node is gone has a result where the other one has scored the same build before.
    said = ended(process, tmp_path, "gone", without="right")
    assert "no node of the cluster has the resource right" in said
    rows = trials(tmp_path, "gone")
    assert Counter(row.target for row in rows if row.kind == "pair" and row.status == "ok")["left"] == 2
    assert (tmp_path / "results" / "gone" / "best" / "left" / "onnx").is_dir()
    nodes.add("right")
    ended(run(nodes, tmp_path, begin, "gone"), tmp_path, "gone")
    last = {row.candidate: row for row in trials(tmp_path, "gone")}
    assert Counter(row.target for row in last.values() if row.kind == "pair" and row.status == "ok") == {
        "left": 2,
        "right": 2,
    }
    assert (tmp_path / "results" / "gone" / "best" / "right" / "onnx").is_dir()
