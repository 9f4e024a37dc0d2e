"""How long a sweep still takes, and what its strategy is given before anything is measured."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fakes import FINITE, ITEMS, Sweeping, inputs_in, make_sweep

from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.pipeline.expected import Prices
from autotune.pipeline.graph import Graph
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.scheduler.events import Event, TimeLeft
from autotune.scheduler.first_estimates import first_items, priced
from autotune.stages.protocol import Job
from autotune.strategies.frontier.cost_model import NOTED, FirstCosts, first_costs
from autotune.strategies.frontier.cost_model import CostModel as StrategyCosts
from autotune.strategies.named import make_strategy
from autotune.sweepfile.schema import Sweep

AIMS: dict[str, Any] = {"objectives": {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}}
JOB_S = {"finetune": 40.0, "merge": 5.0, "build": 15.0, "check": 5.0, "score": 20.0, "time": 30.0, "turns": 60.0}


def said(sweep: Sweep, folder: Path) -> tuple[list[float | None], list[float], Sweeping]:
    """Run a sweep whose stages take known seconds. Returns what was said to be left, when, and the sweep."""
    sweeping = Sweeping(folder, sweep)
    left: list[float | None] = []
    when: list[float] = []

    def pass_time(job: Job) -> None:
        sweeping.clock.now += JOB_S[job.stage]

    class Watched:
        rows: list[Any] = []  # noqa: RUF012
        notes: list[str] = []  # noqa: RUF012

        def __call__(self, event: Event) -> None:
            if isinstance(event, TimeLeft):
                left.append(event.seconds)
                when.append(sweeping.clock.now)

    sweeping.watched = Watched()  # type: ignore[assignment]
    sweeping.stages.trouble = pass_time
    sweeping.run()
    return left, when, sweeping


def test_the_time_left_is_right_once_trials_have_shown_what_they_take(tmp_path: Path) -> None:
    left, when, sweeping = said(make_sweep(lora=FINITE, strategy="random", budget={"trials": 12}, **AIMS), tmp_path)
    assert len(left) == 13
    ended = sweeping.clock.now
    for seconds, then in itertools.islice(zip(left, when, strict=True), 5, None):
        assert seconds is not None
        assert seconds == pytest.approx(ended - then, rel=0.5, abs=120)
    numbers = [seconds for seconds in left if seconds is not None]
    assert numbers[-1] < numbers[5] < numbers[3]


def test_the_hours_bound_the_time_left_and_without_a_bound_nothing_is_said(tmp_path: Path) -> None:
    left, when, _ = said(make_sweep(lora=FINITE, strategy="random", budget={"hours": 0.2}, **AIMS), tmp_path / "a")
    assert all(seconds is not None and seconds < 720 + 300 - then for seconds, then in zip(left, when, strict=True))
    none, _, _ = said(make_sweep(lora=FINITE, strategy="grid", budget={}, **AIMS), tmp_path / "b")
    assert set(none) == {None}


def test_a_strategy_in_parts_keeps_time_for_the_end(tmp_path: Path) -> None:
    """What comes after the search fits into the hours as well, but for one row."""
    lora = {"r": {"choice": [4, 8, 16, 32]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": 10}
    _, _, sweeping = said(make_sweep(lora=lora, strategy="frontier", budget={"hours": 0.5}, **AIMS), tmp_path)
    assert sweeping.stages.ran["turns"] == 1
    assert sweeping.clock.now < 1800 + 200


# --- before anything is measured ------------------------------------------------------------------------------------


def test_a_strategy_is_given_what_the_cost_model_expects(tmp_path: Path) -> None:
    sweep = make_sweep(strategy="frontier", **AIMS)
    graph = Graph(sweep, inputs_in(tmp_path))
    small, large = (priced(Prices(graph, CostModel(Subject("m", p)))) for p in (1e6, 1e9))
    assert all(getattr(small, name) < getattr(large, name) for name in asdict(small))
    recipes = make_sweep(lora=None, **AIMS)
    only = priced(Prices(Graph(recipes, inputs_in(tmp_path)), CostModel()))
    assert only.train_s == FirstCosts().train_s, "there is nothing to train"
    costs = StrategyCosts(100, large)
    assert costs.training(100) == pytest.approx(large.train_s)
    assert costs.pair("int8", 10) == pytest.approx(large.merge_s + large.build_s + large.time_s + 10 * large.item_s)
    costs.learn({"train": 7.0}, None, work=100, items=0)
    assert costs.training(100) == pytest.approx(7.0)


def test_without_it_the_choices_are_those_of_the_constants() -> None:
    sweep = make_sweep(strategy="frontier", **AIMS)
    plain, given = (
        make_strategy("frontier", sweep.space, sweep.objectives, 0, ITEMS, first=first)
        for first in (None, FirstCosts())
    )
    assert plain.ask(3, ()) == given.ask(3, ())


def test_a_resumed_sweep_begins_with_the_expectations_that_it_began_with(tmp_path: Path) -> None:
    sweep = make_sweep(strategy="frontier", **AIMS)
    row = Trial({"candidate": "a", "trial": 1, "attempt": 1, "kind": "pair", "status": "ok"})
    mine, later = FirstCosts(train_s=12.5), FirstCosts(train_s=99.0)
    with Record(tmp_path, sweep) as record:
        record.check_inputs({"model": "m"})
        assert first_costs(record, lambda: mine) == mine
        record.results.append(row)
    with Record(tmp_path, sweep) as record:
        record.check_inputs({"model": "m"})
        assert first_costs(record, lambda: later) == mine
        for damaged in ({"train_s": 1.0}, {**asdict(mine), "time_s": "x"}, {**asdict(mine), "time_s": -1.0}, [], None):
            record.note_input(NOTED, damaged)
            assert first_costs(record, lambda: later) == FirstCosts(), "rows of a version that noted nothing"


@pytest.mark.parametrize(
    ("items", "in_parts", "expected"), [(1000, True, 125), (120, True, 100), (90, True, None), (1000, False, None)]
)
def test_on_how_many_items_the_untouched_model_is_looked_at(items: int, in_parts: bool, expected: int | None) -> None:
    sweep, limited = make_sweep(**AIMS), make_sweep(limits=["accuracy >= base"], **AIMS)
    assert first_items(sweep.aims, sweep.data.metric, items, in_parts) == expected
    assert first_items(limited.aims, sweep.data.metric, items, in_parts) is None
