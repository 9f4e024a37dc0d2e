from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.analysis.scores import f1_parts, macro_f1, per_item, probability, summarise
from autotune.analysis.statistics import wilson


def slow_f1(predicted: list[int], gold: list[int]) -> float:
    """The definition: the harmonic mean of precision and recall of each label, 0 where nothing was right."""
    values = []
    for label in set(predicted) | set(gold):
        hit = sum(p == g == label for p, g in zip(predicted, gold, strict=True))
        precision = hit / predicted.count(label) if label in predicted else 0.0
        recall = hit / gold.count(label) if label in gold else 0.0
        values.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    return sum(values) / len(values)


labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@settings(deadline=None)
@given(labels)
def test_macro_f1_is_the_mean_of_the_labels_f1(pairs: list[tuple[int, int]]) -> None:
    predicted, gold = [p for p, _ in pairs], [g for _, g in pairs]
    assert macro_f1(np.array(predicted), np.array(gold)) == pytest.approx(slow_f1(predicted, gold))


@pytest.mark.parametrize("metric", ["choice", "exact_match"])
def test_a_proportion_has_wilsons_interval(metric: str) -> None:
    right = "a" if metric == "exact_match" else 1
    value, interval, n = summarise(metric, {"predicted": [right] * 3 + ["b"], "gold": [right] * 4})
    assert (value, n) == (0.75, 4)
    assert interval == wilson(3, 4)
    outcomes = per_item(metric, {"predicted": [right] * 3 + ["b"], "gold": [right] * 4})
    assert outcomes is not None
    assert outcomes.tolist() == [1, 1, 1, 0]


@settings(deadline=None)
@given(labels)
def test_the_items_parts_in_macro_f1_are_on_average_the_score(pairs: list[tuple[int, int]]) -> None:
    predicted, gold = np.array([p for p, _ in pairs]), np.array([g for _, g in pairs])
    assert f1_parts(predicted, gold).mean() == pytest.approx(macro_f1(predicted, gold))


def test_an_items_part_in_macro_f1_is_what_the_score_without_it_moves() -> None:
    rng = np.random.default_rng(1)
    predicted, gold = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    without = np.array([macro_f1(np.delete(predicted, k), np.delete(gold, k)) for k in range(60)])
    parts = f1_parts(predicted, gold)
    assert parts - parts.mean() == pytest.approx(59 * (without.mean() - without))


def test_f1_has_a_bootstrapped_interval() -> None:
    outcomes = {"predicted": [0, 1, 1, 0] * 20, "gold": [0, 1, 0, 0] * 20}
    value, interval, n = summarise("f1", outcomes)
    assert n == 80
    assert 0.5 < interval.low < value < interval.high < 1.0
    assert summarise("f1", outcomes) == (value, interval, n)


def test_perplexity_weighs_tokens_and_not_items() -> None:
    outcomes = {"nll": [2.0, 1.0, 6.0], "tokens": [2, 1, 3]}
    value, interval, n = summarise("perplexity", outcomes)
    assert value == pytest.approx(math.exp(9 / 6))
    assert interval.low <= value <= interval.high
    assert n == 3
    parts = per_item("perplexity", outcomes)
    assert parts is not None
    assert math.exp(parts.mean()) == pytest.approx(value)  # and not the mean over items, exp(4/3)
    assert parts.tolist() == [1.0, 0.5, 3.0]


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 200)), min_size=1, max_size=30))
def test_the_parts_of_a_perplexity_are_on_average_its_logarithm(items: list[tuple[float, int]]) -> None:
    nll, tokens = zip(*items, strict=True)
    parts = per_item("perplexity", {"nll": nll, "tokens": tokens})
    assert parts is not None
    assert parts.mean() == pytest.approx(sum(nll) / sum(tokens))


@pytest.mark.parametrize("nll", [[math.nan, 1.0], [math.inf, 1.0], [800.0, 900.0], [1e300, 1e300]])
def test_a_perplexity_beyond_numbers_is_infinite_and_warns_of_nothing(nll: list[float]) -> None:
    value, interval, n = summarise("perplexity", {"nll": nll, "tokens": [1, 1]})
    assert value == math.inf
    assert interval.high == math.inf
    assert n == 2


def test_a_large_perplexity_whose_interval_overflows() -> None:
    value, interval, _ = summarise("perplexity", {"nll": [600.0, 800.0], "tokens": [1, 1]})
    assert value == pytest.approx(math.exp(700))
    assert math.isfinite(interval.low)
    assert interval.high == math.inf


@pytest.mark.parametrize("metric", ["choice", "f1", "perplexity"])
def test_all_right_and_all_wrong(metric: str) -> None:
    outcomes: dict[str, Any] = {"predicted": [1] * 5, "gold": [1] * 5, "nll": [0.0] * 5, "tokens": [1] * 5}
    value, interval, _ = summarise(metric, outcomes)
    assert value == 1.0
    assert interval.low <= 1.0 <= interval.high
    if metric != "perplexity":
        wrong, interval, _ = summarise(metric, outcomes | {"predicted": [0] * 5})
        assert wrong == 0.0
        assert interval.low == 0.0


def test_micro_f1_is_the_share_of_hits_where_each_item_has_one_label() -> None:
    outcomes = {"predicted": [0, 1, 2, 2, 1], "gold": [0, 1, 1, 2, 0]}
    true, false = 3, 2  # every miss is one false positive and one false negative
    value, interval, n = summarise("f1_micro", outcomes)
    assert value == 2 * true / (2 * true + false + false)
    assert (interval, n) == (wilson(3, 5), 5)
    shares = per_item("f1_micro", outcomes)
    assert shares is not None
    assert shares.tolist() == [1, 1, 0, 1, 0]


def test_a_probability_is_the_mean_over_items_of_the_right_label_s() -> None:
    assert probability({"loss": [0.0, math.log(2), math.log(4)]}) == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert probability({"loss": [math.inf]}) == 0
    for without in ({"values": [0.5]}, {"nll": [1.0], "tokens": [2]}):
        assert probability(without) is None
