"""A made-up world as a table that the replay can use: adapters are made when they are asked for.

The replay knows adapters by their numbers; here a number is given when an adapter is first placed. All that a sweep sees of it
follows from the world, the sweep's seed and the adapter's settings, not from when it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.pareto import hypervolume
from autotune.candidate import Candidate, Lora
from autotune.space.space import Space
from benchmarks.search.landscape import OWN, RUNGS, TRAIT, Array, Landscape, settings_of, step_seconds
from benchmarks.search.replay import DIRECTIONS, Conditions, Pair, World
from benchmarks.search.rows import TABLES
from benchmarks.search.table import Costs, Ended, Seen, Table, load

MEASURED = "xed"
"""The table whose stage costs, latencies and sizes the made-up worlds have."""


@cache
def measured() -> Table:
    """Return the table that costs are taken from."""
    return load(TABLES / f"{MEASURED}.jsonl")


@cache
def _step_s() -> dict[tuple[int, str], float]:
    table = measured()
    return {(one.r, str(one.target_modules)): table.costs.step_s[a] for a, one in enumerate(table.adapters)}


@dataclass(frozen=True, eq=False)
class Made:
    """One trained adapter of a sweep."""

    name: str
    ability: Array
    """With its luck, at each rung: (rungs,)."""
    drops: Array
    """With the luck of rounding: (recipes,)."""


@dataclass(frozen=True, eq=False)
class MadeTable(Table):
    """The table of one sweep in a made-up world."""

    landscape: Landscape = field(kw_only=True)
    sweep: int = field(kw_only=True)
    """The seed of the sweep."""
    difficulty: Array = field(kw_only=True)
    guess: Array = field(kw_only=True)
    made: list[Made] = field(default_factory=list, kw_only=True)
    loras: list[Lora] = field(default_factory=list, kw_only=True)

    def place(self, candidate: Candidate) -> tuple[int | None, int | None]:
        """Return the numbers of a candidate's adapter, which is made where it is new, and of its recipe."""
        recipe = None if candidate.recipe is None else self.recipe_number[str(candidate.recipe)]
        if candidate.lora is None:
            return None, recipe
        name = Candidate(lora=candidate.lora).id
        if name not in self.number:
            self._make(name, candidate.lora)
        return self.number[name], recipe

    def candidate(self, adapter: int | None, recipe: int | None) -> Candidate:
        """The inverse of `place`."""
        return Candidate(
            lora=None if adapter is None else self.loras[adapter],
            recipe=None if recipe is None else self.recipes[recipe],
        )

    def _rng(self, name: str, *more: int) -> np.random.Generator:
        return np.random.default_rng([self.sweep, int(name, 16), *more])

    def _make(self, name: str, lora: Lora) -> None:
        land, settings, number = self.landscape, settings_of([lora]), len(self.made)
        rng = self._rng(name)
        # Half of the luck is there from the first rung on, the rest grows with training.
        shared, own = rng.normal(), rng.normal(size=len(RUNGS))
        luck = float(land.luck_of(settings)[0]) * np.sqrt(RUNGS) * (shared + own) / np.sqrt(2)
        drops = land.drops(settings)[:, 0]
        rounded = drops + np.where(drops > 0, land.rounding + 0.25 * drops, 0.0) * rng.normal(size=len(drops))
        self.made.append(Made(name, land.abilities(settings)[:, 0] + luck, rounded))
        self.loras.append(lora)
        assert isinstance(self.number, dict)
        assert isinstance(self.costs.step_s, dict)
        assert isinstance(self.ended, dict)
        self.number[name] = number
        # The replay has one number of steps for all; what a step costs makes up for it.
        steps = lora.steps or self.steps[-1]
        self.costs.step_s[number] = step_seconds(lora, _step_s()) * steps / self.steps[-1]
        ended = int(land.ended(settings)[0])
        if ended >= 0:
            before = self.steps[ended - 1] if ended else 0
            half = (self.steps[ended] - before) / 2
            self.ended[number] = Ended(ended, self.costs.call_s + half * self.costs.step_s[number], 0)

    def true_accuracy(self, pair: Pair) -> float:
        """Return the true accuracy of the model that the sweep has, over infinitely many items."""
        adapter, recipe = pair
        if adapter is None:
            return float(self.base_truth[recipe])
        one = self.made[adapter]
        return float(self.landscape.accuracy(np.array(one.ability[-1] - one.drops[recipe])))

    def setting_accuracy(self, pair: Pair) -> float:
        """Return the true accuracy of its settings: without the luck of this training."""
        adapter, recipe = pair
        if adapter is None:
            return float(self.base_truth[recipe])
        return float(self.landscape.accuracies(settings_of([self.loras[adapter]]))[recipe, 0])

    def seen(self, adapter: int | None, rung: int, recipe: int | None) -> Seen:
        """Return the outcomes of a model, of all items."""
        name = "0" if adapter is None else self.made[adapter].name
        trait = self._rng(name, 1).normal(0, TRAIT, self.items)
        # The build at full precision predicts as the adapter does.
        own_place = (2, rung) if not recipe else (3, recipe)
        own = self._rng(name, *own_place).normal(0, OWN, self.items)
        if adapter is None:
            ability = self.landscape.base - _base_drops(self.landscape)[recipe or 0]
        else:
            one = self.made[adapter]
            ability = one.ability[rung] - (one.drops[recipe] if recipe is not None else 0.0)
        return Seen(*self.landscape.outcomes(ability - self.difficulty + trait + own, self.guess))


