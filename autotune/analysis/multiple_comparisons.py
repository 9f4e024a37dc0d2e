"""Tests of many candidates against the best of them: p-values that are adjusted because the data chose the leader.

`paired_family` compares outcomes on the same items by random signs; `against_leader` adjusts p-values of any other test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from autotune.analysis.statistics import FloatArray, IndexArray, draw_parts, is_binary, mcnemar_exact

RESAMPLES = 4000
"""The number of draws of a family's null distribution: a probability of 2.5 % is then known to 0.25 points."""
MOST_COMPARED = 200
"""The largest family whose pairs are resampled together; a larger one that cannot be made smaller is judged by bounds."""

_RADEMACHER = 3.1787  # 1 / (4 P(Z >= sqrt 2)), as in `signs_bound`
_BLOCK = 128  # draws at a time, so that they fit into the processor's cache
_SAME = 1e-12  # share of two outcomes' squares below which their difference is rounding


def signs_bound(t: ArrayLike) -> FloatArray:
    """Return an upper bound of P(|sum s_i d_i| >= t sqrt(sum d_i²)) over random signs s_i, whatever the numbers d_i.

    3.179 times the normal tail. Source: Bentkus and Dzindzalieta, Bernoulli 21 (2015), 1231-1237.
    """
    tails = [math.erfc(float(each) / math.sqrt(2)) for each in np.atleast_1d(np.asarray(t, dtype=np.float64))]
    return np.minimum(1.0, _RADEMACHER * np.array(tails))


def paired_family(
    outcomes: ArrayLike,
    leader: int,
    alpha: float = 0.05,
    compared: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FloatArray:
    """Return the adjusted p-values of differing from the leader: outcomes [candidates, items], same items for all.

    The leader is the best of the family, so any pair of candidates could have been compared. The statistic of one pair
    is |sum d| / sqrt(sum d²) of its differences d by item. Its null distribution is that of random signs: between equals a
    difference is as often in favour of one as of the other. All pairs share the signs of a draw, so the largest statistic of
    all pairs has the distribution that follows from the candidates' own correlation (max-T). Candidates that are worse at the
    level `alpha` leave, and the rest are judged again as a smaller family. For two candidates with outcomes of 0 and 1 it is
    McNemar's exact test. p-values above `alpha` are not stepped down further. `compared` [candidates] says which members are
    compared with the leader, by default all; the others count in the family, and their p-value is 1.

    The draws depend on `seed` and the number of items alone: another row in a table does not redraw them. A family above
    `MOST_COMPARED` is judged by `signs_bound` times the number of its pairs, which is valid but less powerful.
    Sources: max-T with step-down: Westfall and Young, Resampling-Based Multiple Testing (1993), sections 2.3 to 2.6;
    its validity for studentised statistics: Romano and Wolf, JASA 100 (2005), 94-108. `benchmarks/honesty.py` measures
    the error rate.
    """
    data = np.atleast_2d(np.asarray(outcomes, dtype=np.float64))
    if data.ndim != 2 or not data.size or not np.isfinite(data).all():
        raise ValueError(f"outcomes must be finite numbers [candidates, items], but got shape {data.shape}")
    # Candidates with the same outcomes are one comparison. Differences do not change when the leader's outcomes are subtracted.
    places: dict[bytes, int] = {}
    place = np.array([places.setdefault(row.tobytes(), len(places)) for row in data], dtype=np.intp)
    own = int(place[_leader(leader, len(data))])
    unique = data[np.unique(place, return_index=True)[1]]
    away = unique - unique[own]
    squares = (away * away).sum(axis=1)
    t = np.divide(np.abs(away.sum(axis=1)), np.sqrt(squares), out=np.zeros(len(unique)), where=squares > 0)
    if compared is not None:
        t[np.setdiff1d(place, place[np.asarray(compared, dtype=bool)])] = 0.0

    def drawn(members: IndexArray) -> tuple[FloatArray, FloatArray]:
        kept = away[members]
        sums = np.concatenate([signs @ kept.T for signs in _signs(resamples, data.shape[1], seed)])
        return sums, _of_pairs(kept @ kept.T)

    def exact(other: int) -> float | None:
        pair = unique[own], unique[other]
        return mcnemar_exact(*pair) if is_binary(pair[0]) and is_binary(pair[1]) else None

    adjusted = _step_down(t, own, alpha, drawn, exact)[place]
    return adjusted if compared is None else np.where(compared, adjusted, 1.0)


def _step_down(
    t: FloatArray,
    leader: int,
    alpha: float,
    drawn: Callable[[IndexArray], tuple[FloatArray, FloatArray]],
    exact: Callable[[int], float | None],
) -> FloatArray:
    """Return adjusted p-values of statistics `t` [candidates] against the leader.

    `drawn` returns for some candidates their null draws [draws, candidates] and the variance of each pair's difference;
    `exact` returns the p-value of the leader and another candidate where no draws are needed, else None.
    """
    adjusted = np.ones(t.size)
    left = np.arange(t.size, dtype=np.intp)
    largest_p = 0.0

    def drop(p: FloatArray) -> bool:
        """Drop the candidates that are worse at the level `alpha`. Returns whether there were any."""
        nonlocal left, largest_p
        p = np.where(left == leader, 1.0, np.maximum(p, largest_p))
        adjusted[left] = p
        gone = p <= alpha
        largest_p = max(largest_p, float(p[gone].max(initial=0.0)))
        left = left[~gone]
        return bool(gone.any())

    def bound() -> FloatArray:
        return np.minimum(1.0, math.comb(left.size, 2) * signs_bound(t[left]))

    def known() -> bool:
        """Judge the last candidate beside the leader by its exact p-value. Returns whether it has one."""
        p = exact(int(left[left != leader][0])) if left.size == 2 else None
        if p is not None:
            drop(np.full(2, p))
        return p is not None

    while left.size > 1:
        if known():
            return adjusted
        if not drop(bound()):
            break
    if not 1 < left.size <= MOST_COMPARED or not t[left].any():
        return adjusted
    members = left
    draws, variance = drawn(members)
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0)
    while left.size > 1 and not known():
        places = np.flatnonzero(np.isin(members, left))
        largest = _largest(draws[:, places], scale[np.ix_(places, places)])
        # Statistics that differ by rounding alone are equal, or p would depend on the order of the items.
        reached = largest.size - np.searchsorted(np.sort(largest), t[left] * (1 - 1e-9))
        # No p-value from draws is below 1 / (draws + 1); the bound can be.
        if not drop(np.minimum((reached + 1.0) / (largest.size + 1.0), bound())):
            break
    return adjusted


