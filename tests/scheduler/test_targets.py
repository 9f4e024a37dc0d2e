"""Several targets in one sweep: each as in a sweep of its own, what is dear done once, a winner and limits each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FINITE, ITEMS, Clock, FakeStages, Inline, Watched, inputs_in, make_sweep
from test_many import Simulated

from autotune.candidate import Candidate, Recipe, digest
from autotune.costs.estimate import Estimate
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.errors import Exit, StageError, UsageError
from autotune.pipeline.expected import Prices
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Others, Pipeline
from autotune.present.explained import tie_lines
from autotune.present.select import select, targets_of
from autotune.results.folder import read_results
from autotune.results.record import Record
from autotune.results.rows import Finalist, Trial
from autotune.results.table import read_table
from autotune.scheduler.events import Events
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.rehearsal import Rehearsed, Simulation, Simulations, rehearse
from autotune.scheduler.shared import Shared
from autotune.scheduler.status_note import Running
from autotune.scheduler.targets import run_loops
from autotune.scheduler.under_way import Executor
from autotune.stages.jobs import TimeJob, TurnsJob
from autotune.stages.protocol import Job
from autotune.strategies.named import make_strategy
from autotune.strategies.several import make_for_targets
from autotune.sweepfile.schema import Budget, Sweep

LAPTOP, BOX = {"provider": "cpu", "threads": 2}, {"provider": "openvino"}
"""Two targets whose builds are the same."""
OBJECTIVES = {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}
SETTINGS = ("candidate", "target", "pace", "started", "ended", "wall_s", "cached")


class TwoMachines(FakeStages):
    """Stages as the loop sees them; the second target is four times as fast."""

    def _processes(self, job: TimeJob, count: int) -> list[dict[str, Any]]:
        found = super()._processes(job, count)
        if job.provider == "openvino":
            for process in found:
                process["itl_ms"] = [gap / 4 for gap in process["itl_ms"]]
        return found


def run(
    folder: Path,
    sweep: Sweep,
    stages: FakeStages,
    trouble: Callable[[str | None], str] = lambda _: "",
    workers: Executor | None = None,
) -> Summary:
    inputs = inputs_in(folder, test=True)
    with Record(folder / "out", sweep) as record:
        events = Events(Watched(), Running(record))

        spaces = [one.space for one in sweep.by_target.values()]
        several = make_for_targets(sweep.strategy, spaces, sweep.objectives, sweep.seed) if sweep.targets else None
        strategy = several or make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed)

        executor = workers or Inline(stages)

        def loop_of(name: str | None, own: Record, shared: Shared | None) -> Loop:
            one, others = sweep.by_target[name], shared.others if shared is not None else None
            pipeline = Pipeline(Graph(one, inputs), one.aims, stages, None, others)
            return Loop(pipeline, one.budget, own, strategy, executor, events, shared=shared)

        return run_loops(list(sweep.by_target), record, executor, loop_of, several, trouble)[0]


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
    assert {one.budget.trials for one in (sweep, laptop, gpu)} == {6}  # they share one
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


# --- A device that goes ---------------------------------------------------------------------------------------------


class Unplugged(TwoMachines):
    """Its second target's device goes after so many results there."""

    def __init__(self, root: Path, after: int | None) -> None:
        super().__init__(root)
        self.left = after
        self.trouble = self._lose

    def _lose(self, job: Job) -> None:
        if (
            getattr(job, "provider", "") != "openvino"
            or job.stage not in ("check", "time", "score")
            or self.left is None
        ):
            return
        if self.left == 0:
            raise StageError("lost", f"{job.stage}: the device is lost")
        self.left -= 1

    def why(self, target: str | None) -> str:
        """Return why nothing runs on the device of a target."""
        return "its device is lost" if target == "box" and self.left == 0 else ""


@pytest.mark.parametrize("strategy", ["grid", "random", "frontier"])
@pytest.mark.parametrize("after", [0, 4, 12])
def test_a_device_that_goes_costs_its_own_rows_and_the_same_command_makes_them(
    tmp_path: Path, after: int, strategy: str
) -> None:
    sweep, stages = two(strategy, budget={"trials": 16}), Unplugged(tmp_path / "cache", after)
    first = run(tmp_path, sweep, stages, stages.why)
    rows = rows_of(tmp_path, "laptop")
    assert {row.status for row in rows} <= {"ok", "stopped"}
    assert sum(row.status == "ok" for row in rows if row.trial) >= 8 - (strategy == "frontier") * 2
    # The candidate that was under way, tried twice, and no other: those that come wait for the device.
    lost = [row for row in read_table(tmp_path / "out" / "results.csv", Trial) if row.status == "lost"]
    assert {row.target for row in lost} == {"box"}
    assert len({row.candidate for row in lost}) == 1
    assert len(lost) == 2
    assert len([row for row in read_results(tmp_path / "out") if row.trial and row.status != "stopped"]) < 16
    assert first.targets["laptop"].exit_code == Exit.OK
    assert first.exit_code == (Exit.NO_RESULT if after == 0 else first.targets["box"].exit_code)
    if after == 0:
        assert first.targets["box"].exit_code == Exit.NO_RESULT

    stages.left = None
    second = run(tmp_path, sweep, stages, stages.why)
    assert second.exit_code == Exit.OK
    found = read_results(tmp_path / "out")
    assert "lost" not in {row.status for row in found}
    assert len([row for row in found if row.trial and row.status != "stopped"]) == 16
    again = rows_of(tmp_path, "laptop")
    assert [row.candidate for row in again[: len(rows)]] == [row.candidate for row in rows]
    assert len([row for row in rows_of(tmp_path, "box") if row.trial]) >= 4
    assert (tmp_path / "out" / "best" / "box").is_dir()
    assert stages.merged == []


