"""The benchmarks of timings and of a busy machine: what their tables say of numbers that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import busy, coverage, repeat_sweep


def test_a_cache_is_copied_without_what_was_timed(tmp_path: Path) -> None:
    for name in ("build/key/model.onnx", "time/key/manifest.json", "turns/key/manifest.json", "pace/machine.json"):
        file = tmp_path / "cache" / name
        file.parent.mkdir(parents=True)
        file.write_text(name, encoding="utf-8")
    (tmp_path / "cache" / "build" / "key.lock").touch()
    repeat_sweep.copied(tmp_path / "cache", tmp_path / "copy")
    found = [
        file.relative_to(tmp_path / "copy").as_posix() for file in (tmp_path / "copy").rglob("*") if file.is_file()
    ]
    assert found == ["build/key/model.onnx"]
    assert (tmp_path / "cache" / "time" / "key" / "manifest.json").exists()


def run_of(winner: str, ties: list[str], candidates: tuple[str, ...] = ("a", "b")) -> dict[str, Any]:
    return {
        "winner": winner, "label": "int4", "ties": ties, "how": "itl_ms_p50: 2 tie (in turns)", "jobs": 0, "foreign": 0.1,
        "candidates": list(candidates), "made": 0, "timed": 2, "again": 1, "itl": [4.2], "wall_s": 60.0,
    }  # fmt: skip


def test_runs_agree_where_the_winner_is_the_same_or_each_states_the_tie() -> None:
    assert "The same winner in all 2 runs." in repeat_sweep.report([run_of("a", ["b"]), run_of("a", [])])
    tied = repeat_sweep.report([run_of("a", ["b"]), run_of("b", ["a"])])
    assert "each run states that they tie" in tied
    apart = repeat_sweep.report([run_of("a", ["b"]), run_of("b", [], ("a", "c"))])
    assert "not all runs state that they tie" in apart
    assert "The same candidates in all runs: no." in apart


def test_coverage_is_that_of_known_samples(tmp_path: Path) -> None:
    """A spread where stopping does harm; and one that drifts, where the order matters."""
    pool = 1 + 0.045 * np.random.default_rng(3).standard_normal(20_000)
    (before, *_), (after, processes, half) = coverage.timed(pool, 1.0), coverage.timed(pool, coverage.stretch(5, 12))
    assert before < 0.935 < 0.94 < after
    assert 5 <= processes <= 12
    assert 0.02 < half < 0.05
    drifting = np.repeat([1.0, 2.0], 40) * (1 + 0.01 * np.random.default_rng(3).standard_normal(80))
    assert (coverage.in_order(drifting, 1.0) or 0.0) < 0.3
    processes_ = [{"itl_ms_p50": 10.0 + n % 3, "foreign_cpu": float(n % 2)} for n in range(60)]
    (tmp_path / "pools.jsonl").write_text(json.dumps({"name": "one", "processes": processes_}) + "\n", encoding="utf-8")
    pools = coverage.pools_of(tmp_path / "pools.jsonl", [])
    assert {name: len(pool) for name, pool in pools.items()} == {"one": 60, "one, undisturbed processes": 30}
    assert "| one |" in coverage.report(pools)


def test_the_busy_table_relates_each_way_to_its_own_quiet_step() -> None:
    def block(step: float) -> dict[str, float]:
        return {"step_s": step, "user_s": 3.0, "kernel_s": 1.0, "steps": 1}

    steps = {"today": (1.0, 10.0, 20.0, 40.0), "ours": (1.02, 2.04, 3.06, 5.1)}
    found = {
        (name, load): [block(step)] * 3
        for name, each in steps.items()
        for load, step in zip(busy.LOADS, each, strict=True)
    }
    table = busy.report("A model", found)
    assert "| ours | 1.02 | 2.04 (x 2.0) | 3.06 (x 3.0) | 5.1 (x 5.0) | +2.0% | 25% |" in table
    assert "| today | 1 | 10 (x 10.0) | 20 (x 20.0) | 40 (x 40.0) | +0.0% | 25% |" in table
