"""Two models on the same items, against published intervals and by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.analysis.paired import paired_difference, wrong_places


def outcomes(both: int, only_this: int, only_other: int, neither: int) -> tuple[dict[str, object], dict[str, object]]:
    cells = [(1, 1)] * both + [(1, 0)] * only_this + [(0, 1)] * only_other + [(0, 0)] * neither
    ids = [str(n) for n in range(len(cells))]
    this, other = zip(*cells, strict=True)
    gold = [1] * len(cells)
    return {"ids": ids, "predicted": list(this), "gold": gold}, {"ids": ids, "predicted": list(other), "gold": gold}


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table II, method 10.
    [((36, 12, 2, 0), 0.0569, 0.3404), ((36, 14, 0, 0), 0.1528, 0.4167)],
)
def test_the_interval_is_the_published_one(cells: tuple[int, int, int, int], low: float, high: float) -> None:
    found = paired_difference("choice", *outcomes(*cells))
    assert found is not None
    assert (found.interval.low, found.interval.high) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))
    assert (found.only_this, found.only_other) == cells[1:3]


@given(st.tuples(*[st.integers(0, 20)] * 4).filter(lambda cells: sum(cells) > 0))
def test_it_holds_the_difference_and_turns_with_the_models(cells: tuple[int, int, int, int]) -> None:
    this, other = outcomes(*cells)
    found, turned = paired_difference("choice", this, other), paired_difference("choice", other, this)
    assert found is not None
    assert turned is not None
    assert -1 <= found.interval.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.interval.high <= 1
    assert turned.value == pytest.approx(-found.value)
    assert turned.interval.low == pytest.approx(-found.interval.high, abs=1e-9)


def test_other_items_are_not_compared() -> None:
    this, other = outcomes(3, 2, 1, 0)
    assert paired_difference("choice", this, {**other, "ids": list("abcdef")}) is None
    nll = {"ids": ["a", "b"], "nll": [1.0, 2.0], "tokens": [2, 2]}
    found = paired_difference("perplexity", nll, {**nll, "nll": [3.0, 4.0]})
    assert found is not None
    assert (found.value, found.only_this, found.sure) == (pytest.approx(-1.0), None, True)


def test_wrong_items() -> None:
    this, _ = outcomes(1, 1, 1, 1)
    assert wrong_places("choice", this) == wrong_places("f1", this) == [2, 3]
    assert wrong_places("rouge_l", {"ids": ["a", "b"], "predicted": ["x", "y"], "values": [1.0, 0.5]}) == [1]
    assert wrong_places("perplexity", {"ids": ["a"], "nll": [1.0], "tokens": [1]}) == []
