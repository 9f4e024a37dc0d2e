"""The search space of a sweep.

One idea: a sampler sees flat, unconditional choices (the LoRA parameters, and one list of whole recipes). Its draw is resolved
here into a `Candidate`, which holds only the parameters that have an effect.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.space.adapters import lora_impossible, resolve_lora
from autotune.space.domains import MOST_COMBINATIONS, Choice, Domain, Range
from autotune.space.parameter_tables import Value
from autotune.space.recipes import LeftOut, ModelShape, recipe_impossible


@dataclass(frozen=True)
class Space:
    """The space. `lora` None: only recipes; `recipes` empty: only adapters; `sessions` empty: only the target's session."""

    lora: Mapping[str, Domain] | None
    recipes: tuple[Recipe, ...]
    left_out: tuple[LeftOut, ...] = ()
    defaults: Mapping[str, Value] = field(default_factory=dict)
    device: str = "cpu"
    sessions: tuple[Session | None, ...] = ()
    target: str | None = None
    """The target that its candidates are measured for; None where the sweep has one."""
    builds_for: str = ""
    """The provider for which models are built: targets with the same one share builds."""

    @property
    def searched(self) -> dict[str, Domain]:
        """The LoRA parameters that have more than one value."""
        lora = self.lora or {}
        return {n: d for n, d in lora.items() if isinstance(d, Range) or len(d.values) > 1}

    @property
    def ranges(self) -> list[str]:
        """The LoRA parameters that are searched in a range."""
        return [name for name, domain in self.searched.items() if isinstance(domain, Range)]

    def candidate(
        self, values: Mapping[str, Value], recipe: Recipe | None, session: Session | None = None
    ) -> Candidate:
        """Resolve values of the searched parameters (the fixed ones are filled in) into a candidate."""
        if self.lora is None:
            return Candidate(recipe=recipe, session=session, target=self.target)
        fixed = {n: d.values[0] for n, d in self.lora.items() if isinstance(d, Choice)}
        lora = resolve_lora({**self.defaults, **fixed, **values})
        return Candidate(lora=lora, recipe=recipe, session=session, target=self.target)

    def has(self, lora: Lora) -> bool:
        """Whether an adapter's settings are among those of this space."""
        settings = lora.settings() | {"alpha_over_r": lora.alpha / lora.r}
        values = {name: settings[name] for name in self.searched if settings[name] is not None}
        # Settings without effect are None.
        idle = {name: domain.some for name, domain in self.searched.items() if name not in values}
        if self.lora is None or not all(self.searched[name].has(value) for name, value in values.items()):
            return False
        own = self.candidate(values | idle, None).lora
        # The product of ratio and rank may differ from alpha in the last digit.
        return (
            own is not None
            and math.isclose(own.alpha, lora.alpha)
            and own == lora.model_copy(update={"alpha": own.alpha})
        )

    def grid(self) -> Iterator[Candidate]:
        """Every candidate of a finite space once: adapters in the order written, each in every recipe and session.

        Raises ValueError where a parameter is a range.
        """
        domains = self.searched
        if self.ranges:
            raise ValueError(f"lora.{self.ranges[0]} is a range: a grid needs choices")
        seen: set[str] = set()
        axes = [domain.values for domain in domains.values() if isinstance(domain, Choice)]
        for combination in itertools.product(*axes):
            for recipe, session in itertools.product(self.recipes or (None,), self.sessions or (None,)):
                candidate = self.candidate(dict(zip(domains, combination, strict=True)), recipe, session)
                if candidate.id not in seen and not (candidate.lora and lora_impossible(candidate.lora, self.device)):
                    seen.add(candidate.id)
                    yield candidate

    def size(self) -> int | None:
        """The number of different candidates, or of combinations where they exceed 10,000; None where a parameter is a range."""
        combinations = max(1, len(self.recipes)) * max(1, len(self.sessions))
        for domain in self.searched.values():
            if isinstance(domain, Range):
                return None
            combinations *= len(domain.values)
        return sum(1 for _ in self.grid()) if combinations <= MOST_COMBINATIONS else combinations


def fit_recipes(space: Space, shape: ModelShape) -> Space:
    """Return the space without the recipes that cannot run on a model of this shape, which is known once it is fetched."""
    fitting: dict[Recipe, None] = {}
    left_out = list(space.left_out)
    for recipe in space.recipes:
        if recipe.shared_embeddings == shape.tied:
            recipe = recipe.model_copy(update={"shared_embeddings": None})
        reason = recipe_impossible(recipe, shape)
        if reason:
            left_out.append(LeftOut(str(recipe), reason))
        else:
            fitting[recipe] = None
    return replace(space, recipes=tuple(fitting), left_out=tuple(left_out))
