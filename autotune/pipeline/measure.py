"""Measure a candidate, stage by stage, as a generator: it yields the next job and is sent the result.

Cheap measurements that can break a limit for certain come before expensive ones. The caller that drives the generator decides
where a job runs, so any number of candidates can be under way at once.

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
from autotune.analysis.limits import Aims, Limit
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
from autotune.pipeline.steps import Do, Steps, call_with, complete
from autotune.pipeline.timing_validity import Pace, agree, provisional, recent
from autotune.results.columns import Cells, in_workload
from autotune.results.rows import Trial
from autotune.results.trials import rounded
from autotune.secrets import redact
from autotune.stages.jobs import MergeJob, ScoreJob, TimeJob, TurnsJob
from autotune.stages.protocol import Call, Job

AGAIN = 3
"""The number of processes that check whether an earlier timing still holds."""
WIDE_AGAIN = 1
"""How often a timing is repeated because its interval stayed wide on an undisturbed machine."""
LOOKS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""The shares of the items at which a candidate may be scored: the items between two of them are scored in one job."""


@dataclass
class Measurement:
    """The measurement of a candidate: its status, and the cells of its row that were filled so far."""

    status: str = "ok"
    error: str = ""
    cells: Cells = field(default_factory=dict)
    outcomes: dict[str, Any] | None = None
    curve: list[list[float]] = field(default_factory=list)
    adapter: Stored | None = None
    merged: Stored | None = None
    build: Stored | None = None
    seconds: float = 0.0
    """Seconds inside stages, without results from the cache."""
    on_stage: Callable[[str], None] = lambda _: None
    """Is called with the name of each stage that begins."""
    used: dict[str, Job] = field(default_factory=dict)
    """By key, the jobs whose results the candidate uses while it is under way."""
    built: str = ""
    """The key of `build`."""
    merge: MergeJob | None = None
    """The job of the merged model that it uses."""
    timings: list[dict[str, Any]] = field(default_factory=list)
    """The samples of each timing, by process."""


@dataclass(frozen=True)
class _Evaluated:
    """A timing, evaluated: candidates with the same graph share it, and most of them find it in the cache."""

    measured: list[dict[str, Any]]
    """The measurements of its processes."""
    cells: dict[str, float | int | None]
    """The latency cells; their interval is that of a timing with up to the sweep's most processes."""
    processes: list[Cells]
    """The medians and conditions of each process."""


_TIMINGS = 64
"""The most timings that stay evaluated."""


@dataclass
class Others:
    """What the pipelines of a sweep's targets share."""

    pipelines: list[Pipeline] = field(default_factory=list)
    """The pipelines of all targets: none releases a result that a candidate of another one uses."""
    merged: dict[str, MergeJob] = field(default_factory=dict)
    """The merged models of whole trainings. They are kept until the end, because every target may still build from them."""
    pinned: dict[str, list[Job]] = field(default_factory=dict)
    """By target, the jobs whose results its front needs."""


