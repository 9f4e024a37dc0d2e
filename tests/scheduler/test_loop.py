"""The loop on functions as stages: what is written, what is told, when it ends, and that nothing is lost."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fakes import FINITE, LORA, FakeStages, Sweeping, make_sweep

from autotune.analysis.selection import Choice
from autotune.candidate import Candidate, Session
from autotune.errors import Exit, MachineError, StageError, UsageError
from autotune.present.explained import explain
from autotune.present.select import as_json, select
from autotune.results import table as results_module
from autotune.results.folder import read_results, read_running
from autotune.results.judge import candidate_of, judge, kept_turns
from autotune.results.rows import CurvePoint, Finalist, Trial
from autotune.results.table import Table, read_table
from autotune.scheduler.loop import Summary
from autotune.stages.jobs import BuildJob, FinetuneJob, ScoreJob, TimeJob, TurnsJob
from autotune.stages.protocol import Job
from autotune.strategies.named import make_strategy
from autotune.strategies.protocol import Proposal, Told

AIMS = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}


def rows_of(sweeping: Sweeping) -> list[Trial]:
    return read_table(sweeping.out / "results.csv", Trial)


class Listening:
    """A strategy that remembers what it was told."""

    def __init__(self, sweeping: Sweeping) -> None:
        sweep = sweeping.sweep
        self.inner = make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed)
        self.rungs = self.inner.rungs
        self.told: list[tuple[Candidate, Told]] = []
        self.replayed: list[tuple[Candidate, Told]] = []

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        return self.inner.ask(n, pending)

    def tell(self, proposal: Proposal, told: Told) -> None:
        self.told.append((proposal.candidate, told))
        self.inner.tell(proposal, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        self.replayed.append((candidate, told))
        self.inner.replay(candidate, told)


def raising(status: str, when: Callable[[Job], bool], times: float = float("inf")) -> Callable[[Job], None]:
    left = [times]

    def trouble(job: Job) -> None:
        if when(job) and left[0] > 0:
            left[0] -= 1
            raise StageError(status, f"{job.stage}: on purpose")

    return trouble


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_untouched_model_is_measured_first_and_every_candidate_gets_a_row(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(**AIMS))
    summary = sweeping.run()
    rows = rows_of(sweeping)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert (rows[0]["kind"], rows[0]["build_precision"]) == ("base", "fp32")
    assert {row["kind"] for row in rows[1:]} == {"pair"}
    assert {row["status"] for row in rows} == {"ok"}
    assert (summary.ended, summary.trials, summary.exit_code) == ("trials", 6, Exit.OK)
    for row in rows:
        assert row["accuracy_n"] == 100
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
        assert row["graph"] == f"graph of {row['build_precision']}" or row["build_precision"] != "fp32"
        assert row["error"] is None
    for row in rows[1:]:
        assert (row["train_steps"], row["train_loss"]) == (10, 0.333333)
        assert row["adapter"]


def test_rows_are_told_in_the_order_of_the_objectives(tmp_path: Path) -> None:
    sweep = make_sweep(objectives={"size_mb": "minimize", "accuracy": "maximize"}, limits=["size_mb <= 300"])
    sweeping = Sweeping(tmp_path, sweep)
    listening = Listening(sweeping)
    sweeping.run(strategy=listening)
    by_id = {row["candidate"]: row for row in rows_of(sweeping)}
    assert len(listening.told) == 6
    for candidate, told in listening.told:
        row = by_id[candidate.id]
        if row["status"] == "ok":
            assert told.values == (row["size_mb"], row["accuracy"])
        else:
            assert (row["status"], told.values) == ("over_limit", None)
        assert {str(limit): gap for limit, gap in told.gaps.items()}["size_mb <= 300"] == pytest.approx(
            row["size_mb"] - 300
        )


def test_costs_are_booked_once_and_what_came_from_the_cache_is_named(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(lora={"r": 8, "steps": 10}, strategy="grid"))
    summary = sweeping.run()
    base, fp32, int8, int4 = rows_of(sweeping)
    assert base["cost_train_s"] is base["cost_merge_s"] is None
    assert [base[f"cost_{stage}_s"] for stage in ("build", "check", "time", "score")] == [2.0] * 4
    assert fp32["cached"] == "time"  # the graph is the base's
    assert (fp32["cost_train_s"], fp32["cost_merge_s"], fp32["cost_time_s"]) == (2.0, 2.0, None)
    assert int8["cached"] == "train+merge"
    assert (int8["cost_train_s"], int8["cost_merge_s"], int8["cost_time_s"]) == (None, None, 2.0)
    assert int4["cached"] == "train+merge"
    booked = sum(
        row[f"cost_{s}_s"] or 0
        for row in rows_of(sweeping)
        for s in ("train", "merge", "build", "check", "score", "time")
    )
    assert summary.stages_s == booked + 2.0 == 2.0 * sweeping.stages.ran.total()  # and the finalists in turns


def test_an_adapter_is_trained_once_and_a_graph_timed_once(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid", budget={"trials": 100}))
    assert sweeping.run().ended == "space"
    ran = sweeping.stages.ran
    assert ran == {
        "finetune": 6,
        "merge": 6,
        "build": 6 * 3 + 1,
        "check": 6 * 3 + 1,
        "time": 3,
        "score": 6 * 3 + 1,
        "turns": 1,
    }
    assert max(sweeping.stages.keys.values()) == 1
    assert not sweeping.stages.merged


def test_merged_models_are_removed_as_soon_as_the_next_adapter_comes(tmp_path: Path) -> None:
    stages = FakeStages(tmp_path / "cache")
    alive: list[int] = []
    stages.trouble = lambda job: alive.append(sum(p.path.parent.name == "merge" for p in stages.done.values()))
    Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid", budget={"trials": 18}), stages=stages).run()
    assert max(alive) == 1


def test_curves_and_outcomes_are_kept_once(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid"))
    sweeping.run()
    curves = read_table(sweeping.out / "curves.csv", CurvePoint)
    assert [(row["step"], row["train_loss"]) for row in curves] == [(1, 1.5), (2, 1.25)] * 2  # six trials, two adapters
    for row in rows_of(sweeping):
        kept = json.loads((sweeping.out / "outcomes" / f"{row['candidate']}.json").read_text(encoding="utf-8"))
        assert (kept["metric"], len(kept["predicted"])) == ("choice", 100)
        assert "ids" not in kept
    assert len(json.loads((sweeping.out / "outcomes" / "items.validation.json").read_text(encoding="utf-8"))) == 100


def test_rows_in_memory_are_those_of_the_file(tmp_path: Path) -> None:
    """Six digits in both, or a resumed sweep would differ from one that never stopped."""
    sweeping = Sweeping(tmp_path, make_sweep(**AIMS))
    sweeping.run()
    assert sweeping.loop is not None
    assert sweeping.loop.ledger.ended() == rows_of(sweeping)
    best = sweeping.watched.rows[-1][1]
    sweeping.run()
    assert sweeping.loop._best is not None
    assert best is not None
    assert sweeping.loop._best == best


def test_the_watcher_hears_stages_and_rows(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 1}, build=[{"precision": "int8"}]))
    sweeping.run()
    begun = [stage for trial, stage in sweeping.watched.stages if trial == 1]
    assert begun == ["finetune", "merge", "build", "check", "time", "score"]
    (base, none), (row, best) = sweeping.watched.rows
    assert (base["trial"], none) == (0, None)
    assert best is row
    assert read_running(sweeping.out) is None


# --- budgets ---------------------------------------------------------------------------------------------------------


def test_trials_count_over_resumes(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 4}))
    assert sweeping.run().trials == 4
    assert sweeping.run().trials == 0
    summary = sweeping.run(make_sweep(budget={"trials": 7}))
    assert (summary.trials, summary.ended) == (3, "trials")
    assert [row["trial"] for row in rows_of(sweeping)] == [0, 1, 2, 3, 4, 5, 6, 7]


def test_lesson_7_the_budget_is_exact_and_the_base_is_no_trial(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 2}))
    assert sweeping.run().trials == 2
    assert [row["trial"] for row in rows_of(sweeping)] == [0, 1, 2]


def test_hours_count_over_resumes(tmp_path: Path) -> None:
    """Each candidate takes 20 minutes: three in the first hour, and none is left for the second run."""
    sweeping = Sweeping(tmp_path, make_sweep(budget={"hours": 1}, **AIMS))

    def pass_time(job: Job) -> None:
        if isinstance(job, ScoreJob):
            sweeping.clock.now += 1200

    sweeping.stages.trouble = pass_time

    summary = sweeping.run()
    assert summary.ended == "hours"
    assert summary.wall_s == 3600
    assert [row["trial"] for row in rows_of(sweeping)] == [0, 1, 2]
    sweeping.clock.now = 0.0
    assert (sweeping.run().trials, len(rows_of(sweeping))) == (0, 3)
    more = sweeping.run(make_sweep(budget={"hours": 1.5}, **AIMS))  # half an hour: two more are begun
    assert (more.trials, more.ended) == (2, "hours")


def test_a_clock_that_jumps_changes_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock goes a year forward and back between any two looks at it."""
    sweeping = Sweeping(tmp_path, make_sweep(budget={"hours": 1}, **AIMS))
    looks = count()

    def now() -> str:
        return f"{2026 + next(looks) % 3 - 1}-01-01T00:00:00Z"

    def pass_time(job: Job) -> None:
        if isinstance(job, ScoreJob):
            sweeping.clock.now += 1200

    sweeping.stages.trouble = pass_time
    monkeypatch.setattr("autotune.scheduler.loop.now", now)
    assert sweeping.run().ended == "hours"
    assert [row["wall_s"] for row in rows_of(sweeping)] == [1200.0, 1200.0, 1200.0]
    assert sweeping.run(make_sweep(budget={"hours": 1.5}, **AIMS)).trials == 2


