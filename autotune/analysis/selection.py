"""Which candidate wins: the cheapest of those that the data cannot tell from the best.

One idea: an objective does not rank candidates, it only drops those that are worse beyond the noise. The next objective
decides among those that are left.

The error rate of the whole choice is bounded, not that of each objective: among equal candidates the probability that any
objective calls one of them worse is at most `alpha`. Each objective whose numbers have noise gets an equal share of `alpha`
(Bonferroni). Less strict procedures are not valid here. They test in a fixed order, or pass a share on (Maurer, Hothorn and
Lehmacher, Biometrie in der chemisch-pharmazeutischen Industrie 6 (1995), 3-18; Bretz, Maurer, Brannath and Posch, Stat.
Med. 28 (2009), 586-604): a rejection frees its share for the next hypothesis. Here the next objective is tested because
candidates tied, which frees no share. For independent noise the exact shares (Sidak) are hardly larger: 2.53 % instead of
2.5 % where two objectives have noise.

Within an objective the test covers all pairs of a family, because the data choose the leader. The family are the candidates
that are still left. Where an earlier objective came from the same measurement (two latencies of one timing), it is the
family of that objective, because the same noise has decided who is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.latency import Turns
from autotune.analysis.limits import Limit
from autotune.analysis.multiple_comparisons import against_leader, paired_family
from autotune.analysis.statistics import Interval, interval_p, two_proportion_p, welch_p
from autotune.metrics import METRICS, Direction

Misses = tuple[tuple[Limit, float], ...]  # each limit that is broken, and by how much, in the metric's unit

_PROPORTIONS = ("accuracy", "exact_match", "f1_micro")
_LOGARITHMIC = ("perplexity",)  # intervals that are symmetric as logarithms
_EXACT = ("size_mb",)  # what has no noise: any difference counts
_PROCESSES = 5  # of a timing, where a row has no count
_ITEMS = 100  # behind a score, where a row has no count
_INEXACT = 1.5
"""Factor on p-values of paired outcomes other than 0 and 1. The sign-flip test is exact where a candidate's outcomes can be
exchangeable item by item; for skewed means, or parts of macro F1 with a rare label, only nearly (`benchmarks/honesty.py`)."""
_NEAREST = 3


@dataclass(frozen=True, eq=False)
class Entry:
    """The measurements of one candidate; a metric that was not measured is absent.

    `outcomes` holds a score's part of every item (`scores.per_item`), the same items in the same order for all entries;
    their mean is what the metric ranks by (0/1 for accuracy, parts of the logarithm of perplexity, of macro F1). A score
    without them is compared by its interval. `counts`: the items behind a score, the processes behind a timing.
    """

    id: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    graph: str | None = None
    """The graph, and the session that serves it: candidates with both alike share one timing."""


@dataclass(frozen=True)
class Step:
    """The decision of one objective among the candidates that are still left.

    `tied` are the others that stay with the leader, best first; `beaten` those that leave, each with its
    adjusted p-value, or None where no test was made. `method` names the comparisons, joined by "+": paired, unpaired,
    intervals, in turns, timing (same graph, noise floor or intervals over processes), exact (no noise), face value (noise
    of an unknown size: any difference counts, and no error rate is promised); empty where the leader was alone. `alpha`
    is the objective's share of the error rate.
    """

    metric: str
    leader: str
    tied: tuple[str, ...]
    beaten: Mapping[str, float | None]
    method: str
    alpha: float = 0.0


@dataclass(frozen=True)
class Choice:
    """The winner, and the steps that chose it; `leader` is the best on the first objective.

    `feasible`: the candidates that keep all limits, best first by point estimates. `uncertain`: the limits whose threshold
    lies inside the winner's interval. `nearest`: where no candidate is feasible, those that miss least, each with the limits
    that it misses and by how much. `paired`: whether any comparison was on the same items.
    """

    winner: Entry | None
    leader: Entry | None
    steps: tuple[Step, ...]
    uncertain: tuple[Limit, ...]
    feasible: tuple[str, ...]
    nearest: tuple[tuple[str, Misses], ...]
    paired: bool


def choose(
    entries: Sequence[Entry],
    objectives: Mapping[str, Direction],
    limits: Sequence[Limit],
    base: Entry | None,
    alpha: float = 0.05,
    turns: Turns | None = None,
) -> Choice:
    """Return the winner among the entries; their order does not matter.

    `alpha` is the error rate of the whole choice: over all objectives and all pairs. `turns` holds the latencies of
    finalists relative to each other, and the noise floor: two latencies tie that differ by at most this share of the
    better one. Limits are judged on the measured values of each entry, not on ratios. `base` is the untouched model at
    fp32, for limits that refer to it. Raises ValueError without objectives, or for two entries with one id.
    """
    if not objectives:
        raise ValueError("at least one objective must be given")
    if len({entry.id for entry in entries}) != len(entries):
        raise ValueError("entries must have different ids")
    gaps = {entry.id: _gaps(entry, limits, base) for entry in entries}
    feasible = [
        entry
        for entry in entries
        if all(gap is not None and gap <= 0 for gap in gaps[entry.id])
        and all(_value(entry, metric) is not None for metric in objectives)
    ]
    if not feasible:
        return Choice(None, None, (), (), (), _nearest(entries, limits, gaps, base), False)

    feasible = _in_relation(feasible, objectives, turns)
    # Best first, by the point estimates of the objectives in their order, then by id.
    feasible.sort(key=lambda entry: ([_loss(entry, *objective) for objective in objectives.items()], entry.id))
    winner, steps = _compared(feasible, objectives, alpha, turns)
    return Choice(
        winner=winner,
        leader=feasible[0],
        steps=steps,
        uncertain=tuple(
            limit
            for limit in limits
            if limit.metric in winner.intervals
            and limit.uncertain(winner.intervals[limit.metric], _base_value(base, limit))
        ),
        feasible=tuple(entry.id for entry in feasible),
        nearest=(),
        paired=any("paired" in step.method.split("+") for step in steps),
    )


def _compared(
    feasible: Sequence[Entry], objectives: Mapping[str, Direction], alpha: float, turns: Turns | None
) -> tuple[Entry, tuple[Step, ...]]:
    """Return the winner of the feasible entries, best first, and the step of each objective that it took."""
    left = list(feasible)
    steps: list[Step] = []
    noisy = [metric for metric in objectives if _has_noise(metric, feasible, turns)]
    families: dict[bool, list[Entry]] = {}
    for metric, direction in objectives.items():
        # `sorted` is stable: entries with equal values stay best first.
        ordered = sorted(left, key=lambda entry: _loss(entry, metric, direction))
        family = families.setdefault(_is_timed(metric), left) if metric in noisy else left
        step = _step(metric, ordered, family, alpha / max(1, len(noisy)), turns)
        steps.append(step)
        left = [entry for entry in left if entry.id not in step.beaten]
        if len(left) == 1:
            break
    return left[0], tuple(steps)


def _value(entry: Entry, metric: str) -> float | None:
    value = entry.values.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _loss(entry: Entry, metric: str, direction: Direction) -> float:
    return -entry.values[metric] if direction == "maximize" else entry.values[metric]


def _base_value(base: Entry | None, limit: Limit) -> float | None:
    return None if base is None else _value(base, limit.metric)


def _gaps(entry: Entry, limits: Sequence[Limit], base: Entry | None) -> list[float | None]:
    return [limit.gap(_value(entry, limit.metric), _base_value(base, limit)) for limit in limits]


def _is_latency(metric: str) -> bool:
    return metric in METRICS and METRICS[metric].kind == "latency"


def _is_timed(metric: str) -> bool:
    """Whether a metric belongs to the graph and comes from the processes of a timing. An unknown metric is a score."""
    return metric in METRICS and METRICS[metric].kind != "score" and metric not in _EXACT


def _has_noise(metric: str, entries: Sequence[Entry], turns: Turns | None) -> bool:
    """Whether a test of this metric could err: not where it is exact, of unknown noise, or one number for all."""
    if metric in _EXACT or len(entries) < 2:
        return False
    if not _is_timed(metric):
        return any(metric in known for e in entries for known in (e.outcomes, e.intervals, e.counts))
    return len({_place(metric, e) for e in entries}) > 1 and (
        any(metric in entry.intervals for entry in entries) or (turns is not None and metric in turns.again)
    )


def _place(metric: str, entry: Entry) -> str:
    """Return the owner of an entry's number: the graph for a timed metric, else the candidate."""
    return (entry.graph or entry.id) if _is_timed(metric) else entry.id


