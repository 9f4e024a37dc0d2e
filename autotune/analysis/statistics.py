"""Intervals and tests, so that a difference inside the noise is called a tie.

Everything here is a plain function of arrays, with a fixed seed where it draws: the same numbers give the
same verdict tomorrow. None of it needs scipy, which only the samplers' extra brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

_POLISHES, _POLISHED = 20, 1e-9  # most rounds of a median polish, and the change that counts as none
_CHUNK = 1 << 20  # numbers drawn at a time: bounds memory at some 10 MB whatever the data


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a proportion.

    With p = successes/n: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    Source: Wilson, JASA 22 (1927), 209-212; no continuity correction.
    """
    if n < 1:
        raise ValueError(f"`n >= 1` must hold, but got n={n}")
    if not 0 <= successes <= n:
        raise ValueError(f"`0 <= successes <= n` must hold, but got successes={successes}, n={n}")
    z = NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are 0 and 1 exactly where nothing, or everything, succeeded; rounding would miss them.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return Interval(low, high)


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the percentile bootstrap interval of the mean of `values` [items].

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    data = _vector(values)
    means = [
        data[np.random.default_rng((seed, part)).integers(data.size, size=(rows, data.size))].mean(axis=1)
        for part, rows in _chunks(resamples, data.size)
    ]
    return _percentiles(np.concatenate(means), confidence)


