"""The benchmarks of costs: what they compute from what they measured, and that their stand-ins are the jobs they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.candidate import Recipe
from autotune.stages.jobs import BuildJob, CheckJob, MergeJob, ScoreJob, TimeJob
from autotune.stages.protocol import Job
from autotune.sweepfile.resolve import load_sweep
from benchmarks import many_workers, plan_accuracy, scale, side_by_side, sleeping

INT8 = Recipe(precision="int8")
JOBS: list[Job] = [
    MergeJob(adapter="a", base="b"), BuildJob(source="s", recipe=INT8, provider="cpu"),
    CheckJob(source="s", provider="cpu", recipe=INT8, data="d", max_length=64),
    ScoreJob(source="00ff", data="d", metric="choice", max_length=64),
    TimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m"),
]  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stage)
def test_a_sleeping_job_has_the_key_of_the_real_one(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleeping.time, "sleep", lambda seconds: asleep.append(seconds))
    asleep: list[float] = []
    stand_in = sleeping.sleeping(job)
    assert (stand_in.key, stand_in.stage) == (job.key, job.stage)
    sleeping.sleep(stand_in, tmp_path)
    assert asleep == [sleeping.SECONDS[job.stage]]


def test_the_sweeps_of_the_benchmarks_are_sweeps(tmp_path: Path) -> None:
    assert len(plan_accuracy.KINDS) == 10
    plan_accuracy.prepared(tmp_path)
    strategies = set()
    for number, kind in enumerate([plan_accuracy.FIRST, *plan_accuracy.KINDS.values()]):
        strategies.add(load_sweep(str(plan_accuracy.written(tmp_path, number, kind))).strategy)
    assert {"grid", "random", "frontier", "tpe"} <= strategies
    assert many_workers.sweep_of(7).budget.trials == 7


def test_a_plan_is_judged_by_the_factor_that_it_is_wrong_by() -> None:
    def said(total: int) -> dict[str, float]:
        return {"total_s": total, "low_s": total / 2, "high_s": total * 2}

    found = {
        "a": {"took_s": 30.0, "new": said(60), "once": said(30)},
        "b": {"took_s": 100.0, "new": said(25), "once": said(80)},
    }
    text = plan_accuracy.report(found)
    assert "| a | 30 | 60 (30.0 to 120) | 0.50 | 30 (15.0 to 60) | 1.00 | yes |" in text
    assert "On a new machine: within a factor of 3 in 1 of 2, at most 4.00, in the geometric mean 2.83." in text
    assert "On a machine that has run once: within a factor of 1.5 in 2 of 2, at most 1.25," in text


def test_what_two_checkouts_print_is_found() -> None:
    scale = "| own cost a candidate, last 100: mean (median) | 33.5 (29.4) ms |"
    assert side_by_side._number(side_by_side.SCALE, scale) == 29.4
    own = "200 decisions: first fifty 10 ms each, last fifty 19 ms, slowest 29 ms"
    assert side_by_side._number(side_by_side.DECISION, own) == 19


def test_the_loop_whose_stages_do_nothing_still_runs(tmp_path: Path) -> None:
    found = scale.one(tmp_path, "random", 6)
    assert found["rows"] == len(found["memory_mb"]) == 7, "the untouched model and six candidates"