def test_lesson_1_a_finite_space_ends_the_sweep(tmp_path: Path) -> None:
    for strategy in ("grid", "random", "tpe"):
        sweep = make_sweep(lora=FINITE, strategy=strategy, budget={"hours": 1})
        sweeping = Sweeping(tmp_path / strategy, sweep)
        assert (sweeping.run().ended, len(rows_of(sweeping))) == ("space", 18 + 1)
        assert (sweeping.run().trials, len(rows_of(sweeping))) == (0, 18 + 1)


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["unsupported", "diverged", "out_of_memory", "timeout", "failed"])
@pytest.mark.parametrize("stage", ["finetune", "merge", "build", "check", "time", "score"])
def test_a_candidates_trouble_costs_one_row_and_is_told_as_no_values(tmp_path: Path, status: str, stage: str) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 3}, build=[{"precision": "int8"}]))
    sweeping.run(make_sweep(budget={"trials": 1}, build=[{"precision": "int8"}]))
    hit = raising(status, lambda job: job.stage == stage, times=1)
    sweeping.stages.trouble = hit
    if stage == "time":
        sweeping.stages.done = {k: v for k, v in sweeping.stages.done.items() if v.path.parent.name != "time"}
    listening = Listening(sweeping)
    summary = sweeping.run(strategy=listening)
    _, first, second, third = rows_of(sweeping)
    assert (first["status"], second["status"], third["status"]) == ("ok", status, "ok")
    assert second["error"] == f"{stage}: on purpose"
    assert (second["accuracy"], second["attempt"]) == (None, 1)
    assert [told.values is None for _, told in listening.told] == [True, False]
    assert summary.exit_code == Exit.OK
    cost = second["cost_train_s" if stage == "finetune" else f"cost_{stage}_s"]
    assert cost is not None  # the time of a failure is the stage's, not the tuner's
    assert summary.stages_s >= cost


def test_lesson_3_a_failure_is_told_once_and_its_stages_are_not_cached(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid", budget={"trials": 3}))
    sweeping.stages.trouble = raising("out_of_memory", lambda job: isinstance(job, FinetuneJob), times=1)
    sweeping.run()
    assert [row["status"] for row in rows_of(sweeping)] == ["ok", "out_of_memory", "ok", "ok"]
    assert sweeping.stages.ran["finetune"] == 1  # the adapter was tried anew for the next recipe
    resumed = Listening(sweeping)
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 4}), strategy=resumed)
    assert len({row["candidate"] for row in rows_of(sweeping)}) == 5
    assert [told.values is None for _, told in resumed.replayed] == [True, False, False]


