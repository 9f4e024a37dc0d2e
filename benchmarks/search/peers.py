"""The strategies that are compared, by name: what a user would write today, and what others have published.

| name | what | shares stages |
|---|---|---|
| optuna-tpe | Optuna's TPE as its documentation has it, repeats included: one full candidate at a time | no |
| optuna-tpe-cache | the same, in front of our cache: a repeated proposal is free, an adapter trained once | yes |
| optuna-tpe-warm, optuna-tpe-cache-warm | both of these, told to begin with what our prior thinks best, in every recipe | as those |
| in-turn | adapters in an order drawn at random, each in every recipe before the next | yes |
| halving | successive halving over adapters, ranked by accuracy at the table's rungs; what is left in every recipe | yes |
| tpe, nsga2, gp, random | the tool's own strategies over Optuna, which never propose a candidate twice | yes |
| mo-asha | Syne Tune's MOASHA over the joint space, at the table's rungs | yes |
| primo | NePS's PriMO over the joint space, at the table's rungs, without priors | yes |
| any other | `autotune.strategies.named.make_strategy` | yes |

At a lower rung the joint-space schedulers see the adapter's accuracy at full precision with the latency and size of the
recipe, which are measured once, on the untouched model; at the last rung the pair as built.

mo-asha and primo need packages of their own: see `requirements.txt`.
"""

from __future__ import annotations

import itertools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from autotune.candidate import Candidate, Lora
from autotune.space.domains import Choice
from autotune.space.parameter_tables import Value
from autotune.strategies.frontier.priors import prior_mean
from autotune.strategies.frontier.strategy import Frontier, Levers
from autotune.strategies.named import make_strategy
from autotune.strategies.protocol import Proposal, Strategy, Told, Whole
from benchmarks.search.replay import DIRECTIONS, Conditions
from benchmarks.search.table import OBJECTIVES, Table

MOST_PROPOSALS = 500
"""Proposals after which a strategy without an end of its own stops, repeats included: four times the pairs of a table."""
MOST_EVALUATIONS = 1500
"""The same for schedulers with three rungs."""
_WORST = (0.0, 1e6, 1e6)
"""What a candidate that diverged is told as: nothing is worse in any objective."""


def axes(table: Table) -> dict[str, tuple[Value, ...]]:
    """Return the searched parameters and their values; numbers ascend, so that their place is an ordered number."""
    found: dict[str, tuple[Value, ...]] = {}
    for name, domain in table.space.searched.items():
        assert isinstance(domain, Choice)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in domain.values)
        found[name] = tuple(sorted(domain.values, key=float)) if numbers else domain.values  # type: ignore[arg-type]
    return found


def ordered(values: tuple[Value, ...]) -> bool:
    """Whether the values of a parameter are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


class Joint:
    """The joint space of a table: places of the searched parameters, and the recipe, as one configuration."""

    def __init__(self, table: Table) -> None:
        self.table, self.axes = table, axes(table)

    def candidate(self, places: dict[str, int]) -> Candidate:
        """Return the candidate at these places."""
        values = {name: self.axes[name][places[name]] for name in self.axes}
        return self.table.space.candidate(values, self.table.recipes[places["recipe"]])

    def likely(self) -> list[dict[str, int]]:
        """Return the places of the adapter that our prior thinks best, in every recipe."""
        adapters = itertools.product(*(range(len(values)) for values in self.axes.values()))
        each = [dict(zip(self.axes, places, strict=True)) for places in adapters]

        def worth(places: dict[str, int]) -> float:
            lora = self.candidate(places | {"recipe": 0}).lora
            assert lora is not None
            return prior_mean(lora)

        best = max(each, key=worth)
        return [best | {"recipe": number} for number in range(len(self.table.recipes))]

    def sizes(self) -> dict[str, tuple[int, bool]]:
        """Return of every parameter how many places it has, and whether they are ordered."""
        found = {name: (len(values), ordered(values)) for name, values in self.axes.items()}
        return found | {"recipe": (len(self.table.recipes), False)}


class PlainOptuna(Whole):
    """An Optuna study with its defaults, as a user writes it: ask, evaluate to the end, tell; repeats as they come."""

    def __init__(self, table: Table, seed: int, warm: bool = False) -> None:
        """`warm`: begin with the adapter that `autotune.strategies.frontier.priors` thinks best, in every recipe."""
        self._joint = Joint(table)
        self._study = optuna.create_study(directions=DIRECTIONS, sampler=optuna.samplers.TPESampler(seed=seed))
        self._distributions: dict[str, BaseDistribution] = {
            name: IntDistribution(0, count - 1) if in_order else CategoricalDistribution(tuple(range(count)))
            for name, (count, in_order) in self._joint.sizes().items()
        }
        self._asked = 0
        for places in self._joint.likely() if warm else ():
            self._study.enqueue_trial(places)

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the sampler's next candidates, known or not."""
        del pending  # they are running trials of the study
        count = min(n, MOST_PROPOSALS - self._asked)
        self._asked += count
        trials = [self._study.ask(self._distributions) for _ in range(count)]
        return [Proposal(self._joint.candidate(trial.params), trial) for trial in trials]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Tell the study; a candidate that could not run is pruned, which keeps TPE away from there."""
        if told.values is None:
            self._study.tell(proposal.trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(proposal.trial, list(told.values))

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Not needed here."""


