"""Which candidate next: `ask` and `tell`, with Optuna's samplers behind them.

The study lives in memory and is rebuilt from the rows of results.csv, which are the state of the search. A sampler is
made anew for every trial, seeded by (seed, trial): reopening a study with one seed would repeat its first draws.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from autotune.candidate import Candidate
from autotune.metrics import Direction
from autotune.space import Choice, Domain, Space, Value, lora_impossible

optuna.logging.set_verbosity(optuna.logging.ERROR)

POPULATION = 10
"""NSGA-II's population: Optuna's 50 would be a whole sweep of random draws."""
_REPEATS = 100
"""Draws of known candidates in a row, after which a new one is looked for at random."""
_COUNTABLE = 50_000
"""Candidates up to which a finite space is enumerated to know when it is used up."""


@dataclass(frozen=True)
class Told:
    """What became of a candidate, for a strategy.

    `values` in the order of the objectives, or None where it could not be measured; `gaps`: by how much each limit is
    broken (positive: broken), by its text.
    """

    values: tuple[float, ...] | None
    gaps: Mapping[str, float]


@dataclass(frozen=True)
class Proposal:
    """A candidate to try; `trial` is the strategy's own handle on it."""

    candidate: Candidate
    trial: Any = None


class Strategy(Protocol):
    """The seam: anything with these three functions can steer a sweep."""

    def ask(self) -> Proposal | None:
        """Return the next candidate, never one that is known; None where the space is used up."""
        ...

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Say what became of a proposal."""
        ...

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Say what an earlier run found out."""
        ...


class Grid:
    """Every candidate of a finite space, in the order written: an adapter in all its recipes, then the next."""

    def __init__(self, space: Space) -> None:
        self._candidates: Iterator[Candidate] = space.grid()
        self._known: set[str] = set()

    def ask(self) -> Proposal | None:
        """Return the next candidate that is not known."""
        for candidate in self._candidates:
            if candidate.id not in self._known:
                return Proposal(candidate)
        return None

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Remember the candidate."""
        self.replay(proposal.candidate, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Remember the candidate."""
        del told
        self._known.add(candidate.id)


Samplers = Mapping[str, Callable[[int], BaseSampler]]


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def _nsga2(seed: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: Samplers = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp, "random": _random}

_GENERATION = "NSGAIISampler:generation"


