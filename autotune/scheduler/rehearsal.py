"""A rehearsal: a simulated sweep, by which `plan` predicts what a strategy would do, and what that takes.

The strategy is the real one (for Optuna's samplers `random`, which begins as many adapters), its proposals become the jobs
that the pipeline would do, and the cost model says what each takes. Scores are drawn around the prior mean of the
settings; latency and size follow from the bits of a recipe. A job whose result is in the cache costs nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce

from autotune.analysis.pareto import front
from autotune.candidate import Candidate, Recipe, Session
from autotune.costs.estimate import Estimate
from autotune.costs.work import Work
from autotune.metrics import METRICS, Direction
from autotune.pipeline.expected import Prices
from autotune.stages.protocol import Job, Result
from autotune.strategies.frontier.priors import bits_of, prior_mean
from autotune.strategies.protocol import Proposal, Strategy, Told

MOST = 150
"""The most proposals that are simulated: each takes milliseconds, and `plan` should answer at once."""
_LUCK, _LOSS, _EARLY = 0.03, 0.08, 0.1
"""In units of the score: the standard deviation between adapters, the loss of a recipe of one bit, and the loss of a training
that has not begun. Chosen, not measured."""

Found = Callable[[Job], Result | None]
"""It says of a job what is in the cache; None: nothing."""


@dataclass
class Part:
    """What a part of a rehearsed sweep did."""

    estimate: Estimate = field(default_factory=Estimate)
    adapters: float = 0.0
    """Adapters that were trained to any rung."""
    trained: float = 0.0
    """Trainings, each by the share of its steps."""

    def plus(self, other: Part) -> Part:
        """Return both together."""
        return Part(self.estimate.plus(other.estimate), self.adapters + other.adapters, self.trained + other.trained)

    def times(self, factor: float) -> Part:
        """Return everything multiplied by a factor."""
        return Part(self.estimate.scaled(factor), self.adapters * factor, self.trained * factor)


@dataclass(frozen=True)
class Rehearsed:
    """What a whole sweep is expected to do."""

    estimate: Estimate
    """By stage, the end of the sweep included."""
    candidates: int
    """Candidates that are fully measured."""
    adapters: int
    trained: float
    ended: str
    """Why the search ends: trials, hours, space."""
    wall_s: float
    low_s: float
    high_s: float
    """The wall-clock, and between what it will lie four times out of five."""
    cached: int
    """Results that are in the cache already."""


class Simulation:
    """The simulated stages of one sweep. What was done before costs nothing."""

    def __init__(self, prices: Prices, objectives: Mapping[str, Direction], in_parts: bool, found: Found) -> None:
        """`in_parts`: the strategy has lower fidelities."""
        self.prices, self.graph, self.costs = prices, prices.graph, prices.costs
        self._objectives, self._in_parts, self._found = objectives, in_parts, found
        self._items = self.graph.inputs.counts["validation"]
        self._reached: dict[str, float] = {}
        self._done: set[str] = set()
        self._merged, self._merges = "", set[str]()
        """The merged model that is there; and where several targets build from them, those that were made."""
        self.keeps_merged = False
        self._scored: dict[tuple[str, float, str], float] = {}
        self._served: dict[tuple[Recipe | None, Session | None], Candidate] = {}
        self._whole: dict[str, tuple[Candidate, tuple[float, ...]]] = {}
        self.cached: set[str] = set()
        self.rows = 0
        """Rows that were written for proposals."""
        self.climbed, self.crossed = Part(), Part()
        """What is done to adapters alone (trainings, scores at lower rungs), and what is done to candidates."""

    @property
    def candidates(self) -> int:
        """How many candidates were fully measured."""
        return len(self._whole)

    @property
    def estimate(self) -> Estimate:
        """All that was done."""
        return self.climbed.estimate.plus(self.crossed.estimate)

    def _is_new(self, job: Job) -> bool:
        """Whether a job has to be done; from now on it need not be."""
        if job.key in self._done:
            return False
        self._done.add(job.key)
        if self._found(job) is not None:
            self.cached.add(job.key)
            return False
        return True

    def share(self, other: Simulation) -> None:
        """Take what is trained, merged and built for another target as done for this one too."""
        self._reached, self._done, self._merges, self.cached = other._reached, other._done, other._merges, other.cached

    def begin(self, items: float | None) -> Estimate:
        """Return the estimate of measuring the untouched model; `items`: that it is scored on, and then not timed; None: all."""
        estimate = Estimate()
        self._make(self.graph.untouched, estimate, 1.0)
        if items is None:
            self._time(self.graph.untouched, estimate)
        self._score(self.graph.untouched, estimate, 1.0, self._items if items is None else items)
        return estimate

    def measure(self, proposal: Proposal) -> Told:
        """Return the simulated measurement of a proposal, and add what it takes."""
        candidate, rung, before = proposal.candidate, proposal.rung, self.estimate
        part = self.climbed if candidate.recipe is None and rung < 1 else self.crossed
        self.rows += 1
        if candidate.lora is not None:
            self._train(candidate, rung)
        self._make(candidate, part.estimate, rung)
        self._time(candidate, part.estimate)
        items = self._items if proposal.items is None else min(proposal.items, self._items)
        self._score(candidate, part.estimate, rung, items)
        values = {name: self._guess(name, proposal) for name in self._objectives}
        scores = {name: value for name, value in values.items() if METRICS[name].kind == "score"}
        whole = rung == 1 and items == self._items and (candidate.recipe is not None or len(scores) == len(values))
        if whole:
            self._whole[candidate.id] = candidate, tuple(values.values())
        after = self.estimate.lines
        seconds = {
            stage: line.seconds - (before.lines[stage].seconds if stage in before.lines else 0.0)
            for stage, line in after.items()
        }
        return Told(
            tuple(values.values()) if whole else None, {}, values if candidate.recipe is not None else scores,
            seconds={stage: value for stage, value in seconds.items() if value > 0}, rung=rung, items=int(items),
        )  # fmt: skip

    def _train(self, candidate: Candidate, rung: float) -> None:
        adapter, job = Candidate(lora=candidate.lora).id, self.graph.finetune_job(candidate, rung)
        before = self._reached.get(adapter, 0.0)
        if rung <= before:
            return
        self._reached[adapter] = rung
        if self._is_new(job):
            self.climbed.adapters += before == 0
            self.climbed.trained += rung - before
            self.climbed.estimate.add("train", *self.prices.training(candidate, rung, before))

    def _make(self, candidate: Candidate, estimate: Estimate, rung: float) -> None:
        """Merge, build and check, as far as what a candidate is scored as asks for it."""
        served = self.graph.scored_as(candidate)
        if served.recipe is None:
            return
        build = self.graph.build_job(served, rung)
        self.costs.note(build)
        jobs = [
            ("build", build),
            *([("check", self.graph.check_job(candidate))] if candidate.recipe is not None else []),
        ]
        for stage, job in jobs:
            if self._is_new(job):
                if candidate.lora is not None and self._is_to_merge(merge := self.graph.merge_job(candidate, rung)):
                    estimate.add("merge", self.costs.expect(merge, self.prices.first("merge")))
                estimate.add(stage, self.costs.expect(job, self.prices.first(stage)))

    def _is_to_merge(self, merge: Job) -> bool:
        there = merge.key in self._merges if self.keeps_merged else self._merged == merge.key
        self._merged = merge.key
        self._merges.add(merge.key)
        return not there

    def _time(self, candidate: Candidate, estimate: Estimate) -> None:
        if candidate.recipe is None or (candidate.recipe, candidate.session) in self._served:
            return
        self._served[candidate.recipe, candidate.session] = candidate
        there = self._found(self.graph.build_job(candidate))
        signature = str(there["signature"]) if there is not None and "signature" in there else None
        for suffix in self.prices.suffixes:
            job = self.prices.time_job(candidate, suffix, signature)
            job = job.model_copy(update={"most": job.processes}) if self._in_parts else job
            if self._is_new(job):
                estimate.add("time", self.costs.expect(job))

    def _score(self, candidate: Candidate, estimate: Estimate, rung: float, items: float) -> None:
        what = Candidate(lora=candidate.lora).id, rung, str(candidate.recipe or "")
        more = max(0.0, items - self._scored.get(what, 0.0))
        self._scored[what] = max(items, self._scored.get(what, 0.0))
        job = self.prices.score_job(candidate, "validation", rung)
        if more and (items < self._items or self._is_new(job)):
            estimate.add("score", self.prices.scoring(candidate, "validation", more, rung), more)

    def end(self) -> Estimate:
        """Return the estimate of the end: what was begun is completed, the winner is timed in turns and scored on test."""
        estimate = Estimate()
        known = [(candidate, values) for candidate, values in self._whole.values()]
        on_front = [
            known[place][0] for place in front([values for _, values in known], list(self._objectives.values()))
        ]
        if self._in_parts:
            self._score(self.graph.untouched, estimate, 1.0, self._items)
            self._time(self.graph.untouched, estimate)
            graphs = {(one.recipe, one.session): one for one in (*on_front, self.graph.untouched)}
            for candidate in graphs.values():
                estimate = estimate.plus(self.prices.completed(candidate))
        if not on_front:
            return estimate
        timed = any(METRICS[name].kind == "latency" for name in self._objectives)
        rivals = {(one.recipe, one.session): one for one in on_front}
        return estimate.plus(
            self.prices.finale(on_front[0], self.graph.untouched, list(rivals.values()) if timed else on_front[:1])
        )

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


class Simulations:
    """The simulated stages of a sweep's targets, by target: what one of them has made costs the others nothing."""

    def __init__(self, parts: Mapping[str | None, Simulation]) -> None:
        self._parts = dict(parts)
        first, *others = self._parts.values()
        for other in others:
            other.share(first)
        for part in self._parts.values():
            part.keeps_merged = bool(others)
        self.costs, self.cached = first.costs, first.cached

    @property
    def candidates(self) -> int:
        """How many candidates were fully measured."""
        return sum(part.candidates for part in self._parts.values())

    @property
    def rows(self) -> int:
        """Rows that were written for proposals."""
        return sum(part.rows for part in self._parts.values())

    @property
    def climbed(self) -> Part:
        """What was done to adapters alone."""
        return reduce(Part.plus, (part.climbed for part in self._parts.values()))

    @property
    def crossed(self) -> Part:
        """What was done to candidates."""
        return reduce(Part.plus, (part.crossed for part in self._parts.values()))

    @property
    def estimate(self) -> Estimate:
        """All that was done."""
        return self.climbed.estimate.plus(self.crossed.estimate)

    def begin(self, items: float | None) -> Estimate:
        """Return the estimate of measuring the untouched model on each target."""
        return reduce(Estimate.plus, [part.begin(items) for part in self._parts.values()])

    def measure(self, proposal: Proposal) -> Told:
        """Return the simulated measurement of a proposal, and add what it takes."""
        return self._parts[proposal.candidate.target].measure(proposal)

    def end(self) -> Estimate:
        """Return the estimate of the end on each target."""
        return reduce(Estimate.plus, [part.end() for part in self._parts.values()])


