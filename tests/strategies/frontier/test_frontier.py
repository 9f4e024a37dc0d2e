"""The strategy `frontier` in the loop: what it asks for, what is in the rows, and that it goes on where it stopped."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import ITEMS, FakeStages, Sweeping, ids_of, inputs_in, make_sweep, next_of, score_of

from autotune.analysis.limits import parse_limit
from autotune.candidate import Candidate, Recipe
from autotune.errors import StageError
from autotune.metrics import Direction
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.timing_validity import Pace
from autotune.results.judge import front_of
from autotune.results.rows import CurvePoint, Trial
from autotune.results.table import read_table
from autotune.scheduler import first_estimates
from autotune.space.space import Space
from autotune.stages.jobs import FinetuneJob, ScoreJob, TimeJob
from autotune.stages.protocol import Job
from autotune.strategies.baselines import Grid
from autotune.strategies.frontier.constants import POOL, RUNGS
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.named import make_strategy
from autotune.strategies.optuna_samplers import Sampled
from autotune.strategies.protocol import Proposal, Told

LORA: dict[str, Any] = {
    "r": {"choice": [4, 8, 16]},
    "learning_rate": {"choice": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]},
    "steps": 10,
}
AIMS = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}


def sweeping_of(folder: Path, **keys: Any) -> Sweeping:
    return dear(
        Sweeping(folder, make_sweep(LORA, **{"strategy": "frontier", "budget": {"trials": 12}, **AIMS, **keys}))
    )


def dear(sweeping: Sweeping) -> Sweeping:
    """Return a sweep whose trainings take a minute."""
    sweeping.stages.step_s = 6.0
    return sweeping


def rows_of(sweeping: Sweeping) -> list[Trial]:
    return read_table(sweeping.out / "results.csv", Trial)


def test_a_sweep_climbs_and_crosses(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path)
    summary = sweeping.run()
    rows = rows_of(sweeping)
    measured = {row["trial"]: row["candidate"] for row in rows if row["trial"] and row["status"] == "ok"}
    assert (list(measured), len(set(measured.values()))) == (list(range(1, 13)), 12)
    assert summary.trials == 12
    assert summary.choice.winner is not None
    stopped = [row for row in rows if row["status"] == "stopped"]
    assert {row["kind"] for row in stopped} >= {"adapter"}
    # On the way to the trial that comes next.
    for row, after in itertools.pairwise(rows):
        assert row["status"] != "stopped" or not row["trial"] or row["trial"] == after["trial"]
    for row in stopped:
        if row["rung"] is not None:
            assert row["kind"] == "adapter"
            assert any(row["rung"] == pytest.approx(rung, abs=1e-6) for rung in RUNGS)
            assert row["train_steps"] == max(1, round(float(row["rung"]) * 10))
            assert f"trained for {row['train_steps']} of 10 steps" in str(row["error"])
        assert row["itl_ms_p50"] is None or row["kind"] == "pair"
    best = next(row for row in rows if row["candidate"] == summary.choice.winner.id and row["status"] == "ok")
    assert (best["accuracy_n"], best["rung"], best["items"], best["error"]) == (ITEMS, None, None, None)


def test_what_is_known_of_the_untouched_model_is_used(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path, budget={"trials": 1}, limits=["accuracy >= base"])
    for _ in range(2):  # and when it goes on
        strategy = Frontier(sweeping.sweep.space, sweeping.sweep.objectives, 0)
        sweeping.run(strategy=strategy)
        assert strategy.observations.untouched == (0.4,)
        fp32 = next(name for name in strategy.observations.deployments if name.startswith("fp32"))
        assert strategy.observations.footprints[fp32] == pytest.approx([35.02, 540.333], rel=1e-3)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look be at as few items as there are here."""
    monkeypatch.setattr(first_estimates, "LEAST_ITEMS", 1)


def test_of_few_items_the_untouched_model_is_measured_at_once(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path, budget={"trials": 1})
    sweeping.run()
    assert [(row["trial"], row["status"]) for row in rows_of(sweeping)] == [(0, "ok"), (1, "ok")]


