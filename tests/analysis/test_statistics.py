from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from autotune.analysis import statistics as ours


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


def test_a_difference_below_what_a_float_resolves_is_none() -> None:
    assert ours.two_proportion_p(1.0, 4, 1 - 1.2e-16, 4) == 1.0
    assert ours.two_proportion_p(0.0, 2**62, 5e-324, 2**62) == 1.0
