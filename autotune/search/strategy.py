"""Which candidate next: `ask` and `tell`, with Optuna's samplers behind them.

A strategy lives in memory and is rebuilt from the rows of results.csv, which are the state of the search. A sampler is
made anew for every trial, seeded by (seed, trial): reopening a study with one seed would repeat its first draws.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from autotune.candidate import Candidate, Session
from autotune.metrics import Direction
from autotune.space import Choice, Domain, Space, Value, lora_impossible

optuna.logging.set_verbosity(optuna.logging.ERROR)

POPULATION = 10
"""NSGA-II's population: Optuna's 50 would be a whole sweep of random draws."""
_REPEATS = {"tpe": 10, "nsga2": 10, "gp": 2}
"""Draws of known candidates in a row, after which a new one is drawn at random: a sampler that has converged would go
on for ever, and each draw of gp takes seconds."""
_DRAWS = 10_000
"""Random draws of known candidates in a row, after which a space that is not enumerated counts as used up."""
_COUNTABLE = 10_000
"""Combinations up to which a finite space is enumerated, to know what is left of it."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What was seen of each item that was scored, in the fixed order: (items,) each."""

    right: NDArray[np.float64]
    """1 where the prediction was right, else 0; of a metric that is no such share, its value for the item."""
    loss: NDArray[np.float64] | None = None
    """Cross-entropy over the labels, nats, where it is known."""
    margin: NDArray[np.float64] | None = None
    """The chosen label's lead over the second, nats, where it is known."""


@dataclass(frozen=True)
class Told:
    """What became of a candidate, for a strategy.

    `values` in the order of the objectives, or None where it could not be measured, or not in full (at a lower rung, on
    some of the items); `gaps`: by how much each limit is broken (positive: broken), by its text.
    """

    values: tuple[float, ...] | None
    gaps: Mapping[str, float]
    measured: Mapping[str, float] = field(default_factory=dict)
    """What was measured by its metric's name, also where `values` is None: the score of the items that were scored, or
    the latency and size of a build that was not scored."""
    outcomes: Outcomes | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What the proposal cost, by stage; what came from the cache is absent."""
    rung: float = 1.0
    """The share of its steps that the adapter was trained to."""
    items: int = 0
    """Validation items that it was scored on."""


@dataclass(frozen=True)
class Proposal:
    """A candidate to try; `trial` is the strategy's own handle on it."""

    candidate: Candidate
    trial: Any = None
    rung: float = 1.0
    """The share of its steps to train an adapter to; a recipe can be built at 1 only. Without a recipe, the adapter is
    scored at full precision at that rung."""
    items: int | None = None
    """Score on the first so many validation items of a fixed order; 0: build and time only; None: on all."""


class Strategy(Protocol):
    """The seam: anything with these three functions can steer a sweep."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """Shares of its steps to which it may train an adapter; empty: it asks for whole candidates only."""
        ...

    def close(self) -> Proposal | None:
        """Return what of the begun candidates is still to be done when no further one may begin; None: nothing."""
        ...

    def ask(self) -> Proposal | None:
        """Return the next candidate, never one that is known; None where the space is used up."""
        ...

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Say what became of a proposal."""
        ...

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Say what an earlier run found out."""
        ...


class Whole:
    """A strategy that asks for whole candidates only."""

    rungs: tuple[float, ...] = ()

    def close(self) -> Proposal | None:
        """Return None: whatever was begun is done."""
        return None


class Grid(Whole):
    """Every candidate of a finite space, in the order written: an adapter in all its recipes and their sessions, then the next."""

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


class Left:
    """The candidates of a space that are not known yet: all of them where it is small, else whatever is not known."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._known: set[str] = set()
        combinations = max(1, len(space.recipes)) * max(1, len(space.sessions))
        for domain in space.searched.values():
            combinations *= len(domain.values) if isinstance(domain, Choice) else _COUNTABLE + 1
        self._all: dict[str, Candidate] | None = None
        if combinations <= _COUNTABLE:
            self._all = {candidate.id: candidate for candidate in space.grid()}

    @property
    def none(self) -> bool:
        """Whether the space is used up, as far as that is known."""
        return self._all is not None and not self._all

    def __contains__(self, candidate: Candidate) -> bool:
        """Whether it is new, and can run."""
        if candidate.id in self._known:
            return False
        return candidate.lora is None or not lora_impossible(candidate.lora, self._space.device)

    def remove(self, candidate: Candidate) -> None:
        """Make it known."""
        self._known.add(candidate.id)
        if self._all is not None:
            self._all.pop(candidate.id, None)

    def draw(self, seed: str) -> Candidate | None:
        """Return one at random; None where there is none."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        if self._all is not None:
            return rng.choice(list(self._all.values())) if self._all else None
        draws = (drawn(self._space, rng) for _ in range(_DRAWS))
        return next((candidate for candidate in draws if candidate in self), None)


def drawn(space: Space, rng: random.Random) -> Candidate:
    """Return a candidate of the space at random, uniform in every parameter (or in its logarithm)."""
    values = {name: _random_value(domain, rng) for name, domain in space.searched.items()}
    recipe = rng.choice(space.recipes) if space.recipes else None
    return space.candidate(values, recipe, rng.choice(space.sessions) if space.sessions else None)


def _random_value(domain: Domain, rng: random.Random) -> Value:
    if isinstance(domain, Choice):
        return rng.choice(domain.values)
    if domain.integer and not domain.log:
        return rng.randint(int(domain.low), int(domain.high))
    if not domain.log:
        return _value(domain, rng.uniform(domain.low, domain.high))
    # Half a step beyond both ends, so that the first and the last whole number get their share.
    margin = 0.5 if domain.integer else 0.0
    value = math.exp(rng.uniform(math.log(domain.low - margin), math.log(domain.high + margin)))
    return _value(domain, min(max(round(value), domain.low), domain.high) if domain.integer else value)


class Random(Whole):
    """Uniform draws. The n-th draw depends on seed and n alone, so a sweep goes on as if it had never stopped."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed, self._draws = space, seed, 0
        self._left = Left(space)

    def ask(self) -> Proposal | None:
        """Return the next draw that is not known."""
        repeats = 0
        while not self._left.none and repeats < _DRAWS:
            candidate = drawn(self._space, random.Random(f"{self._seed}-{self._draws}"))  # noqa: S311 - no secret
            self._draws += 1
            if candidate in self._left:
                return Proposal(candidate)
            repeats += 1
        return None

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Remember the candidate."""
        self.replay(proposal.candidate, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Remember the candidate."""
        del told
        self._left.remove(candidate)