@pytest.mark.usefixtures("few")
def test_an_untouched_model_whose_score_is_known_is_still_timed(tmp_path: Path) -> None:
    stages = FakeStages(tmp_path / "stages")
    for strategy in ("random", "frontier"):  # the second finds all that the first has made
        sweep = make_sweep(LORA, strategy=strategy, budget={"trials": 1}, **AIMS)
        sweeping = dear(Sweeping(tmp_path / strategy, sweep, stages=stages))
        sweeping.run()
    first, last = [row for row in rows_of(sweeping) if row["kind"] == "base"]
    assert (first["status"], first["error"], first["itl_ms_p50"]) == ("stopped", "not timed; measured in the end", None)
    assert (last["status"], last["accuracy"]) == ("ok", first["accuracy"])
    assert last["itl_ms_p50"] is not None


@pytest.mark.parametrize(("slower", "begun"), [(1.0, 5), (2.0, 0)])
def test_timings_are_gone_on_with_only_where_the_pace_still_holds(tmp_path: Path, slower: float, begun: int) -> None:
    sweeping = sweeping_of(tmp_path)
    pace = Pace(tmp_path / "cache", "machine")
    pipeline = Pipeline(Graph(sweeping.sweep, sweeping.inputs), sweeping.sweep.aims, sweeping.stages, pace)
    pipeline.rungs = RUNGS
    candidate = Candidate(recipe=Recipe(precision="fp32"))
    assert pipeline.timing(candidate).status == "ok"
    pace._agreed = 0.0  # long ago
    pace._keep()
    sweeping.stages.slower, sweeping.stages.resolved = slower, 9
    assert pipeline.timing(candidate, whole=True).status == "ok"
    first, whole = (job for job in sweeping.stages.jobs if isinstance(job, TimeJob))
    assert (first.most, whole.most > whole.processes) == (first.processes, True)
    assert len(whole.begun) == begun
    assert (whole.since is None) == (begun > 0)
    assert sweeping.stages.repeated == 1


@pytest.mark.usefixtures("few")
def test_the_untouched_model_is_looked_at_first_and_measured_in_the_end(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path, budget={"trials": 3})
    sweeping.run()
    rows = rows_of(sweeping)
    first, *others, last = [row for row in rows if row["kind"] == "base"]
    assert not others
    assert (rows[0], rows[-1]) == (first, last)
    looked = math.ceil(ITEMS / 8)
    assert (first["status"], first["accuracy_n"], first["itl_ms_p50"]) == ("stopped", looked, None)
    assert first["error"] == f"scored on {looked} of {ITEMS} items; measured in the end"
    assert (last["status"], last["accuracy_n"], last["attempt"]) == ("ok", ITEMS, 2)
    assert last["itl_ms_p50"] is not None
    assert "base," in (sweeping.out / "finalists.csv").read_text(encoding="utf-8")
    strategy = Frontier(sweeping.sweep.space, sweeping.sweep.objectives, 0)
    sweeping.run(strategy=strategy)  # it decides on what was known when it began
    assert strategy.observations.untouched == (first["accuracy"],)
    assert len([row for row in rows_of(sweeping) if row["kind"] == "base"]) == 2


def test_what_is_on_the_front_is_timed_precisely_in_the_end(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path, budget={"trials": 12})
    sweeping.stages.resolved = 9
    sweeping.run()
    rows = rows_of(sweeping)
    times = [job for job in sweeping.stages.jobs if isinstance(job, TimeJob)]
    first = [job for job in times if job.most == job.processes]
    whole = [job for job in times if job.most > job.processes]
    ended = {str(row["candidate"]): row for row in rows if row["status"] == "ok"}
    front = front_of(ended.values(), sweeping.sweep.objectives)
    assert {job.graph for job in whole} == {row["graph"] for row in front} < {job.graph for job in first}
    for job in whole:
        assert len(job.begun) == job.processes
    assert all(row["attempt"] > 1 for row in front)


