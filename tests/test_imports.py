"""Imports go one way, and heavy packages stay in the stages: what people wait for starts at once."""

from __future__ import annotations

import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from bad_inputs import write_demo

from autotune.results.rows import Trial
from autotune.results.table import Table
from benchmarks.rooms import imported, imports_within, rank, read_modules

HEAVY = {
    "accelerate", "bitsandbytes", "datasets", "gguf", "huggingface_hub", "lm_eval", "nltk", "rouge_score", "onnx", "onnx_ir", "onnxruntime",
    "onnxruntime_genai", "peft", "safetensors", "tokenizers", "torch", "transformers",
}  # fmt: skip

DESCRIPTIONS = {
    f"stages.{name}" for name in ("protocol", "jobs", "preparation_jobs", "delivery_jobs", "inspection_findings", "library_errors")
}  # fmt: skip
"""The modules of `stages` that other rooms import."""

MODULES = read_modules()
INNER = imports_within(MODULES)


def test_the_modules_were_found() -> None:
    assert {"cli", "present.select", "stages", "sweepfile.schema", *DESCRIPTIONS} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_only_stages_import_heavy_packages(name: str) -> None:
    heavy = {full.split(".")[0] for full in imported(MODULES[name])} & HEAVY
    assert heavy == set() or (name.startswith("stages.") and name not in DESCRIPTIONS)


def test_one_module_imports_ray() -> None:
    found = {name for name, tree in MODULES.items() if "ray" in {full.split(".")[0] for full in imported(tree)}}
    assert found == {"execution.ray_cluster"}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards(name: str) -> None:
    upwards = {other for other in INNER[name] if rank(other) > rank(name)}
    assert upwards == set()


@pytest.mark.parametrize("name", MODULES)
def test_stages_are_described_by_their_jobs_alone(name: str) -> None:
    """The rest of `stages` is imported where it runs, in a worker."""
    if not name.startswith("stages."):
        assert {other for other in INNER[name] if other.startswith("stages.")} <= DESCRIPTIONS


def test_no_imports_go_in_a_circle() -> None:
    assert len(tuple(TopologicalSorter({name: INNER[name] for name in MODULES}).static_order())) == len(MODULES)


# --- What is really loaded -----------------------------------------------------------------------------------------

CHILD = """
import contextlib, io, json, sys
from autotune.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    try:
        code = main(sys.argv[1:])
    except SystemExit as ended:
        code = ended.code
print(json.dumps([code, sorted(sys.modules)]))
"""


def loaded(folder: Path, *command: str) -> set[str]:
    """Run a command in a fresh process; return the top-level packages that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, names = json.loads(done.stdout)
    assert code == 0, done.stderr
    return {name.split(".")[0] for name in names}


def test_help_loads_nothing_but_python(tmp_path: Path) -> None:
    packages = loaded(tmp_path, "--help")
    assert "autotune" in packages
    assert packages & (HEAVY | {"numpy", "pandas", "optuna", "pydantic", "yaml", "rich", "psutil"}) == set()


def test_select_and_status_load_no_heavy_package(tmp_path: Path) -> None:
    table = Table(tmp_path / "results.csv", Trial)
    table.append(
        Trial(
            {
                "candidate": "a",
                "trial": 1,
                "attempt": 1,
                "kind": "pair",
                "status": "ok",
                "accuracy": 0.5,
                "size_mb": 9.0,
            }
        )
    )
    (tmp_path / "sweep.yaml").write_text(
        "name: x\nobjectives: {accuracy: maximize, size_mb: minimize}\nbudget: {trials: 3}\n", encoding="utf-8"
    )
    for command in (("select", "."), ("select", "results.csv", "--json"), ("status", ".")):
        packages = loaded(tmp_path, *command)
        assert packages & (HEAVY | {"optuna", "pandas", "rich"}) <= ({"rich"} if command[0] == "status" else set())


def test_plan_loads_no_heavy_package(tmp_path: Path) -> None:
    write_demo(tmp_path)
    assert loaded(tmp_path, "plan", "sweep.yaml") & (HEAVY | {"optuna", "pandas"}) == set()