def test_a_lost_worker_is_forgiven_once(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 2}))
    sweeping.stages.trouble = raising("lost", lambda job: isinstance(job, FinetuneJob), times=1)
    listening = Listening(sweeping)
    sweeping.run(strategy=listening)
    rows = rows_of(sweeping)
    assert [(row["trial"], row["attempt"], row["status"]) for row in rows] == [
        (0, 1, "ok"), (1, 1, "lost"), (1, 2, "ok"), (2, 1, "ok"),
    ]  # fmt: skip
    assert rows[1]["candidate"] == rows[2]["candidate"]
    assert len(listening.told) == 2
    assert [row["status"] for row in read_results(sweeping.out)] == ["ok", "ok", "ok"]


def test_a_candidate_lost_twice_is_given_up_until_the_next_run(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 2}))
    sweeping.stages.trouble = raising("lost", lambda job: isinstance(job, FinetuneJob), times=2)
    sweeping.run()
    assert [(r["trial"], r["attempt"], r["status"]) for r in rows_of(sweeping)][1:] == [
        (1, 1, "lost"), (1, 2, "lost"), (2, 1, "ok"),
    ]  # fmt: skip
    sweeping.run(make_sweep(budget={"trials": 3}))  # it comes first, under its own number
    rows = rows_of(sweeping)
    assert [(r["trial"], r["attempt"], r["status"]) for r in rows][4:] == [(1, 3, "ok"), (3, 1, "ok")]
    assert rows[4]["candidate"] == rows[1]["candidate"]
    calm = Sweeping(tmp_path / "calm", make_sweep(budget={"trials": 3}))
    calm.run()
    names = {row["trial"]: row["candidate"] for row in rows}
    assert names == {row["trial"]: row["candidate"] for row in rows_of(calm)}


def test_a_full_disk_ends_the_sweep_and_blames_no_candidate(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep())

    def full(job: Job) -> None:
        if isinstance(job, BuildJob) and len(sweeping.watched.rows) == 2:
            raise MachineError("build: the disk is full")

    sweeping.stages.trouble = full
    with pytest.raises(MachineError, match="disk is full"):
        sweeping.run()
    assert [row["status"] for row in rows_of(sweeping)] == ["ok", "ok"]
    assert not sweeping.stages.merged
    sweeping.stages.trouble = lambda job: None
    assert sweeping.run().exit_code == Exit.OK
    assert len(rows_of(sweeping)) == 7


def test_a_base_that_fails_is_measured_again_by_the_next_run(tmp_path: Path) -> None:
    sweep = make_sweep(limits=["accuracy >= base + 0.1"], budget={"trials": 2})
    sweeping = Sweeping(tmp_path, sweep)
    sweeping.stages.trouble = raising("timeout", lambda job: isinstance(job, BuildJob), times=1)
    summary = sweeping.run()
    assert (rows_of(sweeping)[0]["status"], summary.exit_code) == ("timeout", Exit.NO_FEASIBLE)
    assert any("untouched model could not be measured" in note for note in sweeping.watched.notes)
    assert sweeping.run().exit_code == Exit.OK
    assert [(row["trial"], row["attempt"], row["status"]) for row in rows_of(sweeping)] == [
        (0, 1, "timeout"), (1, 1, "ok"), (2, 1, "ok"), (0, 2, "ok"),
    ]  # fmt: skip
    assert select(sweeping.out).exit_code == Exit.OK


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_build_over_the_limit_is_neither_timed_nor_scored(tmp_path: Path) -> None:
    sweep = make_sweep(lora={"r": 8, "steps": 10}, build=[{"precision": "int8"}], limits=["size_mb <= 100"])
    sweeping = Sweeping(tmp_path, sweep)
    summary = sweeping.run()
    base, row = rows_of(sweeping)
    assert base["status"] == "ok"  # limits do not end the base
    assert row["status"] == "over_limit"
    assert row["error"] == "size_mb <= 100 cannot be kept: size_mb is 267.333"
    assert (row["size_mb"], row["itl_ms_p50"], row["accuracy"]) == (267.333, None, None)
    assert summary.exit_code == Exit.NO_FEASIBLE


def test_a_recipe_known_to_break_a_limit_costs_nothing_any_more(tmp_path: Path) -> None:
    """Known from the base (fp32), from a candidate fully measured, and from one that was over the limit itself."""
    sweep = make_sweep(lora=FINITE, strategy="grid", limits=["size_mb <= 100"], budget={"trials": 18})
    sweeping = Sweeping(tmp_path, sweep)
    sweeping.run()
    by_precision: dict[Any, list[Trial]] = {}
    for row in rows_of(sweeping)[1:]:
        by_precision.setdefault(row["build_precision"], []).append(row)
    assert {row["status"] for row in by_precision["fp32"]} == {"over_limit"}
    assert all(row["cost_train_s"] is None and row["adapter"] is None for row in by_precision["fp32"])
    assert all(row["size_mb"] == 540.333 and row["accuracy"] is None for row in by_precision["fp32"])
    assert {row["status"] for row in by_precision["int8"]} == {"over_limit"}
    assert [row["cost_build_s"] for row in by_precision["int8"]] == [2.0, None, None, None, None, None]
    assert {row["status"] for row in by_precision["int4"]} == {"ok"}
    assert sweeping.stages.ran["build"] == 1 + 1 + 6
    assert sweeping.stages.ran["finetune"] == 6


def test_a_latency_limit_is_judged_before_scoring_and_relative_to_the_base(tmp_path: Path) -> None:
    sweep = make_sweep(lora=FINITE, strategy="grid", limits=["itl_ms_p50 <= base * 0.3"], budget={"trials": 18})
    sweeping = Sweeping(tmp_path, sweep)
    sweeping.run()
    statuses = {(row["build_precision"], row["status"]) for row in rows_of(sweeping)[1:]}
    assert statuses == {("fp32", "over_limit"), ("int8", "over_limit"), ("int4", "ok")}
    int8 = [row for row in rows_of(sweeping) if row["build_precision"] == "int8"]
    assert int8[0]["cost_time_s"] == 2.0
    assert sweeping.stages.ran["score"] == 1 + 6


def test_lesson_2_a_score_limit_alone_is_enough_and_ends_nothing_early(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(limits=["accuracy >= base + 0.5"]))
    summary = sweeping.run()
    assert {row["status"] for row in rows_of(sweeping)} == {"ok"}
    assert summary.exit_code == Exit.NO_FEASIBLE
    assert summary.choice.nearest


