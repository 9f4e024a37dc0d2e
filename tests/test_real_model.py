"""The built-in real model through a short sweep, and its winner loaded by onnxruntime_genai alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from autotune.results.folder import read_results
from autotune.results.rows import Finalist
from autotune.results.table import read_table

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_short_sweep_of_the_built_in_model(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "autotune", "run", "search_spaces/phrase-tone-cpu.yaml", "--out", str(out)]
    changes = ["budget.trials=2", "space.lora.steps=24", "data.max_items={validation: 60, test: 120}",
               "space.build=[{precision: [int8, int4]}]", "limits=[]", "target.timing={processes: 3, most: 4}"]  # fmt: skip
    for change in changes:
        command += ["--set", change]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    rows = read_results(out)
    assert [row["status"] for row in rows] == ["ok"] * 3
    finalists = {row["role"]: row for row in read_table(out / "finalists.csv", Finalist)}
    assert float(str(finalists["winner"]["accuracy"])) > float(str(finalists["base"]["accuracy"])) + 0.1

    check = [sys.executable, "-m", "benchmarks.verify_best", str(out)]
    verified = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "heavy modules in the child none" in verified.stdout
