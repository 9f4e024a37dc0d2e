"""The adapters that the surrogate considers in a large space: drawn at random first, then also around the best.

A space is large where it has a range, or more adapters than `POOL`. A fixed draw would cover a wide space too thinly to come
near its best settings; so whenever an adapter was fully scored, the adapters that promise least make room for neighbours of
those that promise most.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping

from autotune.candidate import Candidate, Lora
from autotune.space.adapters import lora_impossible
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import LORA, Value
from autotune.space.space import Space
from autotune.strategies.baselines import drawn
from autotune.strategies.frontier.constants import (
    AS_GOOD,
    DRAWS_PER_ADAPTER,
    FAVOURITE_LEVELS,
    KNOWN_TO_PRIOR,
    LINE_LEVELS,
    LOG_RATIO,
    NEIGHBOUR_STEP,
    NEIGHBOURS_CHANGED,
    POOL,
)


def draws(space: Space, rng: random.Random) -> Iterator[Candidate]:
    """Yield random candidates of a large space whose adapters can be trained on its device."""
    for _ in range(DRAWS_PER_ADAPTER * POOL):
        candidate = drawn(space, rng)
        if candidate.lora is not None and not lora_impossible(candidate.lora, space.device):
            yield candidate


def favourites(space: Space, prior: Callable[[Lora], float]) -> Iterator[Candidate]:
    """Yield the candidate that the prior mean thinks best, then the same at other learning rates of the space.

    A parameter of which the prior says nothing has the tool's default, or the middle of a range that does not hold the
    default.
    """
    values = {name: _usual(name, domain) for name, domain in space.searched.items()}
    recipe = space.recipes[0] if space.recipes else None
    session = space.sessions[0] if space.sessions else None

    def made(changed: Mapping[str, Value]) -> Candidate:
        return space.candidate({**values, **changed}, recipe, session)

    def worth(changed: Mapping[str, Value]) -> float:
        lora = made(changed).lora
        possible = lora is not None and not lora_impossible(lora, space.device)
        return prior(lora) if lora is not None and possible else -math.inf

    for name in 2 * KNOWN_TO_PRIOR:  # one parameter after another, twice
        if name in values:
            options = _levels(space.searched[name], FAVOURITE_LEVELS)
            best = max(options, key=lambda one: worth({name: one}))
            if worth({name: best}) > worth({}) + 0.5 * AS_GOOD:
                values[name] = best
    line: list[dict[str, Value]] = [{}]
    if "learning_rate" in values:
        line += [{"learning_rate": rate} for rate in _levels(space.searched["learning_rate"], LINE_LEVELS)]
    yield from (made(changed) for changed in line if worth(changed) > -math.inf)


def _usual(name: str, domain: Domain) -> Value:
    """Return a parameter's default value where the domain has it, else the middle of the domain."""
    default = LORA[name].default
    if default is not None and domain.has(default):
        return default
    if isinstance(domain, Choice):
        return domain.values[len(domain.values) // 2]
    return _levels(domain, 3)[1]


def _levels(domain: Domain, count: int) -> list[Value]:
    """Return the values of a choice, or so many of a range, evenly spaced."""
    if isinstance(domain, Choice):
        return list(domain.values)
    spaced = domain.low > 0 and domain.high / domain.low > LOG_RATIO
    ends = (math.log(domain.low), math.log(domain.high)) if spaced else (domain.low, domain.high)
    places = (ends[0] + (ends[1] - ends[0]) * n / (count - 1) for n in range(count))
    numbers = (min(max(math.exp(place) if spaced else place, domain.low), domain.high) for place in places)
    return [domain.value(round(number) if domain.integer else number) for number in numbers]


def neighbours(space: Space, lora: Lora, count: int, rng: random.Random) -> Iterator[Candidate]:
    """Yield candidates whose adapters differ from given settings in a few parameters, numbers by little; at most `count`."""
    settings = lora.settings() | {"alpha_over_r": lora.alpha / lora.r}
    domains = space.searched
    here = {name: domain.some if settings[name] is None else settings[name] for name, domain in domains.items()}
    for _ in range(count):
        changed = [name for name in domains if rng.random() < NEIGHBOURS_CHANGED / len(domains)]
        values = here | _moved(domains, here, changed or [rng.choice(list(domains))], rng)
        recipe = rng.choice(space.recipes) if space.recipes else None
        candidate = space.candidate(values, recipe, space.sessions[0] if space.sessions else None)
        if candidate.lora is not None and not lora_impossible(candidate.lora, space.device):
            yield candidate


def _moved(
    domains: Mapping[str, Domain], here: Mapping[str, Value], names: list[str], rng: random.Random
) -> dict[str, Value]:
    """Return new values of some parameters."""
    return {name: _near(domains[name], here[name], rng) for name in names}


def _near(domain: Domain, value: Value, rng: random.Random) -> Value:
    """Return a value near another: the next one of an ordered choice, any other of an unordered one."""
    if isinstance(domain, Choice):
        values = domain.values
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            values = tuple(sorted(values, key=float))  # type: ignore[arg-type]
            place = min(range(len(values)), key=lambda one: abs(float(values[one]) - float(value)))  # type: ignore[arg-type]
            return values[min(max(place + rng.choice((-1, 1)), 0), len(values) - 1)]
        return rng.choice([one for one in values if one != value])
    low, high, number = domain.low, domain.high, float(value)  # type: ignore[arg-type]
    step = rng.gauss(0.0, NEIGHBOUR_STEP)
    if low > 0 and high / low > LOG_RATIO:
        moved = number * math.exp(step * math.log(high / low))
    else:
        moved = number + step * (high - low)
    moved = min(max(moved, low), high)
    return domain.value(round(moved) if domain.integer else moved)
