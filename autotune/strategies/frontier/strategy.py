"""The strategy `frontier`: it proposes what is expected to improve the front most for each second.

Latency and size depend on the recipe alone; the score depends on the adapter too. So the search models adapters by a
Gaussian process (`surrogate`) and crosses them with a small table of recipes. Its prior mean is common experience with
LoRA settings (`priors`) and what earlier sweeps found (`transfer`). Scores of adapters at lower rungs and in recipes
update it (`belief`). `proposals` chooses among pairs, new adapters and low-fidelity evaluations.

A sweep with several targets is one search. A deployment belongs to one target, and what is known of adapters holds for all
targets. The worth of a proposal is what it adds to the mean of the targets' hypervolumes, each as a share of the largest
hypervolume that the target may have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.candidate import Candidate, Lora
from autotune.metrics import Direction
from autotune.space.space import Space
from autotune.strategies.frontier.belief import ScoreModel
from autotune.strategies.frontier.constants import RUNGS
from autotune.strategies.frontier.cost_model import FirstCosts
from autotune.strategies.frontier.in_flight import InFlight
from autotune.strategies.frontier.observations import Observations
from autotune.strategies.frontier.priors import Prior, prior_mean
from autotune.strategies.frontier.proposals import next_proposal
from autotune.strategies.protocol import Proposal, Told


@dataclass(frozen=True)
class Levers:
    """Parts of the strategy. The benchmark switches each off to measure its effect."""

    rungs: bool = True
    """Propose low-fidelity evaluations of adapters."""
    gate: bool = True
    """Measure a pair only when it is worth more than every other proposal; off: as soon as it may improve the front."""
    prior: bool = True
    """Use the prior mean of LoRA settings."""


class Frontier:
    """The strategy. Objectives that are scores are searched as one; the others depend on recipe and session only."""

    rungs = RUNGS

    def __init__(
        self,
        space: Space,
        objectives: Mapping[str, Direction],
        seed: int,
        items: int = 1000,
        levers: Levers = Levers(),
        prior: Prior = prior_mean,
        first: FirstCosts | None = None,
        others: Sequence[Space] = (),
    ) -> None:
        """`space`: that of the sweep's target, or of the first of several; `others`: those of the other targets; `items`:
        the number of validation items, until a fully scored candidate shows it; `prior`: the prior mean of an adapter's
        settings, in units of the score (a share); `first`: the assumed seconds of stages, until they are measured.
        """
        self._levers = levers
        known = prior if levers.prior else _no_prior
        self.observations = Observations(space, objectives, seed, items, known, first, others)
        self.model = ScoreModel(self.observations, centre_rates=not levers.prior)

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the proposals that are worth most, each chosen beside those before it and the pending ones."""
        asked: list[Proposal] = []
        in_flight = InFlight()
        for proposal in pending:
            in_flight.add(proposal, self.observations)
        while len(asked) < n and (found := self._next(in_flight)) is not None:
            asked.append(found)
            in_flight.add(found, self.observations)
        return asked

    def leave_out(self, target: str | None) -> None:
        """Propose no more candidates of a target."""
        self.observations.left_out.add(target)

    def _next(self, in_flight: InFlight) -> Proposal | None:
        return next_proposal(self.observations, self.model, in_flight, self._levers.rungs, self._levers.gate)

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Learn what was measured of a proposal."""
        self.replay(proposal.candidate, told)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Learn what was measured of a candidate, now or in an earlier run."""
        self.observations.learn(candidate, told)
        self.model.outdate()
        if (
            self.observations.to_refine
        ):  # here and not in `ask`, so that a resumed sweep has the same pool as one that never stopped
            self.model.refine()


def _no_prior(lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:  # noqa: ARG001
    return 0.0