def _recipes(table: Table, seed: int) -> list[int]:
    """Return the recipes in an order drawn at random: the largest adds nothing to the hypervolume, and nobody knows."""
    return [int(number) for number in np.random.default_rng([seed, 3]).permutation(len(table.recipes))]


class InTurn(Whole):
    """Adapters in an order drawn at random, each in every recipe (in such an order, too) before the next."""

    def __init__(self, table: Table, seed: int) -> None:
        order = np.random.default_rng([seed, 2]).permutation(len(table.adapters))
        pairs = itertools.product(order.tolist(), _recipes(table, seed))
        self._left = iter([table.candidate(adapter, recipe) for adapter, recipe in pairs])

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next pairs."""
        del pending
        return [Proposal(candidate) for candidate in itertools.islice(self._left, n)]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Nothing is learned."""

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Nothing is learned."""


class Halving(Whole):
    """Successive halving over adapters: all of them at the lowest rung, the better third at the next, and so on; then those
    that are left in every recipe, the best first, and those that fell out last of all.

    Jamieson and Talwalkar, AISTATS 2016 (arXiv:1502.07943).
    """

    def __init__(self, table: Table, seed: int) -> None:
        self._table, self._rung = table, 0
        self._scores: dict[int, float] = {}
        self._fallen: list[int] = []
        self._alive: list[int] = np.random.default_rng([seed, 2]).permutation(len(table.adapters)).tolist()
        self._queue = list(self._alive)
        self._recipes = _recipes(table, seed)
        self._pairs: list[Candidate] | None = None

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next adapters of the rung, or the next pairs. A rung begins when the one before has ended."""
        if self._pairs is not None:
            now, self._pairs = self._pairs[:n], self._pairs[n:]
            return [Proposal(candidate) for candidate in now]
        busy = {proposal.trial for proposal in pending}
        free = [adapter for adapter in self._queue if adapter not in busy]
        rung = self._table.rungs[self._rung]
        return [Proposal(Candidate(lora=self._table.adapters[a]), a, rung) for a in free[:n]]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Take in a score; at the end of a rung a third goes on."""
        if self._pairs is not None:
            return
        self._queue.remove(proposal.trial)
        self._scores[proposal.trial] = told.measured.get("accuracy", -1.0)
        if self._queue:
            return
        ranked = sorted(self._alive, key=lambda adapter: -self._scores[adapter])
        kept = max(1, round(len(ranked) / 3))
        self._alive, self._fallen = ranked[:kept], ranked[kept:] + self._fallen
        self._rung, self._queue = self._rung + 1, list(self._alive)
        if self._rung == len(self._table.rungs) - 1:  # these are trained to the end as pairs
            order = self._alive + self._fallen
            pairs = itertools.product(order, self._recipes)
            self._pairs = [self._table.candidate(adapter, recipe) for adapter, recipe in pairs]

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Not needed here."""