def test_limits_may_change_and_what_they_no_longer_break_is_tried_again(tmp_path: Path) -> None:
    space = {"lora": FINITE, "strategy": "grid"}
    sweeping = Sweeping(tmp_path, make_sweep(limits=["size_mb <= 50"], **space, budget={"trials": 3}))
    assert sweeping.run().exit_code == Exit.NO_FEASIBLE
    assert [row["status"] for row in rows_of(sweeping)] == ["ok", "over_limit", "over_limit", "over_limit"]
    relaxed = make_sweep(limits=["size_mb <= 300"], **space, budget={"trials": 5})
    assert sweeping.run(relaxed).exit_code == Exit.OK
    rows = rows_of(sweeping)
    assert [(r["trial"], r["attempt"], r["build_precision"], r["status"]) for r in rows[4:]] == [
        (4, 2, "int8", "ok"), (5, 2, "int4", "ok"),
    ]  # fmt: skip
    assert {r["status"] for r in read_results(sweeping.out) if r["build_precision"] != "fp32"} == {"ok"}


# --- the end ---------------------------------------------------------------------------------------------------------


def test_lesson_8_exit_codes_tell(tmp_path: Path) -> None:
    ok = Sweeping(tmp_path / "ok", make_sweep())
    assert ok.run().exit_code == Exit.OK
    none = Sweeping(tmp_path / "none", make_sweep())
    none.stages.trouble = raising("failed", lambda job: isinstance(job, FinetuneJob))
    assert none.run().exit_code == Exit.NO_RESULT
    assert not (none.out / "best").exists()
    assert not (none.out / "finalists.csv").exists()
    infeasible = Sweeping(tmp_path / "infeasible", make_sweep(limits=["accuracy >= 0.99"]))
    assert infeasible.run().exit_code == Exit.NO_FEASIBLE
    for sweeping in (ok, none, infeasible):  # `select` says the same from the files
        assert select(sweeping.out).exit_code == sweeping.run().exit_code


def test_lesson_8_a_failed_first_candidate_is_no_success(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 1}))
    sweeping.stages.trouble = raising("failed", lambda job: isinstance(job, FinetuneJob), times=1)
    assert sweeping.run().exit_code == Exit.NO_RESULT


def test_lesson_6_a_candidate_without_a_number_never_wins(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(objectives={"itl_ms_p50": "minimize", "accuracy": "maximize"}))
    sweeping.stages.trouble = raising("failed", lambda job: job.stage == "time" and "int4" in job.graph)
    summary = sweeping.run()
    without = [row for row in rows_of(sweeping) if row["itl_ms_p50"] is None]
    assert without
    assert all(row["build_precision"] == "int4" and row["status"] == "failed" for row in without)
    assert summary.choice.winner is not None
    assert summary.choice.winner.id not in {row["candidate"] for row in without}


def test_finalists_and_best_are_written(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(**AIMS), test=True)
    summary = sweeping.run()
    winner = summary.choice.winner
    assert winner is not None
    assert summary.kept
    finalists = read_table(sweeping.out / "finalists.csv", Finalist)
    assert [(row["role"], row["split"], row["accuracy_n"]) for row in finalists if row["role"] != "rival"] == [
        ("winner", "test", 100), ("base", "test", 100),
    ]  # fmt: skip
    assert finalists == summary.finalists
    assert finalists[0]["candidate"] == winner.id
    best = sweeping.out / "best"
    assert sorted(p.relative_to(best).as_posix() for p in best.rglob("*") if p.is_file()) == [
        "adapter/adapter_model.safetensors", "candidate.json", "load.py", "onnx/genai_config.json", "onnx/model.onnx",
    ]  # fmt: skip
    about = json.loads((best / "candidate.json").read_text(encoding="utf-8"))
    assert about["candidate"] == winner.id
    assert Candidate.model_validate(about["settings"]).id == winner.id
    scored = [job.data for job in sweeping.stages.jobs if isinstance(job, ScoreJob)]
    assert scored.count("test digest") == 2  # only the finalists see test
    assert (sweeping.out / "outcomes" / f"{winner.id}.test.json").exists()
    sweeping.run()
    assert sum(isinstance(job, ScoreJob) and job.data == "test digest" for job in sweeping.stages.jobs) == 2


def test_the_winner_is_tried_from_text_and_marked(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(**AIMS))
    summary = sweeping.run()
    (asked,) = sweeping.stages.verified
    assert asked.model_dir == sweeping.out / "best" / "onnx"
    assert asked.items[0].prompt == f"text {asked.items[0].id}"
    winner, base, *_ = read_table(sweeping.out / "finalists.csv", Finalist)
    assert (winner["verified"], winner["verified_items"], winner["verify_error"]) == (True, asked.most, None)
    assert (base["verified"], base["verified_items"]) == (None, None), "only what is kept is tried"
    line = "verified: best/, loaded by onnxruntime-genai alone from the text of prompts, answers"
    assert line in explain(select(sweeping.out))
    sweeping.stages.wrong = ("item 3: ' joy', recorded ' fear'", "item 4: ' joy', recorded ' fear'")
    assert sweeping.run().exit_code == summary.exit_code
    winner = read_table(sweeping.out / "finalists.csv", Finalist)[0]
    assert winner["verified"] is False
    assert (
        winner["verify_error"]
        == f"2 of {asked.most}: item 3: ' joy', recorded ' fear'; item 4: ' joy', recorded ' fear'"
    )
    assert "NOT VERIFIED: best/" in explain(select(sweeping.out))
    assert json.loads(as_json(select(sweeping.out)))["verified"] is False


