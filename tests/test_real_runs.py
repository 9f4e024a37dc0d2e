"""The prior of a model's width, and the benchmark on LoRA runs by others."""

from __future__ import annotations

import math

import pytest
from fakes import make_sweep
from rows import PUBLIC

from autotune.candidate import Lora
from autotune.strategies.frontier.constants import USUAL_WIDTH
from autotune.strategies.frontier.priors import prior_mean, prior_of
from benchmarks.search import real_runs

LORA = {"r": 16, "learning_rate": {"choice": [1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3]}, "steps": 1000}


def best_rate(width: int) -> float:
    loras = [candidate.lora for candidate in make_sweep(LORA).space.grid() if candidate.lora is not None]
    prior = prior_of(width)
    return max(loras, key=lambda lora: prior(lora, 0.0)).learning_rate


def test_a_wider_model_begins_with_a_lower_rate() -> None:
    assert best_rate(USUAL_WIDTH) > best_rate(2048) >= best_rate(4096) > best_rate(16384)


@pytest.mark.parametrize("width", [0, 16, USUAL_WIDTH])
def test_up_to_the_usual_width_nothing_changes(width: int) -> None:
    """Also where it is not known."""
    lora = next(iter(make_sweep(LORA).space.grid())).lora
    assert isinstance(lora, Lora)
    assert prior_of(width)(lora, 0.5) == prior_mean(lora, 0.5)


TABLE = {
    (rate, rank): 0.5 + abs(math.log10(rate / 3e-4)) / 10 - rank / 1e5
    for rate in (1e-4, 3e-4, 1e-3)
    for rank in (4, 64)
}


def test_regrets_are_of_the_best_so_far() -> None:
    assert real_runs.regrets([0.9, 0.7, 0.8], {(1e-3, 4): 0.5}) == pytest.approx([0.4, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("strategy", [real_runs.of_random, real_runs.of_tpe])
def test_rivals_measure_each_run_once(strategy: real_runs.Strategy) -> None:
    scores = strategy(TABLE, 0)
    assert len(scores) == 5
    assert set(scores) <= set(TABLE.values())


def test_the_formula_is_the_published_one() -> None:
    """Llama 3.1 8B: 5e-4 (2000 / 4096) ** 0.781 is 2.9e-4."""
    best = TABLE[3e-4, 64]
    assert real_runs.of_formula("meta-llama/Llama-3.1-8B", TABLE, goes_on=False) == [best]
    assert real_runs.of_formula("meta-llama/Llama-3.1-8B", TABLE, goes_on=True)[0] == best


def test_the_strategy_proposes_runs_that_there_are() -> None:
    table = {run: score for run, score in TABLE.items() if run != (1e-3, 64)}
    scores = real_runs.of_frontier(table, prior_of(4096))
    assert len(scores) == len(set(scores)) == 5


def test_every_model_of_the_data_has_a_width() -> None:
    file = PUBLIC / "lora_sweeps" / "runs.csv"
    if not file.is_file():
        pytest.skip("the public runs are not here")
    models = real_runs.tables(file)
    assert len(models) == 23
    assert all(real_runs.width_of(model) >= 2048 for model in models)
