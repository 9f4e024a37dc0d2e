"""What the search has observed: scores of adapters, footprints of recipes, costs, failures. No decision is made here.

It is one module because each new row changes most of these observations at once.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.metrics import METRICS, Direction
from autotune.space.space import Space
from autotune.strategies.frontier.constants import (
    BUILD_PRIOR_WEIGHT,
    EXACT_BITS,
    MIDDLE_SCORE,
    OPTIMISM,
    POOL,
    RATE_SHIFTS,
    REFINED,
    REFINED_AROUND,
    REFINED_EACH,
    RUNGS,
    SHARED_CHANCE,
    SHIFT_CHANCES,
    STEEP_CHANCES,
    STEEPNESSES,
    UNKNOWN_BASE,
    UNQUANTISED_BITS,
)
from autotune.strategies.frontier.cost_model import CostModel, FirstCosts, work_of
from autotune.strategies.frontier.kernel import Place, place_of
from autotune.strategies.frontier.pool import draws, favourites, neighbours
from autotune.strategies.frontier.priors import Prior, bits_of, prior_loss, relative_footprint, stored_bits
from autotune.strategies.frontier.score_scale import ScoreScales
from autotune.strategies.frontier.surrogate import variance
from autotune.strategies.protocol import Told

LAST = len(RUNGS) - 1
"""The number of the last rung, at which a training is complete."""


Scores = tuple[float, ...]
"""The values of a model in each objective that is a score, as measured, each on its metric's own scale."""


@dataclass(frozen=True)
class RungScore:
    """The score of an adapter at one rung, without a recipe."""

    score: Scores
    items: int
    probability: float | None = None
    """The mean probability of the right label. Below the last rung it ranks adapters better than the score does, on fewer
    items (benchmarks/measured/signals.md)."""


@dataclass
class Adapter:
    """One adapter, and what was observed of it."""

    lora: Lora
    place: Place
    prior_means: tuple[float, ...]
    """What its settings add to the score before anything is observed (a share), by each hypothesis: the best rate shifted by
    each of `RATE_SHIFTS`, and at last that settings say nothing."""
    reached: int = -1
    """The highest rung that it was trained to; -1: none."""
    in_space: bool = True
    """Whether the sweep may propose it. From an adapter of an earlier version of the space the search only learns."""
    unusable: bool = False
    """Whether it diverged, or cannot be trained."""
    diverges: bool = False
    """Whether its training, or its predictions, gave values that are no finite numbers."""
    rung_scores: dict[int, RungScore] = field(default_factory=dict)
    """Its scores without a recipe, by rung."""
    pairs: dict[str, tuple[Scores, int]] = field(default_factory=dict)
    """Its scores, and the number of items, by deployment."""
    failed: set[str] = field(default_factory=set)
    """The deployments in which it cannot be built or run."""
    diverged: int = 0
    """The number of deployments in which its score was no number."""

    @property
    def untouched(self) -> bool:
        """Whether nothing was observed of it."""
        return self.reached < 0 and not (self.unusable or self.rung_scores or self.pairs or self.failed)


@dataclass(frozen=True)
class Deployment:
    """A recipe, and the session that serves its build; no recipe where the sweep builds nothing."""

    recipe: Recipe | None = None
    session: Session | None = None
    target: str | None = None
    """Where it runs; None where the sweep has one target."""

    def __str__(self) -> str:
        return self.model if self.target is None else f"{self.target}: {self.model}"

    @property
    def model(self) -> str:
        """The deployment without its target: its predictions are the same on all targets, apart from rounding."""
        return f"{self.recipe or ''} {self.session or ''}".strip()


def deployment_of(candidate: Candidate) -> str:
    """Return the name of a candidate's deployment."""
    return str(Deployment(candidate.recipe, candidate.session, candidate.target))


