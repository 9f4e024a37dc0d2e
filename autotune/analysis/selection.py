"""Which candidate wins: the cheapest of those that the data cannot tell from the best.

One idea: an objective does not rank candidates, it only drops those that are worse beyond the noise; what it
cannot tell apart is left to the next objective.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from autotune.analysis.latency import Turns
from autotune.analysis.limits import Limit
from autotune.analysis.statistics import Interval, against_leader, paired_p, two_proportion_p
from autotune.metrics import METRICS, Direction

Misses = tuple[tuple[Limit, float], ...]  # each limit that is broken, and by how much of its unit

_PROPORTIONS = ("accuracy", "exact_match", "f1_micro")
_NEAREST = 3


@dataclass(frozen=True, eq=False)
class Entry:
    """One candidate as measured; what was not measured is absent.

    `outcomes` holds a score's outcome of every item, the same items in the same order for all entries. Their
    mean must be what the metric compares (0/1 for accuracy, negative log-likelihood for perplexity); a metric
    that is no mean over items is left out, and compared by its intervals.
    """

    id: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    graph: str | None = None
    """What its timing belongs to: the graph, and the session that serves it."""


@dataclass(frozen=True)
class Step:
    """What one objective decided among those still in the running.

    `tied` are the others that go on with the leader, best first; `beaten` those that leave, each with its
    adjusted p-value, or None where no test was made. `method` names how they were compared, joined by "+" where
    in more ways than one: paired, unpaired, intervals, in turns, timing (same graph, noise floor or intervals), exact;
    empty where the leader was alone.
    """

    metric: str
    leader: str
    tied: tuple[str, ...]
    beaten: Mapping[str, float | None]
    method: str


@dataclass(frozen=True)
class Choice:
    """The winner and how it came about; `leader` is the best on the first objective.

    `feasible` is best first by point estimates. `uncertain` are the limits whose threshold lies inside the
    winner's interval. `nearest`, only where nothing is feasible: who misses least, each limit that it misses,
    and by how much. `paired`: whether any comparison was on the same items.
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

    `alpha` is the error rate over all pairs of one step together, for a leader chosen by the data. `turns` says how
    finalists' latencies relate to each other, and the noise floor: two latencies that differ by no larger a share of
    the better one are the same. Limits refer to what each entry was measured at. `base` is the untouched model at fp32,
    for limits that name it.
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
    left = feasible
    steps: list[Step] = []
    for metric, direction in objectives.items():
        # `sorted` is stable: entries with equal values stay best first.
        ordered = sorted(left, key=lambda entry: _loss(entry, metric, direction))
        step = _step(metric, ordered, alpha, turns)
        steps.append(step)
        left = [entry for entry in left if entry.id not in step.beaten]
        if len(left) == 1:
            break
    winner = left[0]
    return Choice(
        winner=winner,
        leader=feasible[0],
        steps=tuple(steps),
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


def _in_relation(entries: Sequence[Entry], metrics: Iterable[str], turns: Turns | None) -> list[Entry]:
    """Return the entries, the latencies of those that were timed in turns by their ratio to the anchor's."""
    anchor = next((e for e in entries if turns is not None and e.graph == turns.anchor), None)
    if turns is None or anchor is None:
        return list(entries)
    related = []
    for entry in entries:
        values = dict(entry.values)
        for metric in filter(_is_latency, metrics):
            ratio = turns.ratio(metric, entry.graph or "", turns.anchor)
            if ratio is not None:
                values[metric] = ratio.value * anchor.values[metric]
        related.append(replace(entry, values=values))
    return related


def _step(metric: str, entries: Sequence[Entry], alpha: float, turns: Turns | None) -> Step:
    """Compare all entries with the first, which is the best of them on this metric."""
    leader, *others = entries
    p_values: dict[str, float] = {}
    beaten: dict[str, float | None] = {}
    methods: set[str] = set()
    # What belongs to the graph is one comparison, however many candidates share it.
    family = {e.id: (e.graph or e.id) if _is_latency(metric) else e.id for e in entries}
    pairs = math.comb(len(set(family.values())), 2) or 1
    for other in others:
        method, verdict = _compare(metric, leader, other, turns, alpha / pairs)
        methods.add(method)
        if isinstance(verdict, float):
            p_values[family[other.id]] = verdict
        elif verdict:
            beaten[other.id] = None
    adjusted = against_leader(p_values)
    for other in others:
        p = adjusted.get(family[other.id], 1.0)
        if p <= alpha and other.values[metric] != leader.values[metric]:
            beaten[other.id] = p
    tied = tuple(other.id for other in others if other.id not in beaten)
    ordered = {other.id: beaten[other.id] for other in others if other.id in beaten}
    return Step(metric, leader.id, tied, ordered, "+".join(sorted(methods)))


def _compare(
    metric: str, leader: Entry, other: Entry, turns: Turns | None, smallest: float
) -> tuple[str, float | bool]:
    """Return how the two were compared, and a p-value, or else whether `other` is beaten.

    `smallest`: the p-value that the family's first step asks for.
    """
    best, value = leader.values[metric], other.values[metric]
    # Metrics that are not ours are scores: a task of lm-eval, or a function of the user's.
    kind = METRICS[metric].kind if metric in METRICS else "score"
    if kind == "score":
        if metric in leader.outcomes and metric in other.outcomes:
            return "paired", paired_p(leader.outcomes[metric], other.outcomes[metric], smallest)
        if metric in _PROPORTIONS and metric in leader.counts and metric in other.counts:
            return "unpaired", two_proportion_p(best, leader.counts[metric], value, other.counts[metric])
        if metric in leader.intervals and metric in other.intervals:
            return "intervals", not _overlap(leader.intervals[metric], other.intervals[metric])
    elif kind == "latency":
        if leader.graph is not None and leader.graph == other.graph:
            return "timing", False
        alike = turns is not None and abs(value - best) <= turns.noise_floor(metric) * abs(best) * (1 + 1e-12)
        ratio = turns.ratio(metric, other.graph or "", leader.graph or "") if turns is not None else None
        if ratio is not None:
            return "in turns", 1.0 if alike else ratio.p
        known = metric in leader.intervals and metric in other.intervals
        return "timing", not (alike or (known and _overlap(leader.intervals[metric], other.intervals[metric])))
    return "exact", value != best


def _overlap(a: Interval, b: Interval) -> bool:
    return a.low <= b.high and b.low <= a.high


def _nearest(
    entries: Sequence[Entry],
    limits: Sequence[Limit],
    gaps: Mapping[str, Sequence[float | None]],
    base: Entry | None,
) -> tuple[tuple[str, Misses], ...]:
    """Return who misses least, by the worst miss relative to its threshold; those that lack a number last."""
    ranked: list[tuple[bool, float, str, Misses]] = []
    for entry in entries:
        own = gaps[entry.id]
        misses: Misses = tuple(
            (limit, gap) for limit, gap in zip(limits, own, strict=True) if gap is not None and gap > 0
        )
        if misses:
            worst = max(
                # Relative to a threshold of 0 any miss would be endless: it counts as whole.
                gap / (abs(limit.threshold(_base_value(base, limit)) or 0.0) or gap)
                for limit, gap in misses
            )
            ranked.append((None in own, worst, entry.id, misses))
    ranked.sort(key=lambda row: row[:3])
    return tuple((name, misses) for _, _, name, misses in ranked[:_NEAREST])
