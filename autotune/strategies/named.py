"""The strategies by the names that sweeps use."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.metrics import METRICS, Direction
from autotune.space.space import Space
from autotune.strategies.baselines import Grid, Random
from autotune.strategies.frontier.cost_model import FirstCosts
from autotune.strategies.frontier.priors import Prior, prior_mean
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.protocol import Strategy


def strategy_of(name: str, space: Space, objectives: Mapping[str, Direction]) -> str:
    """Return the strategy that a name stands for. Without adapters `frontier` is grid, and without a score among the objectives
    it is tpe.
    """
    if name == "frontier" and space.lora is None:
        return "grid"
    if name == "frontier" and not any(METRICS[metric].kind == "score" for metric in objectives):
        return "tpe"
    return name


def make_strategy(
    name: str,
    space: Space,
    objectives: Mapping[str, Direction],
    seed: int,
    items: int = 1000,
    prior: Prior = prior_mean,
    first: FirstCosts | None = None,
) -> Strategy:
    """Return the strategy that a sweep names: frontier, tpe, nsga2, gp, random or grid.

    `items`: those of validation; `prior`: the prior mean of an adapter's settings, and `first`: what stages are taken to cost
    until they were measured, both for `frontier`.
    """
    name = strategy_of(name, space, objectives)
    if name == "frontier":
        return Frontier(space, objectives, seed, items, prior=prior, first=first)
    if name == "grid":
        return Grid(space)
    if name == "random":
        return Random(space, seed)
    from autotune.strategies.optuna_samplers import Sampled  # Optuna is slow to import, and a plan needs none of it

    return Sampled(name, space, list(objectives.values()), seed)