def test_no_step_is_trained_and_no_item_scored_twice(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path, budget={"trials": 30})
    sweeping.run()
    stages = sweeping.stages
    # An adapter that is taken up again is merged again: no merged model is kept but the last.
    assert max(count for (stage, _), count in stages.keys.items() if stage != "merge") == 1
    reached: dict[str, int] = {}
    for job in stages.jobs:
        if isinstance(job, FinetuneJob):
            name = job.lora.model_dump_json()
            assert (job.checkpoint_dir is None) == (name not in reached)
            reached[name] = job.stop_at or 10
    assert stages.steps == sum(reached.values())
    blocks: dict[str, list[tuple[int, int]]] = {}
    for job in stages.jobs:
        if isinstance(job, ScoreJob) and job.data == "validation digest":
            blocks.setdefault(job.source, []).append(job.block or (0, ITEMS))
    for parts in blocks.values():
        assert [first for first, _ in parts] == [0, *(end for _, end in parts[:-1])]


def test_it_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = sweeping_of(tmp_path / "whole", budget={"trials": 14})
    whole.run()
    parts = sweeping_of(tmp_path / "parts")
    for trials in (1, 2, 5, 9, 14):
        parts.run(parts.sweep.model_copy(update={"budget": parts.sweep.budget.model_copy(update={"trials": trials})}))

    def told(sweeping: Sweeping) -> list[tuple[Any, ...]]:
        names = ("candidate", "trial", "status", "rung", "items", "accuracy", "accuracy_n")
        return [tuple(row[name] for name in names) for row in rows_of(sweeping) if row["trial"]]

    assert told(parts) == told(whole)
    # Merged models are as large as the base and made again in seconds: none is kept when a run ends.
    assert max(count for (stage, _), count in parts.stages.keys.items() if stage != "merge") == 1


def test_curves_have_the_score_of_each_adapter_at_each_rung(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path)
    sweeping.run()
    curves = read_table(sweeping.out / "curves.csv", CurvePoint)
    scores = [(row["adapter"], row["step"], row["score"]) for row in curves if row["score"] is not None]
    rows = [row for row in rows_of(sweeping) if row["kind"] == "adapter"]
    assert scores == [(row["adapter"], row["train_steps"], row["accuracy"]) for row in rows]
    steps = [(row["adapter"], row["step"]) for row in curves if row["train_loss"] is not None]
    assert len(steps) == len(set(steps))


@pytest.mark.parametrize("limit", ["size_mb <= 300", "size_mb<=300"])
def test_a_recipe_over_a_limit_is_built_once(tmp_path: Path, limit: str) -> None:
    sweeping = sweeping_of(tmp_path, limits=[limit], budget={"trials": 20})
    sweeping.run()
    over = [row for row in rows_of(sweeping) if row["status"] == "over_limit"]
    assert len(over) <= 1
    assert all(row["build_precision"] == "fp32" for row in over)


def test_outcomes_of_some_items_say_which(tmp_path: Path) -> None:
    stages = FakeStages(tmp_path / "cache")
    sweep = make_sweep(LORA, **AIMS)
    graph = Graph(sweep, inputs_in(tmp_path))
    pipeline = Pipeline(graph, sweep.aims, stages)
    pipeline.rungs = RUNGS
    candidate = next(sweep.space.grid())
    some = pipeline.measure(candidate, items=20)
    assert some.outcomes is not None
    assert (some.cells["accuracy_n"], len(some.outcomes["items"])) == (25, 25)  # the next look is at a quarter
    ids = ids_of("validation digest")
    assert some.outcomes["ids"] == [ids[place] for place in some.outcomes["items"]]
    assert set(some.outcomes["ids"]) == set(sorted(ids)[:25])
    more = pipeline.measure(candidate, items=50)
    whole = pipeline.measure(candidate)
    assert more.outcomes is not None
    assert whole.outcomes is not None
    assert len(more.outcomes["items"]) == 50
    assert whole.outcomes["ids"] == ids
    assert "items" not in whole.outcomes
    assert stages.scored == ITEMS
    again = FakeStages(tmp_path / "again")
    at_once = Pipeline(graph, sweep.aims, again).measure(candidate)
    assert at_once.outcomes == whole.outcomes


