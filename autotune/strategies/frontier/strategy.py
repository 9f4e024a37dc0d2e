"""The strategy that spends the budget where it moves the front most.

Latency and size belong to the recipe alone, and only the score belongs to the adapter as well. So the search is one over
adapters, crossed with a small table of recipes. Every proposal is what promises most hypervolume a second:

- taking an adapter to the end of its training and into a recipe, or looking at it at a lower rung before;
- crossing a trained adapter with a recipe: building it and scoring it.

What an adapter will be worth is guessed by a Gaussian process over its settings, from the scores of all adapters at all
rungs; its prior mean is what is commonly found about learning rate and rank, and what earlier sweeps found, and a few scores
overrule it.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.metrics import METRICS, Direction
from autotune.space.adapters import lora_impossible
from autotune.space.space import Space
from autotune.strategies.baselines import drawn
from autotune.strategies.frontier.acquisition import Growth
from autotune.strategies.frontier.cost_model import Prices, work_of
from autotune.strategies.frontier.gittins_index import NODES, crossed, looked_first, straight
from autotune.strategies.frontier.priors import bits_of, decades_of, drop_of, larger_by, stored_bits, worth_of
from autotune.strategies.frontier.quantisation_loss import drops_of
from autotune.strategies.frontier.score_scale import Scale
from autotune.strategies.frontier.surrogate import (
    SHARED_CHANCE,
    Array,
    Place,
    Posterior,
    Seen,
    Surrogate,
    place_of,
    variance,
)
from autotune.strategies.protocol import LEAST_ITEMS, Proposal, Told

Flags = NDArray[np.bool_]
RUNGS = (1 / 9, 1 / 3, 1.0)
POOL = 256
"""Adapters that are thought of at most: of a larger space a random draw."""
_CLIMBS = 32
"""Adapters of which all rungs count."""
HOPE = 0.7
"""Latency and size that are only guessed are taken to be so much smaller: what may be good is looked at."""
_SLOWEST, _LARGEST = 1.1, 1.01
"""Where the front ends: at so many times the slowest recipe, and the largest. The largest itself hardly counts, but it does."""
_CERTAIN = 1e-9
"""The standard deviation of what is known."""
_EXACT = 16
"""Bits of weights from which on a build does what the adapter does."""
_BELIEVED = 0.3
"""How many builds the belief weighs as much as that a recipe can be built."""
_LIKELY = 32
"""Adapters of which it is reckoned what a look at a lower rung is worth."""
_GLANCES = (1 / 8, 1 / 4)
"""Shares of the items that such a look may take."""


@dataclass(frozen=True)
class Glimpse:
    """What was seen of an adapter alone, at a rung."""

    score: float
    """As measured."""
    items: int
    probability: float | None = None
    """The mean probability of the right label. It ranks adapters better than the score does, on fewer items, before they
    are trained to the end (benchmarks/measured/signals.md)."""


@dataclass
class Adapter:
    """What is known of one adapter."""

    lora: Lora
    place: Place
    prior: float
    reached: int = -1
    """The highest rung that it was trained to; -1: none."""
    inside: bool = True
    """Whether it belongs to the space; others were made when the space was another, and are learned from."""
    ended: bool = False
    """Whether it diverged, or could not be trained."""
    seen: dict[int, Glimpse] = field(default_factory=dict)
    """By rung what was seen of it alone."""
    pairs: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By recipe: score as measured, and items, as built."""
    failed: set[str] = field(default_factory=set)
    """The recipes in which it cannot be built or run."""
    diverged: int = 0
    """In how many of them its score was no number."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Of each adapter mean and standard deviation of its score at the last rung in the best recipe: (adapters,); and by
    how much each recipe is worse.
    """

    adapters: list[Adapter]
    posterior: Posterior
    drops: dict[str, float]
    spreads: dict[str, float]
    """Standard deviations of that."""
    seen: list[Seen]
    """The observations that it comes from."""
    training: Flags
    """Whether an adapter is being trained: it can be trained further when that has ended."""
    ending: Flags
    """Whether an adapter is being trained to the end: what crosses it with another recipe waits for that training."""
    crossing: Mapping[int, Set[str]] = field(default_factory=dict)
    """The recipes in which adapters are being measured, by the number of the adapter."""

    @property
    def mean(self) -> Array:
        """What each adapter's score is thought to be: (adapters,)."""
        return self.posterior.mean

    @property
    def deviation(self) -> Array:
        """Its standard deviation: (adapters,)."""
        return self.posterior.deviation