def _leader(leader: int, candidates: int) -> int:
    if not 0 <= leader < candidates:
        raise ValueError(f"`0 <= leader < {candidates}` must hold, but got {leader}")
    return leader


def _of_pairs(products: FloatArray) -> FloatArray:
    """Return the squared differences of all pairs from their inner products; 0 where they are rounding."""
    norms = np.diag(products)
    squares = norms[:, None] + norms - 2 * products
    return np.where(squares > _SAME * (norms[:, None] + norms), squares, 0.0)


def _largest(draws: FloatArray, scale: FloatArray) -> FloatArray:
    """Return for each draw [draws, candidates] the largest difference of two candidates in units of its standard deviation."""
    found = np.zeros(len(draws))
    for start in range(0, len(draws), _BLOCK):
        block, best = np.ascontiguousarray(draws[start : start + _BLOCK].T), found[start : start + _BLOCK]
        for place in range(len(block) - 1):
            apart = np.abs(block[place + 1 :] - block[place])
            apart *= scale[place, place + 1 :, None]
            np.maximum(best, apart.max(axis=0), out=best)
    return found


def _signs(resamples: int, n: int, seed: int) -> Iterator[FloatArray]:
    """Yield random signs [draws, n] in parts."""
    for part, rows in draw_parts(resamples, n):
        octets = np.random.default_rng((seed, part)).integers(256, size=(rows, -(-n // 8)), dtype=np.uint8)
        yield 2.0 * np.unpackbits(octets, axis=1, count=n).astype(np.float64) - 1.0


def against_leader(p_values: Mapping[str, float], others: int = 0) -> dict[str, float]:
    """Return the adjusted p-values of m-1 comparisons with the leader of m candidates, where the data chose the leader.

    Among equal candidates noise alone decides which one leads, so any of the m(m-1)/2 pairs could have been compared. By
    step-down, the i-th smallest p (from 1) becomes the maximum over j <= i of p_j times the number of pairs among the m-j+1
    that are left, at most 1; the order is kept. Compare the result with the level of the whole family. `others`: members of the
    family that are not compared here and never leave it. It makes no assumption about correlation; where outcomes are known,
    `paired_family` has more power. `benchmarks/honesty.py` measures the error rate. Sources: step-down: Holm, Scand. J. Stat. 6
    (1979), 65-70; only pairs that can still be equal count: Shaffer, JASA 81 (1986), 826-831.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        left = len(p_values) + 1 + others - rank
        largest = max(largest, min(1.0, left * (left - 1) / 2 * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
