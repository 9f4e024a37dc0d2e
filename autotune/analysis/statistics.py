"""Confidence intervals, and tests of two quantities, so that a difference inside the noise is called a tie.

Everything here is a plain function of arrays, with a fixed seed where it draws: the same numbers give the
same verdict tomorrow. Nothing here needs scipy, which only the samplers' extra installs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
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
        for part, rows in draw_parts(resamples, data.size)
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
        for part, rows in draw_parts(resamples, n)
        for indices in np.random.default_rng((seed, part)).integers(n, size=(rows, n), dtype=np.intp)
    ]
    return _percentiles(_vector(drawn), confidence)


def t_interval(samples: ArrayLike, confidence: float = 0.95, stretch: float = 1.0) -> Interval:
    """Return Student's interval of the mean of independent samples, such as one number a process.

    mean ± stretch·t·s/sqrt(n), with t of n-1 degrees of freedom; `stretch` as in `autotune.analysis.stopping`. Source: Student,
    Biometrika 6 (1908), 1-25. Raises ValueError for fewer than two samples: one says nothing about the spread.
    """
    data = _vector(samples)
    if data.size < 2:
        raise ValueError(f"`len(samples) >= 2` must hold, but got {data.size}")
    mean = float(data.mean())
    half = stretch * t_quantile(_checked(confidence), data.size - 1) * float(data.std(ddof=1)) / math.sqrt(data.size)
    return Interval(mean - half, mean + half)


class Ratio(NamedTuple):
    """How one quantity relates to another: their ratio, its interval, and the p-value of their being equal."""

    value: float
    low: float
    high: float
    p: float


def paired_ratio(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, stretch: float = 1.0) -> Ratio:
    """Return the ratio of a to b, positive numbers measured in turns [rounds]: a drift of the machine hits both of a round
    alike.

    It is the geometric mean of a_i / b_i, with Student's interval and test of the logarithms, their standard error
    `stretch` times as large. Raises ValueError for fewer than two rounds.
    """
    first, second = _pair(a, b)
    logs = np.log(first) - np.log(second)
    low, high = t_interval(logs, confidence, stretch)
    mean, error = float(logs.mean()), stretch * float(logs.std(ddof=1)) / math.sqrt(logs.size)
    theta = math.atan2(abs(mean), error * math.sqrt(logs.size - 1)) if mean else 0.0
    return Ratio(math.exp(mean), math.exp(low), math.exp(high), max(0.0, 1 - _t_two_sided(theta, logs.size - 1)))


def column_levels(table: ArrayLike) -> FloatArray:
    """Return the level of each column of positive numbers [laps, columns], without the disturbances of single laps.

    A number is taken as a factor of its lap times a factor of its column. Medians of logarithms over rows and columns in
    turn, until nothing changes, give the factors (median polish), so a disturbed lap has no effect. The levels are those of
    the median lap. Source: Tukey, Exploratory Data Analysis (1977), chapter 11.
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

    Of the n items that only one model has right, the number that a has right is binomial(n, 1/2): p is twice the
    probability of the smaller side or less, at most 1; 1 where n is 0.
    Source: McNemar, Psychometrika 12 (1947), 153-157, in its exact form.
    """
    first, second = _pair(a, b)
    if not (is_binary(first) and is_binary(second)):
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


def interval_p(difference: float, side_a: float, side_b: float, n: int, confidence: float = 0.95) -> float:
    """Return the two-sided p-value that two scores are equal, from their intervals alone.

    `side_a`, `side_b`: the distance of each score from the end of its own interval that faces the other, because intervals
    may be skewed. `n`: the smaller number of items. t = difference / sqrt(se_a² + se_b²), se = side / z of the confidence.
    The scores are taken to be independent: scores on the same items vary together, so p is then too large. The interval of
    a percentile bootstrap is too narrow where few items carry most of a score, and a large family asks for extreme
    p-values. So t has n/3 degrees of freedom: with them `benchmarks/honesty.py` finds that the error rate holds where a
    tenth of the items have two fifths of all tokens. Source: the variances recovered from confidence limits, Zou and
    Donner, Stat. Med. 27 (2008), 1693-1702.
    """
    spread = math.hypot(side_a, side_b) / NormalDist().inv_cdf(0.5 + _checked(confidence) / 2)
    if difference == 0 or not math.isfinite(spread):
        return 1.0
    return _t_p(difference, spread, max(1, n // 3)) if spread > 0 else 0.0


@lru_cache(maxsize=4096)
def welch_p(difference: float, half_a: float, n_a: int, half_b: float, n_b: int, confidence: float = 0.95) -> float:
    """Return the two-sided p-value that two means are equal, from their Student's intervals.

    `half`: half the width of a mean's interval; `n`: the independent samples behind it. t = difference /
    sqrt(se_a² + se_b²), with the degrees of freedom of Welch and Satterthwaite rounded down, which makes p larger.
    Source: Welch, Biometrika 34 (1947), 28-35.
    """
    if min(n_a, n_b) < 2:
        raise ValueError(f"`n >= 2` must hold, but got {n_a} and {n_b}")
    if difference == 0 or not math.isfinite(half_a + half_b):
        return 1.0
    unit = max(half_a, half_b)
    if unit <= 0:
        return 0.0
    # In units of the wider half: the squares of very large or small numbers would overflow or underflow.
    a, b = ((half / unit / t_quantile(_checked(confidence), n - 1)) ** 2 for half, n in ((half_a, n_a), (half_b, n_b)))
    degrees = int((a + b) ** 2 / (a * a / (n_a - 1) + b * b / (n_b - 1)) + 1e-9)
    return _t_p(difference / unit, math.sqrt(a + b), degrees)


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


def is_binary(values: FloatArray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def draw_parts(resamples: int, n: int) -> Iterator[tuple[int, int]]:
    """Yield (number, rows) of the parts of a resamples x n draw; each part has a random generator of its own."""
    if resamples < 1:
        raise ValueError(f"`resamples >= 1` must hold, but got {resamples}")
    rows = max(1, _CHUNK // n)
    for part, start in enumerate(range(0, resamples, rows)):
        yield part, min(rows, resamples - start)


def _percentiles(drawn: FloatArray, confidence: float) -> Interval:
    tail = (1 - _checked(confidence)) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(low), float(high))


@lru_cache(maxsize=4096)
def t_quantile(confidence: float, df: int) -> float:
    """Return t with P(|T| <= t) = confidence, by bisection on theta = atan(t / sqrt(df))."""
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        if _t_two_sided(middle, df) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(df) * math.tan(low)


def _t_p(difference: float, error: float, df: int) -> float:
    """Return Student's two-sided p-value of a difference with a standard error above 0."""
    return max(0.0, 1 - _t_two_sided(math.atan2(abs(difference), error * math.sqrt(df)), df))


def _t_two_sided(theta: float, df: int) -> float:
    """Return P(|T| <= sqrt(df)·tan(theta)): Abramowitz and Stegun, 26.7.3 and 26.7.4 (whole df)."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = df % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(1, df // 2 + 1):
        total += term
        term *= cosine * cosine * ((2 * k) / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