def _in_relation(entries: Sequence[Entry], metrics: Iterable[str], turns: Turns | None) -> list[Entry]:
    """Return the entries; the latency of a graph that was timed in turns becomes its ratio to the anchor, times the
    anchor's.
    """
    anchor = next((e for e in entries if turns is not None and e.graph == turns.anchor), None)
    if turns is None or anchor is None:
        return list(entries)
    latencies = [metric for metric in metrics if _is_latency(metric)]
    known: dict[str | None, dict[str, float]] = {}
    for graph in {entry.graph for entry in entries}:
        ratios = {metric: turns.ratio(metric, graph or "", turns.anchor) for metric in latencies}
        known[graph] = {
            metric: ratio.value * anchor.values[metric] for metric, ratio in ratios.items() if ratio is not None
        }
    return [
        replace(entry, values={**entry.values, **known[entry.graph]}) if known[entry.graph] else entry
        for entry in entries
    ]


def _step(metric: str, entries: Sequence[Entry], family: Sequence[Entry], alpha: float, turns: Turns | None) -> Step:
    """Compare all entries with the first, which is the best of them on this metric. `family`: the test covers all its pairs."""
    leader, *others = entries
    beaten: dict[str, float | None] = {}
    methods: set[str] = set()
    adjusted = _paired(metric, leader, family, entries, alpha) if others and not _is_timed(metric) else None
    if adjusted is not None:
        methods.add("paired")
    else:
        p_values: dict[str, float] = {}
        for other in others:
            method, verdict = _compare(metric, leader, other, turns)
            methods.add(method)
            if isinstance(verdict, bool):
                beaten |= {other.id: None} if verdict else {}
            else:  # a graph is compared once, however many candidates share it
                place = _place(metric, other)
                p_values[place] = max(verdict, p_values.get(place, 0.0))
        more = len({_place(metric, e) for e in family} - {*p_values, _place(metric, leader)})
        found = against_leader(p_values, more)
        adjusted = {other.id: found.get(_place(metric, other), 1.0) for other in others}
    for other in others:
        if adjusted[other.id] <= alpha and other.values[metric] != leader.values[metric]:
            beaten.setdefault(other.id, adjusted[other.id])
    tied = tuple(other.id for other in others if other.id not in beaten)
    ordered = {other.id: beaten[other.id] for other in others if other.id in beaten}
    return Step(metric, leader.id, tied, ordered, "+".join(sorted(methods)), alpha)


