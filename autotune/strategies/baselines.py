"""The strategies that learn nothing, grid and random; and random draws among the candidates that are left of a space."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence, Set

from autotune.candidate import Candidate
from autotune.space.adapters import lora_impossible
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import Value
from autotune.space.space import Space
from autotune.strategies.protocol import Proposal, Told, Whole

_DRAWS = 10_000
"""A space that is not enumerated counts as used up after so many random draws in a row that are all known."""
_COUNTABLE = 10_000
"""The most combinations of a finite space that is enumerated, so that it is known which are left."""


def ids_of(pending: Sequence[Proposal]) -> set[str]:
    """Return the ids of the candidates that are in flight."""
    return {proposal.candidate.id for proposal in pending}


class Grid(Whole):
    """Proposes every candidate of a finite space in the order of the sweep file: an adapter in all recipes and sessions,
    then the next.

    With several targets: an adapter in all recipes and sessions on all of them, the targets in turn, then the next.
    """

    def __init__(self, *spaces: Space) -> None:
        self._candidates: Iterator[Candidate] = spaces[0].grid() if len(spaces) == 1 else _in_step(spaces)
        self._known: set[str] = set()
        self._left_out: set[str | None] = set()

    def leave_out(self, target: str | None) -> None:
        """Propose no more candidates of a target."""
        self._left_out.add(target)

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next candidates that are neither known nor pending."""
        busy, left_out = ids_of(pending), self._left_out
        new = (c for c in self._candidates if c.id not in self._known and c.id not in busy and c.target not in left_out)
        return [Proposal(candidate) for candidate in itertools.islice(new, n)]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Remember the candidate."""
        self.replay(proposal.candidate, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Remember the candidate."""
        del told
        self._known.add(candidate.id)


def _in_step(spaces: Sequence[Space]) -> Iterator[Candidate]:
    """Yield the candidates of several targets adapter by adapter, and of each adapter one of each target in turn."""
    by_adapter = [itertools.groupby(space.grid(), key=lambda candidate: candidate.lora) for space in spaces]
    for groups in itertools.zip_longest(*by_adapter, fillvalue=(None, iter(()))):
        for turn in itertools.zip_longest(*(group for _, group in groups)):
            yield from (candidate for candidate in turn if candidate is not None)


class Left:
    """The candidates of a space that were not proposed or replayed yet. A small space is enumerated, a larger one is drawn
    from.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._known: set[str] = set()
        combinations = max(1, len(space.recipes)) * max(1, len(space.sessions))
        for domain in space.searched.values():
            combinations *= len(domain.values) if isinstance(domain, Choice) else _COUNTABLE + 1
        self._all: dict[str, Candidate] | None = None
        if combinations <= _COUNTABLE:
            self._all = {candidate.id: candidate for candidate in space.grid()}

    def none(self, busy: Set[str] = frozenset()) -> bool:
        """Whether no candidate is left besides those with the ids `busy`; always false for a space that is not enumerated."""
        return self._all is not None and len(self._all) <= len(busy) and self._all.keys() <= busy

    def __contains__(self, candidate: Candidate) -> bool:
        """Whether a candidate is new, and can run."""
        if candidate.id in self._known:
            return False
        return candidate.lora is None or not lora_impossible(candidate.lora, self._space.device)

    def remove(self, candidate: Candidate) -> None:
        """Count a candidate as known."""
        self._known.add(candidate.id)
        if self._all is not None:
            self._all.pop(candidate.id, None)

    def draw(self, seed: str, busy: Set[str] = frozenset()) -> Candidate | None:
        """Return a random candidate whose id is not in `busy`; None where none is found."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        if self._all is not None:
            free = [candidate for name, candidate in self._all.items() if name not in busy]
            return rng.choice(free) if free else None
        draws = (drawn(self._space, rng) for _ in range(_DRAWS))
        return next((candidate for candidate in draws if candidate in self and candidate.id not in busy), None)


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
        return domain.value(rng.uniform(domain.low, domain.high))
    # The range is half a step wider at both ends, so that the first and the last whole number get their share.
    margin = 0.5 if domain.integer else 0.0
    value = math.exp(rng.uniform(math.log(domain.low - margin), math.log(domain.high + margin)))
    return domain.value(min(max(round(value), domain.low), domain.high) if domain.integer else value)


class Random(Whole):
    """Uniform draws. The n-th draw depends on seed and n alone: neither a stop nor the number of workers changes the draws."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed, self._draws = space, seed, 0
        self._left = Left(space)

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next draws that are neither known nor pending."""
        asked: list[Proposal] = []
        busy, repeats = ids_of(pending), 0
        while len(asked) < n and not self._left.none(busy) and repeats < _DRAWS:
            candidate = drawn(self._space, random.Random(f"{self._seed}-{self._draws}"))  # noqa: S311 - no secret
            self._draws += 1
            repeats += 1
            if candidate in self._left and candidate.id not in busy:
                asked.append(Proposal(candidate))
                busy.add(candidate.id)
                repeats = 0
        return asked

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Remember the candidate."""
        self.replay(proposal.candidate, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Remember the candidate."""
        del told
        self._left.remove(candidate)
