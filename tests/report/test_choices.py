"""The page chooses as `select` does, and draws the same random numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.analysis.multiple_comparisons import paired_family, signs_bound
from autotune.analysis.statistics import mcnemar_exact, t_quantile, welch_p
from autotune.present.select import select
from autotune.report.data import read_report
from autotune.report.page import bundle
from autotune.results import judge
from autotune.results.folder import read_results
from autotune.results.judge import entries_of
from benchmarks.report_choices import SHAPES, differences, questions_for
from benchmarks.report_folders import Shape, make_folder

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def evaluated(tmp_path: Path, expression: str, given: str = "") -> Any:
    """Return what an expression is worth in the page's script."""
    script = tmp_path / "page.cjs"
    script.write_text(f"{bundle()}\nprocess.stdout.write(JSON.stringify({expression}));", encoding="utf-8")
    done = subprocess.run(
        [str(shutil.which("node")), str(script)],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.metric}-{shape.rows}")
def test_the_page_chooses_as_select_does(shape: Any, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made", shape)
    answered, found = differences(folder, questions_for(folder, 30, seed=shape.seed + 10))
    assert found == []
    assert answered == 30


@pytest.mark.parametrize("metric", ["choice", "f1", "perplexity", "rouge_l"])
def test_the_page_has_exactly_the_outcomes_that_select_reads(metric: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made", Shape(12, items=37, metric=metric, failures=False, seed=2))
    report = read_report(folder)
    ask = "[...sweep.entryOf.values()].map((e) => Object.entries(e.outcomes).map(([m, row]) => [e.id, m, itemsOf(m, row)]))"
    bits = "Array.from({ length: kept.items }, (_, i) => (new Uint8Array(kept.rows[row].buffer)[i >> 3] >> (7 - (i & 7))) & 1)"
    page = evaluated(
        tmp_path,
        "(() => { const sweep = new Sweep(JSON.parse(require('node:fs').readFileSync(0, 'utf8'))); const itemsOf = (m, row) => "
        f"{{ const kept = sweep.outcomes[m]; return kept.items === null ? [...kept.rows[row]] : {bits}; }}; return {ask}; }})()",
        json.dumps(report),
    )
    found = {name: items for entry in page for name, _, items in entry}
    entries = entries_of([row for row in read_results(folder) if row.trial], folder)
    assert len(found) == 12  # the untouched model too
    for entry in entries:
        ((_, items),) = entry.outcomes.items()
        assert found[entry.id] == [float(x) for x in items]
    kinds = {"choice": "bits", "f1": "rows", "perplexity": "planes", "rouge_l": "planes"}
    ((_, kept),) = report["outcomes"].items()
    assert kinds[metric] in kept


def test_past_the_bound_both_compare_by_unpaired_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "made", Shape(30, items=40, metric="rouge_l", failures=False, seed=3))
    assert select(folder).paired
    monkeypatch.setattr(judge, "MOST_NUMBERS", 29 * 40 - 1)
    assert not select(folder).paired
    assert read_report(folder)["outcomes"] == {"rouge_l": "too many"}
    answered, found = differences(folder, questions_for(folder, 20))
    assert (answered, found) == (20, [])
    monkeypatch.setattr(judge, "MOST_NUMBERS", 29 * 40)
    assert select(folder).paired


@pytest.mark.parametrize("count", [1, 7, 8, 200, 1000])
def test_octets_are_those_of_numpy(count: int, tmp_path: Path) -> None:
    for seed in ((0, 0), (0, 5)):
        own = np.random.default_rng(seed).integers(256, size=count, dtype=np.uint8)
        assert evaluated(tmp_path, f"[...randomBytes([{seed[0]}, {seed[1]}], {count})]") == own.tolist()


def test_distributions_are_those_of_python(tmp_path: Path) -> None:
    ts = [0.0, 0.3, 1.0, 1.41, 2.0, 3.3, 5.0, 9.0]
    assert evaluated(tmp_path, f"{ts}.map(signsBound)") == pytest.approx(signs_bound(ts), rel=1e-10)
    assert evaluated(tmp_path, "[1, 4, 30].map(tQuantile)") == pytest.approx([t_quantile(0.95, n) for n in (1, 4, 30)])
    assert evaluated(tmp_path, "welchP(0.3, 0.2, 5, 0.1, 9)") == pytest.approx(welch_p(0.3, 0.2, 5, 0.1, 9))
    for a, b in ((0, 0), (3, 17), (40, 41), (900, 1100)):
        own = mcnemar_exact([1] * a + [0] * b + [1], [0] * a + [1] * b + [1])
        assert evaluated(tmp_path, f"mcnemarExact({a}, {b})") == pytest.approx(own, rel=1e-12)


@pytest.mark.parametrize("items", [9, 64, 301])
def test_p_values_of_a_family_are_those_of_python(items: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(items)
    rows = draw.normal(0, 1, size=(6, items)) + np.linspace(0, 0.5, 6)[:, None]
    own = paired_family(rows, 5, 0.02)
    expression = f"pairedFamily(new Outcomes({rows.tolist()}), [0, 1, 2, 3, 4, 5], 5, 0.02, Array(6).fill(true))"
    assert evaluated(tmp_path, expression) == pytest.approx(own, abs=1e-12)
