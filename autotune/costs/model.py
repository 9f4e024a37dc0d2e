"""The cost model: the expected seconds of a job on this machine, their uncertainty, and the evidence.

Nearer measurements count more: first jobs alike (the same data, precision and metric), then other jobs of the same model, then
other models on this machine, and without any measurement the size of the model alone. Each group is the prior of the next
narrower one (`factors`), so a single measurement moves an expectation and does not replace it.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from autotune.candidate import Recipe
from autotune.costs.factors import NOISE_SD, Levels, fitted, unknown
from autotune.costs.history import History, Took
from autotune.costs.imports import Imports
from autotune.costs.prior import PARTS, parts_of
from autotune.costs.work import Subject, Work, work_of
from autotune.stages.jobs import BuildJob
from autotune.stages.protocol import Job, Result

SIZE, MACHINE, MODEL, ALIKE = "size", "machine", "model", "alike"
"""The kinds of evidence for an expectation, the weakest first."""
EVIDENCE = {
    SIZE: "the size of the model",
    MACHINE: "other models here",
    MODEL: "this model here",
    ALIKE: "the same work here",
}
"""The same in words."""
SPREADS = (0.7, 0.6, 0.35, 0.2)
"""Standard deviations of the levels: of the prior by size, of a machine, of a model on a machine, and of jobs alike. Chosen so
that a new machine is within a factor of three."""
LATEST = 60
"""The number of latest jobs of a group that are fitted: machines and versions change."""
_GROWN = 1.25
"""A group is fitted again when it has grown by this factor, so that a thousand jobs cost a few fits."""
_LEAST_S = 1e-3
"""A job that took fewer seconds is ignored: its stage did not run."""
Z80 = 1.2816
"""The standard normal quantile of an 80 % interval."""


@dataclass(frozen=True)
class Expected:
    """The expected seconds of a job."""

    seconds: float
    """The median."""
    sd: float
    """Standard deviation of the logarithm of one job's seconds."""
    doubt: float
    """The part of `sd` that is the error of the expectation itself, without the job's own noise."""
    evidence: str
    """The narrowest group in which a job was measured: a key of `EVIDENCE`."""
    measured: int
    """The number of measured jobs in that group."""
    known: bool = True
    """Whether the number of units is known."""

    @property
    def low(self) -> float:
        """The lower end of the 80 % interval, seconds: nine jobs of ten take longer."""
        return self.seconds * math.exp(-Z80 * self.sd)

    @property
    def high(self) -> float:
        """The upper end of the 80 % interval, seconds: nine jobs of ten take less."""
        return self.seconds * math.exp(Z80 * self.sd)


_Group = tuple[str, ...]