class Sampled:
    """One of Optuna's samplers over the space of adapters times recipes.

    Numbers are ordered for the sampler, choices of numbers by their place; the recipe is one categorical choice.
    """

    def __init__(self, name: str, space: Space, directions: Sequence[Direction], seed: int) -> None:
        self._make, self._space, self._seed = SAMPLERS[name], space, seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(directions=list(directions), sampler=self._make(seed))
        self._nsga2 = name == "nsga2"
        self._domains = space.searched
        # A condition first: double_quant is asked for only where the base drawn before is of 4 bits.
        self._order = sorted(self._domains, key=lambda n: n != "quantized_base")
        self._recipes = {str(recipe): recipe for recipe in space.recipes}
        self._known: dict[str, Told] = {}
        size = 1
        for domain in self._domains.values():
            size *= len(domain.values) if isinstance(domain, Choice) else _COUNTABLE + 1
        self._finite = size * max(1, len(self._recipes)) <= _COUNTABLE
        self._left: set[str] | None = {c.id for c in space.grid()} if self._finite else None

    def ask(self) -> Proposal | None:
        """Return the next candidate. A draw that is known already is told its result again and costs nothing."""
        for _ in range(_REPEATS):
            if self._left is not None and not self._left:
                return None
            trial = self._next()
            candidate = self._candidate(trial)
            if candidate.lora is not None and lora_impossible(candidate.lora, self._space.device):
                self._study.tell(trial, state=TrialState.PRUNED)
            elif candidate.id in self._known:
                self._tell(trial, self._known[candidate.id])
            else:
                return Proposal(candidate, trial)
        return self._any_new()

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Tell the sampler; a candidate that could not be measured is PRUNED, which keeps it away from there."""
        self._learn(proposal.candidate, told)
        self._tell(proposal.trial, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Add an earlier run's candidate; one outside today's space counts as known and teaches nothing."""
        self._learn(candidate, told)
        params = self._params(candidate)
        if params is None:
            return
        number = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if told.values is not None else TrialState.PRUNED,
                values=told.values,
                params=params,
                distributions={name: self._distribution(name) for name in params},
                constraints=dict(told.gaps),
                system_attrs={_GENERATION: number // POPULATION} if self._nsga2 else {},
            )
        )

    def _learn(self, candidate: Candidate, told: Told) -> None:
        self._known[candidate.id] = told
        if self._left is not None:
            self._left.discard(candidate.id)

    def _next(self) -> Trial:
        number = len(self._study.get_trials(deepcopy=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._make((self._seed * 1_000_003 + number) % 2**32)
        return self._study.ask()

    def _distribution(self, name: str) -> BaseDistribution:
        if name == "recipe":
            return CategoricalDistribution(tuple(self._recipes))
        return _distribution(self._domains[name])

    def _candidate(self, trial: Trial) -> Candidate:
        values: dict[str, Value] = {}
        fixed_base = self._space.lora.get("quantized_base") if self._space.lora else None
        for name in self._order:
            if name == "double_quant":
                base = values.get("quantized_base", fixed_base.values[0] if isinstance(fixed_base, Choice) else "none")
                if base not in ("nf4", "fp4"):
                    continue
            drawn = trial._suggest(name, self._distribution(name))
            values[name] = _value(self._domains[name], drawn)
        recipe = None
        if self._recipes:
            recipe = self._recipes[str(trial.suggest_categorical("recipe", tuple(self._recipes)))]
        return self._space.candidate(values, recipe)

    def _params(self, candidate: Candidate) -> dict[str, Any] | None:
        """Return what the sampler would have drawn for a candidate; None where today's space does not hold it."""
        params: dict[str, Any] = {}
        settings = candidate.lora.model_dump() if candidate.lora else {}
        for name, domain in self._domains.items():
            if name == "alpha_over_r" and settings:
                value: Any = settings["alpha"] / settings["r"]
            else:
                value = settings.get(name)
            if value is None and name == "double_quant":
                continue
            drawn = _drawn(domain, value)
            if drawn is None:
                return None
            params[name] = drawn
        if self._recipes:
            if str(candidate.recipe) not in self._recipes:
                return None
            params["recipe"] = str(candidate.recipe)
        return params

    def _tell(self, trial: Trial, told: Told) -> None:
        for text, gap in told.gaps.items():
            trial.set_constraint(text, gap)
        if told.values is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, list(told.values))

    def _any_new(self) -> Proposal | None:
        """Return some candidate that is not known, drawn at random; None where there is none."""
        number = len(self._study.get_trials(deepcopy=False))
        if self._left is not None:
            new = [c for c in self._space.grid() if c.id in self._left]
            if not new:
                return None
            candidate = random.Random(f"{self._seed}-{number}").choice(new)  # noqa: S311 - no secret
            self._study.enqueue_trial(self._params(candidate) or {})
            trial = self._study.ask()
            return Proposal(self._candidate(trial), trial)
        for _ in range(10 * _REPEATS):
            number = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = optuna.samplers.RandomSampler(seed=(self._seed * 1_000_003 + number) % 2**32)
            trial = self._study.ask()
            candidate = self._candidate(trial)
            if candidate.id not in self._known:
                return Proposal(candidate, trial)
            self._tell(trial, self._known[candidate.id])
        return None


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        if _ordered(domain):
            return IntDistribution(0, len(domain.values) - 1)
        return CategoricalDistribution(tuple(_label(value) for value in domain.values))
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _ordered(domain: Choice) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in domain.values)


def _label(value: Value) -> bool | str:
    if isinstance(value, tuple):
        return "+".join(value)
    return value if isinstance(value, bool) else str(value)


def _places(domain: Choice) -> list[float | int]:
    """Return the numbers of an ordered choice, ascending."""
    return sorted(value for value in domain.values if isinstance(value, int | float))


def _value(domain: Domain, drawn: Any) -> Value:
    """Return the parameter's value for what a sampler drew."""
    if isinstance(domain, Choice):
        if _ordered(domain):
            return _places(domain)[int(drawn)]
        return next(value for value in domain.values if _label(value) == drawn)
    # Four digits are enough to tell learning rates apart, and people read them.
    return int(drawn) if domain.integer else min(max(float(f"{drawn:.4g}"), domain.low), domain.high)


def _drawn(domain: Domain, value: Any) -> Any:
    """Return what a sampler draws for a value; None where the domain does not hold it. The inverse of `_value`."""
    if value is None:
        return None
    if isinstance(domain, Choice):
        if _ordered(domain):
            near = [place for place, number in enumerate(_places(domain)) if math.isclose(number, value, rel_tol=1e-9)]
            return near[0] if near else None
        label = _label(tuple(value) if isinstance(value, list) else value)
        return label if any(_label(v) == label for v in domain.values) else None
    if not domain.low <= value <= domain.high:
        return None
    return int(value) if domain.integer else float(value)


def make_strategy(name: str, space: Space, directions: Sequence[Direction], seed: int) -> Strategy:
    """Return the strategy that a sweep names: tpe, nsga2, gp, random or grid."""
    if name == "grid":
        return Grid(space)
    return Sampled(name, space, directions, seed)