def test_timed_only_is_without_a_score(tmp_path: Path) -> None:
    sweep = make_sweep(LORA, **AIMS)
    pipeline = Pipeline(Graph(sweep, inputs_in(tmp_path)), sweep.aims, FakeStages(tmp_path / "cache"))
    done = pipeline.measure(next(sweep.space.grid()), items=0)
    assert done.status == "ok"
    assert done.cells["itl_ms_p50"]
    assert "accuracy" not in done.cells


@pytest.mark.parametrize("stage", ["finetune", "build"])
def test_what_cannot_be_trained_or_built_is_not_tried_again(tmp_path: Path, stage: str) -> None:
    sweeping = sweeping_of(tmp_path, budget={"trials": 25})

    def trouble(job: Any) -> None:
        if job.stage == stage and (stage == "finetune" or job.recipe.precision == "int8"):
            lora = getattr(job, "lora", None)
            if lora is None or lora.learning_rate > 2e-3:
                raise StageError("diverged" if stage == "finetune" else "unsupported", "on purpose")

    sweeping.stages.trouble = trouble
    assert sweeping.run().choice.winner is not None
    rows = rows_of(sweeping)
    failed = [row["candidate"] for row in rows if row["status"] in ("diverged", "unsupported")]
    assert len(failed) == len(set(failed)) > 0
    if stage == "finetune":
        loras = [row["lora_learning_rate"] for row in rows if row["status"] == "diverged"]
        assert set(loras) <= {3e-3, 1e-2}


@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_lost_at_a_look_uses_up_no_trial(tmp_path: Path, times: int) -> None:
    """Lost once, it is tried again at once; twice, by the next run of the command."""
    sweeping = sweeping_of(tmp_path, budget={"trials": 6})
    left = [times]

    def trouble(job: Job) -> None:
        if isinstance(job, FinetuneJob) and job.stop_at is not None and left[0]:
            left[0] -= 1
            raise StageError("lost", "on purpose")

    sweeping.stages.trouble = trouble
    assert (sweeping.run().trials, left) == (6, [0])
    sweeping.run()
    rows = rows_of(sweeping)
    lost = next(row for row in rows if row["status"] == "lost")
    same = [row for row in rows if (row["trial"], row["candidate"]) == (lost["trial"], lost["candidate"])]
    # What was lost is evaluated once; the candidate may be evaluated at a further rung too.
    assert [row["status"] for row in same if row["rung"] == lost["rung"]] == ["lost"] * times + ["stopped"]
    assert {row["status"] for row in same if row["rung"] != lost["rung"]} <= {"stopped"}
    assert len({row["trial"] for row in rows if row["trial"] and row["status"] == "ok"}) == 6


def test_the_untouched_model_may_be_built_in_no_recipe_of_the_space(tmp_path: Path) -> None:
    quantized = [{"precision": "int4"}, {"precision": "int8"}]
    for name, build, session in (("bits", quantized, None), ("session", None, {"threads": {"choice": [1, 2]}})):
        build = build or [{"precision": "fp32"}, *quantized]
        keys = {"strategy": "frontier", "budget": {"trials": 12}, **AIMS}
        sweeping = Sweeping(tmp_path / name, make_sweep(LORA, build, session, **keys))
        assert sweeping.run().choice.winner is not None
        assert len({row["trial"] for row in rows_of(sweeping)} - {0}) == 12


def test_a_recipe_that_can_never_be_built_is_left_to_the_last() -> None:
    sweep = make_sweep(LORA, strategy="frontier", **AIMS)
    strategy = Frontier(sweep.space, sweep.objectives, 0)
    tried: list[str] = []
    for _ in range(20):
        proposal = next_of(strategy)
        assert proposal is not None
        recipe = proposal.candidate.recipe
        if recipe is None:
            measured = {"accuracy": 0.6}
            told = Told(None, {}, measured, seconds={"train": 30.0}, rung=proposal.rung, items=100)
        elif recipe.precision == "int4":
            tried.append(recipe.precision)
            told = Told(None, {}, seconds={"train": 90.0, "merge": 2.0, "build": 9.0})
        else:
            tried.append(recipe.precision)
            large = {"fp32": 32.0, "int8": 8.0}[recipe.precision]
            measured = {"accuracy": 0.6, "itl_ms_p50": large, "size_mb": large}
            told = Told(tuple(measured.values()), {}, measured, seconds={"score": 40.0}, items=1000)
        strategy.tell(proposal, told)
    assert tried[0] == "int4"  # the smallest is what promises most
    assert len(tried) >= 6
    assert tried.count("int4") <= len(tried) / 2
    assert "int8" in tried[:3]


