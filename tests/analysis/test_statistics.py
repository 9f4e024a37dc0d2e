from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from autotune.analysis import statistics as ours

P_VALUES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.floats(0, 1), max_size=12)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (45, 50), (300, 300), (271, 600)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(successes: int, n: int, confidence: float) -> None:
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert ours.wilson(successes, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_ends_are_exact_where_nothing_or_everything_succeeds() -> None:
    assert ours.wilson(0, 37).low == 0.0
    assert ours.wilson(37, 37).high == 1.0


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_holds_the_proportion_and_stays_in_range(n: int, share: float) -> None:
    interval = ours.wilson(share * n, n)
    assert 0 <= interval.low <= share + 1e-12
    assert share - 1e-12 <= interval.high <= 1


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(1, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0)]
)
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="must hold, but got"):
        ours.wilson(successes, n, confidence)


def test_bootstrap_mean_agrees_with_the_normal_interval_of_many_values() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2_000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert ours.bootstrap_mean(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_bootstrap_mean_repeats_itself_and_depends_on_the_seed() -> None:
    values = np.random.default_rng(2).exponential(size=300)
    assert ours.bootstrap_mean(values) == ours.bootstrap_mean(values)
    assert ours.bootstrap_mean(values) != ours.bootstrap_mean(values, seed=1)


def test_bootstrap_of_a_constant_has_no_width() -> None:
    assert ours.bootstrap_mean([2.0] * 7, resamples=50) == (2.0, 2.0)


def test_bootstrap_of_the_mean_is_bootstrap_mean() -> None:
    values = np.random.default_rng(3).random(200)
    general = ours.bootstrap(values.size, lambda indices: float(values[indices].mean()), resamples=2_000)
    assert general == pytest.approx(ours.bootstrap_mean(values, resamples=2_000), abs=1e-12)


def test_bootstrap_takes_any_statistic() -> None:
    log_likelihood = np.random.default_rng(4).exponential(size=400)
    tokens = np.random.default_rng(5).integers(1, 9, size=400)

    def perplexity(indices: ours.IndexArray) -> float:
        return math.exp(float(log_likelihood[indices].sum() / tokens[indices].sum()))

    low, high = ours.bootstrap(400, perplexity, resamples=500)
    assert low < perplexity(np.arange(400)) < high


def test_bootstrap_refuses_nothing_and_nan() -> None:
    with pytest.raises(ValueError, match="at least one number"):
        ours.bootstrap_mean([])
    with pytest.raises(ValueError, match="finite"):
        ours.bootstrap_mean([1.0, math.nan])
    with pytest.raises(ValueError, match="n >= 1"):
        ours.bootstrap(0, lambda indices: 0.0)
    with pytest.raises(ValueError, match="finite"):
        ours.bootstrap(3, lambda indices: math.nan, resamples=5)
    with pytest.raises(ValueError, match="resamples >= 1"):
        ours.bootstrap_mean([1.0], resamples=0)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 11, 30, 101])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_t_interval_is_scipys(n: int, confidence: float) -> None:
    samples = np.random.default_rng(n).normal(20.0, 3.0, size=n)
    theirs = stats.t.interval(confidence, n - 1, loc=samples.mean(), scale=stats.sem(samples))
    assert ours.t_interval(samples, confidence) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("rounds", [2, 5, 12])
def test_paired_ratio_is_scipys_paired_test_of_logarithms(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    a, b = rng.lognormal(2.3, 0.1, rounds), rng.lognormal(2.3, 0.1, rounds)
    ratio = ours.paired_ratio(a, b)
    theirs = stats.ttest_rel(np.log(a), np.log(b))
    assert ratio.p == pytest.approx(theirs.pvalue, rel=1e-6)
    interval = theirs.confidence_interval(0.95)
    assert np.log(ratio[:3]) == pytest.approx([np.log(a / b).mean(), interval.low, interval.high], rel=1e-6)


@given(
    rows=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=9),
    columns=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=5),
)
def test_levels_of_columns_are_exact_where_nothing_but_factors_is(rows: list[float], columns: list[float]) -> None:
    levels = ours.column_levels(np.outer(rows, columns))
    assert levels / levels[0] == pytest.approx(np.array(columns) / columns[0])
    if len(rows) == 1:
        assert levels == pytest.approx(rows[0] * np.array(columns))


def test_levels_of_columns_do_not_mind_a_few_wild_laps() -> None:
    table = np.outer(np.ones(9), [1.0, 2.0, 1.0])
    table[2, 1], table[5, 0], table[7] = 40.0, 0.01, [9.0, 18.0, 9.0]
    assert ours.column_levels(table) == pytest.approx([1.0, 2.0, 1.0])


def test_paired_ratio_of_what_never_varies() -> None:
    assert ours.paired_ratio([10.0] * 3, [10.0] * 3) == (1.0, 1.0, 1.0, 1.0)
    same = ours.paired_ratio([11.0] * 3, [10.0] * 3)
    assert same[:3] == pytest.approx((1.1, 1.1, 1.1))
    assert same.p < 1e-6


