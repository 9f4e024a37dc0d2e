"""Which proposals are in flight: asked for, and not told yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from autotune.strategies.frontier.observations import Observations, adapter_id, deployment_of, rung_of
from autotune.strategies.protocol import Proposal


class LowFidelity(NamedTuple):
    """An evaluation of an adapter without a recipe: trained to a rung, and scored on some of the items."""

    rung: int
    items: int


@dataclass
class InFlight:
    """The proposals in flight. Adapters go by their ids, deployments by their names, as in `Observations`."""

    low_fidelity: dict[str, LowFidelity] = field(default_factory=dict)
    """The evaluations of adapters without a recipe, by adapter."""
    pairs: dict[str, set[str]] = field(default_factory=dict)
    """The deployments in which an adapter is being measured, by adapter."""
    timed: set[str] = field(default_factory=set)
    """The deployments that are being timed."""

    def add(self, proposal: Proposal, observations: Observations) -> None:
        """Add a proposal; its adapter is added to `observations` where it is new."""
        candidate = proposal.candidate
        observations.add(candidate)
        name = adapter_id(candidate) if candidate.lora is not None else None
        if observations.alone(candidate):
            if name is not None:
                items = observations.items if proposal.items is None else proposal.items
                self.low_fidelity[name] = LowFidelity(rung_of(proposal.rung), items)
            return
        deployment = deployment_of(candidate)
        self.timed.add(deployment)
        if name is not None and deployment in observations.deployments:
            self.pairs.setdefault(name, set()).add(deployment)