def test_a_training_is_not_forgotten_where_its_build_failed() -> None:
    sweep = make_sweep(LORA, strategy="frontier", **AIMS)
    strategy = Frontier(sweep.space, sweep.objectives, 0)
    first = next_of(strategy)
    assert first is not None
    strategy.tell(first, Told(None, {}, seconds={"train": 90.0, "merge": 2.0, "build": 9.0}))
    assert [adapter.reached for adapter in strategy.observations.adapters.values() if adapter.failed] == [
        len(RUNGS) - 1
    ]


def test_an_objective_that_nothing_measured_leaves_a_pair_off_the_front() -> None:
    sweep = make_sweep(LORA, strategy="frontier", **AIMS)
    strategy = Frontier(sweep.space, sweep.objectives, 0)
    first = next_of(strategy)
    assert first is not None
    strategy.tell(first, Told(None, {}, {"accuracy": 0.6, "size_mb": 9.0}, seconds={"score": 40.0}, items=1000))
    assert next_of(strategy) is not None


def test_all_adapters_are_thought_of_however_they_may_be_served() -> None:
    lora = {"r": {"choice": [4, 8, 16, 32]}, "learning_rate": {"choice": [n * 1e-4 for n in range(1, 51)]}, "steps": 9}
    space = make_sweep(lora, session={"threads": {"choice": [1, 2]}}).space
    assert len(Frontier(space, {"accuracy": "maximize"}, 0).observations.adapters) == 200