def rehearse(
    strategy: Strategy,
    simulation: Simulation | Simulations,
    before: Estimate,
    trials: int | None,
    seconds: float = math.inf,
    width: int = 1,
    adapters: float = math.inf,
    looked_at: float | None = None,
) -> Rehearsed:
    """Simulate a sweep until `trials` candidates are measured, `seconds` have passed, or the strategy proposes nothing more.

    `before`: what is done before the untouched model; `width`: how many stages run at once; `adapters`: their number in the
    space; `looked_at`: items of the untouched model that are scored at first; None: all. After `MOST` proposals the rest of
    the sweep is extrapolated. A strategy with lower fidelities keeps time for the end of the sweep; for others it comes
    after the hours, as in a run.
    """
    in_parts, ended = bool(strategy.rungs), ""
    before = before.plus(simulation.begin(looked_at))

    def spent(estimate: Estimate) -> float:
        return before.plus(estimate).wall_s(width) + (simulation.end().wall_s() if in_parts else 0.0)

    for _ in range(MOST):
        if math.isfinite(seconds) and spent(simulation.estimate) >= seconds:
            ended = "hours"
            break
        full = trials is not None and simulation.candidates >= trials
        asked = [] if full else strategy.ask(1, ())
        if not asked:
            ended = "trials" if full else "space"
            break
        strategy.tell(asked[0], simulation.measure(asked[0]))
    candidates, climbed, crossed = simulation.candidates, simulation.climbed, simulation.crossed
    rows = float(simulation.rows)
    end = simulation.end()
    if not ended:
        # When every adapter is trained, only further recipes of the same adapters cost anything.
        last = adapters / max(1.0, climbed.adapters)
        left = seconds - before.wall_s(width) - (end.wall_s() if in_parts else 0.0)
        climbed_s, crossed_s = climbed.estimate.wall_s(width), crossed.estimate.wall_s(width)
        hours = left / max(climbed_s + crossed_s, 1e-9)
        if hours > last:
            hours = (left - last * climbed_s) / max(crossed_s, 1e-9)
        more = {"trials": (trials or math.inf) / max(1, candidates), "hours": max(1.0, hours)}
        ended = min(more, key=lambda name: more[name])
        climbed, crossed = climbed.times(min(more[ended], last)), crossed.times(more[ended])
        candidates, rows = round(candidates * more[ended]), rows * more[ended]
    estimate = before.plus(climbed.estimate).plus(crossed.estimate)
    estimate.add("own", simulation.costs.expect_work(Work("own", "", units=rows)), rows)
    wall_s = estimate.wall_s(width) + end.wall_s()
    whole = estimate.plus(end)
    low, high = whole.interval(wall_s)
    return Rehearsed(
        whole, candidates, round(climbed.adapters), climbed.trained, ended, wall_s, low, high, len(simulation.cached)
    )