def _paired(
    metric: str, leader: Entry, family: Sequence[Entry], entries: Sequence[Entry], alpha: float
) -> dict[str, float] | None:
    """Return the entries' adjusted p-values where the whole family has outcomes of the same items; else None."""
    rows = [entry.outcomes[metric] for entry in family if metric in entry.outcomes]
    if len(rows) < len(family) or any(len(row) != len(rows[0]) for row in rows):
        return None
    first = next(place for place, entry in enumerate(family) if entry.id == leader.id)
    among = {entry.id for entry in entries}
    data, values = np.array(rows, dtype=np.float64), np.array([entry.values[metric] for entry in family])
    # Where outcomes and score disagree on who is better, the outcomes prove nothing.
    means = data.mean(axis=1)
    agrees = (means[first] - means) * (values[first] - values) >= 0
    compared = agrees & np.array([entry.id in among for entry in family])
    wider = 1.0 if ((data == 0) | (data == 1)).all() else _INEXACT
    p = np.minimum(1.0, wider * paired_family(data, first, alpha / wider, compared))
    return {entry.id: float(each) for entry, each in zip(family, p, strict=True)}


def _compare(metric: str, leader: Entry, other: Entry, turns: Turns | None) -> tuple[str, float | bool]:
    """Return the method of comparison, and a p-value or, without a test, whether `other` is beaten."""
    best, value = leader.values[metric], other.values[metric]
    known = metric in leader.intervals and metric in other.intervals
    if metric in _EXACT:
        return "exact", value != best
    if not _is_timed(metric):
        paired = _paired(metric, leader, (leader, other), (leader, other), 0.0)
        if paired is not None:
            return "paired", paired[other.id]
        if metric in _PROPORTIONS and metric in leader.counts and metric in other.counts:
            return "unpaired", two_proportion_p(best, leader.counts[metric], value, other.counts[metric])
        return ("intervals", _by_intervals(metric, leader, other)) if known else ("face value", value != best)
    if leader.graph is not None and leader.graph == other.graph:
        return "timing", 1.0
    alike = (
        _is_latency(metric)
        and turns is not None
        and abs(value - best) <= turns.noise_floor(metric) * abs(best) * (1 + 1e-12)
    )
    ratio = turns.ratio(metric, other.graph or "", leader.graph or "") if turns is not None else None
    if ratio is not None:
        return "in turns", 1.0 if alike else ratio.p
    if alike:
        return "timing", 1.0
    if not known:
        return "face value", value != best
    return "timing", welch_p(value - best, *_half(metric, leader), *_half(metric, other))