class Pipeline:
    """The stages of one sweep, in order. `measure` and `timing` do the jobs; `steps` and the like yield them to the caller."""

    def __init__(
        self, graph: Graph, aims: Aims, do: Do, pace: Pace | None = None, others: Others | None = None
    ) -> None:
        """`pace`: says whether earlier timings still hold; None: they do. `others`: what the targets of one sweep share."""
        self.graph, self.aims, self.do, self.pace, self.others = graph, aims, do, pace, others
        self.target = graph.space.target
        """Its target, where the sweep has several."""
        self.score = graph.score
        """The column of scores."""
        self.direction = aims.objectives.get(self.score, METRICS[self.score].direction)
        """Whether a larger or a smaller score is better."""
        self.rungs: tuple[float, ...] = ()
        """The shares of its steps at which a training may have stopped before."""
        self.given_up: dict[Recipe, StageError] = {}
        """The recipes that are not tried any more, and the reason."""
        self._under_way: list[Measurement] = []
        self._merged: MergeJob | None = None
        """The merged model that was used last: the next recipe of its adapter may need it."""
        self._merges: Counter[str] = Counter()
        """By key of a merged model, how many candidates under way use it."""
        self._ids: dict[str, list[str]] = {}
        self._evaluated: dict[str, _Evaluated] = {}
        """By key of its job, the latest timings."""
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
        """Release all results except those that candidates under way use, and the merged model that the next may need."""
        needed: dict[str, Job] = {}
        for pipeline in [self] if self.others is None else self.others.pipelines:
            needed |= {key: job for measurement in pipeline._under_way for key, job in measurement.used.items()}
            needed |= {} if pipeline._merged is None else {pipeline._merged.key: pipeline._merged}
        self.do.let_go(*needed.values())

    def tidy(self) -> None:
        """Remove the last merged model, which is as large as the base model."""
        if self._merged is not None and not self._merges[self._merged.key]:
            self._discard(self._merged)
        self._merged = None
        self.rest()

    def keep(self, folder: Path, candidates: Iterable[Candidate]) -> None:
        """Pin the adapters and builds of these candidates, and no others, for a results folder."""
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
        """Release what a candidate under way has used."""
        self._under_way = [other for other in self._under_way if other is not done]
        if done.merge is not None:
            self._merges[done.merge.key] -= 1
            if self._merged is None or self._merged.key != done.merge.key:
                self._drop(done.merge)
            done.merge = None

    def _drop(self, merge: MergeJob) -> None:
        """Remove a merged model, unless a candidate under way uses it."""
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
        """Measure a candidate through all stages. Never raises StageError: an error becomes the measurement's status.

        `rung` and `items` are those of a `Proposal`: how far its adapter is trained, and on how many items it is scored;
        `timed`: whether its build is timed.

        A broken limit ends the measurement early, as `over_limit`. `limits` may refer to the values of the untouched model,
        `base`. `known` holds values of the same recipe from other candidates, which may break a limit before anything runs.
        `on_stage` is called with the name of each stage whose result is not in the cache.
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
                    # A disturbed timing breaks no limit: it is repeated when the machine is quieter.
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
        """Fine-tune the candidate's adapter, if it has one, and build its recipe, if it has one. Raises StageError."""
        if candidate.lora is not None:
            done.adapter = yield from self._finetune(candidate, done, rung)
        if candidate.recipe is not None:
            yield from self._build(candidate, done)

    def _build(self, candidate: Candidate, done: Measurement) -> Steps[Stored]:
        """Return a candidate's build from the cache, or make it, and the merged model first."""
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
        """Do a stage, unless its result was `found` already, and book its cost, also where it fails."""
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
        """Merge a candidate's adapter, unless it has none or is merged already. A build is made from the merged model.

        Only the last merged model and those in use are kept: recipes of one adapter often follow one another.
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
        """Train to a rung, from the checkpoint at the highest lower rung that is in the cache."""
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
            # The stored build itself may be damaged: another sweep must not use it.
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
        """Time candidates in turns in one workload; the first takes two turns in a round.

        `entrants`: candidates by the name of their graph and session; `graphs`: the signature of each graph, as its row has it;
        `may_leave`: the entrants that leave once they are clearly slower than another.

        Returns the latencies relative to each other, the latency cells of each, and the seconds that it took now. Raises
        StageError, MachineError.
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

    def holds_steps(self, row: Trial, candidate: Candidate) -> Steps[float]:
        """Time a candidate's graph again; a new pace begins if that does not agree with its row. Returns the seconds inside stages.

        Raises StageError, MachineError.
        """
        done = self._begin(lambda _: None)
        try:
            yield from self._make_to_time(candidate, done, row.graph)
            yield from self._holds(self._time_job(candidate, done), row.timing, done)
            return done.seconds
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
        # Other work does not begin a new pace: it ends again, and the timings that it disturbed are repeated.
        if agree(before, now) or now.disturbed or before.disturbed:
            self.pace.confirm()
            return True
        self.pace.renew()
        return False

    def is_there(self, candidate: Candidate) -> bool:
        """Whether a candidate can be timed at once: its build is in the cache."""
        return self.do.find(self.graph.build_job(candidate)) is not None

    def _make_to_time(self, candidate: Candidate, done: Measurement, graph: str | None = None) -> Steps[None]:
        """Make a build that has the candidate's graph, without training. Raises StageError.

        An adapter does not change the graph. So where the cache has lost the candidate's build, the untouched model is built
        in its recipe. If that has another graph than `graph` (a recipe may choose layers by their weights), the candidate
        itself is made.
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
        """Time a candidate's graph, whose signature is `graph`. Never raises StageError: an error becomes the status.

        `whole`: until the timing has the precision of the sweep; `again`: repeat a timing that was disturbed or stayed wide.
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
        """Yield the jobs of `timing`."""
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
        """Return the job that times the build in `done` with the candidate's session, at this machine's present pace."""
        assert done.build is not None
        return self.graph.time_job(candidate, done.built, done.build.result["signature"], suffix, self._since)

    @property
    def _since(self) -> str | None:
        return self.pace.since if self.pace else None

    def _time(
        self, candidate: Candidate, suffix: str, done: Measurement, whole: bool = False, again: bool = False
    ) -> Steps[None]:
        """Time the build in `done`. An earlier timing is trusted only where its graph, timed again, agrees.

        With a strategy that has rungs, a timing first takes the least number of processes, and more (`whole`) at the end for
        the graphs on the front. A provisional timing is repeated on request (`again`); the least disturbed one counts.
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
        # A timing that another sweep has just made holds, too.
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
        """Return the line of a timing for `timings.jsonl`: what was timed, and the medians of each process."""
        return {
            "graph": job.graph, "session": job.session.model_dump(exclude_none=True),
            **({"target": self.target} if self.target else {}),
            "workload": suffix.removeprefix("@") or None, "pace": self.pace.name if self.pace else None,
            "again": job.again or 0, "least": job.processes, "most": job.most,
            "processes": self._evaluate(job, stored).processes,
        }  # fmt: skip

    def _timed(self, job: TimeJob, stored: Stored) -> dict[str, float | int | None]:
        """Return the latency cells of a timing."""
        return self._evaluate(job, stored).cells

    def _evaluate(self, job: TimeJob, stored: Stored) -> _Evaluated:
        measured = stored.result["processes"]
        known = self._evaluated.get(job.key)
        if known is None or known.measured != measured:
            most = max(job.most, self.graph.target.timing.most)
            known = self._evaluated[job.key] = _Evaluated(
                measured,
                latency_cells(measured, job.batch, job.processes, most),
                [rounded(medians(process, job.batch) | dict(process.get("conditions", {}))) for process in measured],
            )
            if len(self._evaluated) > _TIMINGS:
                del self._evaluated[next(iter(self._evaluated))]
        return known

    # --- score -------------------------------------------------------------------------------------------------------

    def _score(
        self, candidate: Candidate, split: str, done: Measurement, rung: float = 1.0, items: int | None = None
    ) -> Steps[None]:
        """Score a candidate on a split, or on its first `items` items, rounded up to the next share in `LOOKS`."""
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
        low, high = interval if interval is not None else (None, None)
        done.cells |= {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}
        if split == "validation":
            done.cells["probability"] = probability(done.outcomes)
        if METRICS[name].turns:
            done.cells |= {"score_name": self.graph.data.metric, "score_direction": self.direction}

    def _to_score(self, candidate: Candidate, scored: Candidate, done: Measurement, rung: float) -> Steps[None]:
        """Build the candidate `scored` where it is not `candidate` itself, see `Graph.scored_as`. Raises StageError."""
        if scored.recipe is None or scored == candidate:
            return
        job = self.graph.build_job(scored, rung)
        found = self._find(job, done)
        if found is None:
            yield from self._source(candidate, done, rung)
        yield from self._run("build", job, done, found=found)

    def _parts(self, whole: ScoreJob, items: int | None, done: Measurement) -> list[ScoreJob]:
        """Return the jobs that score all items, or the first `items`, so that blocks in the cache are used again."""
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
        """Join the outcomes of blocks, in the order of the split; `items` in it lists the places scored, if not all."""
        lists = {name: [x for part in parts for x in part[name]] for name, v in parts[0].items() if isinstance(v, list)}
        if split not in self._ids:
            items = json.loads(self.inputs.items[split][1].read_text(encoding="utf-8"))
            self._ids[split] = [item["id"] for item in items]
        place = {name: index for index, name in enumerate(lists["ids"])}
        order = [place[name] for name in self._ids[split] if name in place]
        some = [n for n, name in enumerate(self._ids[split]) if name in place]
        sorted_ = {name: [values[index] for index in order] for name, values in lists.items()}
        return parts[0] | sorted_ | ({"items": some} if len(some) < len(self._ids[split]) else {})