def test_a_worker_that_is_lost_is_no_device_that_goes(tmp_path: Path) -> None:
    stages, deaths = TwoMachines(tmp_path / "cache"), 0

    def die(job: Job) -> None:
        nonlocal deaths
        if job.stage == "score" and getattr(job, "provider", "") == "openvino" and len(stages.jobs) > 0 and deaths < 2:
            deaths += 1
            raise StageError("lost", "score: the worker died")

    stages.trouble = die
    summary = run(tmp_path, two(), stages)
    assert summary.exit_code == Exit.OK
    rows = [row for row in read_results(tmp_path / "out") if row.trial]
    assert len(rows) == 36
    assert {row.target for row in rows if row.status == "ok"} == {"laptop", "box"}


def test_what_ends_a_search_is_told_apart_from_a_part_that_is_kept(tmp_path: Path) -> None:
    """The part of a target whose device is gone is kept: the budget is not reached."""
    stages = TwoMachines(tmp_path / "cache")

    def lose(job: Job) -> None:
        if getattr(job, "provider", "") == "openvino" and job.stage == "score" and stages.ran["score"] > 5:
            raise StageError("lost", "score: the device is lost")

    stages.trouble = lose
    summary = run(
        tmp_path, two(budget={"trials": 12}), stages, lambda name: "its device is lost" if name == "box" else ""
    )
    assert summary.ended == "kept"
    rows = [row for row in read_results(tmp_path / "out") if row.trial]
    assert len(rows) < 12
    stages.trouble = lambda job: None
    assert run(tmp_path, two(budget={"trials": 12}), stages).ended == "trials"


def test_when_every_device_is_gone_the_search_ends_and_says_so(tmp_path: Path) -> None:
    stages = TwoMachines(tmp_path / "cache")

    def lose(job: Job) -> None:
        if job.stage == "score" and stages.ran["score"] > 5:
            raise StageError("lost", "score: the device is lost")

    stages.trouble = lose
    summary = run(tmp_path, two(), stages, lambda name: "its device is lost")
    assert summary.ended == "lost"
    rows = read_table(tmp_path / "out" / "results.csv", Trial)
    assert len({row.candidate for row in rows if row.status == "lost"}) == 2
    stages.trouble = lambda job: None
    assert run(tmp_path, two(), stages).exit_code == Exit.OK
    assert len([row for row in read_results(tmp_path / "out") if row.trial]) == 36


def test_the_part_of_the_budget_of_a_target_whose_device_is_gone_is_kept(tmp_path: Path) -> None:
    sweep, stages = two(targets={"a": LAPTOP, "b": BOX, "c": BOX}), FakeStages(tmp_path / "cache")
    strategy = make_for_targets("grid", [one.space for one in sweep.targets.values()], sweep.objectives, 0)
    clock = Clock()
    with Record(tmp_path / "out", sweep, clock) as record:
        shared, events = Shared(Inline(stages)), Events()
        loops = [
            Loop(
                Pipeline(Graph(one, inputs_in(tmp_path)), one.aims, stages), Budget(trials=10, hours=3),
                record.for_target(name), strategy, Inline(stages), events, clock, shared=shared,
            )
            for name, one in sweep.targets.items()
        ]  # fmt: skip
        budget = loops[0].budget
        assert (budget.trials(), budget.seconds()) == (10, 3 * 3600)
        shared.gone.add("c")
        assert budget.trials() == 10 - 3  # 10 rows are 4, 3 and 3
        assert budget.seconds() == pytest.approx(2 * 3600)
        clock.now = 2.5 * 3600
        assert (budget.at_its_end, budget.goes_on_with_kept) == (True, True)
        clock.now = 3.5 * 3600
        assert (budget.at_its_end, budget.goes_on_with_kept) == (True, False)
        clock.now = 0
        shared.gone.add("a")
        assert budget.trials() == 10 - 3 - 4
        assert budget.seconds() == pytest.approx(3600)
        clock.now = 1800
        assert budget.seconds() == pytest.approx(1800)