class Observations:
    """Everything that was observed in a sweep. Deployments go by their names (`str`), adapters by the ids of `adapter_id`.

    Objectives that are scores count as one (`ScoreScales`). The footprint of a deployment is its values of the others, in the
    order of `directions`. Where the sweep has several targets, each has deployments of its own; adapters, and what a recipe
    costs their scores, are shared.
    """

    def __init__(
        self,
        space: Space,
        objectives: Mapping[str, Direction],
        seed: int,
        items: int,
        prior: Prior,
        first: FirstCosts | None = None,
        others: Sequence[Space] = (),
    ) -> None:
        """`space`: that of the sweep's target, or of the first of several; `others`: those of the other targets, which have
        the same adapters; `seed`: for the adapters that are sampled from a large space; `items`: the number of validation
        items, until a fully scored candidate shows it; `prior`: what an adapter's settings add to the score (a share), if
        the best learning rate is so many decades above the usual one; `first`: the assumed seconds of stages, until they are
        measured.
        """
        self.space, self.items, self._prior = space, items, prior
        self.spaces = {one.target: one for one in (space, *others)}
        """By target."""
        self.left_out: set[str | None] = set()
        """The targets for which nothing is proposed."""
        self._scores = [name for name in objectives if METRICS[name].kind == "score"]
        self.scale = ScoreScales({name: objectives[name] for name in self._scores})
        self.others = [name for name in objectives if name not in self._scores]
        """The objectives besides the scores."""
        self.directions = [objectives[name] for name in self.others]
        self.deployments = {str(one): one for each in self.spaces.values() for one in _deployments(each)}
        self.models = {name: one.model for name, one in self.deployments.items()}
        """The model that is scored in each deployment, by its name, which is the same on all targets."""
        self.prior_losses = {self.models[name]: prior_loss(one.recipe) for name, one in self.deployments.items()}
        """The prior of the quantisation loss, by model."""
        self._bits = {name: stored_bits(one.recipe) for name, one in self.deployments.items()}
        """Bits of a stored weight, also of the untouched model's deployment, which may not belong to the space."""
        self._targets = {name: one.target for name, one in self.deployments.items()}
        """The target of each deployment, also of the untouched model's."""
        self.over_limit: set[str] = set()
        """The deployments whose footprint breaks a limit, with any adapter."""
        self.footprints: dict[str, list[float]] = {}
        """The measured footprints."""
        self._untouched: dict[str | None, Scores] = {}
        """The scores of the untouched model by target: the floor of the hypervolume."""
        self.adapters: dict[str, Adapter] = {}
        self.chance = (1 - SHARED_CHANCE) * variance(0.5)
        """The expected variance of one item in a low-fidelity evaluation, without what all adapters have in common."""
        size = space.size()
        small = size is not None and size <= POOL * len(_deployments(space))
        self._large, self._seed = not small, seed
        self._refined_at = 0
        """The number of fully trained adapters when the pool was refined last."""
        for candidate in () if small else favourites(space, self._expected_prior):
            self.add(candidate, in_space=True)
        for candidate in space.grid() if small else draws(space, random.Random(f"frontier-{seed}")):  # noqa: S311 - no secret
            if small or len(self.adapters) < POOL:
                self.add(candidate, in_space=True)
        works = [work_of(adapter.lora) for adapter in self.adapters.values()]
        self.costs = CostModel(statistics.fmean(works) if works else 1.0, first)

    def add(self, candidate: Candidate, in_space: bool = False) -> Adapter | None:
        """Return the adapter of a candidate, which is added where it is new; None for the untouched model."""
        if candidate.lora is None:
            return None
        name = adapter_id(candidate)
        if name not in self.adapters:
            in_space = in_space or self.space.has(candidate.lora)
            place = place_of(candidate.lora, self.space)
            each = itertools.product(STEEPNESSES, RATE_SHIFTS)
            prior_means = (*(self._prior(candidate.lora, shift, steep) for steep, shift in each), 0.0)
            self.adapters[name] = Adapter(candidate.lora, place, prior_means, in_space=in_space)
        return self.adapters[name]

    def _expected_prior(self, lora: Lora) -> float:
        """Return the prior mean of an adapter's settings over all hypotheses. It favours settings that lose little under a
        wrong hypothesis.
        """
        each = itertools.product(
            zip(STEEPNESSES, STEEP_CHANCES, strict=True), zip(RATE_SHIFTS, SHIFT_CHANCES, strict=True)
        )
        return sum(steep * chance * self._prior(lora, shift, times) for (times, steep), (shift, chance) in each)

    @property
    def to_refine(self) -> bool:
        """Whether the pool is one of a large space, and enough adapters were fully scored since it was refined last."""
        return self._large and self._scored >= self._refined_at * REFINED_EACH + 1

    @property
    def _scored(self) -> int:
        return sum(bool(adapter.pairs) for adapter in self.adapters.values())

    def refine(self, promise: Mapping[str, float]) -> None:
        """Replace the untouched adapters that promise least by neighbours of those that promise most, and by random draws.

        `promise`: by adapter, a score that it may have (a share).
        """
        self._refined_at = self._scored
        rng = random.Random(f"frontier-{self._seed}-{self._refined_at}")  # noqa: S311 - no secret
        ranked = sorted((name for name in promise if self.adapters[name].in_space), key=lambda name: -promise[name])
        best = [self.adapters[name].lora for name in ranked if not self.adapters[name].unusable][:REFINED_AROUND]
        untouched = [name for name in ranked if self.adapters[name].untouched]
        room = max(2 * REFINED, POOL - (len(self.adapters) - len(untouched)))
        for name in untouched[room - REFINED :]:
            del self.adapters[name]
        near = [neighbours(self.space, lora, REFINED, rng) for lora in best]
        fresh = draws(self.space, rng)
        wanted = len(self.adapters) + REFINED
        for group in itertools.zip_longest(*near, *(itertools.islice(fresh, REFINED) for _ in near)):
            for candidate in group:
                if candidate is not None and len(self.adapters) < wanted:
                    self.add(candidate, in_space=True)

    def alone(self, candidate: Candidate) -> bool:
        """Whether a candidate is an adapter without a recipe, in a space that has recipes."""
        return candidate.recipe is None and any(space.recipes for space in self.spaces.values())

    def training_s(self, adapter: Adapter, to: int) -> float:
        """Return the expected seconds of training an adapter from the rung that it has reached to the rung `to`."""
        return self.costs.training(_steps_between(adapter.reached, to) * work_of(adapter.lora))

    def pair_s(self, deployment: str, timed: bool = False) -> float:
        """Return the expected seconds of measuring a trained adapter in a deployment; `timed`: its timing is in flight."""
        if self.deployments[deployment].recipe is None:
            return self.costs.alone(self.items)
        target = self.deployments[deployment].target
        return self.costs.pair(deployment, self.items, timed or deployment in self.footprints, target)

    def saved_s(self, adapter: Adapter, deployment: str) -> float:
        """Return the seconds of `pair_s` that a deployment on another target has spent already: on the merged model, and on a
        build that is the same.
        """
        own = self.deployments[deployment]
        elsewhere = [self.deployments[name] for name in adapter.pairs]
        elsewhere = [other for other in elsewhere if other.target != own.target]
        if own.recipe is None or not elsewhere:
            return 0.0
        builds_for = self.spaces[own.target].builds_for
        same = any(o.recipe == own.recipe and self.spaces[o.target].builds_for == builds_for for o in elsewhere)
        return self.costs.made(deployment, own.target, built=same)

    def known_elsewhere(self, adapter: Adapter, deployment: str) -> bool:
        """Whether an adapter was scored in a deployment's recipe and session on another target."""
        model = self.models[deployment]
        return any(name != deployment and self.models[name] == model for name in adapter.pairs)

    def distinct(self, deployments: Iterable[str]) -> list[str]:
        """Return one of these deployments for each model."""
        return list({self.models[name]: name for name in deployments}.values())

    def of_models(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return an adapter's scores by model, from those by deployment: the mean over the targets. Both are shares."""
        scores: dict[str, list[float]] = {}
        for deployment, share in shares.items():
            scores.setdefault(self.models[deployment], []).append(share)
        return {model: each[0] if len(each) == 1 else statistics.fmean(each) for model, each in scores.items()}

    @property
    def home(self) -> str | None:
        """The target whose rows have the evaluations of adapters without a recipe, which belong to no target."""
        return next((target for target in self.spaces if target not in self.left_out), self.space.target)

    def shares(self, adapter: Adapter) -> dict[str, float]:
        """Return an adapter's scores by deployment, on the scale of shares."""
        return {deployment: self.scale.share(score) for deployment, (score, _) in adapter.pairs.items()}

    @property
    def untouched(self) -> Scores | None:
        """The scores of the untouched model; of several targets those of the first that has some."""
        return next((self._untouched[target] for target in self.spaces if target in self._untouched), None)

    @property
    def floor(self) -> float:
        """The score of a model that has learned nothing (a share): the untouched model's, or `UNKNOWN_BASE` below the worst."""
        return self.floor_of(self.space.target)

    def floor_of(self, target: str | None) -> float:
        """Return the floor for one target; where it has no score yet, another target's score stands for it."""
        untouched = self._untouched.get(target, self.untouched)
        if untouched is not None:
            return self.scale.share(untouched)
        known = (share for adapter in self.adapters.values() for share in self.shares(adapter).values())
        return min(known, default=MIDDLE_SCORE) - UNKNOWN_BASE

    def footprint(self, deployment: str) -> list[float]:
        """Return the footprint of a deployment: as measured, or predicted from its bits and the nearest measured footprint,
        and then made better by `OPTIMISM`. A footprint of another target is used only until its own target has one.
        """
        if deployment in self.footprints:
            return self.footprints[deployment]
        bits, target = self._bits[deployment], self._targets[deployment]
        own = [name for name in self.footprints if self._targets[name] == target] or self.footprints
        near = min(own, key=lambda known: abs(math.log(bits / self._bits[known])), default=None)
        larger = OPTIMISM * relative_footprint(bits, self._bits[near] if near is not None else UNQUANTISED_BITS)
        known = self.footprints[near] if near is not None else [1.0] * len(self.directions)
        return [
            value * larger if direction == "minimize" else value / larger
            for value, direction in zip(known, self.directions, strict=True)
        ]

    def build_probability(self, deployment: str) -> float:
        """Return the probability that the next adapter can be built and run in a deployment. A deployment that failed with
        every adapter so far is proposed last.
        """
        built = sum(deployment in adapter.pairs for adapter in self.adapters.values())
        failed = sum(deployment in adapter.failed for adapter in self.adapters.values())
        return (built + BUILD_PRIOR_WEIGHT) / (built + failed + BUILD_PRIOR_WEIGHT)

    def learn(self, candidate: Candidate, told: Told) -> None:
        """Add what was measured of a candidate, now or in an earlier run."""
        adapter = self.add(candidate)
        deployment, alone = deployment_of(candidate), self.alone(candidate)
        rung = rung_of(told.rung)
        work = 0.0 if adapter is None else _steps_between(adapter.reached, rung) * work_of(adapter.lora)
        scored = _items_scored(adapter, None if alone else deployment, rung)
        built = deployment if candidate.recipe else None
        self.costs.learn(told.seconds, built, work, told.items - scored, candidate.target)
        self._bits.setdefault(deployment, stored_bits(candidate.recipe))
        self._targets.setdefault(deployment, candidate.target)
        if not alone and all(name in told.measured for name in self.others):
            self.footprints[deployment] = [told.measured[name] for name in self.others]
        if any(gap > 0 and METRICS[limit.metric].kind != "score" for limit, gap in told.gaps.items()):
            self.over_limit.add(deployment)
        measured = tuple(told.measured[name] for name in self._scores if name in told.measured)
        score = measured if len(measured) == len(self._scores) else None
        if told.probability is not None:
            self.chance = (1 - SHARED_CHANCE) * variance(0.5, smooth=True)
        if score is not None:
            self.scale.add(score, untouched=adapter is None)
        if adapter is None:
            if score is not None:
                self._untouched[candidate.target] = score
            return
        if not alone and deployment not in self.deployments:  # that deployment is of an earlier version of the space
            return
        if score is None:
            self._learn_failure(adapter, candidate, told)
            return
        adapter.reached = max(adapter.reached, rung)
        if alone or rung < LAST:
            adapter.rung_scores[rung] = RungScore(score, told.items, told.probability)
        elif told.status != "stopped":  # older folders have pairs that were scored on some of the items only
            adapter.pairs[deployment] = score, told.items
            if told.values is not None:
                self.items = told.items

    def _learn_failure(self, adapter: Adapter, candidate: Candidate, told: Told) -> None:
        """Add that an adapter has no score, alone or in a deployment."""
        deployment, alone = deployment_of(candidate), self.alone(candidate)
        adapter.pairs.pop(deployment, None)
        # A stage whose result came from the cache has no seconds. A measured footprint proves that the build succeeded.
        built = {"merge", "build", "check", "time", "score"} & set(told.seconds) or (
            told.status != "over_limit" and told.measured.keys() & set(self.others)
        )
        if not alone and (adapter.reached == LAST or built):
            adapter.reached = LAST
            adapter.failed.add(deployment)
            # An adapter whose score is no number at full precision, or in two recipes, has diverged.
            if told.status == "diverged":
                adapter.diverged += 1
                adapter.unusable |= adapter.diverged > (bits_of(candidate.recipe) < EXACT_BITS)
                adapter.diverges |= adapter.unusable
        elif told.status == "lost" and not alone:  # the worker died, which shows nothing about the adapter
            adapter.failed.add(deployment)
        elif deployment not in self.over_limit:
            adapter.unusable = True
            adapter.diverges = told.status == "diverged"


def _deployments(space: Space) -> list[Deployment]:
    """Return the deployments of one target's space."""
    served = itertools.product(space.recipes or (None,), space.sessions or (None,))
    return [Deployment(recipe, session, space.target) for recipe, session in served]


def adapter_id(candidate: Candidate) -> str:
    """Return the id of a candidate's adapter."""
    return Candidate(lora=candidate.lora).id


def rung_of(share: float) -> int:
    """Return the number of the rung that is nearest to a share of the steps."""
    return min(range(len(RUNGS)), key=lambda rung: abs(RUNGS[rung] - share))


def _items_scored(adapter: Adapter | None, deployment: str | None, rung: int) -> int:
    """Return the number of items that an adapter was scored on before, in a deployment or (None) without a recipe."""
    if adapter is None:
        return 0
    if deployment is not None:
        return adapter.pairs.get(deployment, (0.0, 0))[1]
    return adapter.rung_scores[rung].items if rung in adapter.rung_scores else 0


def _steps_between(begun: int, to: int) -> float:
    """Return the share of a training's steps between two rungs (-1: untrained); 0 where `to` is reached already."""
    return max(0.0, RUNGS[to] - (RUNGS[begun] if begun >= 0 else 0.0))
