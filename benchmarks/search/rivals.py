"""Rivals of `frontier` that a good engineer writes in an afternoon, with the same cache of adapters.

| name | what |
|---|---|
| tpe-favourite | Optuna's TPE over adapters times recipes, begun with our favourite setting in every recipe |
| two-stages | single-objective TPE over adapters at one recipe; after every three the best in all recipes |
| two-stages-favourite | the same, begun with our favourite setting |
| brackets | successive halving in brackets (Hyperband) over random adapters; what survives in every recipe |
| crossed | random adapters, each in every recipe |
| random | random pairs |

Our favourite setting is the one that `frontier`'s prior thinks best; parameters without a prior have the tool's defaults.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from autotune.candidate import Candidate, Lora
from autotune.metrics import Direction
from autotune.space.domains import Choice
from autotune.space.parameter_tables import LORA, Value
from autotune.space.space import Space
from autotune.strategies.baselines import Left
from autotune.strategies.frontier.priors import prior_mean
from autotune.strategies.optuna_samplers import Sampled
from autotune.strategies.protocol import LEAST_ITEMS, Proposal, Strategy, Told, Whole
from benchmarks.search.table import OBJECTIVES, Table

FIRST_BITS = "int4"
"""The precision of the recipe at which adapters are compared: the cheapest to build and to score."""
ROUND, CROSSED = 3, 1
"""Adapters that the first stage measures before the second, and how many of the best go on. Between 3 and 12, and
1 and 3, these had the largest mean area over eight worlds (three seeds), by 1 to 2 %."""
BRACKETS = ((9, 0), (5, 1))
"""Adapters of each bracket, and the number of the rung that it begins at (Li et al., Hyperband, JMLR 18 (2018)).
Its third bracket, random adapters trained to the end, made it worse."""
KEPT = 3
"""One of so many goes on to the next rung."""
LOOK = 0.25
"""The share of the items that a lower rung is scored on."""
_RATES = 81


def favourite(space: Space) -> Lora:
    """Return the adapter that the prior of `frontier` thinks best in a space."""
    ratio = LORA["alpha_over_r"].default
    usual: dict[str, Value] = {}
    options: dict[str, Sequence[Value]] = {}
    for name, domain in space.searched.items():
        default = ratio if name == "alpha_over_r" else LORA[name].default
        if isinstance(domain, Choice):
            near = default is not None and domain.has(default)
            usual[name] = default if near and default is not None else domain.values[len(domain.values) // 2]
            options[name] = domain.values
        else:
            middle = (domain.low * domain.high) ** 0.5 if domain.log else (domain.low + domain.high) / 2
            usual[name] = default if default is not None and domain.has(default) else domain.value(middle)
    rate = space.searched.get("learning_rate")
    if rate is not None and not isinstance(rate, Choice):
        ends = rate.high / rate.low
        options["learning_rate"] = [
            rate.value(min(rate.high, rate.low * ends ** (n / (_RATES - 1)))) for n in range(_RATES)
        ]
    values = dict(usual)
    for _ in range(2):  # one parameter after another, twice
        for name in ("target_modules", "r", "alpha_over_r", "learning_rate"):
            if name in options:
                values[name] = max(options[name], key=lambda one: _worth(space, values | {name: one}))
    return _lora(space, values)


def _lora(space: Space, values: Mapping[str, Value]) -> Lora:
    lora = space.candidate(values, None).lora
    assert lora is not None
    return lora


def _worth(space: Space, values: Mapping[str, Value]) -> float:
    return prior_mean(_lora(space, values))


def _first_recipe(space: Space) -> int:
    return next(n for n, one in enumerate(space.recipes) if one.precision == FIRST_BITS)


class Begun(Sampled):
    """One of Optuna's samplers over a space, which is given some candidates first."""

    def __init__(self, space: Space, directions: Sequence[Direction], seed: int, first: Sequence[Candidate]) -> None:
        super().__init__("tpe", space, directions, seed)
        self._first = deque(first)

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return what is to go first, then the sampler's candidates."""
        asked = [Proposal(self._first.popleft()) for _ in range(min(n, len(self._first)))]
        return asked + super().ask(n - len(asked), [*pending, *asked])


def tpe_favourite(space: Space, seed: int) -> Begun:
    """Make TPE over adapters times recipes, begun with the favourite in every recipe."""
    lora = favourite(space)
    first = [Candidate(lora=lora, recipe=recipe) for recipe in space.recipes]
    return Begun(space, list(OBJECTIVES.values()), seed, first)


