"""Any strategy against an oracle table, on simulated time.

`World` answers proposals as the stages would: it charges the seconds of a stage, remembers what the cache would hold, and
shows the results that a sweep would get. Every seed is another sweep: another draw of the validation items (with replacement:
they are a sample of a population whose truth is known), another draw of timings from the raw samples, and other training seeds
(`table.drawn`).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.limits import Limit, parse_limit
from autotune.analysis.pareto import front, hypervolume
from autotune.analysis.selection import Choice, Entry, choose
from autotune.analysis.statistics import Interval, wilson
from autotune.candidate import Candidate
from autotune.pipeline.measure import LOOKS
from autotune.strategies.protocol import LEAST_ITEMS, Outcomes, Proposal, Strategy, Told
from benchmarks.search.table import OBJECTIVES, Seen, Table

PROCESSES = 5
"""Processes of a timing at least; on a noisy machine it takes as many as the table has. A user's own loop makes one."""
DIRECTIONS = list(OBJECTIVES.values())
AIM = 0.95
"""The share of the oracle's hypervolume that the headline is about."""
PICKED = (3.0, 10.0)
"""When picks are judged, in times of what a clairvoyant needs to `AIM`. In the end everything was measured, and no pick can be
worse than noise."""

Pair = tuple[int | None, int]
"""Adapter (None: the untouched model) and recipe, by their numbers."""


@dataclass(frozen=True)
class Conditions:
    """What differs between two replays of one strategy."""

    seed: int = 0
    cache: bool = True
    """False: no proposal shares anything with another, nor with itself when it is repeated."""
    training: float = 1.0
    """How many times as long training takes."""
    items: int | None = None
    """Validation items that a sweep has; None: as many as the table."""
    timing_shared: bool = True
    """False: every pair is timed, though adapters do not change a graph."""
    first_looks: bool = True
    """False: also a strategy that takes candidates up in parts measures the untouched model first, and times precisely."""
    tool: bool = True
    """Whether our tool runs the strategy: it measures the untouched model first, compares every build with its source,
    times in several processes, and scores blocks of items. False: a user's own loop, which does none of it.
    """


@dataclass
class Done:
    """A candidate that was fully measured."""

    values: tuple[float, ...]
    right: NDArray[np.float64]
    at_s: float
    training_s: float = 0.0
    """What was spent on training until then."""


class Stage(NamedTuple):
    """A stage of a proposal that can begin."""

    name: str
    seconds: float


class Wait(NamedTuple):
    """A proposal goes on when another has made this."""

    key: Key


Key = tuple[Any, ...]
"""What a stage makes."""
Result = TypeVar("Result")
Steps = Generator[Stage | Wait, None, Result]
Measured = tuple[dict[str, float], Outcomes | None]
"""What was measured of a proposal by its metric's name, and the outcomes of its items."""


