"""The Gittins index, against an enumeration of all stopping rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.strategies.frontier.gittins_index import NODES, best_pairs, direct_index, index_with_stop

WEIGHTS = np.polynomial.hermite_e.hermegauss(5)[1] / np.sqrt(2 * np.pi)
AMOUNTS = st.floats(0.01, 100)


def test_the_nodes_are_a_standard_normal() -> None:
    assert pytest.approx(0) == WEIGHTS @ NODES
    assert pytest.approx(1) == WEIGHTS @ NODES**2


@given(
    AMOUNTS,
    st.lists(st.lists(st.floats(0, 10), min_size=5, max_size=5), min_size=1, max_size=3),
    st.lists(AMOUNTS, min_size=3, max_size=3),
)
def test_it_is_the_best_of_all_rules(first: float, gains: list[list[float]], rests: list[float]) -> None:
    gained = np.array(gains)[:, :, None]
    seconds = np.broadcast_to(np.array(rests[: len(gains)])[:, None, None], gained.shape)
    found = index_with_stop(np.array([first]), gained, seconds, np.zeros(1))[0]
    best = 0.0
    # After each outcome: leave it (None), or one of the ways.
    for rule in itertools.product([None, *range(len(gains))], repeat=5):
        gain = sum(WEIGHTS[n] * gains[way][n] for n, way in enumerate(rule) if way is not None)
        spent = first + sum(WEIGHTS[n] * rests[way] for n, way in enumerate(rule) if way is not None)
        best = max(best, gain / spent)
    assert found == pytest.approx(best, rel=1e-6, abs=1e-12)


def test_a_look_pays_where_the_rest_is_dear_and_much_can_be_learned() -> None:
    rest = np.full((1, 5, 1), 100.0)

    def worth(spread: float, first: float) -> float:
        gained = np.maximum(0.0, 1.0 + spread * NODES)[None, :, None]
        return float(index_with_stop(np.array([first]), gained, rest, np.zeros(1))[0])

    assert worth(spread=2.0, first=5.0) > 1.2 * 1.0 / 100
    assert worth(spread=0.0, first=5.0) == pytest.approx(1.0 / 105)
    assert worth(spread=2.0, first=5.0) > worth(spread=2.0, first=50.0)


def test_the_best_comes_first() -> None:
    gained, seconds = best_pairs(np.array([[1.0, 5.0], [4.0, 1.0]]), np.array([1.0, 2.0]))
    assert gained.tolist() == [[4.0, 5.0], [5.0, 6.0]]
    assert seconds.tolist() == [[2.0, 1.0], [3.0, 3.0]]
    assert direct_index(gained, seconds).tolist() == [2.0, 5.0]