class TwoStages(Whole):
    """TPE over adapters at one recipe; after every `ROUND` of them the best `CROSSED` so far in all other recipes."""

    def __init__(self, space: Space, seed: int, begun: bool) -> None:
        """`begun`: with the favourite."""
        self._recipe = space.recipes[_first_recipe(space)]
        self._others = [recipe for recipe in space.recipes if recipe != self._recipe]
        start = [Candidate(lora=favourite(space), recipe=self._recipe)] if begun else []
        self._inner = Begun(replace(space, recipes=(self._recipe,)), ["maximize"], seed, start)
        self._scores: dict[str, tuple[float, Lora]] = {}
        self._crossed: set[str] = set()
        self._queue: deque[Proposal] = deque()
        self._told = 0

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return what is to be crossed, then the next adapters."""
        asked = [self._queue.popleft() for _ in range(min(n, len(self._queue)))]
        if len(asked) < n:
            own = [one for one in pending if one.candidate.recipe == self._recipe]
            asked += self._inner.ask(n - len(asked), own)
        if not asked and not pending:  # every adapter is known: the rest is crossed, the best first
            self._cross(len(self._scores))
            asked = [self._queue.popleft() for _ in range(min(n, len(self._queue)))]
        return asked

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Learn a score at the first stage's recipe."""
        if proposal.candidate.recipe != self._recipe:
            return
        score = told.measured.get("accuracy") if told.values is not None else None
        self._inner.tell(proposal, replace(told, values=None if score is None else (score,)))
        if score is not None and proposal.candidate.lora is not None:
            self._scores[proposal.candidate.id] = score, proposal.candidate.lora
        self._told += 1
        if self._told % ROUND == 0:
            self._cross(CROSSED)

    def _cross(self, most: int) -> None:
        ranked = sorted(self._scores, key=lambda name: -self._scores[name][0])[:most]
        for name in ranked:
            if name not in self._crossed:
                self._crossed.add(name)
                lora = self._scores[name][1]
                self._queue += [Proposal(Candidate(lora=lora, recipe=recipe)) for recipe in self._others]

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Not needed here."""


class Crossed(Whole):
    """Random adapters, each in every recipe, in an order drawn at random, before the next."""

    def __init__(self, space: Space, seed: int) -> None:
        self._seed = seed
        self._left = Left(replace(space, recipes=()))
        self._recipes = list(space.recipes)
        random.Random(seed).shuffle(self._recipes)
        self._queue: deque[Proposal] = deque()
        self._drawn = 0

    def draw(self) -> Candidate | None:
        """Return another adapter; None where there is none."""
        self._drawn += 1
        candidate = self._left.draw(f"{self._seed}-{self._drawn}")
        if candidate is not None:
            self._left.remove(candidate)
        return candidate

    def cross(self, lora: Lora | None) -> None:
        """Queue an adapter in every recipe."""
        self._queue += [Proposal(Candidate(lora=lora, recipe=recipe)) for recipe in self._recipes]

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next pairs."""
        del pending
        while len(self._queue) < n and (candidate := self.draw()) is not None:
            self.cross(candidate.lora)
        return [self._queue.popleft() for _ in range(min(n, len(self._queue)))]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Nothing is learned."""

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Nothing is learned."""


@dataclass(eq=False)
class _Bracket:
    """One bracket at one of its rungs."""

    rung: int
    left: int
    """Adapters of the rung that have not been scored yet."""
    scores: list[tuple[float, Candidate]] = field(default_factory=list)


class Brackets(Crossed):
    """Successive halving in brackets over random adapters; the survivors of each are measured in every recipe.

    With several workers the next bracket begins while one waits for the rest of its rung.
    """

    def __init__(self, table: Table, seed: int) -> None:
        super().__init__(table.space, seed)
        self._rungs = table.rungs
        self._items = min(table.items, max(LEAST_ITEMS, round(LOOK * table.items)))
        self._begun = 0

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the survivors of a bracket in every recipe, then adapters of the next."""
        del pending
        while len(self._queue) < n and self._begin():
            pass
        return [self._queue.popleft() for _ in range(min(n, len(self._queue)))]

    def _begin(self) -> bool:
        count, rung = BRACKETS[self._begun % len(BRACKETS)]
        self._begun += 1
        found = [candidate for _ in range(count) if (candidate := self.draw()) is not None]
        self._climb(rung, found)
        return bool(found)

    def _climb(self, rung: int, candidates: Sequence[Candidate]) -> None:
        if rung == len(self._rungs) - 1:
            for candidate in candidates:
                self.cross(candidate.lora)
            return
        bracket = _Bracket(rung, len(candidates))
        self._queue += [Proposal(candidate, bracket, self._rungs[rung], self._items) for candidate in candidates]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Take in a score; at the end of a rung a third goes on."""
        bracket = proposal.trial
        if not isinstance(bracket, _Bracket):
            return
        score = told.measured.get("accuracy")
        if score is not None:
            bracket.scores.append((score, proposal.candidate))
        bracket.left -= 1
        if not bracket.left:
            ranked = sorted(bracket.scores, key=lambda one: -one[0])
            kept = max(1, len(ranked) // KEPT)
            self._climb(bracket.rung + 1, [candidate for _, candidate in ranked[:kept]])


WHOLE: dict[str, Callable[[Space, int], Strategy]] = {
    "tpe-favourite": tpe_favourite,
    "two-stages": partial(TwoStages, begun=False),
    "two-stages-favourite": partial(TwoStages, begun=True),
    "crossed": Crossed,
}
"""The rivals that propose full candidates only: a real sweep can have them in the place of its strategy (`live.py`)."""


def _replayed(make: Callable[[Space, int], Strategy]) -> Callable[[Table, int], Strategy]:
    return lambda table, seed: make(table.space, seed)


RIVALS: dict[str, Callable[[Table, int], Strategy]] = {
    **{name: _replayed(WHOLE[name]) for name in ("tpe-favourite", "two-stages", "two-stages-favourite")},
    "brackets": Brackets,
    "crossed": _replayed(Crossed),
}
"""All rivals, for the tables."""
