"""A sweep on guesses: what is counted, and when it ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fakes import make_sweep

from autotune.scheduler.rehearsal import MOST, Spent, rehearse
from autotune.strategies.named import make_strategy
from autotune.sweepfile.schema import Sweep

COSTS = {"train": 90.0, "build": 6.0, "check": 2.0, "score": 0.05, "time": 20.0}
LORA: dict[str, Any] = {"r": {"choice": [4, 16]}, "learning_rate": {"choice": [1e-4, 1e-3, 1e-2]}, "steps": 10}
AIMS: dict[str, Any] = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}
ITEMS = 1000


def played(sweep: Sweep, trials: int | None = None, seconds: float = math.inf, **more: Any) -> Spent:
    strategy = make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed)
    return rehearse(strategy, sweep.objectives, COSTS, ITEMS, trials, seconds, {"score": 10.0}, **more)


def test_a_grid_is_paid_to_the_last_item() -> None:
    spent = played(make_sweep(LORA, strategy="grid", **AIMS))
    assert (spent.candidates, spent.adapters, spent.trained, spent.builds, spent.items) == (18, 6, 6.0, 18, 18 * ITEMS)
    assert spent.seconds == pytest.approx(
        {"train": 540.0, "build": 108.0, "check": 36.0, "time": 60.0, "score": 10 + 18 * ITEMS * 0.05}
    )
    assert spent.ended == "space"


def test_frontier_begins_more_adapters_than_it_trains_to_the_end() -> None:
    sweep = make_sweep(LORA | {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, strategy="frontier", **AIMS)
    spent = played(sweep, trials=40)
    assert (spent.candidates, spent.ended) == (40, "trials")
    assert 1 < spent.trained < spent.adapters
    assert spent.items > 40 * ITEMS  # those that were left on the way are none of the forty
    assert spent.seconds["train"] == pytest.approx(spent.trained * COSTS["train"])
    assert spent.seconds["score"] == pytest.approx(10 + spent.items * COSTS["score"])
    again = played(sweep, trials=40)
    assert again == spent


def test_it_ends_with_the_hours() -> None:
    sweep = make_sweep(LORA | {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, strategy="frontier", **AIMS)
    spent = played(sweep, seconds=3600.0)
    assert spent.ended == "hours"
    assert 3600 * 0.9 < spent.total_s < 3600 + COSTS["train"] + 120


def test_what_is_not_played_is_as_it_was_on_average() -> None:
    sweep = make_sweep(LORA | {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, strategy="random", **AIMS)
    some, many = played(sweep, trials=MOST), played(sweep, trials=10 * MOST)
    assert (many.candidates, many.ended) == (10 * MOST, "trials")
    assert many.trained == pytest.approx(10 * some.trained)
    assert played(sweep, seconds=1e6).total_s == pytest.approx(1e6)


def test_no_more_adapters_are_trained_than_there_are() -> None:
    sweep = make_sweep(LORA | {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, strategy="frontier", **AIMS)
    free, bound = played(sweep, trials=4000), played(sweep, trials=4000, adapters=256)
    assert (free.candidates, bound.candidates) == (4000, 4000)
    assert 256 == bound.adapters < free.adapters
    assert bound.trained <= 256
    assert bound.builds <= 4000 + 2 * 256
    assert bound.seconds["train"] == pytest.approx(bound.trained * COSTS["train"])
    for hours in (free.total_s / 3, bound.total_s / 2):
        late = played(sweep, trials=4000, seconds=hours, adapters=256)
        assert (late.ended, late.total_s) == ("hours", pytest.approx(hours))
        assert late.adapters <= 256


def test_an_adapter_that_pytorch_scores_is_not_built() -> None:
    sweep = make_sweep(LORA | {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, strategy="frontier", **AIMS)
    built, scored = played(sweep, trials=40), played(sweep, trials=40, built=False)
    assert scored.builds == 40 < built.builds
    assert scored.seconds["build"] == pytest.approx(40 * COSTS["build"])


def test_a_score_that_is_minimised_and_adapters_alone() -> None:
    objectives: dict[str, Any] = {"objectives": {"perplexity": "minimize"}, "data": None}
    objectives["data"] = {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{text}", "completion": " {tone}",
                          "metric": "perplexity"}  # fmt: skip
    spent = played(make_sweep(LORA, None, strategy="frontier", **objectives), trials=6, built=False)
    assert (spent.candidates, spent.builds) == (6, 0)
    assert spent.seconds.keys() == {"train", "score"}