Samplers = Mapping[str, Callable[[int], BaseSampler]]


def _tpe(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)


def _nsga2(seed: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


SAMPLERS: Samplers = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp}

_GENERATION = "NSGAIISampler:generation"


class Sampled(Whole):
    """One of Optuna's samplers over the space of adapters times recipes times sessions.

    Numbers are ordered for the sampler, choices of numbers by their place; recipe and session are one categorical
    choice each.
    """

    def __init__(self, name: str, space: Space, directions: Sequence[Direction], seed: int) -> None:
        self._make, self._space, self._seed = SAMPLERS[name], space, seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(directions=list(directions), sampler=self._make(seed))
        self._nsga2 = name == "nsga2"
        self._repeats = _REPEATS[name]
        self._domains = space.searched
        # A condition first: double_quant is asked for only where the base drawn before is of 4 bits.
        self._order = sorted(self._domains, key=lambda n: n != "quantized_base")
        self._recipes = {str(recipe): recipe for recipe in space.recipes}
        self._sessions = {_session_label(session): session for session in space.sessions}
        self._left = Left(space)
        self._complete = 0

    def ask(self) -> Proposal | None:
        """Return the next candidate. A draw that is known already is forgotten: it has taught what it can."""
        for _ in range(self._repeats):
            if self._left.none:
                return None
            trial = self._next()
            candidate = self._candidate(trial)
            if candidate in self._left:
                return Proposal(candidate, trial)
            self._study.tell(trial, state=TrialState.FAIL)
        new = self._left.draw(f"{self._seed}-{self._number()}")
        if new is None:
            return None
        self._study.enqueue_trial(self._params(new) or {})
        trial = self._next()
        return Proposal(self._candidate(trial), trial)

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Tell the sampler; a candidate that could not be measured is PRUNED, which keeps it away from there."""
        self._left.remove(proposal.candidate)
        trial: Trial = proposal.trial
        for text, gap in told.gaps.items():
            trial.set_constraint(text, gap)
        if told.values is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, list(told.values))
            self._complete += 1

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Add an earlier run's candidate; one outside today's space counts as known and teaches nothing."""
        self._left.remove(candidate)
        params = self._params(candidate)
        if params is None:
            return
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if told.values is not None else TrialState.PRUNED,
                values=told.values,
                params=params,
                distributions={name: self._distribution(name) for name in params},
                constraints=dict(told.gaps),
                system_attrs={_GENERATION: self._complete // POPULATION} if self._nsga2 else {},
            )
        )
        self._complete += told.values is not None

    def _number(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def _next(self) -> Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._make((self._seed * 1_000_003 + self._number()) % 2**32)
        return self._study.ask()

    def _distribution(self, name: str) -> BaseDistribution:
        if name == "recipe":
            return CategoricalDistribution(tuple(self._recipes))
        if name == "session":
            return CategoricalDistribution(tuple(self._sessions))
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
        session = None
        if self._sessions:
            session = self._sessions[str(trial.suggest_categorical("session", tuple(self._sessions)))]
        return self._space.candidate(values, recipe, session)

    def _params(self, candidate: Candidate) -> dict[str, Any] | None:
        """Return what the sampler would have drawn for a candidate; None where today's space does not hold it."""
        params: dict[str, Any] = {}
        values: dict[str, Value] = {}
        settings = candidate.lora.model_dump() if candidate.lora else {}
        if settings:
            settings["alpha_over_r"] = settings["alpha"] / settings["r"]
        for name, domain in self._domains.items():
            if settings.get(name) is None and name == "double_quant":
                continue
            place = _place(domain, settings.get(name))
            if place is None:
                return None
            params[name], values[name] = place, _value(domain, place)
        recipe = self._recipes.get(str(candidate.recipe))
        if recipe is not None:
            params["recipe"] = str(recipe)
        elif self._recipes:
            return None
        label = _session_label(candidate.session)
        if self._sessions:
            if label not in self._sessions:
                return None
            params["session"] = label
        # What is not searched must agree too.
        session = self._sessions.get(label)
        return params if self._space.candidate(values, recipe, session).id == candidate.id else None


def _session_label(session: Session | None) -> str:
    return str(session) if session is not None else "as the target says"


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


def _place(domain: Domain, value: Any) -> Any:
    """Return what a sampler draws for a value; None where the domain does not hold it. The inverse of `_value`."""
    if value is None:
        return None
    if isinstance(domain, Choice):
        if _ordered(domain):
            near = [place for place, number in enumerate(_places(domain)) if math.isclose(number, value, rel_tol=1e-9)]
            return near[0] if near else None
        label = _label(tuple(value) if isinstance(value, list) else value)
        return label if any(_label(v) == label for v in domain.values) else None
    inside = min(max(value, domain.low), domain.high)
    if not math.isclose(inside, value, rel_tol=1e-9):
        return None
    return int(inside) if domain.integer else float(inside)
