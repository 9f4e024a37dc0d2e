"""What each recipe costs in score."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.strategies.frontier.priors import QuantisationLoss
from autotune.strategies.frontier.quantisation_loss import posterior_losses

PRIOR = {
    "fp32": QuantisationLoss(0.0, 0.005, 0.004),
    "int8": QuantisationLoss(0.003, 0.005, 0.006),
    "int4": QuantisationLoss(0.03, 0.03, 0.03),
    "int4 coarse": QuantisationLoss(0.05, 0.05, 0.03),
}


def test_with_nothing_seen_it_is_what_is_commonly_found() -> None:
    drops, spreads = posterior_losses([], PRIOR)
    assert drops == {name: pytest.approx(drop.mean) for name, drop in PRIOR.items()}
    assert spreads["fp32"] < spreads["int4"] < spreads["int4 coarse"]


def test_what_an_adapter_is_worth_says_nothing_of_recipes() -> None:
    assert posterior_losses([{"int4": 0.9}, {"int4": 0.1}], PRIOR)[0] == pytest.approx(posterior_losses([], PRIOR)[0])


def test_two_recipes_of_four_bits_are_not_taken_for_the_best_there_is() -> None:
    """The better of the two still costs about what four bits usually cost."""
    drops, _ = posterior_losses([{"int4": 0.60, "int4 coarse": 0.53}], PRIOR)
    assert 0.01 < drops["int4"] < 0.03
    assert drops["int4 coarse"] - drops["int4"] == pytest.approx(0.065, abs=0.015)


def test_many_adapters_overrule_what_is_commonly_found() -> None:
    rng = np.random.default_rng(0)
    true = {"fp32": 0.0, "int8": 0.002, "int4": 0.06, "int4 coarse": 0.01}
    crossed = [
        {name: worth - cost + rng.normal(0, 0.01) for name, cost in true.items()} for worth in rng.uniform(0.3, 0.9, 40)
    ]
    drops, spreads = posterior_losses(crossed, PRIOR)
    for name, cost in true.items():
        assert drops[name] - drops["fp32"] == pytest.approx(cost, abs=0.008)
        assert (
            PRIOR[name].adapter_deviation <= spreads[name] < PRIOR[name].adapter_deviation + 0.006
        )  # an adapter's own luck is not learned


def test_at_eight_bits_one_adapter_says_more_than_at_four() -> None:
    """Two points less than fp32 are news of int8; of int4 they may be this adapter's."""

    def moved(recipe: str) -> float:
        lower = PRIOR[recipe].mean + 0.02
        return posterior_losses([{"fp32": 0.7, recipe: 0.7 - lower}], PRIOR)[0][recipe] - PRIOR[recipe].mean

    assert 0.003 < moved("int8") < 0.02
    assert 0.005 < moved("int4") < 0.012