def test_finalists_have_the_score_of_every_metric(tmp_path: Path) -> None:
    for metric, name in (("choice", "accuracy"), ("exact_match", "exact_match"), ("f1", "f1")):
        data = {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{a}", "completion": " {b}", "metric": metric}
        sweeping = Sweeping(tmp_path / metric, make_sweep(data=data))
        (finalist, base, *_) = sweeping.run().finalists
        assert finalist[name] is not None
        assert finalist[f"{name}_n"] == 100
        assert base["split"] == "validation"


def test_a_winner_that_cannot_be_scored_on_test_is_kept_all_the_same(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(), test=True)
    on_test = raising("timeout", lambda job: isinstance(job, ScoreJob) and job.data == "test digest", times=1)
    sweeping.stages.trouble = on_test
    summary = sweeping.run()
    assert summary.kept
    assert (sweeping.out / "best" / "onnx" / "model.onnx").exists()
    assert [(row["role"], row["split"], row["accuracy_n"]) for row in summary.finalists[:2]] == [
        ("winner", None, None), ("base", "test", 100),
    ]  # fmt: skip
    assert any("could not be scored on test" in note for note in sweeping.watched.notes)


def test_a_winner_that_cannot_be_made_again_leaves_the_old_best(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep())
    sweeping.run()
    sweeping.stages.done.clear()  # the cache was emptied
    sweeping.stages.trouble = raising("out_of_memory", lambda job: isinstance(job, BuildJob))
    summary = sweeping.run()
    assert not summary.kept
    assert any("could not be made again" in note for note in sweeping.watched.notes)
    assert (sweeping.out / "best" / "onnx" / "model.onnx").exists()


def test_an_earlier_winner_is_named_where_none_keeps_the_limits_now(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep())
    sweeping.run()
    assert sweeping.run(make_sweep(limits=["accuracy >= 0.99"])).exit_code == Exit.NO_FEASIBLE
    assert any("best/ still holds an earlier winner" in note for note in sweeping.watched.notes)


def test_the_cache_keeps_a_winner_that_is_not_on_the_front(tmp_path: Path) -> None:
    """Size is the only objective: the front is int4, which cannot keep the limit."""
    keys: dict[str, Any] = {"objectives": {"size_mb": "minimize"}, "limits": ["accuracy >= 0.755"]}
    sweeping = Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid", budget={"trials": 18}, **keys))
    summary = sweeping.run()
    won = sweeping_row(sweeping, summary)
    assert won["build_precision"] == "int8"
    assert sweeping.loop is not None
    pipeline, candidate = sweeping.loop.pipeline, sweeping.loop.ledger.candidate_of(won)
    needed = {pipeline.graph.finetune_job(candidate).key, pipeline.graph.build_job(candidate).key}
    (pinned,) = sweeping.stages.pinned.values()
    assert needed <= set(pinned)


def test_recipes_only_the_base_competes_where_it_is_in_the_space(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(lora=None, strategy="grid", limits=["accuracy >= base - 0.005"]))
    summary = sweeping.run()
    rows = rows_of(sweeping)
    assert [(r["trial"], r["attempt"], r["kind"], r["build_precision"]) for r in rows] == [
        (0, 1, "base", "fp32"), (1, 2, "base", "fp32"), (2, 1, "base", "int8"), (3, 1, "base", "int4"),
    ]  # fmt: skip
    assert rows[1]["cached"] == "build+check+time+score"
    assert (summary.exit_code, summary.ended) == (Exit.OK, "space")
    assert summary.choice.winner is not None
    assert summary.choice.winner.id == rows[1]["candidate"]
    chosen = select(sweeping.out)
    assert chosen.exit_code == Exit.OK
    assert chosen.row(summary.choice.winner.id)["trial"] == 1
    assert sorted(p.name for p in (sweeping.out / "best").iterdir()) == ["candidate.json", "load.py", "onnx"]


def test_recipes_only_the_base_is_a_reference_where_it_is_not_in_the_space(tmp_path: Path) -> None:
    sweep = make_sweep(lora=None, build=[{"precision": "int8"}, {"precision": "int4"}], strategy="grid")
    summary = Sweeping(tmp_path, sweep).run()
    assert summary.choice.winner is not None
    assert summary.choice.winner.id != summary.finalists[1]["candidate"]
    assert [row["role"] for row in summary.finalists] == ["winner", "base", "rival"]


def test_adapters_only(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(build=None, budget={"trials": 3}))
    summary = sweeping.run()
    rows = rows_of(sweeping)
    assert [row["kind"] for row in rows] == ["base", "adapter", "adapter", "adapter"]
    assert sweeping.stages.ran == {"finetune": 3, "score": 4}
    assert all(row["size_mb"] is None and row["graph"] is None for row in rows)
    assert summary.exit_code == Exit.OK
    assert sorted(p.name for p in (sweeping.out / "best").iterdir()) == ["adapter", "candidate.json"]


# --- timings that hold, or do not ------------------------------------------------------------------------------------


def timed_at(row: Trial) -> tuple[Any, ...]:
    return row["trial"], row["attempt"], row["pace"], row["itl_ms_p50"]


def test_finalists_are_timed_in_turns(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(**AIMS), test=True)
    summary = sweeping.run()
    assert summary.turns is not None
    (turns,) = (job for job in sweeping.stages.jobs if isinstance(job, TurnsJob))
    graphs = [job.graph for job in turns.graphs]
    winner = next(row for row in summary.finalists if row["role"] == "winner")
    assert graphs[0] == graphs[-1] == winner["graph"]  # the winner twice: how noisy is it?
    assert len(set(graphs)) == len(graphs) - 1
    base = next(row for row in summary.finalists if row["role"] == "base")
    assert base["graph"] in graphs
    assert base["itl_ratio"] is None
    assert winner["itl_ratio"] == pytest.approx(14.02 / 35.02, rel=1e-3)
    assert winner["itl_ratio_low"] < winner["itl_ratio"] < winner["itl_ratio_high"]
    assert (winner["rounds"], winner["noise_floor"]) == (5, 0.0)
    assert read_table(sweeping.out / "finalists.csv", Finalist)[0]["itl_ratio"] == winner["itl_ratio"]
    assert kept_turns(sweeping.out) == summary.turns
    sweeping.run()
    assert sweeping.stages.ran["turns"] == 1


def test_finalists_that_cannot_be_timed_in_turns_are_chosen_by_their_rows(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(**AIMS), test=True)
    sweeping.stages.trouble = raising("timeout", lambda job: isinstance(job, TurnsJob))
    summary = sweeping.run()
    assert summary.exit_code == Exit.OK
    assert summary.turns is None
    assert any("could not be timed in turns" in note for note in sweeping.watched.notes)
    assert [row["role"] for row in summary.finalists] == ["winner", "base"]
    assert summary.finalists[0]["itl_ms_p50"] == sweeping_row(sweeping, summary)["itl_ms_p50"]


def sweeping_row(sweeping: Sweeping, summary: Summary) -> Trial:
    assert summary.choice.winner is not None
    return next(row for row in rows_of(sweeping) if row["candidate"] == summary.choice.winner.id)


def paced(tmp_path: Path, trials: int = 4) -> Sweeping:
    sweeping = Sweeping(tmp_path, make_sweep(lora=FINITE, strategy="grid", budget={"trials": trials}))
    sweeping.machine = "machine1"
    return sweeping


def long_ago(sweeping: Sweeping) -> None:
    """Let the last agreement be from yesterday."""
    (file,) = (sweeping.folder / "cache" / "pace").glob("*.json")
    kept = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(kept | {"agreed": time.time() - 86_400}), encoding="utf-8")