class Rungs(Whole, ABC):
    """A multi-fidelity scheduler over the joint space: what is common to those of Syne Tune and NePS.

    `next_config` gives a handle, places and the number of a rung; `report` takes (accuracy, latency, size).
    """

    def __init__(self, table: Table) -> None:
        self._joint, self._table = Joint(table), table
        self._footprints: dict[int, tuple[float, float]] = {}
        self._pending: tuple[Any, dict[str, int], int] | None = None
        self._asked = 0

    @abstractmethod
    def next_config(self) -> tuple[Any, dict[str, int], int]:
        """Return what to evaluate next."""

    @abstractmethod
    def report(self, handle: Any, rung: int, values: tuple[float, float, float]) -> None:
        """Take in the objectives of an evaluation."""

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        """Return the next evaluation, or first the recipe's footprint, where a lower rung needs it: one at a time."""
        del n
        if pending:
            return []
        if self._pending is None:
            if self._asked >= MOST_EVALUATIONS:
                return []
            self._asked += 1
            self._pending = self.next_config()
        _, places, rung = self._pending
        last = len(self._table.rungs) - 1
        if rung < last and places["recipe"] not in self._footprints:
            return [Proposal(Candidate(recipe=self._table.recipes[places["recipe"]]), "footprint", items=0)]
        candidate = self._joint.candidate(places)
        if rung < last:
            candidate = Candidate(lora=candidate.lora)
        return [Proposal(candidate, rung=self._table.rungs[rung])]

    def tell(self, proposal: Proposal, told: Told) -> None:
        """Pass the objectives on."""
        assert self._pending is not None
        handle, places, rung = self._pending
        if "itl_ms_p50" in told.measured:
            self._footprints[places["recipe"]] = (told.measured["itl_ms_p50"], told.measured["size_mb"])
        if proposal.trial == "footprint":
            return
        values = _WORST
        if "accuracy" in told.measured:
            values = (told.measured["accuracy"], *self._footprints[places["recipe"]])
        self._pending = None
        self.report(handle, rung, values)

    def replay(self, candidate: Candidate, told: Told) -> None:
        """Not needed here."""
        del candidate, told


class MoAsha(Rungs):
    """Syne Tune's MOASHA with one worker: a trial goes on to the next rung as long as the scheduler says so."""

    def __init__(self, table: Table, seed: int) -> None:
        super().__init__(table)
        from syne_tune.config_space import choice, randint
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        np.random.seed(seed)  # its configuration spaces draw from the global generator
        space = {
            name: randint(0, count - 1) if in_order else choice(list(range(count)))
            for name, (count, in_order) in self._joint.sizes().items()
        }
        self._units = [round(rung / table.rungs[0]) for rung in table.rungs]
        self._scheduler = MOASHA(
            space, metrics=["error", "latency", "size"], time_attr="units", max_t=self._units[-1],
            grace_period=1, reduction_factor=3, random_seed=seed,
        )  # fmt: skip
        self._numbers = itertools.count()
        self._going_on: tuple[Any, dict[str, int], int] | None = None

    def next_config(self) -> tuple[Any, dict[str, int], int]:
        """Go on with the trial that survived its rung, or begin another."""
        if self._going_on is not None:
            config, self._going_on = self._going_on, None
            return config
        import datetime

        from syne_tune.backend.trial_status import Trial

        suggestion = self._scheduler.suggest()
        assert suggestion is not None
        places = {name: int(place) for name, place in suggestion.config.items()}
        trial = Trial(trial_id=next(self._numbers), config=places, creation_time=datetime.datetime.now(datetime.UTC))
        self._scheduler.on_trial_add(trial)
        return (trial, places), places, 0

    def report(self, handle: Any, rung: int, values: tuple[float, float, float]) -> None:
        """Tell the scheduler, and go on with the trial if it says so."""
        trial, places = handle
        result = {"error": -values[0], "latency": values[1], "size": values[2], "units": self._units[rung]}
        if rung == len(self._units) - 1:
            self._scheduler.on_trial_complete(trial, result)
        elif self._scheduler.on_trial_result(trial, result) == "CONTINUE":
            self._going_on = (handle, places, rung + 1)
        else:
            self._scheduler.on_trial_remove(trial)


