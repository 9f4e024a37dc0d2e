"""Optuna's samplers as strategies: tpe, nsga2 and gp.

A sampler is made anew for every trial, seeded by (seed, trial): reopening a study with one seed would repeat its first
draws.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from autotune.candidate import Candidate, Session
from autotune.metrics import Direction
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import Value
from autotune.space.space import Space
from autotune.strategies.baselines import Left, ids_of
from autotune.strategies.protocol import Proposal, Told, Whole

optuna.logging.set_verbosity(optuna.logging.ERROR)

POPULATION = 10
"""NSGA-II's population: Optuna's 50 would be a whole sweep of random draws."""
_REPEATS = {"tpe": 10, "nsga2": 10, "gp": 2}
"""After so many draws in a row that are all known, a new candidate is drawn at random: a sampler that has converged would
repeat itself for ever, and each draw of gp takes seconds."""

Samplers = Mapping[str, Callable[[int, bool], BaseSampler]]
"""Each takes a seed, and whether other trials are running."""


def _tpe(seed: int, running: bool) -> BaseSampler:
    # The constant liar counts running trials as bad ones, so that others are drawn elsewhere.
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=running)


def _nsga2(seed: int, running: bool) -> BaseSampler:
    del running  # a generation is drawn without knowing its own scores
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def _gp(seed: int, running: bool) -> BaseSampler:
    del running  # it conditions its acquisition on running trials by itself
    return optuna.samplers.GPSampler(seed=seed)


SAMPLERS: Samplers = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp}

_GENERATION = "NSGAIISampler:generation"


class Sampled(Whole):
    """One of Optuna's samplers over the space of adapters times recipes times sessions.

    To the sampler, ranges and choices of numbers are ordered parameters, a choice by its place; recipe and session are one
    categorical parameter each.
    """

    def __init__(self, name: str, space: Space, directions: Sequence[Direction], seed: int) -> None:
        self._make, self._space, self._seed = SAMPLERS[name], space, seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(directions=list(directions), sampler=self._make(seed, False))
        self._nsga2 = name == "nsga2"
        self._repeats = _REPEATS[name]
        self._domains = space.searched
        # The condition is drawn first: double_quant is drawn only where the base that was drawn before has 4 bits.
        self._order = sorted(self._domains, key=lambda n: n != "quantized_base")
        self._recipes = {str(recipe): recipe for recipe in space.recipes}
        self._sessions = {_session_label(session): session for session in space.sessions}
        self._left = Left(space)
        self._complete = 0

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the sampler's next candidates. Those that are pending are running trials of the study, which the sampler
        takes into account in its own way.
        """
        asked: list[Proposal] = []
        busy = ids_of(pending)
        while len(asked) < n and (proposal := self._another(busy)) is not None:
            asked.append(proposal)
            busy.add(proposal.candidate.id)
        return asked

    def _another(self, busy: Set[str]) -> Proposal | None:
        """Return one more candidate. A draw that is known or running already is told to the study as failed, and another
        follows: its result teaches nothing new.
        """
        for _ in range(self._repeats):
            if self._left.none(busy):
                return None
            trial = self._next(running=bool(busy))
            candidate = self._candidate(trial)
            if candidate in self._left and candidate.id not in busy:
                return Proposal(candidate, trial)
            self._study.tell(trial, state=TrialState.FAIL)
        new = self._left.draw(f"{self._seed}-{self._number()}", busy)
        if new is None:
            return None
        self._study.enqueue_trial(self._params(new) or {})
        trial = self._next(running=bool(busy))
        return Proposal(self._candidate(trial), trial)

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Tell the sampler; a candidate that could not be measured is PRUNED, which keeps it away from there."""
        if proposal.trial is None:  # it was begun by an earlier run, or by another strategy
            self.replay(proposal.candidate, told)
            return
        self._left.remove(proposal.candidate)
        trial: Trial = proposal.trial
        for limit, gap in told.gaps.items():
            trial.set_constraint(str(limit), gap)
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
                constraints={str(limit): gap for limit, gap in told.gaps.items()},
                system_attrs={_GENERATION: self._complete // POPULATION} if self._nsga2 else {},
            )
        )
        self._complete += told.values is not None

    def _number(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    def _next(self, running: bool) -> Trial:
        """Return the next trial; `running`: whether others are in flight."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._make((self._seed * 1_000_003 + self._number()) % 2**32, running)
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
        settings = candidate.lora.settings() if candidate.lora else {}
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
    return domain.value(drawn)


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