def test_timings_of_minutes_ago_are_trusted(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    assert {row["pace"] for row in rows_of(sweeping)} == {"machine1"}
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 6}))
    assert sweeping.stages.repeated == 0
    assert len(rows_of(sweeping)) == 7


def test_timings_of_yesterday_are_trusted_where_one_taken_again_agrees(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    before = rows_of(sweeping)
    long_ago(sweeping)
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 6}))
    assert sweeping.stages.repeated == 1
    assert rows_of(sweeping)[:5] == before
    assert {row["pace"] for row in rows_of(sweeping)} == {"machine1"}


def test_a_wait_for_other_sweeps_before_that_timing_is_not_spent_in_stages(tmp_path: Path) -> None:
    """Else the tuner's own cost, which is what is left of the wall-clock, would be below 0."""
    sweeping = paced(tmp_path)
    sweeping.run()
    long_ago(sweeping)
    timed_again = sweeping.stages.again

    def waits(job: TimeJob, timings: int = 1) -> tuple[dict[str, Any], float]:
        sweeping.clock.now += 1000.0
        return timed_again(job, timings)

    sweeping.stages.again = waits  # type: ignore[method-assign]
    summary = sweeping.run()
    assert (sweeping.stages.repeated, summary.trials) == (1, 0)
    assert summary.stages_s == 2.0


def test_where_it_does_not_agree_all_are_timed_anew(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    before = {row["trial"]: row for row in rows_of(sweeping)}
    long_ago(sweeping)
    sweeping.stages.slower = 1.2
    trained = sweeping.stages.ran["finetune"]
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 4}))
    assert any("3 graphs are timed anew" in note for note in sweeping.watched.notes)
    rows = rows_of(sweeping)
    assert len(rows) == 10  # those of before stay where they are
    (pace,) = {row["pace"] for row in rows[5:]}
    assert str(pace).startswith("machine1 since ")
    for row in rows[5:]:
        old = before[row["trial"]]
        assert (row["candidate"], row["status"], row["accuracy"]) == (old["candidate"], "ok", old["accuracy"])
        assert row["attempt"] == old["attempt"] + 1
        assert row["itl_ms_p50"] == pytest.approx(1.2 * old["itl_ms_p50"], rel=0.01)
        assert row["size_mb"] == old["size_mb"]
    assert sweeping.stages.ran["finetune"] == trained
    assert sum(row["cost_time_s"] or 0 for row in rows[5:]) == 6.0  # one timing a graph
    again = len(rows)
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 4}))
    assert len(rows_of(sweeping)) == again


def test_on_another_machine_all_are_timed_anew(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    sweeping.machine = "machine2"
    sweeping.inputs = replace(sweeping.inputs, machine="machine2")
    sweeping.run()
    assert [row["pace"] for row in rows_of(sweeping)] == ["machine1"] * 5 + ["machine2"] * 5


def test_a_pace_that_changes_while_the_sweep_runs(tmp_path: Path) -> None:
    """A timing from the cache is tried again after a while; where it no longer holds, the rows before are timed anew."""
    sweeping = paced(tmp_path, trials=8)

    def trouble(job: Job) -> None:
        if isinstance(job, ScoreJob) and sum(isinstance(j, ScoreJob) for j in sweeping.stages.jobs) == 5:
            sweeping.stages.slower = 1.5
            assert sweeping.loop is not None
            assert sweeping.loop.pipeline.pace is not None
            sweeping.loop.pipeline.pace._agreed = 0.0

    sweeping.stages.trouble = trouble
    sweeping.run()
    last = {row["trial"]: row for row in rows_of(sweeping)}
    assert len({row["pace"] for row in last.values()}) == 1
    by_recipe: dict[Any, set[Any]] = {}
    for row in last.values():
        by_recipe.setdefault(row["build_precision"], set()).add(row["itl_ms_p50"])
    assert all(len(times) == 1 for times in by_recipe.values())


def evict(sweeping: Sweeping, *stages: str) -> None:
    """Let the cache have no room for the results of these stages."""
    stored = sweeping.stages.done
    for key in [key for key, result in stored.items() if result.path.parent.name in stages]:
        del stored[key]


@pytest.mark.parametrize("gone", [("finetune",), ("finetune", "merge", "build")])
def test_no_adapter_is_trained_again_only_to_time_its_graph(tmp_path: Path, gone: tuple[str, ...]) -> None:
    """Neither to see whether earlier timings still hold, nor to time them anew, nor in turns at the end."""
    sweeping = paced(tmp_path)
    sweeping.run()
    long_ago(sweeping)
    evict(sweeping, *gone)
    sweeping.stages.slower = 1.2
    trained = sweeping.stages.ran["finetune"]
    taken = len(sweeping.stages.jobs)
    sweeping.run()
    assert sweeping.stages.repeated == 1
    last = {row["trial"]: row for row in rows_of(sweeping)}
    assert all(str(row["pace"]).startswith("machine1 since ") for row in last.values())
    new = [job for job in sweeping.stages.jobs[taken:] if isinstance(job, FinetuneJob)]
    # The winner is made again for best/ and its test score, and nobody else.
    winner = next(row for row in last.values() if row["candidate"] == chosen(sweeping))
    assert sweeping.stages.ran["finetune"] - trained == len(new) <= 1
    assert all(job.lora == candidate_of(winner, tmp_path).lora for job in new)


def chosen(sweeping: Sweeping) -> str:
    """Return the winner's name, as it is in best/."""
    return str(json.loads((sweeping.out / "best" / "candidate.json").read_text(encoding="utf-8"))["candidate"])


def test_a_graph_that_depends_on_the_weights_is_made_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the untouched model's graph turns out to be another one, the candidate itself is made again."""
    done = FakeStages._do

    def by_weights(self: FakeStages, job: Job, out: Path) -> dict[str, Any]:
        result = done(self, job, out)
        if isinstance(job, BuildJob) and self._builds[job.key][0] is None and job.recipe.precision == "int8":
            result["signature"] = "another graph"
        return result

    monkeypatch.setattr(FakeStages, "_do", by_weights)
    sweeping = paced(tmp_path)
    sweeping.run()
    evict(sweeping, "finetune", "merge", "build")
    pipeline, rows = sweeping.pipeline(), rows_of(sweeping)
    row = next(row for row in rows if row["build_precision"] == "int8")
    measured = pipeline.timing(candidate_of(row, tmp_path), graph=str(row["graph"]))
    assert (measured.status, measured.cells["graph"]) == ("ok", row["graph"])


def test_a_graph_that_cannot_be_timed_anew_keeps_its_row(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    before = rows_of(sweeping)
    long_ago(sweeping)
    sweeping.stages.slower = 1.2
    sweeping.stages.trouble = raising("timeout", lambda job: isinstance(job, TimeJob))
    sweeping.run()
    assert rows_of(sweeping) == before
    assert any("could not be timed anew: " in note for note in sweeping.watched.notes)


def test_a_graph_that_cannot_be_timed_anew_is_said_once(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    long_ago(sweeping)
    sweeping.stages.slower = 1.2
    done = len(sweeping.stages.jobs)
    sweeping.stages.trouble = raising("timeout", lambda job: isinstance(job, TimeJob) and "int4" in job.graph)
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 8}))
    assert sum("graphs are timed anew" in note for note in sweeping.watched.notes) == 1
    assert sum("could not be timed anew: " in note for note in sweeping.watched.notes) == 1
    tried = [job for job in sweeping.stages.jobs[done:] if isinstance(job, TimeJob) and "int4" in job.graph]
    assert len(tried) == 2  # and the new candidate in that recipe
    sweeping.stages.trouble = lambda job: None
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 8}))  # the next run tries it again
    last = {row["trial"]: row for row in rows_of(sweeping)}
    assert len({row["pace"] for row in last.values() if row["status"] == "ok"}) == 1


