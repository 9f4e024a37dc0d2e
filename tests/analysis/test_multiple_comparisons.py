from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from autotune.analysis import multiple_comparisons as ours
from autotune.analysis.statistics import mcnemar_exact

P_VALUES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.floats(0, 1), max_size=12)


def test_a_family_refuses_what_is_no_number_and_a_leader_that_is_not_in_it() -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        ours.paired_family([[0.0, math.nan], [0.0, 1.0]], 0)
    with pytest.raises(ValueError, match=r"leader < 2"):
        ours.paired_family([[0.0], [1.0]], 2)


def two(a: Any, b: Any, **options: Any) -> float:
    """Return the p-value of two candidates alone."""
    return float(ours.paired_family([a, b], 0, **options)[1])


def test_two_candidates_are_compared_as_by_scipys_permutation_test() -> None:
    generator = np.random.default_rng(6)
    a = generator.normal(size=40)
    b = a + generator.normal(0.3, 1.0, size=40)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=7
    )
    assert two(a, b, resamples=20_000) == pytest.approx(theirs.pvalue, abs=0.01)


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100).map(lambda x: round(x, 2)), min_size=1, max_size=9))
def test_two_candidates_have_the_exact_p_within_its_own_noise(differences: list[float]) -> None:
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in product([1, -1], repeat=len(differences))
    ]
    exact = np.mean([total >= abs(sum(differences)) - 1e-9 for total in sums])
    assert two(differences, [0.0] * len(differences), resamples=2_000) == pytest.approx(exact, abs=0.06)


def test_two_candidates_right_or_wrong_are_mcnemars() -> None:
    a, b = [1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0]
    assert two(a, b) == mcnemar_exact(a, b)


def slow_family(data: np.ndarray[Any, Any], leader: int, draws: int, alpha: float = 0.05) -> set[int]:
    """The definition: who is worse than the leader beyond the largest statistic of all pairs, again without those."""
    generator = np.random.default_rng(1)
    signs = generator.choice([-1.0, 1.0], size=(draws, data.shape[1]))
    left = list(range(len(data)))
    while True:
        largest = np.zeros(draws)
        for i in left:
            for j in left:
                d = data[i] - data[j]
                if i < j and d.any():
                    largest = np.maximum(largest, np.abs(signs @ d) / np.sqrt((d * d).sum()))
        threshold = np.quantile(largest, 1 - alpha)
        differences = {j: data[leader] - data[j] for j in left if j != leader}
        worse = {j for j, d in differences.items() if d.any() and abs(d.sum()) / np.sqrt((d * d).sum()) > threshold}
        if not worse:
            return set(range(len(data))) - set(left)
        left = [j for j in left if j not in worse]


@pytest.mark.parametrize("seed", range(6))
def test_a_family_is_judged_as_by_the_definition(seed: int) -> None:
    """In units that do not sit on the threshold: p-values between 4 and 6 % may fall on either side by the draws."""
    generator = np.random.default_rng(seed)
    item = generator.normal(size=150)
    data = item + generator.normal(size=(8, 150)) - np.array([0, 0.1, 0.2, 0.4, 0.5, 0.8, 0.3, 0.3])[:, None]
    data[6] = data[3] + 0.05 * generator.normal(size=150)  # nearly the same model
    leader = int(data.sum(axis=1).argmax())
    p = ours.paired_family(data, leader)
    found = slow_family(data, leader, 2_000)
    assert {j for j in range(8) if p[j] <= 0.04} <= found <= {j for j in range(8) if p[j] <= 0.06}
    assert found, "the family would show nothing"


def test_a_family_gives_what_it_gave_whatever_the_order_of_candidates() -> None:
    generator = np.random.default_rng(2)
    data = (generator.random((12, 80)) < np.linspace(0.5, 0.8, 12)[:, None]).astype(float)
    leader, order = int(data.sum(axis=1).argmax()), generator.permutation(12)
    p = ours.paired_family(data, leader)
    again = ours.paired_family(data[order], int(np.flatnonzero(order == leader)[0]))
    assert again.tolist() == p[order].tolist()
    assert p[leader] == 1.0


def test_the_same_outcomes_are_one_comparison() -> None:
    generator = np.random.default_rng(3)
    data = generator.normal(size=(4, 60))
    data[1:] -= 0.5
    leader = int(data.sum(axis=1).argmax())
    p = ours.paired_family(data, leader)
    twice = ours.paired_family(np.concatenate([data, data]), leader)
    assert twice.tolist() == [1.0 if place == leader else each for place, each in enumerate([*p, *p])]
    assert ours.paired_family([data[0]] * 3, 1).tolist() == [1.0] * 3


def test_who_is_not_compared_counts_in_the_family_and_is_never_worse() -> None:
    generator = np.random.default_rng(4)
    data = generator.normal(size=(30, 100))
    data[0] += 0.6
    few = np.arange(30) < 3
    alone = ours.paired_family(data[:3], 0)
    among = ours.paired_family(data, 0, compared=few)
    assert among[3:].tolist() == [1.0] * 27
    assert (among[1:3] > alone[1:3]).all()


def test_a_family_too_large_to_resample_is_judged_by_bounds() -> None:
    generator = np.random.default_rng(5)
    data = generator.normal(size=(ours.MOST_COMPARED + 50, 200))
    leader = int(data.sum(axis=1).argmax())
    other = (leader + 1) % len(data)
    data[other] -= 1.0
    p = ours.paired_family(data, leader)
    t = (data[leader] - data[other]).sum() / np.sqrt(((data[leader] - data[other]) ** 2).sum())
    assert p[other] == pytest.approx(math.comb(len(data), 2) * ours.signs_bound(t)[0])
    assert (np.delete(p, other) > 0.05).all()


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=10), st.floats(0, 4))
def test_the_bound_of_signed_sums_holds(numbers: list[float], t: float) -> None:
    d = np.array(numbers)
    sums = np.array(list(product([1, -1], repeat=d.size))) @ d
    share = np.mean(np.abs(sums) >= t * np.sqrt((d * d).sum()) * (1 + 1e-9))
    assert share <= ours.signs_bound(t)[0] + 1e-12


# --- By p-values alone -----------------------------------------------------------------------------------------------


def test_comparisons_with_the_leader_by_hand() -> None:
    # Five candidates have 10 pairs; the four that are left after the first have 6, and so on: 10, 6, 3, 1.
    adjusted = ours.against_leader({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.002})
    assert adjusted == pytest.approx({"a": 0.06, "b": 0.09, "c": 0.09, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert ours.against_leader({"a": 0.04}) == {"a": 0.04}  # of two there is one pair
    assert ours.against_leader({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert ours.against_leader({}) == {}
    # With one more in the family that is not compared here: 15, 10, 6, 3.
    among = ours.against_leader({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.002}, others=1)
    assert among == pytest.approx({"a": 0.1, "b": 0.18, "c": 0.18, "d": 0.03})


@settings(deadline=None)
@given(P_VALUES)
def test_they_lie_between_the_raw_p_and_that_times_all_pairs_and_keep_the_order(raw: dict[str, float]) -> None:
    adjusted = ours.against_leader(raw)
    assert list(adjusted) == list(raw)
    for name, p in raw.items():
        assert p <= adjusted[name] <= min(1.0, (len(raw) + 1) * len(raw) / 2 * p)
        assert all(adjusted[name] <= adjusted[other] for other in raw if p < raw[other])
