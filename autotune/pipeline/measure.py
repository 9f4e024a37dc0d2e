"""A candidate through its stages, as a generator: it yields the jobs to do next and is sent their results.

The order is by cost: what could break a limit for certain is measured before what is expensive. Who does a job, and where, is
the business of whoever drives the generator, so any number of candidates can be under way at once.

It is one module because every stage books its cost, its failure and the results that it uses in the same few methods.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.analysis.latency import TokenTiming, Turns, at_place, latency_cells, medians, turns_of
from autotune.analysis.limits import Limit
from autotune.analysis.scores import probability, summarise
from autotune.analysis.stopping import stretch
from autotune.artifacts.store import Stored
from autotune.candidate import Candidate, Recipe
from autotune.errors import StageError, printable
from autotune.metrics import METRICS, is_task
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.on_provider import left_to_cpu
from autotune.pipeline.over_limit import over_limit
from autotune.pipeline.pace import Pace, agree, provisional, recent
from autotune.pipeline.steps import Do, Steps, call_with, complete
from autotune.results.columns import Cells, in_workload
from autotune.results.rows import Trial
from autotune.results.trials import rounded
from autotune.secrets import redact
from autotune.stages.jobs import Call, Job, MergeJob, ScoreJob, TimeJob, TurnsJob
from autotune.sweepfile.schema import Sweep

AGAIN = 3
"""Processes, at least, by which it is seen whether a timing still holds."""
WIDE_AGAIN = 1
"""How often a timing is made again whose interval stayed wide on an undisturbed machine."""
LOOKS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the items at which a score may be looked at: between two looks, items are scored together."""


@dataclass
class Measurement:
    """What became of a candidate: its status, and the cells that were filled on the way."""

    status: str = "ok"
    error: str = ""
    cells: Cells = field(default_factory=dict)
    outcomes: dict[str, Any] | None = None
    curve: list[list[float]] = field(default_factory=list)
    adapter: Stored | None = None
    merged: Stored | None = None
    build: Stored | None = None
    seconds: float = 0.0
    """Seconds inside stages that ran now."""
    on_stage: Callable[[str], None] = lambda _: None
    """Who is told of a stage that begins."""
    used: dict[str, Job] = field(default_factory=dict)
    """By key, the jobs whose results it uses while it is under way."""
    built: str = ""
    """The key of `build`."""
    merge: MergeJob | None = None
    """The merged model that it uses."""
    timings: list[dict[str, Any]] = field(default_factory=list)
    """Of each timing what its single processes measured."""


@dataclass
class Others:
    """What the targets of one sweep share, which are measured side by side."""

    pipelines: list[Pipeline] = field(default_factory=list)
    """Those of all targets: what a candidate of one of them uses is let go of by none."""
    merged: dict[str, MergeJob] = field(default_factory=dict)
    """The merged models of whole trainings, which every target may still build from: they are kept until the end."""
    pinned: dict[str, list[Job]] = field(default_factory=dict)
    """By target, what its front is made of."""