def _half(metric: str, entry: Entry) -> tuple[float, int]:
    """Return half the width of a timing's interval, and the number of processes behind it."""
    low, high = entry.intervals[metric]
    half = (high - low) / 2
    # An interval that would reach below 0 was cut there. A latency from ratios of turns may lie outside its interval.
    return half if low > 0 else max(half, high - entry.values[metric]), max(2, entry.counts.get(metric, _PROCESSES))


def _by_intervals(metric: str, leader: Entry, other: Entry) -> float:
    """Return the p-value of two scores by the ends of their intervals that face each other."""
    points = [(e.intervals[metric].low, e.values[metric], e.intervals[metric].high) for e in (leader, other)]
    if metric in _LOGARITHMIC:
        points = [(_log(low), _log(value), _log(high)) for low, value, high in points]
    (low, best, high), (other_low, value, other_high) = points
    sides = (best - low, other_high - value) if best > value else (high - best, value - other_low)
    n = min(entry.counts.get(metric, _ITEMS) for entry in (leader, other))
    return interval_p(best - value, max(0.0, sides[0]), max(0.0, sides[1]), n)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _nearest(
    entries: Sequence[Entry],
    limits: Sequence[Limit],
    gaps: Mapping[str, Sequence[float | None]],
    base: Entry | None,
) -> tuple[tuple[str, Misses], ...]:
    """Return the candidates that miss least, by the worst miss relative to its threshold; those that lack a number last."""
    ranked: list[tuple[bool, float, str, Misses]] = []
    for entry in entries:
        own = gaps[entry.id]
        misses: Misses = tuple(
            (limit, gap) for limit, gap in zip(limits, own, strict=True) if gap is not None and gap > 0
        )
        if misses:
            worst = max(
                # Relative to a threshold of 0 any miss would be infinite: it counts as 1.
                gap / (abs(limit.threshold(_base_value(base, limit)) or 0.0) or gap)
                for limit, gap in misses
            )
            ranked.append((None in own, worst, entry.id, misses))
    ranked.sort(key=lambda row: row[:3])
    return tuple((name, misses) for _, _, name, misses in ranked[:_NEAREST])