@dataclass(frozen=True)
class Served:
    """What an adapter is crossed with: a recipe, and how its build is served; no recipe where nothing is built."""

    recipe: Recipe | None = None
    session: Session | None = None

    def __str__(self) -> str:
        return f"{self.recipe or ''} {self.session or ''}".strip()


class Look(NamedTuple):
    """A look at an adapter that is in flight."""

    rung: int
    items: int


@dataclass
class Flight:
    """What was asked for and is not told yet; adapters and recipes by their names."""

    looks: dict[str, Look] = field(default_factory=dict)
    pairs: dict[str, set[str]] = field(default_factory=dict)
    """By adapter the recipes in which it will be measured."""
    timed: set[str] = field(default_factory=set)
    """The recipes that will be timed."""


@dataclass(frozen=True)
class Levers:
    """What makes it fast; each may be taken away, to see what it is worth."""

    rungs: bool = True
    """Adapters are scored on the way, and only promising ones trained further."""
    gate: bool = True
    """A pair is built only where that is expected to move the front."""
    prior: bool = True
    """Common experience with learning rates and ranks."""


class Frontier:
    """The strategy. One objective is the score; the others belong to recipe and session."""

    rungs = RUNGS

    def __init__(
        self,
        space: Space,
        objectives: Mapping[str, Direction],
        seed: int,
        items: int = 1000,
        levers: Levers = Levers(),
        prior: Callable[[Lora], float] = worth_of,
    ) -> None:
        """`items`: how many validation items there are, until a candidate says so that was fully measured; `prior`: what an
        adapter's settings are thought to be worth, in units of the score.
        """
        self._space, self._items, self._levers, self._prior = space, items, levers, prior
        self._belief: Belief | None = None
        """What is believed since the last that was told."""
        self._surrogate: Surrogate | None = None
        self._score = next(name for name in objectives if METRICS[name].kind == "score")
        self._scale = Scale(self._score, objectives[self._score])
        self._others = [name for name in objectives if name != self._score]
        self._directions = [objectives[name] for name in self._others]
        served = itertools.product(space.recipes or (None,), space.sessions or (None,))
        self._recipes = {str(one): one for one in (Served(recipe, session) for recipe, session in served)}
        self._usual_drops = {name: drop_of(one.recipe) for name, one in self._recipes.items()}
        self._bits = {name: stored_bits(one.recipe) for name, one in self._recipes.items()}
        """Of the weights, by recipe: that of the untouched model too, which may be none of the space's."""
        self._over: set[str] = set()
        """The recipes that break a limit, whatever the adapter."""
        self._footprints: dict[str, list[float]] = {}
        self._untouched: float | None = None
        """What the untouched model scores: the front counts above it."""
        self._adapters: dict[str, Adapter] = {}
        self._chance = (1 - SHARED_CHANCE) * variance(0.5)
        """The variance of an item, in a look at a lower rung."""
        size = space.size()
        small = size is not None and size <= POOL * len(self._recipes)
        for candidate in space.grid() if small else _draws(space, random.Random(f"frontier-{seed}")):  # noqa: S311 - no secret
            if small or len(self._adapters) < POOL:
                self._know(candidate, inside=True)
        works = [work_of(adapter.lora) for adapter in self._adapters.values()]
        self._prices = Prices(statistics.fmean(works) if works else 1.0)

    def _know(self, candidate: Candidate, inside: bool = False) -> Adapter | None:
        if candidate.lora is None:
            return None
        name = _adapter_id(candidate)
        if name not in self._adapters:
            prior = self._prior(candidate.lora) if self._levers.prior else 0.0
            inside = inside or self._space.has(candidate.lora)
            self._adapters[name] = Adapter(candidate.lora, place_of(candidate.lora, self._space), prior, inside=inside)
        return self._adapters[name]

    def _training_s(self, adapter: Adapter, to: int) -> float:
        return self._prices.training(_share(adapter.reached, to) * work_of(adapter.lora))

    def _pair_s(self, recipe: str, timed: bool = False) -> float:
        if self._recipes[recipe].recipe is None:
            return self._prices.alone(self._items)
        return self._prices.pair(recipe, self._items, timed=timed or recipe in self._footprints)

    # --- what is believed -------------------------------------------------------------------------------------------

    def _shares(self, adapter: Adapter) -> dict[str, float]:
        """Return an adapter's scores by recipe, on the scale of shares."""
        return {recipe: self._scale.share(score) for recipe, (score, _) in adapter.pairs.items()}

    def _footprint(self, recipe: str) -> list[float]:
        """Return latency, size and so on of a recipe: as measured, or as its bits and what is known of others suggest."""
        if recipe in self._footprints:
            return self._footprints[recipe]
        bits = self._bits[recipe]
        near = min(self._footprints, key=lambda known: abs(math.log(bits / self._bits[known])), default=None)
        larger = HOPE * larger_by(bits, self._bits[near] if near is not None else 32)
        known = self._footprints[near] if near is not None else [1.0] * len(self._directions)
        return [
            value * larger if direction == "minimize" else value / larger
            for value, direction in zip(known, self._directions, strict=True)
        ]

    def _believe(self) -> Belief:
        """Return what is believed of all adapters, in the best recipe."""
        if self._belief is not None:
            return self._belief
        crossed = (self._shares(adapter) for adapter in self._adapters.values() if len(adapter.pairs) > 1)
        drops, spreads = drops_of(crossed, self._usual_drops)
        adapters = list(self._adapters.values())
        seen: list[Seen] = []
        last, climbed = len(RUNGS) - 1, 0
        for number, adapter in enumerate(adapters):
            own = [self._glimpsed(number, rung, glimpse) for rung, glimpse in sorted(adapter.seen.items())]
            if adapter.pairs:
                # The same items in every recipe: one observation, not several.
                weights = np.array([items for _, items in adapter.pairs.values()], dtype=float)
                each = np.array([share + drops[recipe] for recipe, share in self._shares(adapter).items()])
                share = float((weights * each).sum() / weights.sum())
                apart = 1 / sum(spreads[recipe] ** -2 for recipe in adapter.pairs)
                own.append(Seen(number, last, share, int(weights.max()), variance(share), apart))
            # Where an adapter was seen further up, its lower rungs say only how rungs hang together: some tens tell that.
            climbed += len(own) > 1
            seen += own if climbed <= _CLIMBS else own[-1:]
        posterior = self._surrogate_of(adapters).posterior(seen)
        none = np.zeros(len(adapters), dtype=bool)
        self._belief = Belief(adapters, posterior, drops, spreads, seen, none, none)
        return self._belief

    def _beside(self, belief: Belief, flight: Flight) -> Belief:
        """Return what will be believed when what is in flight has ended, as far as that is known now.

        The means stay: every score in flight is taken to come out as it is believed to (the kriging believer of Ginsbourger,
        Le Riche and Carraro, in Computational Intelligence in Expensive Optimization Problems, 2010). The deviations
        shrink: they do not depend on the scores.
        """
        if not flight.looks and not flight.pairs:
            return belief
        place = {name: number for number, name in enumerate(self._adapters)}
        training, ending = np.zeros(len(place), dtype=bool), np.zeros(len(place), dtype=bool)
        last, expected = len(RUNGS) - 1, list(belief.seen)
        for name, look in flight.looks.items():
            number = place[name]
            training[number] = True
            expected.append(Seen(number, look.rung, 0.0, look.items, self._chance / (1 - SHARED_CHANCE)))
        crossed: dict[int, set[str]] = {}
        for name, recipes in flight.pairs.items():
            number = place[name]
            crossed[number] = recipes
            if belief.adapters[number].reached < last and not belief.adapters[number].ended:
                training[number] = ending[number] = True
            if not belief.adapters[number].pairs:  # else nearly all is known
                apart = 1 / sum(belief.spreads[recipe] ** -2 for recipe in recipes)
                share = variance(float(belief.mean[number]))
                expected.append(Seen(number, last, 0.0, self._items, share, apart))
        shrunk = self._surrogate_of(belief.adapters).posterior(expected)
        posterior = replace(shrunk, mean=belief.mean)
        return replace(belief, posterior=posterior, seen=expected, training=training, ending=ending, crossing=crossed)

    def _surrogate_of(self, adapters: Sequence[Adapter]) -> Surrogate:
        if self._surrogate is None or len(self._surrogate) != len(adapters):
            rates, priors = [decades_of(a.lora) for a in adapters], [a.prior for a in adapters]
            usual = 0.0 if self._levers.prior or not rates else statistics.fmean(rates)
            self._surrogate = Surrogate([a.place for a in adapters], [r - usual for r in rates], priors, RUNGS)
        return self._surrogate

    def _glimpsed(self, number: int, rung: int, glimpse: Glimpse) -> Seen:
        if glimpse.probability is None or rung == len(RUNGS) - 1:
            share = self._scale.share(glimpse.score)
            return Seen(number, rung, share, glimpse.items, variance(share))
        share = glimpse.probability
        return Seen(number, rung, share, glimpse.items, variance(share, smooth=True))

    # --- the next proposal ------------------------------------------------------------------------------------------

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return what promises most hypervolume a second, each beside those before it and those that are pending."""
        asked: list[Proposal] = []
        flight = Flight()
        for proposal in pending:
            self._take_off(flight, proposal)
        while len(asked) < n and (found := self._next(flight)) is not None:
            asked.append(found)
            self._take_off(flight, found)
        return asked

    def _take_off(self, flight: Flight, proposal: Proposal) -> None:
        """Count a proposal as one that is in flight."""
        candidate = proposal.candidate
        self._know(candidate)
        name = _adapter_id(candidate) if candidate.lora is not None else None
        if candidate.recipe is None and self._space.recipes:
            if name is not None:
                items = self._items if proposal.items is None else proposal.items
                flight.looks[name] = Look(_rung_of(proposal.rung), items)
            return
        served = str(Served(candidate.recipe, candidate.session))
        flight.timed.add(served)
        if name is not None and served in self._recipes:
            flight.pairs.setdefault(name, set()).add(served)

    def _next(self, flight: Flight) -> Proposal | None:
        """Return what promises most beside what is in flight; None where nothing does."""
        belief = self._beside(self._believe(), flight)
        recipes = [recipe for recipe in self._recipes if recipe not in self._over]
        begun = any(items >= self._items for adapter in belief.adapters for _, items in adapter.pairs.values())
        if not recipes:
            return None
        pair_s = np.array([self._pair_s(recipe, recipe in flight.timed) for recipe in recipes])
        growth = self._growth(belief, recipes)
        gains = self._gains(belief, recipes, growth)
        trained = np.array([adapter.reached == len(RUNGS) - 1 and not adapter.ended for adapter in belief.adapters])
        trained |= belief.ending
        crossing = np.where(trained, gains / pair_s[:, None], 0.0)
        if not self._levers.gate:
            crossing = np.where(trained & (gains > 0), math.inf, 0.0)
        whole = np.where(belief.training, 0.0, self._straight(belief.adapters, gains, pair_s))
        looks = self._looks(belief, recipes, growth, pair_s, whole) if begun and self._levers.rungs else ()
        look_first = max(looks, key=lambda found: found[0], default=(0.0, None))
        best = max(crossing.max(initial=0.0), whole.max(initial=0.0), look_first[0])
        if best <= 0:
            return None
        if crossing.max(initial=0.0) == best:
            number, place = divmod(int(crossing.T.argmax()), len(recipes))
            return Proposal(self._candidate(belief.adapters[number], recipes[place]))
        if look_first[0] == best:
            return look_first[1]
        number = int(whole.argmax())
        recipe = recipes[int((gains[:, number] / pair_s).argmax())]
        return Proposal(self._candidate(belief.adapters[number], recipe))

    def _straight(self, adapters: Sequence[Adapter], gains: Array, pair_s: Array) -> Array:
        """Return what a second is worth that takes an adapter to the end and into the recipes that pay best: (adapters,)."""
        gained, crossed_s = crossed(gains, pair_s)
        last = len(RUNGS) - 1
        train_s = np.array([self._training_s(adapter, last) for adapter in adapters])
        left = np.array([adapter.reached < last and not adapter.ended for adapter in adapters])
        return np.where(left, straight(gained, train_s + crossed_s), 0.0)

    def _looks(
        self, belief: Belief, recipes: Sequence[str], growth: Growth, pair_s: Array, whole: Array
    ) -> Iterator[tuple[float, Proposal]]:
        """Yield what a second is worth that looks at an adapter at a lower rung first: of each rung, and number of items,
        the most. `whole` is what a second is worth that takes it to the end: (adapters,).
        """
        likely = np.argsort(-whole, kind="stable")[:_LIKELY]
        shares = (max(LEAST_ITEMS, math.ceil(share * self._items)) for share in _GLANCES)
        counts = sorted({min(self._items, count) for count in shares})
        last = len(RUNGS) - 1
        for rung, items in itertools.product(range(last), counts):
            who = np.array([n for n in likely if whole[n] > 0 and belief.adapters[n].reached < rung], dtype=np.intp)
            if not len(who):
                continue
            adapters = [belief.adapters[number] for number in who]
            train_s = np.array([self._training_s(adapter, rung) for adapter in adapters])
            rest_s = np.array([self._training_s(adapter, last) for adapter in adapters]) - train_s
            learned = self._surrogate_of(belief.adapters).learned(belief.posterior, who, rung, self._chance / items)
            means = belief.mean[who] + NODES[:, None] * learned
            left = np.sqrt(np.maximum(belief.deviation[who] ** 2 - learned**2, _CERTAIN**2))
            gains = self._expected(belief, recipes, growth, means, np.broadcast_to(left, means.shape))
            failed = np.array([[recipe in adapter.failed for adapter in adapters] for recipe in recipes])
            gained, crossed_s = crossed(np.where(failed[:, None, :], 0.0, gains), pair_s)
            worth = looked_first(train_s + self._prices.alone(items), gained, rest_s + crossed_s, whole[who])
            best = int(worth.argmax())
            yield float(worth[best]), Proposal(Candidate(lora=adapters[best].lora), rung=RUNGS[rung], items=items)

    def _candidate(self, adapter: Adapter, recipe: str) -> Candidate:
        served = self._recipes[recipe]
        return Candidate(lora=adapter.lora, recipe=served.recipe, session=served.session)

    def _gains(self, belief: Belief, recipes: Sequence[str], growth: Growth) -> Array:
        """Return by how much the hypervolume is expected to grow if an adapter is crossed with a recipe: (recipes,
        adapters), 0 where it was, or cannot be.
        """
        gains = self._expected(belief, recipes, growth, belief.mean, belief.deviation)
        for place, recipe in enumerate(recipes):
            tried = [not a.inside or recipe in a.pairs or recipe in a.failed for a in belief.adapters]
            gains[place] = np.where(tried, 0.0, gains[place])
            gains[place, [number for number, recipes in belief.crossing.items() if recipe in recipes]] = 0.0
        return gains

    def _expected(self, belief: Belief, recipes: Sequence[str], growth: Growth, mean: Array, deviation: Array) -> Array:
        """Return by how much the hypervolume is expected to grow by models of which this is believed, in the best recipe, if
        they are crossed with each: (recipes, *the shape of mean and deviation).
        """
        return np.array([
            self._odds(recipe) * growth.expected(
                self._footprint(recipe), mean.ravel() - belief.drops[recipe],
                np.sqrt(deviation.ravel() ** 2 + belief.spreads[recipe] ** 2),
            ).reshape(mean.shape)
            for recipe in recipes
        ])  # fmt: skip

    def _odds(self, recipe: str) -> float:
        """Return how likely a recipe can be built and run, by those that were: what never could is left to the last."""
        built = sum(recipe in adapter.pairs for adapter in self._adapters.values())
        failed = sum(recipe in adapter.failed for adapter in self._adapters.values())
        return (built + _BELIEVED) / (built + failed + _BELIEVED)

    def _growth(self, belief: Belief, recipes: Sequence[str]) -> Growth:
        """Return the front as it is believed to be."""
        best: dict[str, float] = {}
        for number, adapter in enumerate(belief.adapters):
            for recipe in (*adapter.pairs, *belief.crossing.get(number, ())):
                score = float(belief.mean[number]) - belief.drops[recipe]
                best[recipe] = max(score, best.get(recipe, score))
        points = [(score, self._footprint(recipe)) for recipe, score in best.items()]
        footprints = [self._footprint(recipe) for recipe in recipes]
        bound = []
        for place, (name, direction) in enumerate(zip(self._others, self._directions, strict=True)):
            column = [footprint[place] for footprint in footprints]
            beyond = _LARGEST if name == "size_mb" else _SLOWEST
            bound.append(beyond * max(column) if direction == "minimize" else min(column) / beyond)
        if self._untouched is not None:
            floor = self._scale.share(self._untouched)
        else:
            floor = min((score for score, _ in points), default=0.5) - 0.25
        return Growth(points, floor, bound, self._directions)

    # --- what came of it --------------------------------------------------------------------------------------------

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Take in what was measured."""
        self.replay(proposal.candidate, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Take in what was measured, now or in an earlier run."""
        self._belief = None
        adapter = self._know(candidate)
        served = str(Served(candidate.recipe, candidate.session))
        alone = candidate.recipe is None and bool(self._space.recipes)
        rung = _rung_of(told.rung)
        work = 0.0 if adapter is None else _share(adapter.reached, rung) * work_of(adapter.lora)
        scored = self._scored(adapter, None if alone else served, rung)
        self._prices.learn(told.seconds, served if candidate.recipe else None, work, told.items - scored)
        self._bits.setdefault(served, stored_bits(candidate.recipe))
        if not alone and all(name in told.measured for name in self._others):
            self._footprints[served] = [told.measured[name] for name in self._others]
        if any(gap > 0 and METRICS[limit.metric].kind != "score" for limit, gap in told.gaps.items()):
            self._over.add(served)
        score = told.measured.get(self._score)
        if told.probability is not None:
            self._chance = (1 - SHARED_CHANCE) * variance(0.5, smooth=True)
        if score is not None:
            self._scale.see(score, untouched=adapter is None)
        if adapter is None:
            self._untouched = score if score is not None else self._untouched
            return
        if not alone and served not in self._recipes:  # of another space than today's
            return
        if score is None:
            adapter.pairs.pop(served, None)
            # What came from the cache took no time: a build that was measured was built.
            built = {"merge", "build", "check", "time", "score"} & set(told.seconds) or (
                told.status != "over_limit" and told.measured.keys() & set(self._others)
            )
            if not alone and (adapter.reached == len(RUNGS) - 1 or built):
                adapter.reached = len(RUNGS) - 1
                adapter.failed.add(served)
                if told.status == "diverged":  # at full precision, or in two recipes: it will be in others
                    adapter.diverged += 1
                    adapter.ended |= adapter.diverged > (bits_of(candidate.recipe) < _EXACT)
            elif told.status == "lost" and not alone:  # which says nothing of the adapter
                adapter.failed.add(served)
            elif served not in self._over:
                adapter.ended = True
            return
        adapter.reached = max(adapter.reached, rung)
        if alone or rung < len(RUNGS) - 1:
            adapter.seen[rung] = Glimpse(score, told.items, told.probability)
        elif told.status != "stopped":  # older folders have pairs that were left on some of the items
            adapter.pairs[served] = score, told.items
            if told.values is not None:
                self._items = told.items

    def _scored(self, adapter: Adapter | None, served: str | None, rung: int) -> int:
        """Return on how many items an adapter was scored before in a recipe, or alone."""
        if adapter is None:
            return 0
        if served is not None:
            return adapter.pairs.get(served, (0.0, 0))[1]
        return adapter.seen[rung].items if rung in adapter.seen else 0


def _draws(space: Space, rng: random.Random) -> Iterator[Candidate]:
    """Yield candidates of a large space at random that can run: four times as many as are thought of, for repeats."""
    for _ in range(4 * POOL):
        candidate = drawn(space, rng)
        if candidate.lora is not None and not lora_impossible(candidate.lora, space.device):
            yield candidate


def _rung_of(share: float) -> int:
    """Return the number of the rung that is nearest to a share of the steps."""
    return min(range(len(RUNGS)), key=lambda rung: abs(RUNGS[rung] - share))


def _share(begun: int, to: int) -> float:
    """Return the share of a training that lies between two rungs (-1: none yet), 0 where it is there already."""
    return max(0.0, RUNGS[to] - (RUNGS[begun] if begun >= 0 else 0.0))


def _adapter_id(candidate: Candidate) -> str:
    return Candidate(lora=candidate.lora).id