# --- Several at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["grid", "frontier"])
def test_candidates_of_different_targets_are_under_way_at_once(tmp_path: Path, strategy: str) -> None:
    """What a candidate of one target uses is in use while one of another ends."""
    stages = TwoMachines(tmp_path / "cache")
    workers = Simulated(stages, 4)
    summary = run(tmp_path, two(strategy, budget={"trials": 24}), stages, workers=workers)
    assert summary.exit_code == Exit.OK
    assert workers.most > 1
    assert stages.merged == []
    assert max(stages.keys.values()) == 1  # nothing is made twice, for whichever target
    timings = [(began, ended) for began, ended, job in workers.ran if isinstance(job, TimeJob | TurnsJob)]
    assert {job.provider for _, _, job in workers.ran if isinstance(job, TimeJob)} == {"cpu", "openvino"}
    for began, ended in timings:
        beside = [job for start, end, job in workers.ran if start < ended and began < end and end > start]
        assert len(beside) == (ended > began), beside  # in turn, with nothing else at work


def test_nothing_is_let_go_of_that_a_candidate_of_another_target_uses(tmp_path: Path) -> None:
    sweep, stages, others = two(), TwoMachines(tmp_path / "cache"), Others()
    pipelines = [
        Pipeline(Graph(one, inputs_in(tmp_path)), one.aims, stages, None, others) for one in sweep.targets.values()
    ]
    laptop, box = pipelines
    candidate = next(sweep.targets["laptop"].space.grid())
    steps = laptop.steps(candidate)
    used = laptop.graph.finetune_job(candidate).key
    next(steps)  # it trains
    box.rest()
    assert used in stages.needed
    steps.close()
    box.rest()
    assert used not in stages.needed


def test_merged_models_of_an_interrupted_run_are_removed_in_the_end(tmp_path: Path) -> None:
    stages = TwoMachines(tmp_path / "cache")

    def stop(job: Job) -> None:
        if stages.ran["merge"] == 3:
            raise KeyboardInterrupt

    stages.trouble = stop
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, two(), stages)
    assert len(stages.merged) == 3
    stages.trouble = lambda job: None
    run(tmp_path, two(), stages)
    assert stages.merged == []
    assert stages.ran["merge"] == 6


# --- What a plan expects of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "trials"), [("grid", 99), ("grid", 10), ("random", 12)])
def test_a_rehearsal_counts_what_the_sweep_then_does(tmp_path: Path, strategy: str, trials: int) -> None:
    sweep = two(strategy, budget={"trials": trials}, objectives=OBJECTIVES)
    inputs, costs = inputs_in(tmp_path, test=True), CostModel(Subject("m", 1e8))
    parts = {}
    for name, one in sweep.targets.items():
        prices = Prices(Graph(one, inputs), costs)
        parts[name] = Simulation(prices, one.objectives, False, lambda _: None)
    spaces = [one.space for one in sweep.targets.values()]
    strategies = make_for_targets(strategy, spaces, sweep.objectives, sweep.seed, ITEMS)
    said = rehearse(strategies, Simulations(parts), Estimate(), trials)
    stages = TwoMachines(tmp_path / "cache")
    summary = run(tmp_path, sweep, stages)
    times = {stage: round(line.times) for stage, line in said.estimate.lines.items()}
    assert (said.candidates, said.ended) == (summary.trials, summary.ended)
    assert times["train"] == stages.ran["finetune"] == said.adapters
    for stage in ("merge", "build", "check", "time", "turns"):
        assert times[stage] == pytest.approx(stages.ran[stage], abs=stage == "merge"), stage
    assert said.estimate.lines["score"].units == stages.scored


def test_frontier_is_rehearsed_for_all_targets_together(tmp_path: Path) -> None:
    def said(targets: dict[str, Any], trials: int) -> Rehearsed:
        sweep = two("frontier", targets=targets, objectives=OBJECTIVES)
        inputs, costs, parts = inputs_in(tmp_path, test=True), CostModel(Subject("m", 1e8)), {}
        for name, one in sweep.targets.items():
            prices = Prices(Graph(one, inputs), costs)
            parts[name] = Simulation(prices, one.objectives, True, lambda _: None)
        spaces = [one.space for one in sweep.targets.values()]
        strategy = make_for_targets("frontier", spaces, sweep.objectives, sweep.seed, ITEMS)
        return rehearse(strategy, Simulations(parts), Estimate(), trials)

    one, both = said({"laptop": LAPTOP}, 8), said({"laptop": LAPTOP, "box": BOX}, 16)
    assert (one.candidates, both.candidates) == (8, 16)
    assert both.trained < 2 * one.trained
    assert both.wall_s < 2 * one.wall_s