class PriMo(Rungs):
    """NePS's PriMO through its ask and tell: MOASHA for the initial design, then Bayesian optimisation of a random
    scalarisation."""

    def __init__(self, table: Table, seed: int) -> None:
        super().__init__(table)
        import neps
        import torch
        from neps.optimizers.ask_and_tell import AskAndTell
        from neps.space.parsing import convert_to_space

        np.random.seed(seed)  # NePS draws from the global generators
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self._units = [round(rung / table.rungs[0]) for rung in table.rungs]
        space: dict[str, Any] = {
            name: neps.HPOInteger(0, count - 1) if in_order else neps.HPOCategorical(list(range(count)))
            for name, (count, in_order) in self._joint.sizes().items()
        }
        space["units"] = neps.HPOInteger(1, self._units[-1], is_fidelity=True)
        self._loop = AskAndTell(neps.algorithms.primo(convert_to_space(space), prior_centers={}))

    def next_config(self) -> tuple[Any, dict[str, int], int]:
        """Ask NePS."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._loop.ask()
        places = {name: int(trial.config[name]) for name in self._joint.sizes()}
        rung = min(range(len(self._units)), key=lambda n: abs(self._units[n] - trial.config["units"]))
        return trial, places, rung

    def report(self, handle: Any, rung: int, values: tuple[float, float, float]) -> None:  # noqa: ARG002
        """Tell NePS; the three objectives in units of their own order of size, because it adds them up."""
        sizes = (1.0, float(self._table.latency_ms.max()), float(self._table.size_mb.max()))
        losses = [sign * value / size for sign, value, size in zip((-1, 1, 1), values, sizes, strict=True)]
        self._loop.tell(handle, losses)


Make = Callable[[Table, int], Strategy]


def _own(name: str) -> Make:
    def make(table: Table, seed: int) -> Strategy:
        return make_strategy(name, table.space, OBJECTIVES, seed)

    return make


PEERS: dict[str, Make] = {
    "optuna-tpe": PlainOptuna,
    "optuna-tpe-cache": PlainOptuna,
    "optuna-tpe-warm": lambda table, seed: PlainOptuna(table, seed, warm=True),
    "optuna-tpe-cache-warm": lambda table, seed: PlainOptuna(table, seed, warm=True),
    "in-turn": InTurn,
    "halving": Halving,
    "mo-asha": MoAsha,
    "primo": PriMo,
}
OUTSIDE = tuple(PEERS)
"""Loops of a user's own, around other packages; the rest are strategies of our tool."""
WITHOUT_CACHE = ("optuna-tpe", "optuna-tpe-warm")
COST_BLIND = (*OUTSIDE, "tpe", "nsga2", "gp", "random", "grid")
"""Strategies that never look at what things cost: one replay serves all proportions of costs."""


def _without(lever: str) -> Make:
    """Return what makes `frontier` without one of its levers."""
    return lambda table, seed: Frontier(table.space, OBJECTIVES, seed, levers=Levers(**{lever: False}))


def _misled(table: Table, seed: int) -> Strategy:
    """Make `frontier` with a prior whose best learning rate is a tenth of what we think, and whose best rank the lowest."""

    def prior(lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:
        slower = prior_mean(lora, shift - 1, steepness)
        of_rank = prior_mean(lora) - prior_mean(lora.model_copy(update={"r": 1, "alpha": lora.alpha / lora.r}))
        return slower - 2 * of_rank

    return Frontier(table.space, OBJECTIVES, seed, prior=prior)


LEVERS = {f"frontier-without-{field.name}": _without(field.name) for field in fields(Levers)}
TIMING_EACH = ("frontier-without-shared-timing",)
AT_ONCE = ("frontier-without-first-looks",)
"""What measures the untouched model in full before anything else, and times each recipe precisely at once."""
LEVERS |= {name: lambda table, seed: Frontier(table.space, OBJECTIVES, seed) for name in (*TIMING_EACH, *AT_ONCE)}
LEVERS["frontier-misled"] = _misled
PEERS |= LEVERS


def conditions_of(name: str, seed: int, training: float = 1.0, items: int | None = None) -> Conditions:
    """Return the conditions of a replay of a strategy. `training`: how many times as long training takes; `items`: validation
    items, None: all of the table's.
    """
    return Conditions(
        seed, cache=name not in WITHOUT_CACHE, training=training, items=items,
        timing_shared=name not in TIMING_EACH, first_looks=name not in AT_ONCE, tool=name not in OUTSIDE,
    )  # fmt: skip


def strategy(name: str) -> Make:
    """Return what makes a strategy, from a table and a seed."""
    return PEERS.get(name) or _own(name)
