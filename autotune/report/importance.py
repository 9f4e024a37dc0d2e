"""Computes which settings matter: the share of a metric's variance that each setting explains alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.results.rows import Trial

_BINS, _MANY = 4, 6
"""A numeric setting with more than `_MANY` values is put into `_BINS` groups of equal size."""
_LEAST = 6
"""Measured candidates that a share needs."""


def groups_of(values: Sequence[Any]) -> list[Any]:
    """Return the group of each value: the value itself, or the index of its quartile for numbers with many values."""
    distinct = {value for value in values if value is not None}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    if not numbers or len(distinct) <= _MANY:
        return list(values)
    known = np.array([float(value) for value in values if value is not None])
    edges = np.quantile(known, np.arange(1, _BINS) / _BINS)
    return [None if value is None else int(np.searchsorted(edges, float(value), side="left")) for value in values]


def explained(groups: Sequence[Any], numbers: Sequence[float]) -> float | None:
    """Return the share of the variance that lies between groups, corrected for chance; None with too few numbers or groups.

    Epsilon squared: 1 - (SS_within / (n - k)) / (SS_total / (n - 1)), at least 0, of n numbers in k groups. Before that floor
    its mean is 0 for groups drawn at random. Source: Kelley, Proc. Natl. Acad. Sci. 21 (1935), 554-559.
    """
    by_group: dict[Any, list[float]] = defaultdict(list)
    for group, value in zip(groups, numbers, strict=True):
        by_group[group].append(value)
    n, k = len(numbers), len(by_group)
    data = np.array(numbers, dtype=np.float64)
    total = float(((data - data.mean()) ** 2).sum()) if n else 0.0
    if n < _LEAST or k < 2 or n - k < 2 or total <= 0:
        return None
    within = sum(float(((np.array(part) - np.mean(part)) ** 2).sum()) for part in by_group.values())
    return max(0.0, 1 - (within / (n - k)) / (total / (n - 1)))


def importance(rows: Sequence[Trial], metrics: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return, for each metric, the settings that vary among the rows, with their shares, the largest first.

    Only fully measured trials count. Each share is of one setting alone: the shares of correlated settings overlap.
    """
    done = [row for row in rows if row.status == "ok" and row.trial]
    names = dict.fromkeys(name for row in done for name in row.settings)
    varied = [name for name in names if len({row[name] for row in done}) > 1]
    found: dict[str, list[dict[str, Any]]] = {}
    for metric in metrics:
        measured = [row for row in done if row[metric] is not None]
        numbers = [float(row.number(metric) or 0.0) for row in measured]
        shares = [
            {"setting": name, "share": share}
            for name in varied
            if (share := explained(groups_of([row[name] for row in measured]), numbers)) is not None
        ]
        found[metric] = sorted(shares, key=lambda one: -float(one["share"]))
    return found