def _base_drops(land: Landscape) -> Array:
    return np.array([0.0, 0.01, 0.04, 0.06, 0.02]) * land.drop


def made_table(name: str, land: Landscape, space: Space, items: int, sweep: int) -> MadeTable:
    """Return the table of one sweep: `sweep` is its seed, which draws the items and all luck."""
    real = measured()
    rng = np.random.default_rng([sweep, 5])
    fixed = space.candidate({n: d.some for n, d in space.searched.items()}, None).lora
    assert fixed is not None
    steps = fixed.steps if "steps" not in space.searched else real.steps[-1]
    assert steps is not None
    costs = Costs(
        real.costs.start_s, real.costs.call_s, {}, real.costs.merge_s, real.costs.build_s, real.costs.check_s,
        real.costs.time_s, real.costs.load_s, real.costs.item_s,
    )  # fmt: skip
    base_truth = land.accuracy(land.base - _base_drops(land))
    none: NDArray[np.float64] = np.zeros((0, len(real.recipes)))
    return MadeTable(
        name=name, adapters=(), recipes=real.recipes, space=space, rungs=RUNGS,
        steps=tuple(max(1, round(rung * steps)) for rung in RUNGS), items=items, rung_seen={}, pair_seen={}, base_seen={},
        seeds=(), ended={}, truth=none, truth_of={}, base_truth=base_truth, latency_ms=real.latency_ms,
        size_mb=real.size_mb, processes_ms=real.processes_ms, graphs=real.graphs, costs=costs, number={},
        recipe_number=real.recipe_number, landscape=land, sweep=sweep,
        difficulty=rng.normal(0, 1, items), guess=rng.uniform(0, 1, items),
    )  # fmt: skip


class MadeWorld(World):
    """The stages, the cache and the clock of a sweep over a made-up table."""

    table: MadeTable

    def __init__(self, table: MadeTable, conditions: Conditions) -> None:
        super().__init__(table, conditions)
        # The sweep's items are drawn anew from the population by its seed: none is drawn twice.
        self._order = np.arange(table.items)

    def _seen(self, adapter: int | None, rung: int, recipe: int | None) -> Seen:
        return self.table.seen(adapter, rung, recipe)


def volume(table: Table, most: Sequence[float]) -> float:
    """Return the hypervolume of the best accuracy in each recipe (0: none), from the tables' reference on."""
    points = [
        (accuracy, float(table.latency_ms[r]), float(table.size_mb[r])) for r, accuracy in enumerate(most) if accuracy
    ]
    return hypervolume(points, table.reference, DIRECTIONS)
