"""What each recipe costs in score."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.search.drops import drops_of

PRIOR = {"fp32": (0.0, 0.005), "int8": (0.003, 0.005), "int4": (0.025, 0.025), "int4 coarse": (0.045, 0.045)}


def test_with_nothing_seen_it_is_what_is_commonly_found() -> None:
    drops, spreads = drops_of([], PRIOR)
    assert drops == {name: pytest.approx(mean) for name, (mean, _) in PRIOR.items()}
    assert spreads["fp32"] < spreads["int4"] < spreads["int4 coarse"]


def test_what_an_adapter_is_worth_says_nothing_of_recipes() -> None:
    assert drops_of([{"int4": 0.9}, {"int4": 0.1}], PRIOR)[0] == pytest.approx(drops_of([], PRIOR)[0])


def test_two_recipes_of_four_bits_are_not_taken_for_the_best_there_is() -> None:
    """The better of the two still costs about what four bits usually cost."""
    drops, _ = drops_of([{"int4": 0.60, "int4 coarse": 0.53}], PRIOR)
    assert 0.01 < drops["int4"] < 0.03
    assert drops["int4 coarse"] - drops["int4"] == pytest.approx(0.065, abs=0.015)


def test_many_adapters_overrule_what_is_commonly_found() -> None:
    rng = np.random.default_rng(0)
    true = {"fp32": 0.0, "int8": 0.002, "int4": 0.06, "int4 coarse": 0.01}
    crossed = [
        {name: worth - cost + rng.normal(0, 0.01) for name, cost in true.items()} for worth in rng.uniform(0.3, 0.9, 40)
    ]
    drops, spreads = drops_of(crossed, PRIOR)
    for name, cost in true.items():
        assert drops[name] - drops["fp32"] == pytest.approx(cost, abs=0.008)
        assert spreads[name] < 0.02
