"""Several targets in one sweep: each as in a sweep of its own, what is dear done once, a winner and limits each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import FINITE, FakeStages, Inline, Watched, inputs_in, make_sweep

from autotune.candidate import Candidate, Recipe, digest
from autotune.errors import Exit, UsageError
from autotune.pipeline.measure import Others, Pipeline
from autotune.present.select import select, targets_of, tie_lines
from autotune.results.folder import read_results
from autotune.results.record import Record
from autotune.results.rows import Finalist, Trial
from autotune.results.table import read_table
from autotune.scheduler.events import Events
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.status_note import Running
from autotune.scheduler.targets import run_loops
from autotune.stages.jobs import Job, TimeJob
from autotune.strategies.named import make_strategy
from autotune.sweepfile.schema import Sweep

LAPTOP, BOX = {"provider": "cpu", "threads": 2}, {"provider": "openvino"}
"""Two targets whose builds are the same."""
SETTINGS = ("candidate", "target", "pace", "started", "ended", "wall_s", "cached")


class TwoMachines(FakeStages):
    """Stages as the loop sees them; the second target is four times as fast."""

    def _processes(self, job: TimeJob, count: int) -> list[dict[str, Any]]:
        found = super()._processes(job, count)
        if job.provider == "openvino":
            for process in found:
                process["itl_ms"] = [gap / 4 for gap in process["itl_ms"]]
        return found


def run(folder: Path, sweep: Sweep, stages: FakeStages) -> Summary:
    inputs = inputs_in(folder, test=True)
    with Record(folder / "out", sweep) as record:
        events = Events(Watched(), Running(record))

        def loop_of(name: str | None, own: Record, others: Others | None) -> Loop:
            one = sweep.by_target[name]
            strategy = make_strategy(one.strategy, one.space, one.objectives, one.seed)
            return Loop(one, own, Pipeline(one, inputs, stages, None, others), strategy, Inline(stages), events)

        return run_loops(list(sweep.by_target), record, loop_of)[0]


def two(strategy: str = "grid", **keys: Any) -> Sweep:
    targets = {"laptop": LAPTOP, "box": BOX}
    lora = FINITE if strategy == "grid" else keys.pop("lora", FINITE)
    return make_sweep(**{"lora": lora, "strategy": strategy, "targets": targets, "budget": {"trials": 36}} | keys)


def rows_of(folder: Path, target: str | None) -> list[Trial]:
    return [row for row in read_results(folder / "out") if row.target == target]


def plain(row: Trial) -> dict[str, Any]:
    """Return what of a row does not depend on when, where and after what it was measured."""
    timed = ("_ms", "decode", "cost_", "load", "peak", "processes", "warm")
    return {
        name: cell
        for name, cell in row.filled().items()
        if name not in SETTINGS and not any(part in name for part in timed)
    }


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, TwoMachines]:
    folder = tmp_path_factory.mktemp("two")
    stages = TwoMachines(folder / "cache")
    return folder, run(folder, two(), stages), stages


def test_every_adapter_is_trained_and_merged_once_and_the_same_build_is_made_once(
    swept: tuple[Path, Summary, TwoMachines],
) -> None:
    folder, summary, stages = swept
    assert summary.exit_code == Exit.OK
    assert stages.ran["finetune"] == stages.ran["merge"] == 6
    assert stages.ran["build"] == 18 + 1
    assert set(stages.keys.values()) == {1}
    assert stages.merged == []  # none is left behind
    rows = read_results(folder / "out")
    assert len([row for row in rows if row.trial]) == 36  # the budget counts rows
    trained = [row for row in rows if row.cost_s("train") is not None]
    assert sorted(row.adapter or "" for row in trained) == sorted({row.adapter for row in rows if row.adapter})
    assert all(row.cost_s("score") is not None for row in rows)
    assert len({row.candidate for row in rows}) == len(rows)


@pytest.mark.parametrize(("name", "target"), [("laptop", LAPTOP), ("box", BOX)])
def test_the_rows_of_each_are_those_of_a_sweep_of_its_own(
    swept: tuple[Path, Summary, TwoMachines], tmp_path: Path, name: str, target: dict[str, Any]
) -> None:
    alone = make_sweep(lora=FINITE, strategy="grid", target=target, budget={"trials": 18})
    run(tmp_path, alone, TwoMachines(tmp_path / "cache"))
    assert list(map(plain, rows_of(swept[0], name))) == list(map(plain, rows_of(tmp_path, None)))


def test_each_has_its_base_its_winner_and_its_place(swept: tuple[Path, Summary, TwoMachines]) -> None:
    folder, summary, _ = swept
    assert targets_of(folder / "out") == ["laptop", "box"]
    for name in ("laptop", "box"):
        assert next(row.trial for row in rows_of(folder, name)) == 0
        winner = summary.targets[name].choice.winner
        assert winner is not None
        assert winner.id in {row.candidate for row in rows_of(folder, name)}
        chosen = select(folder / "out", target=name).choice.winner
        assert chosen is not None
        assert chosen.id == winner.id
        assert (folder / "out" / "best" / name / "onnx" / "model.onnx").is_file()
        assert (folder / "out" / "outcomes" / f"turns.{name}.json").is_file()
    finalists = read_table(folder / "out" / "finalists.csv", Finalist)
    assert {(row.role, row.target) for row in finalists} >= {
        (role, name) for role in ("winner", "base") for name in ("laptop", "box")
    }
    choices = {name: summary.targets[name].choice for name in ("laptop", "box")}
    said = tie_lines(choices, read_results(folder / "out"))[0]
    assert said.startswith(("The same adapter", "One adapter would do for every target"))


def test_a_limit_of_one_target_changes_the_choice_for_that_target(tmp_path: Path) -> None:
    targets = {"laptop": LAPTOP | {"limits": ["size_mb <= 100"]}, "box": BOX | {"limits": ["size_mb >= 500"]}}
    run(tmp_path, two(targets=targets), TwoMachines(tmp_path / "cache"))
    chosen = {name: select(tmp_path / "out", target=name) for name in targets}
    precisions = {
        name: one.row(one.choice.winner.id)["build_precision"] for name, one in chosen.items() if one.choice.winner
    }
    assert precisions == {"laptop": "int4", "box": "fp32"}


def test_the_exit_code_is_the_worst_of_all(tmp_path: Path) -> None:
    targets = {"laptop": LAPTOP | {"limits": ["itl_ms_p50 <= 1"]}, "box": BOX}
    summary = run(tmp_path, two(targets=targets), TwoMachines(tmp_path / "cache"))
    assert summary.exit_code == Exit.NO_FEASIBLE
    assert summary.targets["box"].exit_code == Exit.OK
    assert (tmp_path / "out" / "best" / "box").is_dir()
    assert not (tmp_path / "out" / "best" / "laptop").exists()


@pytest.mark.parametrize("rows", [3, 19, 25])
def test_a_sweep_goes_on_where_it_was_stopped(tmp_path: Path, rows: int) -> None:
    stages, begun = TwoMachines(tmp_path / "cache"), 0

    def stop(job: Job) -> None:
        nonlocal begun
        begun += job.stage == "score"
        if begun > rows:
            raise KeyboardInterrupt

    stages.trouble = stop
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, two(), stages)
    stages.trouble = lambda job: None
    assert run(tmp_path, two(), stages).exit_code == Exit.OK
    assert set(stages.keys.values()) <= {1, 2}  # a merge may be made again
    assert stages.ran["finetune"] == 6
    found = read_results(tmp_path / "out")
    assert len([row for row in found if row.trial]) == 36


def test_frontier_goes_on_with_the_adapters_that_are_trained(tmp_path: Path) -> None:
    stages = TwoMachines(tmp_path / "cache")
    summary = run(tmp_path, two("frontier", budget={"trials": 12}), stages)
    assert summary.exit_code == Exit.OK
    adapters = {name: {row.adapter for row in rows_of(tmp_path, name) if row.adapter} for name in ("laptop", "box")}
    assert adapters["laptop"] & adapters["box"]
    assert stages.ran["finetune"] >= len(adapters["laptop"] | adapters["box"])


def test_candidates_of_a_sweep_with_one_target_keep_their_ids() -> None:
    one = Candidate(recipe=Recipe(precision="fp32"))
    assert one.id == digest({"recipe": {"precision": "fp32"}})[:16]
    assert "target" not in one.columns()
    other = Candidate(recipe=Recipe(precision="fp32"), target="gpu")
    assert other.id != one.id
    assert Candidate.from_columns({name: str(cell) for name, cell in other.columns().items()}) == other


# --- The sweep file -------------------------------------------------------------------------------------------------


def test_each_target_takes_what_runs_there() -> None:
    build = [{"precision": ["fp32", "fp16", "int4"], "enable_webgpu_graph": [True, False]}]
    sweep = make_sweep(build=build, targets={"laptop": {"provider": "cpu"}, "gpu": {"provider": "webgpu"}})
    laptop, gpu = sweep.targets["laptop"], sweep.targets["gpu"]
    assert [recipe.precision for recipe in laptop.space.recipes] == ["fp32", "int4"]
    assert [item.settings for item in laptop.space.left_out] == ["fp16"]
    assert {recipe.precision for recipe in gpu.space.recipes} == {"fp32", "fp16", "int4"}
    assert len(gpu.space.recipes) == 6
    assert [one.budget.trials for one in (laptop, gpu)] == [3, 3]
    again = sweep.resolved()
    assert set(again["targets"]) == {"laptop", "gpu"}
    assert "target" not in again


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"target": LAPTOP, "targets": {"a": LAPTOP}}, "targets: target and targets exclude one another"),
        ({"targets": {}}, "targets: must be a map of names to targets"),
        ({"targets": ["cpu"]}, "targets: must be a map of names to targets"),
        ({"targets": {"A b": LAPTOP}}, "targets.A b: must be a-z"),
        ({"targets": {"a": "cpu"}}, "targets.a: must be a mapping"),
        ({"targets": {"a": {"provider": "cup"}}}, "targets.a.provider: no such execution provider"),
        ({"targets": {"a": {"thread": 1}}}, "targets.a.thread: "),
        ({"targets": {"a": LAPTOP | {"limits": ["speed <= 1"]}}}, "targets.a.limits[0]: "),
        ({"targets": {"a": LAPTOP, "b": BOX}, "budget": {"trials": 1}}, "budget.trials: must be at least 2"),
        ({"targets": {"a": {"provider": "cpu", "device": 1}}}, "targets.a.device: device means something on"),
    ],
)
def test_a_mistake_in_targets_is_named_with_its_key(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        make_sweep(**keys)
    assert any(said in str(problem) for problem in raised.value.problems), raised.value