def test_what_cannot_be_trained_here_is_not_thought_of() -> None:
    lora = {
        "r": 8, "dora": {"choice": [True, False]}, "quantized_base": {"choice": ["int8", "none"]},
        "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": 9,
    }  # fmt: skip
    space = make_sweep(lora, train={"device": "cpu"}).space
    known = [adapter.lora for adapter in Frontier(space, {"accuracy": "maximize"}, 0).observations.adapters.values()]
    assert len(known) == POOL
    assert not [one for one in known if one.dora and one.quantized_base == "int8"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_a_score_of_any_scale_is_searched_as_a_share_is(direction: Direction, unit: float) -> None:
    """A user's own function: from 40 for the untouched model to 70, in any unit, the larger or the smaller the better."""
    space = make_sweep(LORA, build=None).space
    sign = 1 if direction == "maximize" else -1
    strategy = Frontier(space, {"custom": direction}, 0)
    strategy.replay(Candidate(), Told(None, {}, {"custom": sign * 40 * unit}))
    ended: list[float] = []
    for _ in range(25):
        proposal = next_of(strategy)
        if proposal is None:
            break
        lora = proposal.candidate.lora
        assert lora is not None
        value = (70 * score_of(lora, None) / 0.8) * (1 - 0.2 * (1 - proposal.rung))
        measured = {"custom": sign * value * unit}
        whole = proposal.rung == 1
        told = Told(tuple(measured.values()) if whole else None, {}, measured, rung=proposal.rung, items=400)
        strategy.tell(proposal, told)
        ended += [score_of(lora, None)] if whole else []
    everything = sorted((score_of(c.lora, None) for c in space.grid()), reverse=True)
    assert max(ended) >= everything[1]


def test_adapters_alone_are_climbed_too(tmp_path: Path) -> None:
    sweep = make_sweep(LORA, build=None, objectives={"accuracy": "maximize"}, strategy="frontier", budget={"trials": 9})
    sweeping = dear(Sweeping(tmp_path, sweep))
    summary = sweeping.run()
    assert summary.choice.winner is not None
    rows = rows_of(sweeping)
    assert {row["kind"] for row in rows if row["trial"]} == {"adapter"}
    assert {"ok", "stopped"} <= {row["status"] for row in rows}


def test_who_trains_for_long_looks_first_and_others_less(tmp_path: Path) -> None:
    looks = []
    for step_s in (0.01, 60.0):
        sweeping = sweeping_of(tmp_path / str(step_s))
        sweeping.stages.step_s = step_s
        sweeping.run()
        looks.append(sum(row["kind"] == "adapter" for row in rows_of(sweeping)))
    assert looks[0] < looks[1]


@pytest.mark.parametrize("better", [0, 1])
def test_probabilities_tell_adapters_apart_whose_scores_are_the_same(better: int) -> None:
    lora = {"r": 8, "dropout": {"choice": [0.0, 0.1]}, "steps": 10}
    strategy = Frontier(make_sweep(lora).space, AIMS["objectives"], 0)
    strategy.replay(Candidate(recipe=Recipe(precision="fp32")), told_of(0.4, 0.3, {"score": 40.0}))
    first, second = dict.fromkeys(candidate.lora for candidate in make_sweep(lora).space.grid())
    for number, one in enumerate((first, second)):
        probability = 0.5 if number == better else 0.4
        seconds = {"train": 100.0, "score": 10.0}
        told = Told(None, {}, {"accuracy": 0.5}, None, seconds, RUNGS[1], 500, probability=probability)
        strategy.replay(Candidate(lora=one), told)
    proposal = next_of(strategy)
    assert proposal is not None
    assert proposal.candidate.lora == (first, second)[better]


def test_what_was_made_in_another_space_is_learned_from_and_never_proposed() -> None:
    space = make_sweep({**LORA, "steps": {"choice": [10, 20]}}).space
    strategy = Frontier(space, AIMS["objectives"], 0)
    strategy.replay(Candidate(recipe=Recipe(precision="fp32")), told_of(0.4, 0.3, {"score": 40.0}))
    inside = next(space.grid()).lora
    assert inside is not None
    for change in ({"r": 256, "alpha": 512.0}, {"steps": None, "epochs": 2.0}, {"dora": True}):
        lora = inside.model_copy(update=change)
        look = Told(None, {}, {"accuracy": 0.99}, None, {"train": 1.0, "score": 1.0}, RUNGS[1], 500, probability=0.99)
        strategy.replay(Candidate(lora=lora), look)
        built = Candidate(lora=lora, recipe=Recipe(precision="fp32"))
        strategy.replay(built, replace(told_of(0.99, 0.9, {"score": 20.0}), values=None, items=500))
    for _ in range(30):
        proposal = next_of(strategy)
        assert proposal is not None
        assert proposal.candidate.lora is not None
        assert space.has(proposal.candidate.lora)
        strategy.tell(proposal, replace(told_of(0.5, 0.4, {"train": 50.0, "score": 20.0}), rung=proposal.rung))


@pytest.mark.parametrize(("precision", "built"), [("fp32", 1), ("int4", 2)])
def test_an_adapter_whose_score_is_no_number_is_left(precision: str, built: int) -> None:
    """At full precision at once; of a coarser recipe it may be the fault, until a second one says the same."""
    recipes = [{"precision": precision}, {"precision": "int8"}, {"precision": "fp16"}]
    space = make_sweep({"r": {"choice": [8, 16]}, "steps": 10}, recipes[:2]).space
    strategy = Frontier(space, AIMS["objectives"], 0)
    strategy.replay(Candidate(recipe=Recipe(precision="fp32")), told_of(0.4, 0.3, {"score": 40.0}))
    first = next(space.grid()).lora
    for recipe in space.recipes[:built]:
        said = Told(None, {}, {"itl_ms_p50": 10.0, "size_mb": 100.0}, seconds={"build": 1.0}, status="diverged")
        strategy.replay(Candidate(lora=first, recipe=recipe), said)
    while (proposal := next_of(strategy)) is not None:
        assert proposal.candidate.lora != first
        strategy.tell(proposal, told_of(0.5, 0.4, {"train": 50.0, "score": 20.0}))


def failing(status: str, precision: str, **more: Any) -> tuple[Candidate, Told]:
    """Return a candidate of `two_adapters` in a recipe in which it got no score."""
    lora = next(two_adapters().grid()).lora
    told = Told(None, {}, more.pop("measured", {}), seconds=more.pop("seconds", {"build": 1.0}), status=status)
    return Candidate(lora=lora, recipe=Recipe(precision=precision)), told


def two_adapters() -> Space:
    recipes = [{"precision": name} for name in ("fp32", "int8", "int4")]
    return make_sweep({"r": {"choice": [8, 16]}, "steps": 10}, recipes).space


@pytest.mark.parametrize(
    "said",
    [
        [failing("diverged", "int4"), failing("failed", "fp32")],
        [failing("diverged", "int4", seconds={"score": 1.0})],
        [failing("diverged", "int4", seconds={}, measured={"itl_ms_p50": 9.0, "size_mb": 90.0})],
        [failing("lost", "fp32", seconds={})],
    ],
    ids=["two troubles", "build from the cache", "all but the score from the cache", "a lost worker"],
)
def test_a_trouble_that_may_be_the_recipe_s_leaves_the_adapter_to_others(said: list[tuple[Candidate, Told]]) -> None:
    strategy = Frontier(two_adapters(), AIMS["objectives"], 0)
    strategy.replay(Candidate(recipe=Recipe(precision="fp32")), told_of(0.4, 0.3, {"score": 40.0}))
    for candidate, told in said:
        strategy.replay(candidate, told)
    tried = []
    while (proposal := next_of(strategy)) is not None:
        tried.append(proposal.candidate.lora)
        strategy.tell(proposal, told_of(0.5, 0.4, {"train": 50.0, "score": 20.0}))
    assert said[0][0].lora in tried


def test_what_known_numbers_gave_up_was_not_trained() -> None:
    """A row that was given up before anything ran holds what is known of its recipe all the same."""
    strategy = Frontier(two_adapters(), AIMS["objectives"], 0)
    limit = parse_limit("size_mb <= 100", AIMS["objectives"])
    candidate, said = failing("over_limit", "int8", seconds={}, measured={"itl_ms_p50": 9.0, "size_mb": 270.0})
    strategy.replay(candidate, replace(said, gaps={limit: 170.0}))
    (adapter,) = (one for one in strategy.observations.adapters.values() if one.lora == candidate.lora)
    assert (adapter.reached, adapter.unusable, adapter.failed) == (-1, False, set())


def test_a_pair_that_was_left_on_some_of_its_items_is_measured() -> None:
    """Racing, which is gone, left such rows."""
    strategy = Frontier(two_adapters(), AIMS["objectives"], 0)
    strategy.replay(Candidate(recipe=Recipe(precision="fp32")), told_of(0.4, 0.3, {"score": 40.0}))
    pair = next(two_adapters().grid())
    left = replace(told_of(0.9, 0.8, {"train": 50.0, "score": 20.0}), values=None, items=500, status="stopped")
    strategy.replay(pair, left)
    tried = []
    while (proposal := next_of(strategy)) is not None:
        tried.append(proposal.candidate)
        strategy.tell(proposal, told_of(0.5, 0.4, {"train": 50.0, "score": 20.0}))
    assert tried.count(pair) == 1


def told_of(score: float, probability: float, seconds: dict[str, float]) -> Told:
    """Return a candidate that was fully measured at fp32."""
    measured = {"accuracy": score, "itl_ms_p50": 35.0, "size_mb": 540.0}
    return Told(tuple(measured.values()), {}, measured, None, seconds, 1.0, 1000, probability=probability)


def test_other_strategies_do_not_hear_of_what_was_left(tmp_path: Path) -> None:
    sweeping = sweeping_of(tmp_path)
    sweeping.run()
    other = sweeping.sweep.model_copy(
        update={"strategy": "random", "budget": sweeping.sweep.budget.model_copy(update={"trials": 16})}
    )
    assert sweeping.run(other).choice.winner is not None
    last = {row["candidate"]: row for row in rows_of(sweeping)}
    assert all(row["status"] in ("ok", "stopped") for row in last.values())


def test_where_nothing_can_be_saved_it_is_another_strategy() -> None:
    only_builds = make_sweep(lora=None)
    assert isinstance(make_strategy("frontier", only_builds.space, only_builds.objectives, 0), Grid)
    no_score = make_sweep(LORA).space
    assert isinstance(make_strategy("frontier", no_score, {"size_mb": "minimize"}, 0), Sampled)
    assert isinstance(make_strategy("frontier", no_score, {"accuracy": "maximize"}, 0), Frontier)


def test_outcomes_are_kept_with_the_places_of_their_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.strategies.frontier.proposals.LEAST_ITEMS", 10)
    sweeping = sweeping_of(tmp_path)
    sweeping.run()
    partly = [row for row in rows_of(sweeping) if row["accuracy_n"] not in (None, ITEMS)]
    assert partly
    ids = json.loads((sweeping.out / "outcomes" / "items.validation.json").read_text(encoding="utf-8"))
    assert ids == ids_of("validation digest")
    last = {row["candidate"]: row for row in rows_of(sweeping)}
    for row in partly:
        kept = json.loads((sweeping.out / "outcomes" / f"{row['candidate']}.json").read_text(encoding="utf-8"))
        if last[row["candidate"]] == row:
            assert len(kept["items"]) == len(kept["predicted"]) == row["accuracy_n"]


def test_a_build_that_is_refused_does_not_end_an_adapter_that_is_trained() -> None:
    """Also where training and merging came from the cache, so that the row has no seconds of theirs."""
    space = make_sweep({"r": {"choice": [4, 8]}, "steps": 9}).space
    strategy = Frontier(space, {"accuracy": "maximize", "size_mb": "minimize"}, 0)
    first, second, third = list(space.grid())[:3]
    assert first.lora == second.lora == third.lora
    strategy.tell(Proposal(first), Told((0.6, 9.0), {}, {"accuracy": 0.6, "size_mb": 9.0}, items=100))
    strategy.tell(Proposal(second), Told(None, {}))
    proposal = next_of(strategy)
    assert proposal is not None
    assert proposal.candidate == third


@pytest.mark.usefixtures("few")
def test_time_is_kept_for_what_must_be_done_to_the_end(tmp_path: Path) -> None:
    """Each candidate takes ten minutes."""

    class Grown(Grid):
        """A grid of a strategy that takes candidates up in parts."""

        rungs = RUNGS

    sweeping = sweeping_of(tmp_path, budget={"hours": 1})

    def pass_time(job: Job) -> None:
        sweeping.clock.now += 600.0 if isinstance(job, ScoreJob) else 0.0

    sweeping.stages.trouble = pass_time
    assert sweeping.run(strategy=Grown(sweeping.sweep.space)).ended == "hours"
    # Ten minutes for a look at the untouched model; what the end takes (by the seconds of stages half a minute) is kept
    # besides those of a row, so that the fifth would begin too late.
    assert [(row["trial"], row["status"]) for row in rows_of(sweeping)] == [
        (0, "stopped"), (1, "ok"), (2, "ok"), (3, "ok"), (4, "ok"), (0, "ok")
    ]  # fmt: skip


def test_a_training_costs_by_what_it_is_trained_on() -> None:
    """Of adapters that promise the same, the one that is trained in a tenth of the time is first."""
    space = make_sweep({"r": {"choice": [8, 4]}, "steps": {"choice": [1000, 100]}}, strategy="frontier", **AIMS).space
    strategy = Frontier(space, {"accuracy": "maximize", "itl_ms_p50": "minimize"}, 0)
    known = next(candidate for candidate in space.grid() if candidate.lora and candidate.lora.steps == 100)
    values = {"accuracy": 0.6, "itl_ms_p50": 10.0}
    strategy.replay(known, Told((0.6, 10.0), {}, values, seconds={"train": 90.0, "score": 40.0}, items=400))
    proposal = next_of(strategy)
    while proposal is not None and proposal.candidate.lora == known.lora:  # it is built in other recipes before
        strategy.tell(proposal, Told((0.6, 10.0), {}, values, seconds={"score": 40.0}, items=400))
        proposal = next_of(strategy)
    assert proposal is not None
    assert proposal.candidate.lora is not None
    assert proposal.candidate.lora.steps == 100