def test_a_graph_whose_worker_was_lost_is_timed_anew_a_little_later(tmp_path: Path) -> None:
    sweeping = paced(tmp_path)
    sweeping.run()
    long_ago(sweeping)
    sweeping.stages.slower = 1.2
    sweeping.stages.trouble = raising("lost", lambda job: isinstance(job, TimeJob) and "int4" in job.graph, times=1)
    sweeping.run(make_sweep(lora=FINITE, strategy="grid", budget={"trials": 5}))
    last = {row["trial"]: row for row in rows_of(sweeping)}
    assert len({row["pace"] for row in last.values()}) == 1


# --- interrupted, resumed --------------------------------------------------------------------------------------------


def outcome(sweeping: Sweeping) -> list[tuple[Any, ...]]:
    return [
        (row["trial"], row["candidate"], row["status"], row["accuracy"], row["itl_ms_p50"], row["size_mb"])
        for row in rows_of(sweeping)
    ]


@pytest.mark.parametrize("strategy", ["random", "grid"])
def test_interruptions_change_nothing(tmp_path: Path, strategy: str) -> None:
    """Ctrl-C at random stages, resumed each time: candidates, statuses and scores as if it had never happened."""
    space = {"lora": LORA if strategy == "random" else FINITE, "strategy": strategy, "limits": ["size_mb <= 400"]}
    sweep = make_sweep(**space, budget={"trials": 12})
    odd = raising("failed", lambda job: isinstance(job, FinetuneJob) and job.lora.r == 8)
    calm = Sweeping(tmp_path / "calm", sweep)
    calm.stages.trouble = odd
    calm.run()
    assert len({row[2] for row in outcome(calm)}) == 3  # ok, over_limit, failed
    interrupted = 0
    for seed in range(4):
        rng = random.Random(seed)
        disturbed = Sweeping(tmp_path / str(seed), sweep)

        def trouble(job: Job, rng: random.Random = rng) -> None:
            if rng.random() < 0.15:
                raise KeyboardInterrupt
            odd(job)

        disturbed.stages.trouble = trouble
        while True:
            try:
                disturbed.run()
                break
            except KeyboardInterrupt:
                interrupted += 1
        assert outcome(disturbed) == outcome(calm)
        made, calm_made = ({k: n for k, n in s.stages.keys.items() if k[0] != "merge"} for s in (disturbed, calm))
        assert made == calm_made  # and nothing is done twice, but for merged models, which are not kept
        assert not disturbed.stages.merged
    assert interrupted >= 8


def test_the_settings_of_a_row_must_be_readable(tmp_path: Path) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 1}))
    sweeping.run()
    file = sweeping.out / "results.csv"
    rows = read_table(file, Trial)
    file.unlink()
    damaged = Table(file, Trial)
    for row in rows:
        damaged.append(row | ({"lora_r": None} if row["trial"] else {}))
    with pytest.raises(UsageError, match="cannot be read"):
        sweeping.run()


def test_a_table_held_by_a_spreadsheet_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 4}))
    append = results_module.Table._append
    held = [2, 3]  # of the lines that are written to results.csv

    def sometimes(self: Table, text: str) -> None:
        if self.file.name == "results.csv" and len(sweeping.watched.rows) in held:
            raise PermissionError(13, "in use", str(self.file))
        append(self, text)

    monkeypatch.setattr(Table, "_append", sometimes)
    sweeping.run()
    assert [row["trial"] for row in rows_of(sweeping)] == [0, 1, 2, 3, 4]


def test_rows_that_can_never_be_written_are_said_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 3}))
    append = results_module.Table._append

    def held(self: Table, text: str) -> None:
        if self.file.name == "results.csv" and len(sweeping.watched.rows) >= 2:
            raise PermissionError(13, "in use", str(self.file))
        append(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "_append", held)
        with pytest.raises(MachineError, match=r"results\.csv cannot be written"):
            sweeping.run()
    assert [row["trial"] for row in rows_of(sweeping)] == [0, 1]
    before = sweeping.stages.ran.total()
    sweeping.run()
    assert [row["trial"] for row in rows_of(sweeping)] == [0, 1, 2, 3]
    assert sweeping.stages.ran.total() - before <= 6  # merged anew at most: the rest was in the cache


