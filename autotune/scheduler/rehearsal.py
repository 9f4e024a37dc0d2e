"""A rehearsal: a simulated sweep, by which `plan` predicts what a strategy would spend.

Scores are drawn around the prior mean of the settings, latency and size follow from the bits of a recipe, and the seconds
of each stage are given. For a strategy with lower fidelities it shows how many adapters begin, and how far they are trained.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autotune.candidate import Candidate, Recipe, Session
from autotune.metrics import METRICS, Direction
from autotune.strategies.frontier.priors import bits_of, prior_mean
from autotune.strategies.protocol import Proposal, Strategy, Told

MOST = 150
"""The most proposals that are simulated: each takes milliseconds, and `plan` should answer at once."""
_LUCK, _LOSS, _EARLY = 0.03, 0.08, 0.1
"""In units of the score: the standard deviation between adapters, the loss of a recipe of one bit, and the loss of a training
that has not begun. Chosen, not measured."""


@dataclass
class Spent:
    """What a rehearsed sweep spent."""

    candidates: int = 0
    """Candidates that were fully measured."""
    trained: float = 0.0
    """Trainings, each by the share of its steps."""
    adapters: int = 0
    """Adapters that were trained to any rung."""
    builds: int = 0
    items: int = 0
    """Items scored."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    ended: str = "space"
    """Why it ended: trials, hours, space."""

    @property
    def total_s(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def pay(self, seconds: Mapping[str, float]) -> None:
        """Add seconds by stage."""
        for stage, value in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    def times(self, factor: float) -> Spent:
        """Return everything multiplied by a factor."""
        return Spent(
            round(self.candidates * factor), self.trained * factor, round(self.adapters * factor),
            round(self.builds * factor), round(self.items * factor),
            {stage: seconds * factor for stage, seconds in self.seconds.items()}, self.ended,
        )  # fmt: skip

    def plus(self, other: Spent) -> Spent:
        """Return the sum of both."""
        both = Spent(
            self.candidates + other.candidates, self.trained + other.trained, self.adapters + other.adapters,
            self.builds + other.builds, self.items + other.items, dict(self.seconds), self.ended,
        )  # fmt: skip
        both.pay(other.seconds)
        return both


class Stage:
    """The simulated stages. A stage that was done before costs nothing."""

    def __init__(
        self, objectives: Mapping[str, Direction], costs: Mapping[str, float], items: int, built: bool = True
    ) -> None:
        """`costs`: seconds of `train` (to the end), `build`, `check`, `time`, and of `score` for an item; `built`: whether
        an adapter alone is scored as built at full precision, and not by PyTorch.
        """
        self._objectives, self._costs, self._items, self._built_alone = objectives, costs, items, built
        self._reached: dict[str, float] = {}
        self._built: set[tuple[str, float, str]] = set()
        self._timed: set[tuple[Recipe | None, Session | None]] = set()
        self._scored: dict[tuple[str, float, str], int] = {}
        self.climbed, self.crossed = Spent(), Spent()
        """What is spent on adapters (trainings, scores at lower rungs), and what is spent on candidates."""

    @property
    def spent(self) -> Spent:
        """What was spent in total."""
        return self.climbed.plus(self.crossed)

    def measure(self, proposal: Proposal) -> Told:
        """Return the simulated measurement of a proposal, and add its costs."""
        candidate, training, seconds = proposal.candidate, dict[str, float](), dict[str, float]()
        spent = self.climbed if candidate.recipe is None and proposal.rung < 1 else self.crossed
        adapter = Candidate(lora=candidate.lora).id if candidate.lora is not None else ""
        what = (adapter, proposal.rung, str(candidate.recipe or ""))
        if adapter and proposal.rung > (before := self._reached.get(adapter, 0.0)):
            self.climbed.trained += proposal.rung - before
            self.climbed.adapters += before == 0
            self._reached[adapter] = proposal.rung
            training["train"] = (proposal.rung - before) * self._costs["train"]
        if what not in self._built and (candidate.recipe is not None or self._built_alone):
            self._built.add(what)
            spent.builds += 1
            seconds["build"] = self._costs["build"]
            if candidate.recipe is not None:
                seconds["check"] = self._costs["check"]
        if candidate.recipe is not None and (candidate.recipe, candidate.session) not in self._timed:
            self._timed.add((candidate.recipe, candidate.session))
            seconds["time"] = self._costs["time"]
        items = self._items if proposal.items is None else min(proposal.items, self._items)
        more = max(0, items - self._scored.get(what, 0))
        self._scored[what] = max(items, self._scored.get(what, 0))
        seconds["score"] = more * self._costs["score"]
        spent.items += more
        self.climbed.pay(training)
        spent.pay(seconds)
        values = {name: self._guess(name, proposal) for name in self._objectives}
        whole = (
            proposal.rung == 1 and items == self._items and (candidate.recipe is not None or not self._alone(values))
        )
        return Told(
            tuple(values.values()) if whole else None, {}, values if candidate.recipe is not None else self._scores(values),
            seconds=training | seconds, rung=proposal.rung, items=items,
        )  # fmt: skip

    def _alone(self, values: Mapping[str, float]) -> bool:
        return len(self._scores(values)) < len(values)

    @staticmethod
    def _scores(values: Mapping[str, float]) -> dict[str, float]:
        return {name: value for name, value in values.items() if METRICS[name].kind == "score"}

    def _guess(self, name: str, proposal: Proposal) -> float:
        candidate, metric = proposal.candidate, METRICS[name]
        bits = bits_of(candidate.recipe)
        # Two recipes of the same bits differ a little, and always in the same way.
        own = random.Random(f"{name} {candidate.recipe} {candidate.session}").uniform(0.9, 1.1)  # noqa: S311 - no secret
        if metric.kind != "score":
            large = bits * own
            return large if metric.direction == "minimize" else 100 / large
        worth = 0.5 - _LOSS * own / bits - _EARLY * (1 - proposal.rung)
        if candidate.lora is not None:
            luck = random.Random(Candidate(lora=candidate.lora).id).gauss(0, _LUCK)  # noqa: S311 - no secret
            worth += 0.2 + prior_mean(candidate.lora) + luck
        worth = min(max(worth, 0.01), 0.99)
        return worth if self._objectives[name] == "maximize" else 1 / worth


def rehearse(
    strategy: Strategy,
    objectives: Mapping[str, Direction],
    costs: Mapping[str, float],
    items: int,
    trials: int | None,
    seconds: float = math.inf,
    paid: Mapping[str, float] = MappingProxyType({}),
    built: bool = True,
    adapters: float = math.inf,
) -> Spent:
    """Simulate a sweep until `trials` candidates are measured, `seconds` have passed, or the strategy proposes nothing more.

    `paid`: seconds by stage before the strategy is asked; `built` as for `Stage`; `adapters`: their number in the space. After
    `MOST` proposals the rest of the sweep is extrapolated.
    """
    stage, known = Stage(objectives, costs, items, built), set[str]()
    climbed, crossed = stage.climbed, stage.crossed
    crossed.pay(paid)
    ended = ""
    for _ in range(MOST):
        if stage.spent.total_s >= seconds:
            ended = "hours"
            break
        full = trials is not None and len(known) >= trials
        asked = [] if full else strategy.ask(1, ())
        if not asked:
            ended = "trials" if full else "space"
            break
        proposal = asked[0]
        told = stage.measure(proposal)
        if told.values is not None:
            known.add(proposal.candidate.id)
        strategy.tell(proposal, told)
    crossed.candidates = len(known)
    if not ended:
        # When every adapter is trained, only further recipes of the same adapters cost anything.
        last = adapters / max(1, climbed.adapters)
        hours = seconds / stage.spent.total_s
        if hours > last:
            hours = (seconds - last * climbed.total_s) / crossed.total_s
        more = {"trials": (trials or math.inf) / max(1, len(known)), "hours": hours}
        ended = min(more, key=lambda name: more[name])
        climbed, crossed = climbed.times(min(more[ended], last)), crossed.times(more[ended])
    spent = climbed.plus(crossed)
    spent.ended = ended
    return spent