class Pipeline:
    """The stages of one sweep, in order. `measure` and `timing` do it all; `steps` and its like leave the doing to others."""

    def __init__(
        self, sweep: Sweep, inputs: Inputs, do: Do, pace: Pace | None = None, others: Others | None = None
    ) -> None:
        """`pace`: whether earlier timings still hold here; None: they do; `others`: what the targets of one sweep share."""
        self.do, self.pace, self.others = do, pace, others
        self.target = sweep.space.target
        """Which of several targets it is for."""
        self.graph = Graph(sweep, inputs)
        self.score = sweep.score
        """The column of scores."""
        self.direction = sweep.objectives.get(sweep.score, METRICS[sweep.score].direction)
        """Which way a score is better."""
        self.rungs: tuple[float, ...] = ()
        """Shares of its steps to which an adapter may have been trained before."""
        self.given_up: dict[Recipe, StageError] = {}
        """Recipes in which nothing is tried any more, and why."""
        self._under_way: list[Measurement] = []
        self._merged: MergeJob | None = None
        """The merged model that was used last: the next recipe of its adapter may need it."""
        self._merges: Counter[str] = Counter()
        """By key, how many that are under way use a merged model."""
        self._ids: dict[str, list[str]] = {}
        if others is not None:
            others.pipelines.append(self)

    @property
    def inputs(self) -> Inputs:
        """What all candidates share."""
        return self.graph.inputs

    @inputs.setter
    def inputs(self, inputs: Inputs) -> None:
        self.graph.inputs = inputs

    # --- what is in use ----------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Let go of all results but those that candidates under way use, and the merged model that the next may need."""
        needed: dict[str, Job] = {}
        for pipeline in [self] if self.others is None else self.others.pipelines:
            needed |= {key: job for measurement in pipeline._under_way for key, job in measurement.used.items()}
            needed |= {} if pipeline._merged is None else {pipeline._merged.key: pipeline._merged}
        self.do.let_go(*needed.values())

    def tidy(self) -> None:
        """Remove the last merged model: each is as large as the base."""
        if self._merged is not None and not self._merges[self._merged.key]:
            self._discard(self._merged)
        self._merged = None
        self.rest()

    def keep(self, folder: Path, candidates: Iterable[Candidate]) -> None:
        """Keep what these candidates are made of (adapters, builds), and nothing else, for a results folder."""
        jobs: list[Job] = []
        for candidate in candidates:
            jobs += [self.graph.finetune_job(candidate)] if candidate.lora is not None else []
            jobs += [self.graph.build_job(candidate)] if candidate.recipe is not None else []
        if self.others is not None:
            self.others.pinned[str(self.target)] = jobs
            jobs = list({job.key: job for part in self.others.pinned.values() for job in part}.values())
        self.do.pin(folder, jobs)

    def _begin(self, on_stage: Callable[[str], None]) -> Measurement:
        done = Measurement(on_stage=on_stage)
        self._under_way.append(done)
        return done

    def _end(self, done: Measurement) -> None:
        """Say that a candidate is no longer under way."""
        self._under_way = [other for other in self._under_way if other is not done]
        if done.merge is not None:
            self._merges[done.merge.key] -= 1
            if self._merged is None or self._merged.key != done.merge.key:
                self._drop(done.merge)
            done.merge = None

    def _drop(self, merge: MergeJob) -> None:
        """Remove a merged model, unless somebody under way uses it."""
        if not self._merges[merge.key]:
            self._discard(merge)

    def _discard(self, merge: MergeJob) -> None:
        """Remove a merged model, unless another target may still be built from it."""
        if self.others is None or merge.key not in self.others.merged:
            self.do.discard(merge)

    def _find(self, job: Job, done: Measurement) -> Stored | None:
        done.used[job.key] = job
        return self.do.find(job)

    # --- a candidate -------------------------------------------------------------------------------------------------

    def measure(
        self,
        candidate: Candidate,
        split: str = "validation",
        limits: Sequence[Limit] = (),
        base: Mapping[str, float] | None = None,
        known: Mapping[str, float] | None = None,
        on_stage: Callable[[str], None] = lambda _: None,
        rung: float = 1.0,
        items: int | None = None,
        timed: bool = True,
    ) -> Measurement:
        """Do `steps` to their end."""
        steps = self.steps(candidate, split, limits, base, known, on_stage, rung, items, timed)
        return complete(steps, call_with(self.do))

    def steps(
        self,
        candidate: Candidate,
        split: str = "validation",
        limits: Sequence[Limit] = (),
        base: Mapping[str, float] | None = None,
        known: Mapping[str, float] | None = None,
        on_stage: Callable[[str], None] = lambda _: None,
        rung: float = 1.0,
        items: int | None = None,
        timed: bool = True,
    ) -> Steps[Measurement]:
        """Take a candidate through all stages. Never raises StageError: trouble is the measurement's status.

        `rung` and `items` are those of a `Proposal`: how far its adapter is trained, and on how many items it is scored;
        `timed`: whether its build is timed.

        `limits` with the `base` values that they may refer to end it early, as `over_limit`; `known` are numbers of
        its recipe from other candidates, which may do so before anything runs. `on_stage` is told of the stages whose
        result is not there yet.
        """
        done = self._begin(on_stage)

        def broken(values: Mapping[str, float]) -> bool:
            if (why := over_limit(values, limits, base or {})) is not None:
                done.status, done.error = "over_limit", why
            return why is not None

        try:
            if candidate.recipe is not None and candidate.recipe in self.given_up:
                raise self.given_up[candidate.recipe]
            if known and broken(known):
                done.cells |= {name: value for name, value in known.items() if METRICS[name].kind != "score"}
                return done
            yield from self._make(candidate, done, rung)
            if done.build is not None:
                done.cells |= {"size_mb": done.build.result["size_mb"], "graph": done.build.result["signature"]}
                if broken({"size_mb": done.build.result["size_mb"]}):
                    return done
                yield from self._check(candidate, done)
                for suffix in self.graph.target.timed if timed else ():
                    yield from self._time(candidate, suffix, done)
                    # What was timed beside other work proves nothing: it is made again when the machine is quieter.
                    if not TokenTiming.of(done.cells).disturbed and broken(
                        {n: float(v) for n, v in done.cells.items() if n in METRICS and isinstance(v, int | float)}
                    ):
                        return done
            if items != 0:
                yield from self._score(candidate, split, done, rung, items)
        except StageError as error:
            self._failed(done, error)
        finally:
            self._end(done)
        return done

    @staticmethod
    def _failed(done: Measurement, error: StageError) -> None:
        done.status, done.error = error.status, printable(redact(" ".join(str(error).split())))

    def _make(self, candidate: Candidate, done: Measurement, rung: float = 1.0) -> Steps[None]:
        """Fine-tune, merge and build, as far as the candidate asks for it. Raises StageError."""
        if candidate.lora is not None:
            done.adapter = yield from self._finetune(candidate, done, rung)
        if candidate.recipe is not None:
            yield from self._build(candidate, done)

    def _build(self, candidate: Candidate, done: Measurement) -> Steps[Stored]:
        """Return a candidate's build: as it is there, or made from what it is built of."""
        job = self.graph.build_job(candidate)
        done.cells |= {"built": job.key} | ({"merged": job.source} if candidate.lora is not None else {})
        found = self._find(job, done)
        if found is None:
            yield from self._source(candidate, done)
        done.build = yield from self._run("build", job, done, found=found)
        done.built = job.key
        return done.build

    def _run(
        self,
        stage: str,
        job: Job,
        done: Measurement,
        timeout: float | None = None,
        found: Stored | None = None,
    ) -> Steps[Stored]:
        """Do a stage, unless its result is `found` already, and book its cost, that of a failure too."""
        found = found or self._find(job, done)
        if found is None:
            done.on_stage(job.stage)
        began = time.perf_counter()
        try:
            stored = found or (yield Call(job, timeout))
        except StageError as error:
            self._book(stage, time.perf_counter() - began if error.seconds is None else error.seconds, done)
            raise
        if stored.cached:
            cached = [part for part in str(done.cells.get("cached") or "").split("+") if part]
            done.cells["cached"] = "+".join(dict.fromkeys([*cached, stage]))
        else:
            self._book(stage, stored.seconds, done)
        return stored

    @staticmethod
    def _book(stage: str, seconds: float, done: Measurement) -> None:
        done.cells[f"cost_{stage}_s"] = seconds + float(done.cells.get(f"cost_{stage}_s") or 0.0)
        done.seconds += seconds

    def _source(self, candidate: Candidate, done: Measurement, rung: float = 1.0) -> Steps[None]:
        """Merge a candidate's adapter, unless it has none or that was done: a build is made from it, and compared with it.

        No merged model is kept but the last, and those that are in use: recipes of one adapter often follow one another.
        """
        if candidate.lora is None or done.merged is not None:
            return
        job = self.graph.merge_job(candidate, rung)
        last, self._merged = self._merged, job
        self._merges[job.key] += 1
        done.merge = job
        if self.others is not None and rung == 1:
            self.others.merged[job.key] = job
        if last is not None and last.key != job.key:
            self._drop(last)
        done.merged = yield from self._run("merge", job, done)

    def _finetune(self, candidate: Candidate, done: Measurement, rung: float) -> Steps[Stored]:
        """Train to a rung, going on from the highest below it that is there."""
        job = self.graph.finetune_job(candidate, rung)
        done.cells["adapter"] = self.graph.finetune_job(candidate).key
        found = self._find(job, done)
        if found is None:
            lower = [self.graph.finetune_job(candidate, low) for low in sorted(self.rungs, reverse=True) if low < rung]
            before = next((one for one in lower if self._find(one, done) is not None), None)
            job = job.model_copy(update={"checkpoint": before.key if before is not None else None})
        stored = yield from self._run("train", job, done, self.graph.train.time_limit_s + 300, found=found)
        done.cells |= {"train_steps": stored.result["step"], "train_loss": stored.result["loss"]}
        done.cells["train_cut"] = stored.result.get("cut")
        state = json.loads(stored.text("state.json"))
        done.curve = state["curve"]
        return stored

    def _check(self, candidate: Candidate, done: Measurement) -> Steps[None]:
        """Compare the build with its source. Raises StageError (`failed`) where it is another model."""
        job = self.graph.check_job(candidate)
        found = self._find(job, done)
        if found is None:
            yield from self._source(candidate, done)
        result = (yield from self._run("check", job, done, found=found)).result
        done.cells |= {
            "kl_nats": result.get("kl_nats"), "greedy_agreement": result.get("greedy_agreement"),
            "check_items": result["texts"], "provider_share": result.get("provider_share"),
        }  # fmt: skip
        if result["trouble"] is not None:
            # Were it damaged where it lies, another sweep would find it so.
            self.do.discard(job)
            self.do.discard(self.graph.build_job(candidate))
            done.build = None
            raise StageError("failed", f"check: {result['trouble']}")
        if (left := left_to_cpu(result, self.graph.target)) is not None:
            raise StageError("unsupported", left)

    # --- time --------------------------------------------------------------------------------------------------------

    def turns_steps(
        self,
        entrants: Mapping[str, Candidate],
        graphs: Mapping[str, str],
        suffix: str,
        on_stage: Callable[[str], None],
        may_leave: Collection[str],
    ) -> Steps[tuple[Turns, dict[str, Cells], float]]:
        """Time candidates, each known by what its timing belongs to, in turns in one workload; the first twice a round.

        `graphs`: the graph of each, which is known already; `may_leave`: those that need no more turns once they are
        clearly slower than another.

        Returns how they relate, the latency cells of each, and the seconds that it took now. Raises StageError,
        MachineError.
        """
        done = self._begin(on_stage)
        try:
            jobs: list[TimeJob] = []
            for name, candidate in entrants.items():
                made = self._begin(on_stage)
                try:
                    yield from self._make_to_time(candidate, made, graphs.get(name))
                finally:
                    self._end(made)
                jobs.append(self._time_job(candidate, made, suffix))
                done.used |= made.used
                done.seconds += made.seconds
            places = tuple(place for place, name in enumerate(entrants) if place and name in may_leave)
            timing = self.graph.target.timing
            turns = TurnsJob(graphs=(*jobs, jobs[0]), may_leave=places or None, **timing.model_dump())
            rounds = (yield from self._run("time", turns, done)).result["rounds"]
        finally:
            self._end(done)
        names, batch = list(entrants), jobs[0].batch
        cells = {
            name: in_workload(latency_cells(at_place(rounds, place), batch), suffix) for place, name in enumerate(names)
        }
        wider = stretch(timing.processes, timing.most)
        return turns_of([*names, names[0]], rounds, batch, suffix, wider), cells, done.seconds

    def holds_steps(self, row: Trial, candidate: Candidate) -> Steps[bool]:
        """Time a candidate's graph again. Returns whether that agrees with its row; where it does not, a new pace begins.

        Raises StageError, MachineError.
        """
        done = self._begin(lambda _: None)
        try:
            yield from self._make_to_time(candidate, done, row.graph)
            return (yield from self._holds(self._time_job(candidate, done), row.timing, done))
        finally:
            self._end(done)

    def _holds(self, job: TimeJob, before: TokenTiming, done: Measurement) -> Steps[bool]:
        assert self.pace is not None
        done.on_stage("time")
        since = self._since
        again = yield Call(job.model_copy(update={"processes": min(AGAIN, job.processes)}), anew=True)
        self._book("time", again.seconds, done)
        if self._since != since:  # another candidate has found the new pace meanwhile
            return False
        cells = latency_cells(again.result["processes"], job.batch, min(AGAIN, job.processes), job.most)
        now = TokenTiming.of(cells)
        # Other work is no new pace of the machine: it goes as it came, and what it disturbed is timed again.
        if agree(before, now) or now.disturbed or before.disturbed:
            self.pace.confirm()
            return True
        self.pace.renew()
        return False

    def is_there(self, candidate: Candidate) -> bool:
        """Whether a candidate is made as far as it takes to time it: its build is all that takes."""
        return self.do.find(self.graph.build_job(candidate)) is not None

    def _make_to_time(self, candidate: Candidate, done: Measurement, graph: str | None = None) -> Steps[None]:
        """Make a build that is timed as the candidate's own would be, without training. Raises StageError.

        No adapter changes a graph: where the candidate's build is gone, the untouched model in its recipe does. Should that
        turn out to be another than `graph` (a recipe may choose layers by their weights), the candidate itself is made.
        """
        if self.is_there(candidate):
            yield from self._build(candidate, done)
            return
        yield from self._make(candidate.model_copy(update={"lora": None}), done)
        assert done.build is not None
        if graph is not None and done.build.result["signature"] != graph:
            yield from self._make(candidate, done)

    def timing(
        self,
        candidate: Candidate,
        on_stage: Callable[[str], None] = lambda _: None,
        whole: bool = False,
        graph: str | None = None,
        again: bool = False,
    ) -> Measurement:
        """Time a candidate's graph, which is known to be `graph`; `whole`: until it is known as precisely as the sweep asks
        for; `again`: once more where that was disturbed or stayed wide. Never raises StageError.
        """
        return complete(self.timing_steps(candidate, on_stage, whole, graph, again), call_with(self.do))

    def timing_steps(
        self,
        candidate: Candidate,
        on_stage: Callable[[str], None],
        whole: bool = False,
        graph: str | None = None,
        again: bool = False,
    ) -> Steps[Measurement]:
        done = self._begin(on_stage)
        try:
            yield from self._make_to_time(candidate, done, graph)
            assert done.build is not None
            done.cells["graph"] = done.build.result["signature"]
            for suffix in self.graph.target.timed:
                yield from self._time(candidate, suffix, done, whole, again)
        except StageError as error:
            self._failed(done, error)
        finally:
            self._end(done)
        return done

    def _time_job(self, candidate: Candidate, done: Measurement, suffix: str = "") -> TimeJob:
        """Return the job that times what was built, served as a candidate is, at this machine's present pace."""
        assert done.build is not None
        return self.graph.time_job(candidate, done.built, done.build.result["signature"], suffix, self._since)

    @property
    def _since(self) -> str | None:
        return self.pace.since if self.pace else None

    def _time(
        self, candidate: Candidate, suffix: str, done: Measurement, whole: bool = False, again: bool = False
    ) -> Steps[None]:
        """Time what was built; a timing from before is trusted only where its graph, timed again, agrees.

        Where candidates are taken up in parts, so is a timing: the least number of processes first, and more (`whole`) for
        what is on the front in the end. One that is provisional is made `again` on request; the least disturbed counts.
        """
        trusted = self.pace is None or self.pace.trusted  # another sweep may have found a new pace meanwhile
        job = self._time_job(candidate, done, suffix)
        found = self._find(job, done)
        begun: Stored | None = None
        if found is None and self.rungs:
            first = job.model_copy(update={"most": job.processes})
            if whole:
                begun = self._find(first, done)
            else:
                job, found = first, self._find(first, done)
        earlier = found or begun
        # What another sweep has timed just now holds, too.
        if earlier is not None and not trusted and not recent(earlier.made):
            before = TokenTiming.of(self._timed(job, earlier))
            if not (yield from self._holds(job, before, done)):
                job, found, begun = job.model_copy(update={"since": self._since}), None, None
        if begun is not None:
            job = job.model_copy(update={"begun": tuple(begun.result["processes"])})
        pace = self.pace.name if self.pace else None  # another candidate may find a new one before this is timed
        stored = yield from self._run("time", job, done, found=found)
        made = [(job, stored, self._timed(job, stored))]
        while provisional(timing := TokenTiming.of(made[-1][2]), job.precision) and (
            timing.disturbed or len(made) <= WIDE_AGAIN
        ):
            most = self.graph.target.timing.most
            job = job.model_copy(update={"again": len(made), "most": most, "begun": ()})
            found = self._find(job, done)
            if found is None and not again:
                break
            stored = yield from self._run("time", job, done, found=found)
            made.append((job, stored, self._timed(job, stored)))
            again = again and found is not None
        if self.pace is not None:
            if not all(stored.cached for _, stored, _ in made):
                self.pace.begin()
            done.cells["pace"] = pace
        job, stored, cells = min(reversed(made), key=lambda one: TokenTiming.of(one[2]).foreign_cpu)
        done.timings.append(self._samples(job, stored, suffix))
        timed = in_workload(cells, suffix)
        done.cells |= {name: value for name, value in timed.items() if value is not None}

    def _samples(self, job: TimeJob, stored: Stored, suffix: str) -> dict[str, Any]:
        """Return what single processes of a timing measured, and what was timed."""
        processes = [
            rounded(medians(process, job.batch) | dict(process.get("conditions", {})))
            for process in stored.result["processes"]
        ]
        return {
            "graph": job.graph, "session": job.session.model_dump(exclude_none=True),
            **({"target": self.target} if self.target else {}),
            "workload": suffix.removeprefix("@") or None, "pace": self.pace.name if self.pace else None,
            "again": job.again or 0, "least": job.processes, "most": job.most, "processes": processes,
        }  # fmt: skip

    def _timed(self, job: TimeJob, stored: Stored) -> dict[str, float | int | None]:
        """Return the latency cells of a timing. One that may be gone on with has the interval of those that were."""
        most = max(job.most, self.graph.target.timing.most)
        return latency_cells(stored.result["processes"], job.batch, job.processes, most)

    # --- score -------------------------------------------------------------------------------------------------------

    def _score(
        self, candidate: Candidate, split: str, done: Measurement, rung: float = 1.0, items: int | None = None
    ) -> Steps[None]:
        """Score a candidate on a split, or on the first `items` of it and those up to the next of `LOOKS`."""
        scored = self.graph.scored_as(candidate)
        found: list[dict[str, Any]] = []
        jobs = self._parts(self.graph.score_job(scored, split, rung), items, done)
        for job in jobs:
            there = self._find(job, done)
            if there is None:
                yield from self._to_score(candidate, scored, done, rung)
            stored = yield from self._run("score", job, done, found=there)
            found.append(json.loads(stored.text("outcomes.json")))
            done.cells["prompts_cut"] = stored.result.get("cut")  # of all items, those of other parts too
        if rung < 1 and scored.recipe is not None:
            self.do.discard(self.graph.build_job(scored, rung))  # large, and of no use but this
        done.outcomes = found[0] if jobs[0].block is None else self._together(found, split)
        value, interval, n = summarise(self.graph.data.metric, done.outcomes)
        name = self.score
        if not math.isfinite(value):
            done.outcomes = None
            raise StageError("diverged" if candidate.lora else "failed", f"score: {name} is {value}")
        done.cells |= {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high, f"{name}_n": n}
        if split == "validation":
            done.cells["probability"] = probability(done.outcomes)
        if METRICS[name].turns:
            done.cells |= {"score_name": self.graph.data.metric, "score_direction": self.direction}

    def _to_score(self, candidate: Candidate, scored: Candidate, done: Measurement, rung: float) -> Steps[None]:
        """Build what is scored for a candidate, where that is another than itself. Raises StageError."""
        if scored.recipe is None or scored == candidate:
            return
        job = self.graph.build_job(scored, rung)
        found = self._find(job, done)
        if found is None:
            yield from self._source(candidate, done, rung)
        yield from self._run("build", job, done, found=found)

    def _parts(self, whole: ScoreJob, items: int | None, done: Measurement) -> list[ScoreJob]:
        """Return the jobs that score all items, or the first so many, what is there already taken in."""
        total = whole.items or 0
        if not self.rungs or is_task(whole.metric) or self._find(whole, done) is not None:
            return [whole]
        ends = [math.ceil(share * total) for share in LOOKS]
        upto = next((end for end in ends if items is not None and end >= items), total)

        def block(first: int, end: int) -> ScoreJob:
            return whole.model_copy(update={"block": (first, end), "items": end - first})

        parts: list[ScoreJob] = []
        reached = 0
        while reached < upto:
            further = (end for end in reversed(ends) if reached < end <= upto)
            end = next((end for end in further if self._find(block(reached, end), done) is not None), None)
            if end is None and reached == 0 and upto == total:
                return [whole]
            parts.append(block(reached, end or upto))
            reached = end or upto
        return parts

    def _together(self, parts: Sequence[dict[str, Any]], split: str) -> dict[str, Any]:
        """Return the outcomes of blocks as one, in the items' own order; `items`: which, where not all."""
        lists = {name: [x for part in parts for x in part[name]] for name, v in parts[0].items() if isinstance(v, list)}
        if split not in self._ids:
            items = json.loads(self.inputs.items[split][1].read_text(encoding="utf-8"))
            self._ids[split] = [item["id"] for item in items]
        place = {name: index for index, name in enumerate(lists["ids"])}
        order = [place[name] for name in self._ids[split] if name in place]
        some = [n for n, name in enumerate(self._ids[split]) if name in place]
        sorted_ = {name: [values[index] for index in order] for name, values in lists.items()}
        return parts[0] | sorted_ | ({"items": some} if len(some) < len(self._ids[split]) else {})