def bootstrap(
    n: int,
    statistic: Callable[[IndexArray], float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of any `statistic` over n items.

    `statistic` takes the indices of one resample [n] and is called `resamples` times: for macro F1,
    perplexity, and whatever else is no plain mean. Source: as `bootstrap_mean`.
    """
    if n < 1:
        raise ValueError(f"`n >= 1` must hold, but got n={n}")
    drawn = [
        statistic(indices)
        for part, rows in _chunks(resamples, n)
        for indices in np.random.default_rng((seed, part)).integers(n, size=(rows, n), dtype=np.intp)
    ]
    return _percentiles(_vector(drawn), confidence)


def t_interval(samples: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return Student's interval of the mean of independent samples, such as one number a process.

    mean ± t·s/sqrt(n), with t of n-1 degrees of freedom. Source: Student, Biometrika 6 (1908), 1-25.
    Raises ValueError for fewer than two samples: one says nothing about the spread.
    """
    data = _vector(samples)
    if data.size < 2:
        raise ValueError(f"`len(samples) >= 2` must hold, but got {data.size}")
    mean = float(data.mean())
    half = _t_quantile(_checked(confidence), data.size - 1) * float(data.std(ddof=1)) / math.sqrt(data.size)
    return Interval(mean - half, mean + half)


class Ratio(NamedTuple):
    """How one quantity relates to another: their ratio, its interval, and the p-value of their being equal."""

    value: float
    low: float
    high: float
    p: float


def paired_ratio(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Ratio:
    """Return the ratio of a to b, positive numbers measured in turns [rounds]: what drifts hits both of a round alike.

    The geometric mean of a_i / b_i, with Student's interval and test of the logarithms. Raises ValueError for fewer
    than two rounds.
    """
    first, second = _pair(a, b)
    logs = np.log(first) - np.log(second)
    low, high = t_interval(logs, confidence)
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(logs.size)
    theta = math.atan2(abs(mean), error * math.sqrt(logs.size - 1)) if mean else 0.0
    return Ratio(math.exp(mean), math.exp(low), math.exp(high), max(0.0, 1 - _t_two_sided(theta, logs.size - 1)))


def column_levels(table: ArrayLike) -> FloatArray:
    """Return one number for each column of positive numbers [laps, columns], where a lap's conditions hit its whole row.

    Rows and columns are taken to be factors, found by medians of logarithms in turn until nothing changes (median
    polish), so that a lap that was disturbed does not count. The level of all is that of the median lap. Source: Tukey,
    Exploratory Data Analysis (1977), chapter 11.
    """
    left = np.log(np.atleast_2d(np.asarray(table, dtype=float)))
    rows, columns = np.zeros(left.shape[0]), np.zeros(left.shape[1])
    for _ in range(_POLISHES):
        by_row = np.median(left, axis=1)
        left -= by_row[:, None]
        by_column = np.median(left, axis=0)
        left -= by_column
        rows, columns = rows + by_row, columns + by_column
        if np.abs(by_column).max() < _POLISHED:
            break
    levels: FloatArray = np.exp(np.median(rows) + columns)
    return levels


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p-value that two models are right equally often: 0/1 outcomes, same items.

    Of the n items that just one has right, those that a has right are binomial(n, 1/2): p is twice the
    probability of the smaller side or less, at most 1; 1 where n is 0.
    Source: McNemar, Psychometrika 12 (1947), 153-157, in its exact form.
    """
    first, second = _pair(a, b)
    if not (_binary(first) and _binary(second)):
        raise ValueError("outcomes must be 0 or 1 for McNemar's test")
    only_a = int(np.count_nonzero(first > second))
    only_b = int(np.count_nonzero(first < second))
    n = only_a + only_b
    ways = total = 1
    for k in range(1, min(only_a, only_b) + 1):
        ways = ways * (n - k + 1) // k
        total += ways
    # Integers until the one division: exact for any number of items.
    return min(1.0, 2 * total / (1 << n))


def paired_permutation(a: ArrayLike, b: ArrayLike, resamples: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value that paired outcomes have equal means, by flipping signs of differences.

    p = (flips at least as extreme + 1) / (resamples + 1), never 0. Source: Fisher, The Design of Experiments
    (1935), section 21; the +1: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010), 39.
    """
    first, second = _pair(a, b)
    difference = first - second
    difference = difference[difference != 0]
    if not difference.size:
        return 1.0
    # Sums that differ by rounding alone are equal, or p would depend on the order of the items.
    extreme = abs(float(difference.sum())) - 1e-12 * float(np.abs(difference).sum())
    # One random byte flips eight items: their 256 signed sums are looked up, which is many times faster than
    # multiplying by signs, and `select` compares whole families while someone waits.
    eights = np.pad(difference, (0, -difference.size % 8)).reshape(-1, 8)
    signs = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1.0
    sums = eights @ signs.T
    count = 0
    for part, rows in _chunks(resamples, len(sums)):
        drawn = np.random.default_rng((seed, part)).integers(256, size=(rows, len(sums)), dtype=np.uint8)
        flipped = sums[np.arange(len(sums)), drawn].sum(axis=1)
        count += int(np.count_nonzero(np.abs(flipped) >= extreme))
    return (count + 1) / (resamples + 1)


def paired_z(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p-value that paired outcomes have equal means: mean / (s / sqrt(n)) of the differences,
    normal. For families so large that no number of permutations resolves the p that is needed.
    """
    first, second = _pair(a, b)
    difference = first - second
    spread = float(difference.std(ddof=1)) if difference.size > 1 else 0.0
    mean = abs(float(difference.mean()))
    if spread == 0.0:
        return 1.0 if mean == 0.0 or difference.size == 1 else 0.0
    return math.erfc(mean / spread * math.sqrt(difference.size / 2))


MOST_RESAMPLES = 100_000


def paired_p(a: ArrayLike, b: ArrayLike, smallest: float = 2e-4, seed: int = 0) -> float:
    """Return the p-value of a paired comparison: exact McNemar for 0/1 outcomes, otherwise by permutation.

    `smallest` is the p-value that must be told from 0; where that takes more than `MOST_RESAMPLES`, `paired_z` does.
    """
    first, second = _pair(a, b)
    if _binary(first) and _binary(second):
        return mcnemar_exact(first, second)
    resamples = max(10_000, math.ceil(2 / smallest))
    return paired_z(first, second) if resamples > MOST_RESAMPLES else paired_permutation(first, second, resamples, seed)


def two_proportion_p(p1: float, n1: int, p2: float, n2: int) -> float:
    """Return the two-sided p-value that two proportions from different items are equal: the pooled z-test.

    z = (p1-p2) / sqrt(p(1-p)(1/n1 + 1/n2)), p the pooled proportion. Source: Fleiss, Levin and Paik,
    Statistical Methods for Rates and Proportions (2003), chapter 3, without continuity correction.
    """
    if min(n1, n2) < 1:
        raise ValueError(f"`n1 >= 1` and `n2 >= 1` must hold, but got n1={n1}, n2={n2}")
    if not (0 <= p1 <= 1 and 0 <= p2 <= 1):
        raise ValueError(f"proportions must lie in [0, 1], but got p1={p1}, p2={p2}")
    if p1 == p2:
        return 1.0
    pooled = (p1 * n1 + p2 * n2) / (n1 + n2)
    variance = pooled * (1 - pooled) * (1 / n1 + 1 / n2)
    if variance <= 0:  # a difference below what a float resolves
        return 1.0
    z = (p1 - p2) / math.sqrt(variance)
    return math.erfc(abs(z) / math.sqrt(2))


def against_leader(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values of m-1 comparisons with the leader of m, adjusted for the leader's having been chosen by the data.

    Among equals the luckiest leads, and differs from the unluckiest as the two ends of a range do: any of the
    m(m-1)/2 pairs could have been compared. Stepping down, the i-th smallest p (from 1) becomes the maximum over
    j <= i of p_j times the pairs among the m-j+1 that are left, at most 1; the order is kept. Compare with the level
    of the whole family. The step-down idea: Holm, Scand. J. Stat. 6 (1979), 65-70; only pairs that can still be
    equal count: Shaffer, JASA 81 (1986), 826-831. `benchmarks/honesty.py` measures the error rate.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        left = len(p_values) + 1 - rank
        largest = max(largest, min(1.0, left * (left - 1) / 2 * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"`0 < confidence < 1` must hold, but got {confidence}")
    return confidence


def _vector(values: ArrayLike) -> FloatArray:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size:
        raise ValueError(f"values must be one row with at least one number, but got shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError("values must be finite")
    return data


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    first, second = _vector(a), _vector(b)
    if first.size != second.size:
        raise ValueError(f"paired outcomes need the same items, but got {first.size} and {second.size}")
    return first, second


def _binary(values: FloatArray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _chunks(resamples: int, n: int) -> Iterator[tuple[int, int]]:
    """Yield (number, rows) of the small parts of a resamples x n draw; each has a generator of its own."""
    if resamples < 1:
        raise ValueError(f"`resamples >= 1` must hold, but got {resamples}")
    rows = max(1, _CHUNK // n)
    for part, start in enumerate(range(0, resamples, rows)):
        yield part, min(rows, resamples - start)


def _percentiles(drawn: FloatArray, confidence: float) -> Interval:
    tail = (1 - _checked(confidence)) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _t_quantile(confidence: float, df: int) -> float:
    """Return t with P(|T| <= t) = confidence, by bisection on theta = atan(t / sqrt(df))."""
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        if _t_two_sided(middle, df) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(df) * math.tan(low)


def _t_two_sided(theta: float, df: int) -> float:
    """Return P(|T| <= sqrt(df)·tan(theta)): Abramowitz and Stegun, 26.7.3 and 26.7.4 (whole df)."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = df % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(1, df // 2 + 1):
        total += term
        term *= cosine * cosine * ((2 * k) / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