def test_t_interval_of_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"len\(samples\) >= 2"):
        ours.t_interval([20.0])


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (3, 3, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (1, 7, 2 * 9 / 256), (2, 8, 2 * 56 / 1024)],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    a = [1, 1, 0] + [1] * only_a + [0] * only_b
    b = [1, 1, 0] + [0] * only_a + [1] * only_b
    assert ours.mcnemar_exact(a, b) == p
    assert ours.mcnemar_exact(b, a) == p


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_is_scipys_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    a, b = zip(*pairs, strict=True)
    only_a = sum(x > y for x, y in pairs)
    n = sum(x != y for x, y in pairs)
    assert ours.mcnemar_exact(a, b) == pytest.approx(stats.binomtest(only_a, n).pvalue if n else 1.0)


def test_mcnemar_of_very_many_items_does_not_overflow() -> None:
    a, b = np.zeros(9_000), np.zeros(9_000)
    a[:4_100] = 1
    b[4_100:8_000] = 1
    assert ours.mcnemar_exact(a, b) == pytest.approx(stats.binomtest(4_100, 8_000).pvalue, rel=1e-9)


def test_paired_tests_refuse_what_is_not_paired() -> None:
    with pytest.raises(ValueError, match="same items, but got 2 and 3"):
        ours.mcnemar_exact([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="0 or 1"):
        ours.mcnemar_exact([0, 0.5], [0, 1])
    with pytest.raises(ValueError, match="finite numbers"):
        ours.paired_family([[0.0, math.nan], [0.0, 1.0]], 0)
    with pytest.raises(ValueError, match=r"leader < 2"):
        ours.paired_family([[0.0], [1.0]], 2)


# --- A family against its leader ------------------------------------------------------------------------------------


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
    assert two(a, b) == ours.mcnemar_exact(a, b)


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


# --- By intervals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 100, 301, 3000])
def test_intervals_of_scores_give_the_t_test(n: int) -> None:
    # Standard errors 0.03 and 0.04: of the difference 0.05.
    side, p = stats.norm.ppf(0.975), 2 * stats.t.sf(2.0, n // 3)
    assert ours.interval_p(0.1, 0.03 * side, 0.04 * side, n) == pytest.approx(p)
    assert ours.interval_p(-0.1, 0.04 * side, 0.03 * side, n) == pytest.approx(p)


def test_intervals_of_no_width_and_of_no_end() -> None:
    assert ours.interval_p(0.0, 0.0, 0.0, 100) == 1.0
    assert ours.interval_p(0.1, 0.0, 0.0, 100) == 0.0
    assert ours.interval_p(5.0, 1.0, math.inf, 100) == 1.0  # a perplexity beyond numbers


@pytest.mark.parametrize(("n_a", "n_b"), [(5, 5), (5, 12), (2, 3), (30, 7)])
def test_intervals_of_processes_give_welchs_test(n_a: int, n_b: int) -> None:
    generator = np.random.default_rng(n_a)
    a, b = generator.normal(10.0, 0.2, n_a), generator.normal(10.4, 0.6, n_b)
    halves = [(each[1] - each[0]) / 2 for each in (ours.t_interval(a), ours.t_interval(b))]
    p = ours.welch_p(float(a.mean() - b.mean()), halves[0], n_a, halves[1], n_b)
    theirs = stats.ttest_ind(a, b, equal_var=False)
    whole = 2 * stats.t.sf(abs(theirs.statistic), int(theirs.df))
    assert p == pytest.approx(whole, rel=1e-6)
    assert p >= theirs.pvalue * (1 - 1e-9)


@pytest.mark.parametrize("size", [1e-200, 1e-100, 1e100, 1e200, 1e300])
def test_welchs_test_does_not_depend_on_the_unit(size: float) -> None:
    plain = ours.welch_p(1.0, 0.5, 5, 0.25, 7)
    assert ours.welch_p(size, 0.5 * size, 5, 0.25 * size, 7) == pytest.approx(plain)
    assert ours.welch_p(1.0, size, 5, 0.25, 7) == pytest.approx(1.0 if size > 1 else ours.welch_p(1.0, 0.0, 5, 0.25, 7))


def test_welchs_test_of_what_never_varies() -> None:
    assert ours.welch_p(0.0, 0.0, 5, 0.0, 5) == 1.0
    assert ours.welch_p(0.1, 0.0, 5, 0.0, 5) == 0.0
    with pytest.raises(ValueError, match="n >= 2"):
        ours.welch_p(0.1, 1.0, 1, 1.0, 5)


def test_two_proportions_by_hand() -> None:
    # Pooled 0.55, standard error sqrt(0.55 * 0.45 * 2 / 100), z = 0.1 / 0.0703562.
    assert ours.two_proportion_p(0.6, 100, 0.5, 100) == pytest.approx(2 * stats.norm.sf(1.4213381), abs=1e-7)
    table = [[60, 40], [50, 50]]
    chi_squared = stats.chi2_contingency(table, correction=False)
    assert ours.two_proportion_p(0.6, 100, 0.5, 100) == pytest.approx(chi_squared.pvalue)
    assert ours.two_proportion_p(1.0, 10, 1.0, 20) == 1.0
    with pytest.raises(ValueError, match="n1 >= 1"):
        ours.two_proportion_p(1.0, 0, 1.0, 20)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ours.two_proportion_p(1.5, 10, 1.0, 20)


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


def test_a_difference_below_what_a_float_resolves_is_none() -> None:
    assert ours.two_proportion_p(1.0, 4, 1 - 1.2e-16, 4) == 1.0
    assert ours.two_proportion_p(0.0, 2**62, 5e-324, 2**62) == 1.0
