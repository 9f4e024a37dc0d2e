"""A sweep on guesses: what is counted, what it takes, and when it ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fakes import ITEMS, Sweeping, inputs_in, make_sweep

from autotune.costs.estimate import Estimate
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.pipeline.expected import Prices
from autotune.pipeline.graph import Graph
from autotune.scheduler.first_estimates import first_items
from autotune.scheduler.rehearsal import MOST, Found, Rehearsed, Simulation, rehearse
from autotune.strategies.named import make_strategy
from autotune.sweepfile.schema import Sweep

LORA: dict[str, Any] = {"r": {"choice": [4, 16]}, "learning_rate": {"choice": [1e-4, 1e-3, 1e-2]}, "steps": 10}
WIDE = LORA | {"learning_rate": {"loguniform": [1e-4, 1e-2]}}
AIMS: dict[str, Any] = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}


def played(
    sweep: Sweep, folder: Path, trials: int | None = None, seconds: float = math.inf, test: bool = False,
    found: Found = lambda _: None, costs: CostModel | None = None, **more: Any,
) -> Rehearsed:  # fmt: skip
    costs = costs or CostModel(Subject("m", 1e8))
    prices = Prices(Graph(sweep, inputs_in(folder, test)), costs)
    strategy = make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed, ITEMS)
    in_parts = bool(strategy.rungs)
    simulation = Simulation(prices, sweep.objectives, in_parts, found)
    look = first_items(sweep.aims, sweep.data.metric, ITEMS, in_parts)
    return rehearse(strategy, simulation, Estimate(), trials, seconds, looked_at=look, **more)


def test_a_rehearsal_counts_what_the_sweep_then_does(tmp_path: Path) -> None:
    """Sweeps of several kinds on functions as stages: every stage is done as often as it was rehearsed."""
    kinds: list[dict[str, Any]] = [
        {"strategy": "grid", "budget": {"trials": 99}},
        {"strategy": "grid", "budget": {"trials": 7}},
        {"strategy": "random", "budget": {"trials": 9}},
        {"strategy": "grid", "budget": {"trials": 99}, "lora": None},
        {"strategy": "grid", "budget": {"trials": 99}, "build": None, "objectives": {"accuracy": "maximize"}},
        {"strategy": "grid", "budget": {"trials": 99}, "session": [{"threads": [1, 2]}]},
        {"strategy": "random", "budget": {"trials": 6},
         "target": {"workloads": {"chat": {}, "long": {"prompt_tokens": 64}}}},
    ]  # fmt: skip
    for number, kind in enumerate(kinds):
        sweep = make_sweep(**{"lora": LORA, **AIMS, **kind})
        folder = tmp_path / str(number)
        said = played(sweep, folder, sweep.budget.trials, test=True)
        sweeping = Sweeping(folder, sweep, test=True)
        summary = sweeping.run()
        ran = sweeping.stages.ran
        lines = said.estimate.lines
        times = {stage: round(lines[stage].times) for stage in lines}
        assert said.candidates == summary.trials, kind
        assert said.ended == summary.ended, kind
        assert times.get("train", 0) == ran["finetune"] == said.adapters, kind
        for stage in ("merge", "build", "check", "time", "turns"):
            # The winner may have to be merged once more, for the test of what is kept.
            assert times.get(stage, 0) == pytest.approx(ran[stage], abs=stage == "merge"), (kind, stage)
        assert lines["score"].units == sweeping.stages.scored, kind


def test_frontier_begins_more_adapters_than_it_trains_to_the_end(tmp_path: Path) -> None:
    sweep = make_sweep(WIDE, strategy="frontier", **AIMS)
    said = played(sweep, tmp_path, trials=40)
    assert (said.candidates, said.ended) == (40, "trials")
    assert 1 < said.trained < said.adapters
    assert said.estimate.lines["score"].units > 40 * ITEMS  # those that were left on the way are none of the forty
    assert said.low_s < said.wall_s < said.high_s
    assert said.wall_s == pytest.approx(said.estimate.seconds)
    again = played(sweep, tmp_path, trials=40)
    assert (again.wall_s, again.adapters) == (said.wall_s, said.adapters)


def test_six_trials_are_six_and_not_all_that_is_thinkable(tmp_path: Path) -> None:
    sweep = make_sweep(WIDE, strategy="frontier", **AIMS)
    said = played(sweep, tmp_path, trials=6)
    assert (said.candidates, said.ended) == (6, "trials")
    assert said.trained <= 12
    assert said.adapters < 64


def test_it_ends_with_the_hours(tmp_path: Path) -> None:
    sweep = make_sweep(WIDE, strategy="frontier", **AIMS)
    said = played(sweep, tmp_path, seconds=3600.0)
    assert said.ended == "hours"
    assert 3600 * 0.8 < said.wall_s < 3600 * 1.2
    plain = played(make_sweep(WIDE, strategy="random", **AIMS), tmp_path, seconds=3600.0)
    assert plain.ended == "hours"
    assert plain.wall_s > 3600, "the end of the sweep comes after the hours"


def test_what_is_not_played_is_as_it_was_on_average(tmp_path: Path) -> None:
    sweep = make_sweep(WIDE, strategy="random", **AIMS)
    some, many = (played(sweep, tmp_path, trials=count * MOST) for count in (1, 10))
    assert (many.candidates, many.ended) == (10 * MOST, "trials")
    assert many.trained == pytest.approx(10 * some.trained)
    late = played(sweep, tmp_path, seconds=1e6)
    assert late.ended == "hours"
    assert late.wall_s == pytest.approx(1e6, rel=0.05)


def test_no_more_adapters_are_trained_than_there_are(tmp_path: Path) -> None:
    sweep = make_sweep(WIDE, strategy="frontier", **AIMS)
    free, bound = played(sweep, tmp_path, trials=4000), played(sweep, tmp_path, trials=4000, adapters=256)
    assert (free.candidates, bound.candidates) == (4000, 4000)
    assert 256 == bound.adapters < free.adapters
    assert bound.trained <= 256
    for hours in (free.wall_s / 3, bound.wall_s / 2):
        late = played(sweep, tmp_path, trials=4000, seconds=hours, adapters=256)
        assert (late.ended, late.wall_s) == ("hours", pytest.approx(hours, rel=0.1))
        assert late.adapters <= 256


def test_an_adapter_that_pytorch_scores_is_not_built(tmp_path: Path) -> None:
    coarse = [{"precision": "int8"}, {"precision": "int4"}]
    here = make_sweep(WIDE, [{"precision": "fp32"}, *coarse], strategy="frontier", **AIMS)
    cuda = {"target": {"provider": "cuda"}}
    away = make_sweep(WIDE, [{"precision": "bf16"}, *coarse], strategy="frontier", **cuda, **AIMS)
    assert played(away, tmp_path, trials=20).estimate.lines["build"].times == 20 + 1
    assert played(here, tmp_path, trials=20).estimate.lines["build"].times > 20 + 1


def test_what_is_in_the_cache_costs_nothing(tmp_path: Path) -> None:
    sweep = make_sweep(LORA, strategy="grid", **AIMS)
    new = played(sweep, tmp_path)
    trained = played(sweep, tmp_path, found=lambda job: {"step": 10} if job.stage == "finetune" else None)
    assert "train" not in trained.estimate.lines
    assert trained.cached == new.adapters == 6
    assert trained.wall_s == pytest.approx(new.wall_s - new.estimate.lines["train"].seconds)
    everything = played(sweep, tmp_path, found=lambda job: {"signature": "g"})
    assert set(everything.estimate.lines) <= {"turns", "verify", "own"}


def test_more_workers_need_less_time_but_for_timings(tmp_path: Path) -> None:
    sweep = make_sweep(LORA, strategy="grid", **AIMS)
    one, four = (played(sweep, tmp_path, width=width) for width in (1, 4))
    assert one.estimate.seconds == pytest.approx(four.estimate.seconds)
    alone = sum(
        line.seconds for stage, line in one.estimate.lines.items() if stage in ("time", "turns", "verify", "own")
    )
    assert alone < four.wall_s < one.wall_s


def test_a_score_that_is_minimised_and_adapters_alone(tmp_path: Path) -> None:
    data = {
        "train": "t.jsonl",
        "validation": "v.jsonl",
        "prompt": "{text}",
        "completion": " {tone}",
        "metric": "perplexity",
    }
    sweep = make_sweep(LORA, None, strategy="frontier", objectives={"perplexity": "minimize"}, data=data)
    said = played(sweep, tmp_path, trials=6)
    assert said.candidates == 6
    assert set(said.estimate.lines) == {"train", "score", "own"}