def _run(steps: Steps[Result], seconds: dict[str, float]) -> tuple[Result, dict[str, float]]:
    """Do stages one after another, and add up what they take."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value, seconds
        assert isinstance(step, Stage)  # nothing else is at work
        seconds[step.name] = seconds.get(step.name, 0.0) + step.seconds


class World:
    """The stages, the cache and the clock of one simulated sweep."""

    def __init__(self, table: Table, conditions: Conditions) -> None:
        self.table, self.conditions = table, conditions
        self.clock = 0.0
        self.spent: Counter[str] = Counter()
        """Seconds by stage."""
        self.done: dict[Pair, Done] = {}
        """What was fully measured, in its order."""
        self._rng = np.random.default_rng([conditions.seed, 1])
        self.items = conditions.items or table.items
        self._order = self._rng.integers(0, table.items, self.items)
        """The validation items of this sweep, in its order."""
        self._seed = [
            int(self._rng.choice(seeds)) if seeds else table.ended[adapter].seed
            for adapter, seeds in enumerate(table.seeds)
        ]
        self._started = False
        self.times_first = False
        """Whether a timing is of as few processes as possible, and more for the front in the end, which no replay reaches."""
        self.workers = 1
        self._reached: dict[int, int] = {}
        self._merged: list[tuple[int, int]] = []
        """The adapters, and their rungs, of the merged models that are there: the last one of each worker."""
        self.making: set[Key] = set()
        """What a stage is making now; others that need it wait."""
        self._built: set[Pair] = set()
        self._timed: dict[str, float] = {}
        """By graph what was measured of it."""
        self._timed_pairs: set[Pair] = set()
        self._scored: dict[tuple[Any, ...], int] = {}

    def measure(self, proposal: Proposal) -> Told:
        """Do what a proposal asks for, one stage after another. Raises ValueError where the table, or the tool, could not."""
        seconds: dict[str, float] = {}
        steps = self.steps(proposal)
        if not self._started:
            self._started = True
            seconds["start"] = self.table.costs.start_s
        seen, _ = _run(steps, seconds)
        self.spent.update(seconds)
        self.clock += sum(seconds.values())
        return self.told(proposal, seen, seconds)

    def steps(self, proposal: Proposal) -> Steps[Measured]:
        """Yield the stages of a proposal, each when those before it have ended; `told` takes what is returned. Raises
        ValueError where the table, or the tool, could not do it.
        """
        adapter, recipe = self._place(proposal.candidate)
        rung = self._rung(proposal.rung)
        last = len(self.table.rungs) - 1
        if recipe is not None and adapter is not None and rung < last:
            raise ValueError("a recipe is built at rung 1 only")
        items = self._items_of(proposal)
        if not self.conditions.cache:
            self._forget()
        return self._steps(adapter, recipe, rung, items)

    def _steps(self, adapter: int | None, recipe: int | None, rung: int, items: int) -> Steps[Measured]:
        measured: dict[str, float] = {}
        outcomes = None
        if adapter is None or (yield from self._train(adapter, rung)):
            if recipe is not None:
                yield from self._build(adapter, recipe)
                # Beside others, what may run beside them goes first, so that more timings come together.
                if self.workers == 1:
                    measured["itl_ms_p50"] = yield from self._time(adapter, recipe)
                measured["size_mb"] = float(self.table.size_mb[recipe])
            if items:
                outcomes = yield from self._score(adapter, rung, recipe, items)
                measured["accuracy"] = float(outcomes.right.mean())
            if recipe is not None and self.workers > 1:
                measured["itl_ms_p50"] = yield from self._time(adapter, recipe)
        return measured, outcomes

    def told(self, proposal: Proposal, seen: Measured, seconds: dict[str, float]) -> Told:
        """Return what a strategy is told, now, of a proposal whose stages have ended."""
        measured, outcomes = seen
        adapter, recipe = self._place(proposal.candidate)
        values = None
        if recipe is not None and outcomes is not None and len(outcomes.right) == self.items:
            values = tuple(measured[name] for name in OBJECTIVES)
            self.done.setdefault((adapter, recipe), Done(values, outcomes.right, self.clock, self.spent["train"]))
        items = len(outcomes.right) if outcomes is not None else 0
        probability = None if outcomes is None or outcomes.loss is None else float(np.exp(-outcomes.loss).mean())
        status = "diverged" if adapter is not None and not measured else "ok"
        return Told(values, {}, measured, outcomes, seconds, proposal.rung, items, status, probability)

    def measure_untouched(self, whole: bool = True) -> tuple[Candidate, Told]:
        """Measure the untouched model, as every sweep of the tool does first; not `whole`: only look at it, as a sweep does
        whose strategy takes candidates up in parts. It is no candidate.
        """
        candidate = Candidate(recipe=self.table.recipes[0])
        if whole:
            told = self.measure(Proposal(candidate))
            del self.done[None, 0]
            return candidate, told
        seconds = {"start": self.table.costs.start_s}
        self._started = True
        _run(self._build(None, 0), seconds)
        least = max(LEAST_ITEMS, math.ceil(LOOKS[0] * self.items))
        items = self._items_of(Proposal(candidate, items=min(least, self.items)))
        outcomes, _ = _run(self._score(None, 0, 0, items), seconds)
        measured = {"accuracy": float(outcomes.right.mean()), "size_mb": float(self.table.size_mb[0])}
        self.spent.update(seconds)
        self.clock += sum(seconds.values())
        return candidate, Told(None, {}, measured, outcomes, seconds, 1.0, len(outcomes.right), "stopped")

    def _items_of(self, proposal: Proposal) -> int:
        """Return how many items are scored: the tool scores up to the next end of a block."""
        asked = self.items if proposal.items is None else proposal.items
        if not 0 <= asked <= self.items:
            raise ValueError(f"items must be 0 to {self.items}, but got {asked}")
        if not asked or not self.conditions.tool:
            return asked
        return next(end for end in (math.ceil(share * self.items) for share in LOOKS) if end >= asked)

    def _place(self, candidate: Candidate) -> tuple[int | None, int | None]:
        try:
            return self.table.place(candidate)
        except KeyError:
            raise ValueError(f"the table has no such candidate: {candidate}") from None

    def _rung(self, share: float) -> int:
        near = [number for number, rung in enumerate(self.table.rungs) if abs(rung - share) < 1e-3]
        if not near:
            raise ValueError(f"the table has the rungs {self.table.rungs}, but got {share}")
        return near[0]

    def _forget(self) -> None:
        self._reached.clear()
        self._built.clear()
        self._timed.clear()
        self._timed_pairs.clear()
        self._scored.clear()
        self._merged.clear()

    def _make(self, key: Key, stage: str, seconds: float) -> Steps[None]:
        """Do a stage, for which others that need what it makes wait."""
        self.making.add(key)
        yield Stage(stage, seconds)
        self.making.discard(key)

    def _until_made(self, key: Key) -> Steps[bool]:
        """Wait while another proposal makes it. Returns whether that was so."""
        waited = key in self.making and self.conditions.cache
        while key in self.making and self.conditions.cache:
            yield Wait(key)
        return waited

    def _train(self, adapter: int, rung: int) -> Steps[bool]:
        """Train to a rung, going on from the highest that was reached. Returns whether it got there."""
        costs, steps = self.table.costs, self.table.steps
        key = ("train", adapter)
        waited = yield from self._until_made(key)
        ended = self.table.ended.get(adapter)
        before = self._reached.get(adapter, -1)
        if ended is not None and ended.rung <= rung:
            begun = ended.rung - 1  # the highest rung that it reached
            more = (steps[begun] if begun >= 0 else 0) - (steps[before] if before >= 0 else 0)
            self._reached[adapter] = max(before, begun)
            # What it took was measured with waiting for others, perhaps; it is no more than the whole rung.
            rest = steps[ended.rung] - (steps[begun] if begun >= 0 else 0)
            last_s = min(ended.seconds, costs.call_s + rest * costs.step_s[adapter])
            if not waited:
                seconds = (more * costs.step_s[adapter] + last_s) * self.conditions.training
                yield from self._make(key, "train", seconds)
            return False
        if rung > before:
            more = steps[rung] - (steps[before] if before >= 0 else 0)
            yield from self._make(
                key, "train", (costs.call_s + more * costs.step_s[adapter]) * self.conditions.training
            )
            self._reached[adapter] = rung
        return True

    def _build(self, adapter: int | None, recipe: int) -> Steps[None]:
        key = ("build", adapter, recipe)
        yield from self._until_made(key)
        if (adapter, recipe) in self._built:
            return
        yield from self._merge(adapter, len(self.table.rungs) - 1)
        yield from self._make(key, "build", self.table.costs.build_s[recipe])
        if self.conditions.tool:
            yield Stage("check", self.table.costs.check_s[recipe])
        self._built.add((adapter, recipe))

    def _merge(self, adapter: int | None, rung: int) -> Steps[None]:
        """Merge an adapter, unless it was among the last that were."""
        key = ("merge", adapter, rung)
        yield from self._until_made(key)
        if adapter is not None and (adapter, rung) not in self._merged:
            yield from self._make(key, "merge", self.table.costs.merge_s)
            self._merged = [*self._merged, (adapter, rung)][-self.workers :]

    def _time(self, adapter: int | None, recipe: int) -> Steps[float]:
        key = ("time", self.table.graphs[recipe])
        yield from self._until_made(key)
        graph, processes = self.table.graphs[recipe], self.table.processes_ms[recipe]
        count = len(processes) if not self.times_first else min(PROCESSES, len(processes))
        if not self.conditions.tool:
            count = 1
        shared = self.conditions.timing_shared and graph in self._timed
        if not shared and (adapter, recipe) not in self._timed_pairs:
            yield from self._make(key, "time", count / len(processes) * self.table.costs.time_s[recipe])
            self._timed_pairs.add((adapter, recipe))
        if graph not in self._timed:
            self._timed[graph] = float(self._rng.choice(processes, count).mean())
        return self._timed[graph]

    def _score(self, adapter: int | None, rung: int, recipe: int | None, items: int) -> Steps[Outcomes]:
        costs, what = self.table.costs, (adapter, rung if recipe is None else None, recipe)
        more = items - self._scored.get(what, 0)
        if more > 0:
            self._scored[what] = items
            if recipe is not None:
                yield Stage("score", costs.load_s[recipe] + more * costs.item_s[recipe])
            else:
                yield from self._score_exactly(adapter, rung, more)
        seen, first = self._seen(adapter, rung, recipe), self._order[:items]
        return Outcomes(seen.right[first], seen.loss[first], seen.margin[first])

    def _score_exactly(self, adapter: int | None, rung: int, items: int) -> Steps[None]:
        """Charge for items of an adapter alone: on a build at full precision, which is not kept of a lower rung."""
        costs, last = self.table.costs, len(self.table.rungs) - 1
        if rung < last or (adapter, 0) not in self._built:
            yield from self._merge(adapter, rung)
            yield Stage("build", costs.build_s[0])
        if rung == last:
            self._built.add((adapter, 0))
        yield Stage("score", costs.load_s[0] + items * costs.item_s[0])

    def _seen(self, adapter: int | None, rung: int, recipe: int | None) -> Seen:
        if adapter is None:
            return self.table.base_seen[recipe or 0]
        if recipe is None:
            return self.table.rung_seen[adapter, self._seed[adapter], rung]
        return self.table.pair_seen[adapter, self._seed[adapter], recipe]

    def everything(self) -> dict[Pair, Done]:
        """Return what a sweep over the whole table would have measured, with the noise of this one."""
        found: dict[Pair, Done] = {}
        for adapter, seeds in enumerate(self.table.seeds):
            for recipe, graph in enumerate(self.table.graphs) if seeds else ():
                right = self._seen(adapter, len(self.table.rungs) - 1, recipe).right[self._order]
                latency = self._timed.get(graph, float(self.table.latency_ms[recipe]))
                found[adapter, recipe] = Done(
                    (float(right.mean()), latency, float(self.table.size_mb[recipe])), right, self.clock
                )
        return found

    def recommended(self) -> list[Pair]:
        """Return what is not dominated by the values seen so far, among what was fully measured."""
        pairs = list(self.done)
        return [pairs[n] for n in front([self.done[pair].values for pair in pairs], DIRECTIONS)]


class Truth:
    """What a recommendation is worth."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._volumes: dict[tuple[float, ...], float] = {}
        self._known_ways: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None = None
        everything: list[Pair] = [
            (a, r) for a in range(len(table.adapters)) for r in range(len(table.recipes)) if table.seeds[a]
        ]
        self.best = self.volume(everything + [(None, r) for r in range(len(table.recipes))])
        """The oracle's hypervolume."""

    def accuracy(self, pair: Pair) -> float:
        """Return the true accuracy of a pair; nan where its adapter diverged."""
        adapter, recipe = pair
        return float(self.table.base_truth[recipe] if adapter is None else self.table.truth[adapter, recipe])

    def volume(self, pairs: Sequence[Pair]) -> float:
        """Return the true hypervolume of a set. Of each recipe only the most accurate counts."""
        most = [-1.0] * len(self.table.recipes)
        for pair in pairs:
            most[pair[1]] = max(most[pair[1]], self.accuracy(pair))
        key = tuple(most)
        if key not in self._volumes:
            points = [
                (accuracy, float(self.table.latency_ms[r]), float(self.table.size_mb[r]))
                for r, accuracy in enumerate(most)
                if accuracy >= 0
            ]
            self._volumes[key] = hypervolume(points, self.table.reference, DIRECTIONS)
        return self._volumes[key]

    def limits(self) -> list[tuple[Limit, ...]]:
        """Return three kinds of limits: none, at most the middle size, at most the middle latency."""
        size, latency = float(np.median(self.table.size_mb)), float(np.median(self.table.latency_ms))
        texts: tuple[list[str], ...] = (
            [],
            [f"size_mb <= {size * 1.001:.6g}"],
            [f"itl_ms_p50 <= {latency * 1.001:.6g}"],
        )
        return [tuple(parse_limit(text, OBJECTIVES) for text in group) for group in texts]

    def regret(self, chosen: Pair | None, limits: Sequence[Limit]) -> float:
        """Return by how much the most accurate model within limits is truly better than the chosen one (a share).

        Nothing chosen, or a model that truly breaks a limit, counts as the untouched model at its worst.
        """
        table = self.table
        footprints = [
            {"itl_ms_p50": float(table.latency_ms[r]), "size_mb": float(table.size_mb[r])}
            for r in range(len(table.recipes))
        ]
        kept = [all((limit.gap(one[limit.metric], None) or 0) <= 0 for limit in limits) for one in footprints]
        best = float(np.nanmax(table.truth[:, kept]))
        if chosen is None or not kept[chosen[1]]:
            return best - float(table.base_truth.min())
        return best - self.accuracy(chosen)

    def clairvoyant(self, share: float, training: float = 1.0) -> float:
        """Return the least seconds to `share` of the oracle's hypervolume for one who knows the table.

        It trains one or two adapters to the end, and builds, times and scores only pairs of them that count.
        """
        rest_s, train_s, volumes = self._ways()
        return float((rest_s + training * train_s)[volumes >= share * self.best].min(initial=math.inf))

    def _ways(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return of each choice of adapters and recipes the seconds besides training, those of training, and the volume."""
        if self._known_ways is None:
            table, costs = self.table, self.table.costs
            alive = [a for a in range(len(table.adapters)) if table.seeds[a]]
            timed = [min(1.0, PROCESSES / len(processes)) for processes in table.processes_ms]
            pair_s = [
                costs.build_s[r] + timed[r] * costs.time_s[r] + costs.load_s[r] + table.items * costs.item_s[r]
                for r in range(len(table.recipes))
            ]
            train_s = {a: costs.call_s + table.steps[-1] * costs.step_s[a] for a in alive}
            groups = [(a,) for a in alive] + [(a, b) for a in alive for b in alive if a < b]
            ways = []
            for chosen in range(1, 2 ** len(table.recipes)):
                recipes = [r for r in range(len(table.recipes)) if chosen >> r & 1]
                built_s = costs.start_s + sum(pair_s[r] for r in recipes)
                for group in groups:
                    pairs: list[Pair] = [(max(group, key=lambda a: table.truth[a, r]), r) for r in recipes]
                    trained_s = sum(train_s[a] for a in group)
                    ways.append((built_s + len(group) * costs.merge_s, trained_s, self.volume(pairs)))
            rest, trained, volumes = np.array(ways).T
            self._known_ways = rest, trained, volumes
        return self._known_ways

    def everything_s(self, cache: bool = True, training: float = 1.0) -> float:
        """Return the seconds of the whole grid, one candidate after another."""
        world = World(self.table, Conditions(cache=cache, training=training))
        for adapter in range(len(self.table.adapters)):
            for recipe in range(len(self.table.recipes)):
                world.measure(Proposal(self.table.candidate(adapter, recipe)))
        return world.clock


class Truths:
    """What the recommendations of several sweeps over one table are worth: medians over them."""

    def __init__(self, each: Sequence[Truth]) -> None:
        self.each = each
        self._everything_s: dict[tuple[bool, float], float] = {}

    def clairvoyant(self, share: float, training: float = 1.0) -> float:
        """Return the least seconds to `share` of the oracle's hypervolume for one who knows the sweep's table."""
        return float(np.median([truth.clairvoyant(share, training) for truth in self.each]))

    def everything_s(self, cache: bool = True, training: float = 1.0) -> float:
        """Return the seconds of the whole grid, one candidate after another."""
        if (cache, training) not in self._everything_s:
            seconds = [truth.everything_s(cache, training) for truth in self.each]
            self._everything_s[cache, training] = float(np.median(seconds))
        return self._everything_s[cache, training]

    def limits(self) -> list[tuple[Limit, ...]]:
        """Return three kinds of limits."""
        return self.each[0].limits()


Picks = tuple[tuple[tuple[float, bool], ...], ...]
"""Of each moment, and under each kind of limits: true regret of the chosen model, and whether it is within noise of the best."""


@dataclass
class Run:
    """What one replay did: `hv` is the share of the oracle's hypervolume from `at_s` on; `hv_settings` the same by the truth
    of settings, which is the mean over training seeds."""

    at_s: NDArray[np.float64]
    hv: NDArray[np.float64]
    hv_settings: NDArray[np.float64]
    training_s: NDArray[np.float64]
    """Of each `at_s` what was spent on training until then."""
    asked: int
    finished_s: NDArray[np.float64]
    """When each candidate was fully measured."""
    spent: Mapping[str, float]
    regrets: Mapping[float, Picks]
    """Of the models chosen at the moments `PICKED`, by how many times as long training takes as it did (see `with_training`)."""
    decision_ms: NDArray[np.float64]
    """Real time of each ask and tell."""
    finished_training_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def plain(self) -> dict[str, Any]:
        """Return the run as JSON has it; of the decisions only the longest."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["decision_ms"] = (
            self.decision_ms[self.decision_ms.argmax() :][:1] if len(self.decision_ms) else self.decision_ms
        )
        values["regrets"] = {str(factor): picks for factor, picks in self.regrets.items()}
        return {n: np.round(v, 6).tolist() if isinstance(v, np.ndarray) else v for n, v in values.items()}

    @staticmethod
    def of_plain(values: Mapping[str, Any]) -> Run:
        """The inverse of `plain`."""
        arrays: dict[str, Any] = {
            n: np.array(v, dtype=np.float64) if isinstance(v, list) else v for n, v in values.items()
        }
        regrets = {
            float(factor): tuple(tuple((float(points), bool(inside)) for points, inside in kinds) for kinds in picks)
            for factor, picks in values["regrets"].items()
        }
        return Run(**arrays | {"regrets": regrets})

    @property
    def picks(self) -> Picks:
        """What became of the picks of the run as it is."""
        return self.regrets[1.0]

    def of_settings(self) -> Run:
        """Return the run as judged by the truth of settings."""
        return replace(self, hv=self.hv_settings)

    def with_training(self, factor: float) -> Run:
        """Return the run as it would have gone if training took so many times as long: right where the strategy does
        not look at what things cost."""
        more = factor - 1
        return replace(
            self,
            at_s=self.at_s + more * self.training_s,
            training_s=factor * self.training_s,
            finished_s=self.finished_s + more * self.finished_training_s,
            finished_training_s=factor * self.finished_training_s,
            regrets={1.0: self.regrets[factor]},
            spent={name: s * (factor if name == "train" else 1) for name, s in self.spent.items()},
        )

    def reached_s(self, share: float) -> float:
        """Return from when on the hypervolume is at least `share` and stays so; inf where that never is."""
        below = np.flatnonzero(self.hv < share)
        if not len(below):
            return float(self.at_s[0])
        return float(self.at_s[below[-1] + 1]) if below[-1] + 1 < len(self.hv) else float("inf")

    def at(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the hypervolume at these moments."""
        places = np.searchsorted(self.at_s, seconds, side="right") - 1
        return np.where(places < 0, 0.0, self.hv[np.maximum(places, 0)])


def chosen_of(table: Table, measured: Mapping[Pair, Done], limits: Sequence[Limit]) -> tuple[Choice, dict[str, Pair]]:
    """Apply the tool's rule of the winner to what was fully measured. Returns its choice, and the pairs by name."""
    entries, pairs = [], {}
    for pair, done in measured.items():
        name = f"{pair[0]}-{pair[1]}"
        pairs[name] = pair
        values = dict(zip(OBJECTIVES, done.values, strict=True))
        intervals: dict[str, Interval] = {"accuracy": wilson(float(done.right.sum()), len(done.right))}
        counts, outcomes = {"accuracy": len(done.right)}, {"accuracy": done.right}
        entries.append(Entry(name, values, intervals, counts, outcomes, table.graphs[pair[1]]))
    return choose(entries, OBJECTIVES, limits, None), pairs


def judged(world: World, truth: Truth, factor: float) -> Picks:
    """Return what the models that the rule of the winner chooses are worth, at each moment of `PICKED`, if training took
    `factor` times as long as it did. Within noise of the best is one that a sweep over the whole table, on the same items,
    calls a tie with it.
    """
    ideal = truth.clairvoyant(AIM, world.conditions.training * factor)
    whole = [chosen_of(world.table, world.everything() | world.done, limits) for limits in truth.limits()]
    found = []
    for times in PICKED:
        known = {
            pair: done
            for pair, done in world.done.items()
            if done.at_s + (factor - 1) * done.training_s <= times * ideal
        }
        kinds = []
        for limits, (best, names) in zip(truth.limits(), whole, strict=True):
            choice, pairs = chosen_of(world.table, known, limits)
            chosen = pairs[choice.winner.id] if choice.winner else None
            ties = {names[name] for name in best.feasible if not best.steps or name not in best.steps[0].beaten}
            kinds.append((truth.regret(chosen, limits), chosen in ties))
        found.append(tuple(kinds))
    return tuple(found)


def begun(table: Table, strategy: Strategy, conditions: Conditions) -> World:
    """Return the world of a sweep whose strategy may be asked: the tool has evaluated the untouched model."""
    world = World(table, conditions)
    in_parts = bool(getattr(strategy, "rungs", ()))
    world.times_first = in_parts and conditions.first_looks
    if conditions.tool:
        untouched, told = world.measure_untouched(whole=not world.times_first)
        if in_parts:  # as the loop does
            strategy.replay(untouched, told)
    return world


def replay(
    table: Table, truth: Truth, make: Callable[[Table, int], Strategy], conditions: Conditions, budget_s: float,
    of_settings: Truth | None = None, factors: Sequence[float] = (1.0,),
) -> Run:  # fmt: skip
    """Run a strategy on simulated time until it has no more to ask, or `budget_s` are over.

    `of_settings`: the truth by which it is judged as well; `factors`: for `Run.with_training`. What it recommends is what the
    tool shows as the front: the non-dominated part of what was fully measured.
    """
    strategy = make(table, conditions.seed)
    world = begun(table, strategy, conditions)
    at, volumes, training, decisions, asked = [0.0], [0.0], [0.0], [], 0
    settings = [0.0]
    before: list[Pair] = []
    while world.clock < budget_s:
        began = time.perf_counter()
        proposals = strategy.ask(1, ())
        decided = time.perf_counter() - began
        if not proposals:
            break
        proposal = proposals[0]
        asked += 1
        told = world.measure(proposal)
        began = time.perf_counter()
        strategy.tell(proposal, told)
        decisions.append((decided + time.perf_counter() - began) * 1000)
        recommended = world.recommended() if told.values is not None else before
        if recommended != before:
            at.append(world.clock)
            volumes.append(truth.volume(recommended) / truth.best)
            if of_settings is not None:
                settings.append(of_settings.volume(recommended) / of_settings.best)
            training.append(world.spent["train"])
            before = recommended
    regrets = {factor: judged(world, truth, factor) for factor in factors}
    return Run(
        np.array(at), np.array(volumes), np.array(volumes if of_settings is None else settings), np.array(training), asked,
        np.array([done.at_s for done in world.done.values()]), dict(world.spent), regrets, np.array(decisions),
        np.array([done.training_s for done in world.done.values()]),
    )  # fmt: skip
