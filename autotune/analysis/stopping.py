"""Widen an interval for optional stopping: the measurement went on until the interval was narrow.

Whoever stops as soon as the interval is narrow stops where the spread happens to look small. So the interval misses the mean
more often than its level says: with 5 to 12 normal samples it holds the mean in 92.8 % of cases, not in 95 %. `stretch` returns
the factor that restores 95 % in the worst case.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from autotune.analysis.statistics import t_quantile

_RUNS, _LEVELS = 40_000, 24
_LONGEST = 64
"""The most samples that are simulated: with more, an interval is narrow already or stays wide."""


@cache
def stretch(least: int, most: int, confidence: float = 0.95) -> float:
    """Return the factor by which Student's interval must be wider if samples are taken until the interval is narrow enough.

    There are at least `least` and at most `most` samples, and the stretched interval decides when to stop. The factor comes from
    a simulation with normal samples and a fixed seed: for each width at which to stop, the quantile at `confidence` of
    |mean| / (t·s/sqrt(n)); the largest of these counts. It is 1 where the number of samples is fixed. `benchmarks/coverage.py`
    measures the coverage. Raises ValueError below two samples.
    """
    if least < 2:
        raise ValueError(f"`least >= 2` must hold, but got {least}")
    if most <= least:
        return 1.0
    most = min(most, max(_LONGEST, least + 1))
    runs = min(_RUNS, 4_000_000 // most)
    samples = np.random.default_rng(0).standard_normal((runs, most))
    counts = np.arange(1, most + 1)
    means = np.cumsum(samples, axis=1) / counts
    spread = (np.cumsum(samples**2, axis=1) - counts * means**2) / np.maximum(counts - 1, 1)
    quantiles = np.array([t_quantile(confidence, max(1, n)) for n in range(most)])
    half = (quantiles * np.sqrt(np.maximum(spread, 1e-30) / counts))[:, least - 1 :]
    missed = np.abs(means[:, least - 1 :]) / half
    worst = 1.0
    for narrow in np.quantile(half[:, 0], np.linspace(0.02, 0.98, _LEVELS)):
        stops = half <= narrow
        stops[:, -1] = True
        at_stop = missed[np.arange(runs), stops.argmax(axis=1)]
        worst = max(worst, float(np.quantile(at_stop, confidence)))
    return worst