class CostModel:
    """Learns from the seconds that jobs took, and predicts those of others. Threads may share it."""

    def __init__(
        self,
        subject: Subject = Subject(),  # noqa: B008 - it is frozen
        history: History | None = None,
        earlier: Callable[[str], Iterable[tuple[Job, Result, float]]] | None = None,
    ) -> None:
        """`history`: the measurements on this machine, to which new ones are added; `earlier`: returns further jobs of a stage
        with this model, and is called where the history has none.
        """
        self.subject = subject
        self.training_items: int | None = None
        self._history, self._earlier = history, earlier
        self._recipes: dict[str, Recipe] = {}
        self._seen: dict[_Group, deque[tuple[Work, float]]] = {}
        """The latest jobs of each group, which are fitted."""
        self._counts: Counter[_Group] = Counter()
        self._levels: dict[_Group, tuple[int, Levels, Levels]] = {}
        """By group: the number of jobs at the last fit, its prior, and its levels."""
        self._asked: set[str] = set()
        self.imports = Imports(1)
        self._lock = threading.RLock()
        for took in history.read() if history is not None else ():
            self._add(took.model, took.work, took.seconds)

    def about(self, subject: Subject, training_items: int | None) -> None:
        """Set the subject of the sweep, once it is known; `training_items`: the number of items in the training split."""
        with self._lock:
            self.subject, self.training_items = subject, training_items

    # --- what is learned ---------------------------------------------------------------------------------------------

    def note(self, job: Job) -> None:
        """Remember the recipe of a build: jobs that score or time the build name only its key."""
        if isinstance(job, BuildJob):
            self._recipes[job.key] = job.recipe

    def first(self, stage: str) -> bool:
        """Count a job of a stage that begins. Returns whether its worker probably still has to import the stage's packages."""
        with self._lock:
            return self.imports.first(stage)

    def learn(self, job: Job, result: Result, seconds: float, first: bool = False) -> None:
        """Learn from a job that took `seconds`."""
        self.note(job)
        self.learn_work(replace(self._work(job, result), first=first), seconds)

    def learn_work(self, work: Work, seconds: float) -> None:
        """Learn from work that took `seconds`, and add it to the history."""
        if seconds < _LEAST_S or not math.isfinite(seconds):
            return
        with self._lock:
            self._add(self.subject.model, work, seconds)
        if self._history is not None:
            self._history.add([Took(self.subject.model, work, seconds)])

    def _add(self, model: str, work: Work, seconds: float) -> None:
        for group in _groups(model, work):
            self._seen.setdefault(group, deque(maxlen=LATEST)).append((work, seconds))
            self._counts[group] += 1

    # --- what is expected --------------------------------------------------------------------------------------------

    def expect(self, job: Job, first: bool = False, units: float | None = None) -> Expected:
        """Return the expected seconds of a job; `first`: in a worker that has not done its stage before; `units`: in place
        of the job's own.
        """
        self.note(job)
        work = replace(self._work(job), first=first)
        return self.expect_work(work if units is None else replace(work, units=units, known=True))

    def expect_work(self, work: Work) -> Expected:
        """Return the expected seconds of some work."""
        with self._lock:
            self._ask(work.stage)
            levels, evidence, measured = unknown(len(PARTS), SPREADS[0]), SIZE, 0
            for group, name, sd in zip(
                _groups(self.subject.model, work), (MACHINE, MODEL, ALIKE), SPREADS[1:], strict=True
            ):
                around = levels.spread(sd)
                seen = self._seen.get(group)
                if seen:
                    evidence, measured = name, self._counts[group]
                levels = self._fitted(group, around) if seen else around
        seconds, sd = levels.seconds(parts_of(work))
        doubt = math.sqrt(max(0.0, sd**2 - NOISE_SD**2))
        return Expected(seconds, sd, doubt, evidence, measured, work.known)

    def measured(self, stage: str) -> int:
        """Return how many jobs of a stage were measured here with this model."""
        with self._lock:
            self._ask(stage)
            return self._counts[stage, self.subject.model]

    def _work(self, job: Job, result: Mapping[str, object] | None = None) -> Work:
        found = dict(result) if result is not None else None
        return work_of(job, self.subject, self._recipes, found, self.training_items)

    def _ask(self, stage: str) -> None:
        """Learn from the jobs that `earlier` returns for a stage, where the history has none of this model. Once per stage."""
        if self._earlier is None or stage in self._asked:
            return
        self._asked.add(stage)
        if not self._seen.get((stage, self.subject.model)):
            for job, result, seconds in self._earlier(stage):
                self.note(job)
                if seconds >= _LEAST_S:
                    self._add(self.subject.model, self._work(job, result), seconds)

    def _fitted(self, group: _Group, around: Levels) -> Levels:
        seen, there = self._seen[group], self._counts[group]
        count, before, levels = self._levels.get(group, (0, around, around))
        if there < _GROWN * count and (before is around or _same(before, around)):
            return levels
        levels = fitted(around, [parts_of(work) for work, _ in seen], [seconds for _, seconds in seen])
        self._levels[group] = there, around, levels
        return levels


def _groups(model: str, work: Work) -> tuple[_Group, _Group, _Group]:
    return (work.stage,), (work.stage, model), (work.stage, model, work.kind)


def _same(one: Levels, other: Levels) -> bool:
    return bool((one.mean == other.mean).all() and (one.covariance == other.covariance).all())
