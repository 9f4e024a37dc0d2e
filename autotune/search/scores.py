"""From the outcomes of items to a score with its interval, and to the numbers that a paired comparison needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.search.statistics import Interval, bootstrap, wilson

Outcomes = Mapping[str, Any]
"""What the score stage wrote: `predicted` and `gold`, or `nll` and `tokens`, in the items' order."""


def macro_f1(predicted: NDArray[Any], gold: NDArray[Any]) -> float:
    """Return the mean over the labels that occur in either of 2 TP / (2 TP + FP + FN)."""
    values = []
    for label in np.union1d(predicted, gold):
        hit = np.sum((predicted == label) & (gold == label))
        values.append(2 * hit / (np.sum(predicted == label) + np.sum(gold == label)))
    return float(np.mean(values))


def per_item(metric: str, outcomes: Outcomes) -> NDArray[np.float64] | None:
    """Return each item's share in the metric (0/1, or nats a token), or None where it is no mean over items."""
    if metric in ("choice", "exact_match"):
        pairs = zip(outcomes["predicted"], outcomes["gold"], strict=True)
        return np.array([float(p == g) for p, g in pairs])
    if metric == "perplexity":
        return np.asarray(np.array(outcomes["nll"]) / np.array(outcomes["tokens"]), dtype=np.float64)
    return None


def summarise(metric: str, outcomes: Outcomes, resamples: int = 2000) -> tuple[float, Interval, int]:
    """Return (value, 95 % interval, items): Wilson for proportions, the percentile bootstrap otherwise."""
    if metric in ("choice", "exact_match"):
        hits = per_item(metric, outcomes)
        assert hits is not None
        return float(hits.mean()), wilson(float(hits.sum()), len(hits)), len(hits)
    if metric == "f1":
        predicted, gold = np.array(outcomes["predicted"]), np.array(outcomes["gold"])
        value = macro_f1(predicted, gold)
        interval = bootstrap(len(gold), lambda i: macro_f1(predicted[i], gold[i]), resamples=resamples)
        return value, interval, len(gold)
    nll, tokens = np.array(outcomes["nll"]), np.array(outcomes["tokens"])
    interval = bootstrap(len(nll), lambda i: float(np.exp(nll[i].sum() / tokens[i].sum())), resamples=resamples)
    return float(np.exp(nll.sum() / tokens.sum())), interval, len(nll)