def test_rows_that_change_nothing_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner so far is looked for among all rows: only where it can have changed."""
    calls: list[int] = []

    def counted(rows: Any, *rest: Any) -> Choice:
        calls.append(len(list(rows)))
        return judge(rows, *rest)

    for module in ("loop", "finalists"):
        monkeypatch.setattr(f"autotune.scheduler.{module}.judge", counted)
    sweeping = Sweeping(tmp_path, make_sweep(budget={"trials": 30}, limits=["size_mb <= 10"]))
    sweeping.run()
    assert [row["status"] for row in rows_of(sweeping)] == ["ok"] + ["over_limit"] * 30
    assert sweeping.stages.ran["finetune"] == 2  # int8 and int4; fp32 is known from the base
    assert calls == [1, 1, 31]


SERVED = {"threads": 2}
SESSIONS = [{}, {"threads": 1}, {"arena": False}]


def test_sessions_are_rows_of_their_own_and_share_what_is_dear(tmp_path: Path) -> None:
    lora = {"r": {"choice": [4, 8]}, "steps": 10}
    sweep = make_sweep(lora, [{"precision": "int8"}], SESSIONS, target=SERVED, strategy="grid", budget={"trials": 9})
    sweeping = Sweeping(tmp_path, sweep)
    summary = sweeping.run()
    rows = rows_of(sweeping)
    assert (summary.ended, len(rows)) == ("space", 1 + 2 * 3)
    assert [row["session_threads"] for row in rows] == [None, None, 1, None, None, 1, None]
    assert [row["session_arena"] for row in rows] == [None, None, None, False, None, None, False]
    ran = sweeping.stages.ran
    assert (ran["finetune"], ran["build"], ran["score"], ran["time"]) == (2, 3, 3, 1 + 3)
    assert rows[3]["itl_ms_p50"] == pytest.approx(1.5 * 14 + 0.02)
    sweeping.run()
    assert len(rows_of(sweeping)) == len(rows), "an earlier run's sessions are known"


def test_what_one_session_is_known_to_break_another_may_keep(tmp_path: Path) -> None:
    lora = {"r": {"choice": [4, 8]}, "steps": 10}
    keys: dict[str, Any] = {"strategy": "grid", "budget": {"trials": 9}, "limits": ["itl_ms_p50 <= 15"]}
    sweeping = Sweeping(tmp_path, make_sweep(lora, [{"precision": "int8"}], [{"arena": False}, {}], **keys))
    sweeping.run()
    found = [(row["session_arena"], row["status"]) for row in rows_of(sweeping) if row["trial"]]
    assert found == [(False, "over_limit"), (None, "ok")] * 2
    assert sum(isinstance(job, TimeJob) for job in sweeping.stages.jobs) == 3


def test_a_size_is_known_of_all_sessions_of_a_recipe(tmp_path: Path) -> None:
    lora = {"r": {"choice": [4, 8]}, "steps": 10}
    keys: dict[str, Any] = {"strategy": "grid", "budget": {"trials": 9}, "limits": ["size_mb <= 100"]}
    sweeping = Sweeping(tmp_path, make_sweep(lora, [{"precision": "int8"}], SESSIONS, **keys))
    sweeping.run()
    assert {row["status"] for row in rows_of(sweeping) if row["trial"]} == {"over_limit"}
    assert sweeping.stages.ran["finetune"] == 1, "the first shows it, and no other is trained for it"


def test_the_winner_is_kept_as_it_was_served(tmp_path: Path) -> None:
    sweep = make_sweep(
        None, [{"precision": "int4"}], [{"arena": [False, True]}], target=SERVED, objectives={"itl_ms_p50": "minimize"}
    )
    sweeping = Sweeping(tmp_path, sweep)
    summary = sweeping.run()
    assert summary.choice.winner is not None
    won = next(row for row in rows_of(sweeping) if row["candidate"] == summary.choice.winner.id)
    assert won["session_arena"] is True
    best = sweeping.out / "best"
    config = json.loads((best / "onnx" / "genai_config.json").read_text(encoding="utf-8"))
    assert config["model"]["decoder"]["session_options"] == {"intra_op_num_threads": 2, "enable_cpu_mem_arena": True}
    about = json.loads((best / "candidate.json").read_text(encoding="utf-8"))
    assert about["settings"]["session"] == {"arena": True}
    assert Session.model_validate(about["session"]) == Session(threads=2, arena=True)


def test_a_sweep_of_several_workloads_is_limited_and_judged_by_any(tmp_path: Path) -> None:
    target = {"workloads": {"chat": {}, "long": {"prompt_tokens": 64}}}
    keys: dict[str, Any] = {
        "target": target, "strategy": "grid", "limits": ["itl_ms_p50@long <= 30"],
        "objectives": {"itl_ms_p50@long": "minimize", "accuracy": "maximize"},
    }  # fmt: skip
    sweeping = Sweeping(tmp_path, make_sweep(None, **keys))
    summary = sweeping.run()
    rows = rows_of(sweeping)
    assert {row["build_precision"]: row["status"] for row in rows if row["trial"]} == {
        "fp32": "over_limit", "int8": "ok", "int4": "ok",
    }  # fmt: skip
    assert summary.choice.winner is not None
    won = summary.choice.winner
    assert won.values["itl_ms_p50@long"] == pytest.approx(2 * 8 + 0.02)
    assert set(won.intervals) >= {"itl_ms_p50@long", "accuracy"}
    finalists = {row["role"]: row for row in read_table(sweeping.out / "finalists.csv", Finalist)}
    assert finalists["winner"]["itl_ms_p50@long"] == pytest.approx(2 * 8 + 0.02)
    assert finalists["winner"]["itl_ms_p50"] == pytest.approx(8 + 0.02)
    assert finalists["winner"]["itl_ms_p50_low"] is not None
    assert finalists["base"]["itl_ms_p50@long"] == pytest.approx(2 * 35 + 0.02)
    assert float(finalists["winner"]["itl_ratio"] or 0) == pytest.approx(8 / 35, rel=0.01)
    alone = tmp_path / "alone.csv"
    alone.write_bytes((sweeping.out / "results.csv").read_bytes())
    assert select(alone, ["itl_ms_p50@long <= 20"]).choice.winner is not None
    assert select(alone, ["itl_ms_p50@long <= 10"]).choice.winner is None
    assert select(alone, prefer="decode_tps@long").wanted.objectives["decode_tps@long"] == "maximize"
    with pytest.raises(UsageError, match="itl_ms_p50@longer was not measured in these results"):
        select(alone, ["itl_ms_p50@longer <= 10"])
