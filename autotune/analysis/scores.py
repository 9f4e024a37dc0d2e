"""Scores: from the outcomes of items to a score with its interval, and to the numbers that a paired comparison needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.statistics import Interval, bootstrap, bootstrap_mean, wilson

Outcomes = Mapping[str, Any]
"""The outcomes that the score stage wrote: `predicted` and `gold`, `nll` and `tokens`, or `values`, in the items' order; or,
where a task's score is no mean, `score` with its `low` and `high`, and `parts`, see `per_item`."""

PARTS = 500
"""The most parts of a task's own aggregate: with more items, each part belongs to a group of items."""


def macro_f1(predicted: NDArray[np.intp], gold: NDArray[np.intp]) -> float:
    """Return the mean over the labels that occur in either of 2 TP / (2 TP + FP + FN); labels are numbers from 0."""
    count = int(max(predicted.max(), gold.max())) + 1
    hits = np.bincount(gold[predicted == gold], minlength=count)
    either = np.bincount(predicted, minlength=count) + np.bincount(gold, minlength=count)
    return float(np.mean(2 * hits[either > 0] / either[either > 0]))


def per_item(metric: str, outcomes: Outcomes) -> NDArray[np.float64] | None:
    """Return each item's part in the score [items]; None where there are no parts.

    The mean of the parts is the quantity by which candidates are ranked, so a paired test of the parts tests that quantity.
    A part is 0 or 1, or the value of a user's function. Perplexity is a ratio of sums: a part is the item's negative
    log-likelihood over the mean number of tokens, and the mean of the parts is the logarithm of perplexity. For macro F1 a part
    is the score plus the change that the item causes (the jackknife). For a score that a task aggregates in its own way the
    score stage wrote the parts. Source: Tukey, Ann. Math. Stat. 29 (1958), 614.
    """
    if "values" in outcomes:
        return np.array(outcomes["values"], dtype=np.float64)
    if metric in ("choice", "exact_match", "f1_micro"):  # where each item has one label, micro F1 is the share of hits
        pairs = zip(outcomes["predicted"], outcomes["gold"], strict=True)
        return np.array([float(p == g) for p, g in pairs])
    if metric == "f1":
        return f1_parts(np.array(outcomes["predicted"], np.intp), np.array(outcomes["gold"], np.intp))
    if metric == "perplexity":
        nll, tokens = np.array(outcomes["nll"], np.float64), np.array(outcomes["tokens"], np.float64)
        if nll.shape != tokens.shape or not (tokens > 0).all():
            raise ValueError("every item must have a likelihood and at least one token")
        # Not the residuals from the ratio: they are too small where few items have most tokens, and equals would differ.
        return np.asarray(nll / tokens.mean(), dtype=np.float64)
    if "parts" in outcomes:
        return np.array(outcomes["parts"], dtype=np.float64)
    return None


def f1_parts(predicted: NDArray[np.intp], gold: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return each item's part in macro F1 [items], see `per_item`; labels are numbers from 0.

    By the jackknife: the score with and without the item, as a mean over the labels that occur, where a label's F1 is
    2 TP / (P + G), with P predicted and G right items.
    """
    if predicted.shape != gold.shape or not predicted.size:
        raise ValueError("every item must have a predicted and a right label")
    count = int(max(predicted.max(), gold.max())) + 1
    hit = predicted == gold
    twice = 2.0 * np.bincount(gold[hit], minlength=count)
    either = np.bincount(predicted, minlength=count) + np.bincount(gold, minlength=count)

    def ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.divide(above, below, out=np.zeros(count), where=below > 0))

    each = ratio(twice, either)
    once, both = each - ratio(twice, either - 1), each - ratio(twice - 2, either - 2)
    moved = np.where(hit, both[gold], once[gold] + once[predicted]) / np.count_nonzero(either)
    parts = (gold.size - 1) * moved
    return np.asarray(each[either > 0].mean() + parts - parts.mean(), dtype=np.float64)


def probability(outcomes: Outcomes) -> float | None:
    """Return the mean probability of the right label, or None where the metric does not choose among labels."""
    if "loss" not in outcomes or not outcomes["loss"]:
        return None
    return float(np.exp(-np.array(outcomes["loss"], dtype=np.float64)).mean())


def summarise(metric: str, outcomes: Outcomes, resamples: int = 2000) -> tuple[float, Interval | None, int]:
    """Return (value, 95 % interval, items): Wilson for proportions, the percentile bootstrap otherwise.

    One item says nothing of how much others differ from it: but for a proportion there is no interval then.
    Perplexity is infinite where it is beyond what a float holds, or a likelihood is not a number.
    """
    shares = None if metric in ("perplexity", "f1") or "score" in outcomes else per_item(metric, outcomes)
    if shares is not None:
        n = len(shares)
        # An interval of width 0, which the bootstrap gives where all are right, would claim too much.
        proportion = bool(((shares == 0) | (shares == 1)).all())
        if proportion:
            return float(shares.mean()), wilson(float(shares.sum()), n), n
        return float(shares.mean()), bootstrap_mean(shares, resamples=resamples) if n > 1 else None, n
    if metric == "f1":
        predicted, gold = np.array(outcomes["predicted"], np.intp), np.array(outcomes["gold"], np.intp)
        value = macro_f1(predicted, gold)
        each = bootstrap(len(gold), lambda i: macro_f1(predicted[i], gold[i]), resamples=resamples)
        return value, each if len(gold) > 1 else None, len(gold)
    if "score" in outcomes:
        return outcomes["score"], Interval(outcomes["low"], outcomes["high"]), len(outcomes["ids"])
    nll, tokens = np.array(outcomes["nll"], dtype=np.float64), np.array(outcomes["tokens"])
    mean = float(nll.sum() / tokens.sum())
    if not math.isfinite(mean):
        return math.inf, Interval(math.inf, math.inf), len(nll)
    if len(nll) < 2:
        return _exp(mean), None, len(nll)
    # In nats first: exp keeps the order of the resamples, and may overflow.
    low, high = bootstrap(len(nll), lambda i: float(nll[i].sum() / tokens[i].sum()), resamples=resamples)
    return _exp(mean), Interval(_exp(low), _exp(high)), len(nll)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
