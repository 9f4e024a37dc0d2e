"""What steps of a search take, learned from what was done."""

from __future__ import annotations

import pytest

from autotune.space.adapters import resolve_lora
from autotune.strategies.frontier.cost_model import CostModel, work_of


def test_work_goes_by_steps_and_batches_or_by_passes() -> None:
    assert work_of(resolve_lora({"steps": 90, "batch_size": 8, "accumulation": 2, "max_length": 64})) == 1440
    assert work_of(resolve_lora({"epochs": 3, "batch_size": 8, "max_length": 64})) == 3


def test_a_training_costs_by_its_work() -> None:
    prices = CostModel(usual_work=100)
    assert prices.training(50) == pytest.approx(prices.training(100) / 2)
    prices.learn({"train": 8.0}, None, work=10, items=0)
    prices.learn({"train": 4.0}, None, work=10, items=0)
    assert prices.training(100) == pytest.approx(60)


def test_a_recipe_costs_what_it_took_and_a_new_one_what_others_took() -> None:
    prices = CostModel(1)
    prices.learn({"merge": 3.0, "build": 10.0, "time": 20.0, "score": 50.0}, "int4", 0, items=100)
    prices.learn({"merge": 3.0, "build": 30.0, "score": 100.0}, "int8", 0, items=100)
    assert prices.pair("int4", 10) == pytest.approx(10 + 3 + 20 + 5)
    assert prices.pair("int8", 10, timed=True) == pytest.approx(30 + 3 + 10)
    assert prices.pair("fp32", 10, timed=True) == pytest.approx(20 + 3 + 7.5)


def test_what_is_scored_alone_has_a_price_of_its_own() -> None:
    prices = CostModel(1)
    prices.learn({"merge": 1.0, "build": 9.0, "score": 30.0}, None, 0, items=100)
    assert prices.alone(200) == pytest.approx(1 + 9 + 60)
    prices.learn({"build": 3.0}, "int4", 0, items=0)
    assert prices.alone(200) == pytest.approx(1 + 9 + 60)
    assert prices.pair("int4", 100, timed=True) == pytest.approx(1 + 3 + 100 * 0.04)


def test_what_is_scored_as_trained_is_neither_merged_nor_built() -> None:
    prices = CostModel(1)
    prices.learn({"train": 50.0, "score": 20.0}, None, 1, items=100)
    assert prices.alone(100) == pytest.approx(20)


def test_until_one_was_scored_alone_it_takes_what_others_take() -> None:
    prices = CostModel(1)
    prices.learn({"merge": 1.0, "build": 4.0, "score": 10.0}, "int4", 0, items=1000)
    assert prices.alone(100) == pytest.approx(1 + 4 + 1)


def test_short_trainings_do_not_make_long_ones_dear() -> None:
    """A call takes 30 seconds besides its steps: it is shared among the steps of all, not the mean of each one's rate."""
    prices = CostModel(1)
    for steps in (10, 20, 60, 10):
        prices.learn({"train": 30.0 + 2.0 * steps}, None, work=steps, items=0)
    assert prices.training(90) == pytest.approx(90 * (4 * 30 + 200) / 100)
