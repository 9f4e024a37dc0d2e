"""Where the untouched model is another one once built, no adapter is trained for a recipe that only rounds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStages, Sweeping, make_sweep

from autotune.errors import Exit, StageError
from autotune.present.explained import explain
from autotune.present.select import select
from autotune.results.rows import Trial
from autotune.results.table import read_table
from autotune.stages.jobs import BuildJob, CheckJob
from autotune.stages.protocol import Job

WRONG = "the build's logits are not PyTorch's: they differ by 29%"
STRATEGIES = ("frontier", "random", "tpe", "nsga2")


def sweeping(folder: Path, **keys: Any) -> Sweeping:
    return Sweeping(folder, make_sweep(**keys))


def rows_of(sweep: Sweeping) -> list[Trial]:
    return read_table(sweep.out / "results.csv", Trial)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_wrong_build_at_full_precision_ends_trust_in_all_that_only_rounds_it(tmp_path: Path, strategy: str) -> None:
    sweep = sweeping(tmp_path, strategy=strategy)
    # Rounding hides it: nobody would see it at int8 and int4.
    sweep.stages.found = lambda job: WRONG if job.recipe.precision == "fp32" else None
    summary = sweep.run()
    assert (summary.exit_code, summary.ended, summary.trials) == (Exit.NO_RESULT, "export", 0)
    assert sweep.stages.ran["train"] == sweep.stages.ran["finetune"] == 0
    rows = rows_of(sweep)
    assert [(row["build_precision"], row["status"]) for row in rows] == [
        ("fp32", "failed"), ("int8", "failed"), ("int4", "failed"),
    ]  # fmt: skip
    assert all(WRONG in str(row["error"]) for row in rows)
    assert "the untouched model at fp32 is not the model" in str(rows[2]["error"])
    said = explain(select(sweep.out))
    assert (
        "the untouched model at fp32 computes something else once it is built, and so does every recipe that only rounds its weights"
        in said
    )
    assert WRONG in said


def test_run_again_it_looks_again(tmp_path: Path) -> None:
    sweep = sweeping(tmp_path)
    sweep.stages.found = lambda job: WRONG
    sweep.run()
    sweep.stages.found = lambda job: None  # another version of the builder
    summary = sweep.run()
    assert (summary.exit_code, summary.ended) == (Exit.OK, "trials")
    assert "another model" not in explain(select(sweep.out))


def test_a_recipe_with_other_operations_is_tried_on_the_untouched_model_first(tmp_path: Path) -> None:
    build = [{"precision": "fp32"}, {"precision": "int4"}, {"precision": "int4", "fuse_mlp_gate_up": True}]
    sweep = sweeping(tmp_path, build=build)
    sweep.stages.found = lambda job: None if job.recipe.fuse_mlp_gate_up else WRONG
    summary = sweep.run()
    assert summary.exit_code == Exit.OK
    rows = rows_of(sweep)
    ok = [row for row in rows if row["status"] == "ok"]
    assert ok
    assert all(row["build_fuse_mlp_gate_up"] for row in ok)
    others = [row for row in rows if not row["build_fuse_mlp_gate_up"]]
    assert {row["status"] for row in others} == {"failed"}
    assert "computes something else once it is built" in explain(select(sweep.out))
    # No adapter went through a recipe that was given up.
    given_up = [job for job in sweep.stages.jobs if isinstance(job, BuildJob) and not job.recipe.fuse_mlp_gate_up]
    assert {job.source for job in given_up} == {"base digest"}


@pytest.mark.parametrize("stage", [BuildJob, CheckJob])
def test_what_cannot_be_built_or_run_is_seen_before_anything_is_trained(tmp_path: Path, stage: type[Job]) -> None:
    def trouble(job: Job) -> None:
        if isinstance(job, stage):
            raise StageError("unsupported", "the model builder refuses it")

    sweep = Sweeping(tmp_path, make_sweep(), stages=FakeStages(tmp_path / "cache", trouble))
    summary = sweep.run()
    assert (summary.exit_code, summary.ended) == (Exit.NO_RESULT, "export")
    assert sweep.stages.ran["finetune"] == 0
    assert [row["status"] for row in rows_of(sweep)] == ["unsupported"] * 3
    assert "the untouched model at fp32 could not be built and run" in explain(select(sweep.out))


def test_one_recipe_that_can_be_built_is_enough(tmp_path: Path) -> None:
    def trouble(job: Job) -> None:
        if isinstance(job, BuildJob) and job.recipe.precision != "int4":
            raise StageError("unsupported", "the model builder refuses it")

    sweep = Sweeping(tmp_path, make_sweep(), stages=FakeStages(tmp_path / "cache", trouble))
    assert sweep.run().exit_code == Exit.OK
    assert {row["build_precision"] for row in rows_of(sweep) if row["status"] == "ok"} == {"int4"}


def test_trouble_that_is_not_the_exports_ends_no_trust(tmp_path: Path) -> None:
    first = []

    def trouble(job: Job) -> None:
        if job.stage == "score" and not first:
            first.append(job)
            raise StageError("failed", "the model's logits are infinite")

    sweep = Sweeping(tmp_path, make_sweep(), stages=FakeStages(tmp_path / "cache", trouble))
    summary = sweep.run()
    assert (summary.exit_code, summary.ended) == (Exit.OK, "trials")
    assert "once built" not in explain(select(sweep.out))


def test_without_adapters_each_recipe_is_a_candidate_and_fails_as_one(tmp_path: Path) -> None:
    sweep = sweeping(tmp_path, lora=None, strategy="grid")
    sweep.stages.found = lambda job: WRONG if job.recipe.precision == "fp32" else None
    assert sweep.run().exit_code == Exit.NO_RESULT
    rows = rows_of(sweep)
    assert {row["build_precision"]: row["status"] for row in rows} == dict.fromkeys(("fp32", "int8", "int4"), "failed")
