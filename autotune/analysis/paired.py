"""Compare two models on the same items: how much better one is, and which items only one of them gets right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.analysis.scores import per_item
from autotune.analysis.statistics import FloatArray, Interval, bootstrap_mean, wilson


@dataclass(frozen=True)
class Difference:
    """The difference of two models' scores on the same items, with its 95 % interval.

    For perplexity it is the difference of the mean negative log-likelihoods of a token (nats): less is better.
    """

    value: float
    interval: Interval
    items: int
    only_this: int | None = None
    """Items that only this model gets right; None where an item's part is not 0 or 1."""
    only_other: int | None = None

    @property
    def sure(self) -> bool:
        """Whether 0 lies outside the interval."""
        return not self.interval.low <= 0 <= self.interval.high


def paired_difference(metric: str, this: Mapping[str, Any], other: Mapping[str, Any]) -> Difference | None:
    """Return the difference of two models by their outcomes on a split; None where the outcomes cannot be paired."""
    first, second = per_item(metric, this), per_item(metric, other)
    if first is None or second is None or first.shape != second.shape or list(this["ids"]) != list(other["ids"]):
        return None
    value = float(first.mean() - second.mean())
    if all(((part == 0) | (part == 1)).all() for part in (first, second)):
        only_this, only_other = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
        return Difference(value, _newcombe(first, second), first.size, only_this, only_other)
    if first.size < 2:  # one item says nothing of how much others differ from it
        return None
    return Difference(value, bootstrap_mean(first - second), first.size)


def _newcombe(first: FloatArray, second: FloatArray) -> Interval:
    """Return the interval of a difference of paired proportions, from the Wilson intervals of both and their correlation.

    Source: Newcombe, Statistics in Medicine 17 (1998), 2635-2650, method 10. Unlike the bootstrap it has a width where
    few items differ.
    """
    n = first.size
    p, q = float(first.mean()), float(second.mean())
    (low_p, high_p), (low_q, high_q) = wilson(float(first.sum()), n), wilson(float(second.sum()), n)
    both, neither = float((first * second).sum()), float(((1 - first) * (1 - second)).sum())
    only_p, only_q = float((first * (1 - second)).sum()), float(((1 - first) * second).sum())
    margins = (both + only_p) * (only_q + neither) * (both + only_q) * (only_p + neither)
    product = both * neither - only_p * only_q
    if product > 0:  # continuity correction
        product = max(product - n / 2, 0.0)
    phi = product / math.sqrt(margins) if margins else 0.0

    def half(mine: float, others: float) -> float:
        return math.sqrt(max(0.0, mine**2 - 2 * phi * mine * others + others**2))

    value = p - q
    return Interval(max(-1.0, value - half(p - low_p, high_q - q)), min(1.0, value + half(high_p - p, q - low_q)))


def wrong_places(metric: str, outcomes: Mapping[str, Any]) -> list[int]:
    """Return the places of the items that a model gets wrong, or only in part; none where a score has no right and wrong."""
    if metric == "f1":
        return [
            place for place, (p, g) in enumerate(zip(outcomes["predicted"], outcomes["gold"], strict=True)) if p != g
        ]
    if metric == "perplexity" or "predicted" not in outcomes:
        return []
    parts = per_item(metric, outcomes)
    return [] if parts is None else [int(place) for place in np.flatnonzero(parts < 1)]
