"""A timing made beside other work is made again, decides nothing by itself, and the choice follows the quiet one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes import FINITE, Sweeping, make_sweep

from autotune.analysis.latency import TokenTiming
from autotune.pipeline.timing_validity import provisional, quieter
from autotune.results.folder import read_results, read_timings
from autotune.results.rows import Trial
from autotune.results.table import read_table
from autotune.stages.jobs import TimeJob, TurnsJob

AIMS = {"objectives": {"itl_ms_p50": "minimize", "size_mb": "minimize"}}


def sweep_in(tmp_path: Path, **keys: Any) -> Sweeping:
    return Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid", budget={"trials": 4}, **(AIMS | keys)))


def beside(sweeping: Sweeping, precision: str, times: int, cores: float = 2.0) -> None:
    """Let other programs be at work the first `times` that a graph of this precision is timed by itself."""
    seen: Counter[str] = Counter()

    def foreign(job: TimeJob) -> float:
        if not any(isinstance(one, TurnsJob) for one in sweeping.stages.jobs[-1:]) and precision in job.graph:
            seen[job.graph] += 1
            return cores if seen[job.graph] <= times else 0.05
        return 0.05

    sweeping.stages.foreign = foreign


def last(sweeping: Sweeping) -> list[Trial]:
    return [row for row in read_results(sweeping.out) if row["trial"]]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"itl_ms_p50": 10.0, "itl_ms_p50_low": 9.9, "itl_ms_p50_high": 10.1, "foreign_cpu": 0.1}, False),
        ({"itl_ms_p50": 10.0, "itl_ms_p50_low": 9.9, "itl_ms_p50_high": 10.1, "foreign_cpu": 0.9}, True),
        ({"itl_ms_p50": 12.2, "itl_ms_p50_low": 8.7, "itl_ms_p50_high": 15.7, "foreign_cpu": 0.1}, True),
        ({"itl_ms_p50": 12.2, "itl_ms_p50_low": 8.7, "itl_ms_p50_high": 15.7}, True),
        ({"itl_ms_p50": 0.1, "itl_ms_p50_low": 0.05, "itl_ms_p50_high": 0.15, "foreign_cpu": None}, False),
        ({"itl_ms_p50": 10.0}, False),
        ({"size_mb": 10.0, "foreign_cpu": 3.0}, False),
    ],
)
def test_what_is_provisional(cells: dict[str, float | None], expected: bool) -> None:
    assert provisional(TokenTiming.of(cells)) == expected


def test_when_it_is_worth_timing_again() -> None:
    assert quieter(TokenTiming(5.0, foreign_cpu=1.0), 0.4)
    assert not quieter(TokenTiming(5.0, foreign_cpu=1.0), 0.6)
    assert quieter(TokenTiming(5.0), 0.1)  # it only stayed wide
    assert not quieter(TokenTiming(None), 0.5)


def test_a_disturbed_timing_is_made_again_and_all_rows_of_its_graph_say_so(tmp_path: Path) -> None:
    quiet = sweep_in(tmp_path / "quiet")
    best = quiet.run().choice.winner
    sweeping = sweep_in(tmp_path / "loud")
    beside(sweeping, "int4", 1)
    winner = sweeping.run().choice.winner
    assert best is not None
    assert winner is not None
    assert winner.id == best.id
    rows = last(sweeping)
    assert {row["foreign_cpu"] for row in rows} == {0.05}
    expected = {row["candidate"]: row["itl_ms_p50"] for row in last(quiet)}
    assert {row["candidate"]: row["itl_ms_p50"] for row in rows} == pytest.approx(
        {name: 1.05 * float(ms or 0) for name, ms in expected.items()}, rel=0.01
    )
    attempts = read_table(sweeping.out / "results.csv", Trial)
    assert max(int(row["attempt"] or 0) for row in attempts) == 2  # the first attempt stays where it is
    assert any("timed again" in note for note in sweeping.watched.notes)
    again = sweeping.stages.ran["time"]
    sweeping.run()
    assert sweeping.stages.ran["time"] == again


def test_on_a_machine_that_stays_busy_the_turns_decide(tmp_path: Path) -> None:
    """What was timed three times as slow leads by turns, and it is said that its own timing is uncertain."""
    best = sweep_in(tmp_path / "quiet").run().choice.winner
    sweeping = sweep_in(tmp_path / "loud")
    beside(sweeping, "int4", 99)
    sweeping.foreign = lambda: 2.0
    summary = sweeping.run()
    assert best is not None
    assert summary.choice.winner is not None
    assert summary.choice.winner.id == best.id
    (turns,) = (job for job in sweeping.stages.jobs if isinstance(job, TurnsJob))
    assert {str(job.graph) for job in turns.graphs} == {str(row["graph"]) for row in last(sweeping)} | {
        str(row["graph"]) for row in read_results(sweeping.out)
    }
    assert any("less certain" in note for note in sweeping.watched.notes)
    assert any("waiting for a quieter machine" in note for note in sweeping.watched.notes)


def test_a_timing_that_was_disturbed_breaks_no_limit(tmp_path: Path) -> None:
    """Neither its own candidate is given up for it, nor the next in the same recipe."""
    sweeping = sweep_in(tmp_path, limits=["itl_ms_p50 <= 20"])
    beside(sweeping, "int4", 1)
    sweeping.foreign = lambda: 2.0  # until the end it never is quieter
    sweeping.run()
    rows = [row for row in last(sweeping) if row["build_precision"] == "int4"]
    assert rows
    assert {row["status"] for row in rows} == {"ok"}


def test_a_timing_that_stays_wide_is_made_again_once(tmp_path: Path) -> None:
    sweeping = sweep_in(tmp_path)
    taken: Counter[str] = Counter()
    processes = sweeping.stages._processes

    def wide(job: TimeJob, count: int) -> list[dict[str, Any]]:
        taken[job.graph] += 1
        found = processes(job, count)
        if "int4" in job.graph:
            found[0] = found[0] | {"itl_ms": [ms * 2 for ms in found[0]["itl_ms"]]}
        return found

    sweeping.stages._processes = wide  # type: ignore[method-assign]
    sweeping.run()
    timed = [job for job in sweeping.stages.jobs if isinstance(job, TimeJob)]
    assert {job.again for job in timed if "int4" in job.graph} == {None, 1}
    assert {job.again for job in timed if "int4" not in job.graph} == {None}
    again = len(sweeping.stages.jobs)
    sweeping.run()
    assert not any(isinstance(job, TimeJob) for job in sweeping.stages.jobs[again:])


def test_single_processes_are_kept_once_for_each_timing(tmp_path: Path) -> None:
    sweeping = sweep_in(tmp_path)
    beside(sweeping, "int4", 1)
    sweeping.run()
    timings = read_timings(sweeping.out)
    named = [(timing["graph"], timing["again"]) for timing in timings]
    assert len(set(named)) == len(named)
    assert {timing["graph"] for timing in timings} == {row["graph"] for row in read_results(sweeping.out)}
    row = next(row for row in last(sweeping) if row["build_precision"] == "int8")
    (timing,) = (timing for timing in timings if timing["graph"] == row["graph"])
    medians = [process["itl_ms_p50"] for process in timing["processes"]]
    assert (timing["least"], timing["most"], len(medians)) == (5, 12, 5)
    assert sum(medians) / len(medians) == pytest.approx(row["itl_ms_p50"], rel=1e-4)
    assert timing["processes"][0]["foreign_cpu"] == 0.05
    file = sweeping.out / "outcomes" / "timings.jsonl"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole + '{"graph": "torn', encoding="utf-8")
    assert read_timings(sweeping.out) == timings
