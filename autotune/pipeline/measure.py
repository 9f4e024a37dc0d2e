"""One candidate through the stages: fine-tune, merge, build, check, time, score, and the row that comes of it.

The order is by cost: what could break a limit for certain is measured before what is dear. Whether a stage runs or its
result is there already is the business of `do`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from autotune.analysis.latency import Turns, latency_cells, turns_of
from autotune.analysis.limits import Limit
from autotune.analysis.scores import probability, summarise
from autotune.artifacts.store import Stored
from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.errors import StageError, printable
from autotune.metrics import LABELLED, METRICS, ROUGE_TOKENS, generates, is_task
from autotune.pipeline.pace import Pace, agree, recent
from autotune.results.columns import Row, in_workload
from autotune.secrets import redact
from autotune.stages.jobs import (
    BuildJob,
    CheckJob,
    FinetuneJob,
    Job,
    MergeJob,
    ScoreJob,
    TaskCheckJob,
    TaskScoreJob,
    TimeJob,
    TurnsJob,
    installed,
)
from autotune.sweepfile.schema import Sweep
from autotune.usercode import Code

AGAIN = 3
"""Processes, at least, by which it is seen whether a timing still holds."""
LOOKS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the items at which a score may be looked at: between two looks, items are scored together."""


class Do(Protocol):
    """Do a stage, or find its result."""

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        """Return the stored result. Raises StageError."""
        ...

    def find(self, job: Job) -> Stored | None:
        """Return the result if it is there already (a merge is needed only for a build that is not)."""
        ...

    def discard(self, job: Job) -> None:
        """Remove a result that is large and made again in seconds, unless another sweep uses it."""
        ...

    def again(self, job: TimeJob) -> dict[str, Any]:
        """Time once more, whatever is there already, and keep nothing. Raises StageError."""
        ...

    def let_go(self, *needed: Job) -> None:
        """Say that no result is in use any more but those of `needed`."""
        ...

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        """Keep the results of `jobs`, and of no others, for a results folder, as long as that is there."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What all candidates of a sweep share, resolved to files and digests."""

    base_dir: Path
    base: str
    """Digest of the base model."""
    items: Mapping[str, tuple[str, Path]]
    """Of each split: digest and file."""
    counts: Mapping[str, int]
    """Of each split: how many items."""
    labels: tuple[str, ...]
    device: str
    machine: str
    """Digest of this machine's hardware."""
    model_mb: float = 0.0
    """Size of the base model at fp32, 10^6 bytes."""
    files: tuple[Path, ...] = ()
    """Model and items: they must stay as they are while the sweep runs."""
    code: Code | None = None
    """The user's own metric, or an lm-eval task, where the sweep names one."""
    lengths: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """Of each workload that draws lengths from the data: prompt and new tokens of its sequences."""


@dataclass
class Measurement:
    """What became of a candidate: its status, and the cells that were filled on the way."""

    status: str = "ok"
    error: str = ""
    cells: Row = field(default_factory=dict)
    outcomes: dict[str, Any] | None = None
    curve: list[list[float]] = field(default_factory=list)
    adapter: Stored | None = None
    merged: Stored | None = None
    build: Stored | None = None
    seconds: float = 0.0
    """Seconds inside stages that ran now."""


class Pipeline:
    """The stages of one sweep, in order."""

    def __init__(self, sweep: Sweep, inputs: Inputs, do: Do, pace: Pace | None = None) -> None:
        """`pace`: whether earlier timings still hold here; None: they do."""
        self.sweep, self.inputs, self.do, self.pace = sweep, inputs, do, pace
        self.rungs: tuple[float, ...] = ()
        """Shares of its steps to which an adapter may have been trained before."""
        self._merged: MergeJob | None = None
        self._ids: dict[str, list[str]] = {}
        self._on_stage: Callable[[str], None] = lambda _: None

    def rest(self) -> None:
        """Say that no candidate is at work: what was used may go, but for the merged model that the next may need."""
        self.do.let_go(*filter(None, [self._merged]))

    def tidy(self) -> None:
        """Remove the last merged model: each is as large as the base."""
        if self._merged is not None:
            self.do.discard(self._merged)
        self._merged = None
        self.rest()

    def keep(self, folder: Path, candidates: Iterable[Candidate]) -> None:
        """Keep what these candidates are made of (adapters, builds), and nothing else, for a results folder."""
        jobs: list[Job] = []
        for candidate in candidates:
            jobs += [self.finetune_job(candidate)] if candidate.lora is not None else []
            jobs += [self._build_job(candidate)] if candidate.recipe is not None else []
        self.do.pin(folder, jobs)

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
        """Take a candidate through all stages. Never raises StageError: trouble is the measurement's status.

        `rung` and `items` are those of a `Proposal`: how far its adapter is trained, and on how many items it is scored;
        `timed`: whether its build is timed.

        Raises MachineError where no candidate could go on (the disk is full).

        `limits` with the `base` values that they may refer to end it early, as `over_limit`; `known` are numbers of
        its recipe from other candidates, which may do so before anything runs. `on_stage` is told of the stages whose
        result is not there yet.
        """
        done = Measurement()
        self._on_stage = on_stage

        def broken(values: Mapping[str, float]) -> bool:
            for limit in limits:
                if METRICS[limit.metric].kind == "score":
                    continue
                gap = limit.gap(values.get(limit.metric), (base or {}).get(limit.metric))
                if gap is not None and gap > 0:
                    done.status, done.error = (
                        "over_limit",
                        f"{limit} cannot be kept: {limit.metric} is {values[limit.metric]:.6g}",
                    )
                    return True
            return False

        try:
            if known and broken(known):
                done.cells |= {name: value for name, value in known.items() if METRICS[name].kind != "score"}
                return done
            self._make(candidate, done, rung)
            if done.build is not None:
                done.cells |= {"size_mb": done.build.result["size_mb"], "graph": done.build.result["signature"]}
                if broken({"size_mb": done.build.result["size_mb"]}):
                    return done
                self._check(candidate, done)
                for suffix in self.sweep.target.timed if timed else ():
                    self._time(candidate, done.build, suffix, done)
                    if broken(
                        {n: float(v) for n, v in done.cells.items() if n in METRICS and isinstance(v, int | float)}
                    ):
                        return done
            if items != 0:
                self._score(candidate, split, done, rung, items)
        except StageError as error:
            done.status, done.error = error.status, printable(redact(" ".join(str(error).split())))
        return done

    def _make(self, candidate: Candidate, done: Measurement, rung: float = 1.0) -> None:
        """Fine-tune, merge and build, as far as the candidate asks for it. Raises StageError."""
        if candidate.lora is not None:
            done.adapter = self._finetune(candidate, done, rung)
        if candidate.recipe is not None:
            done.build = self._build(candidate, done)

    def _build(self, candidate: Candidate, done: Measurement) -> Stored:
        """Return a candidate's build: as it is there, or made from what it is built of."""
        build = self._build_job(candidate)
        found = self.do.find(build)
        if found is None:
            build = build.model_copy(update={"source_dir": self._source_dir(candidate, done)})
        return self._run("build", build, done, found=found)

    def time_in_turns(
        self,
        entrants: Mapping[str, Candidate],
        graphs: Mapping[str, str],
        suffix: str = "",
        on_stage: Callable[[str], None] = lambda _: None,
    ) -> tuple[Turns, dict[str, Row], float]:
        """Time candidates, each known by what its timing belongs to, in turns in one workload; the first twice a round.

        `graphs`: the graph of each, which is known already.

        Returns how they relate, the latency cells of each, and the seconds that it took now. Raises StageError,
        MachineError.
        """
        self._on_stage = on_stage
        done = Measurement()
        jobs: list[TimeJob] = []
        for name, candidate in entrants.items():
            made = Measurement()
            jobs.append(self.time_job(candidate, self._make_to_time(candidate, made, graphs.get(name)), suffix))
            done.seconds += made.seconds
        rounds = self._run(
            "time", TurnsJob(graphs=(*jobs, jobs[0]), **self.sweep.target.timing.model_dump()), done
        ).result["rounds"]
        names, batch = list(entrants), jobs[0].batch
        cells = {
            name: in_workload(latency_cells([results[place] for results in rounds], batch), suffix)
            for place, name in enumerate(names)
        }
        return turns_of([*names, names[0]], rounds, batch, suffix), cells, done.seconds

    def still_holds(self, row: Mapping[str, Any], candidate: Candidate) -> bool:
        """Time a candidate's graph again and say whether that agrees with its row; else there is a new pace from now on.

        Raises StageError, MachineError.
        """
        assert self.pace is not None
        build = self._make_to_time(candidate, Measurement(), str(row["graph"]))
        return self._holds(self.time_job(candidate, build), row)

    def _holds(self, job: TimeJob, before: Mapping[str, Any]) -> bool:
        assert self.pace is not None
        self._on_stage("time")
        result = self.do.again(job.model_copy(update={"processes": min(AGAIN, job.processes)}))
        if agree(before, latency_cells(result["processes"], job.batch)):
            self.pace.confirm()
            return True
        self.pace.renew()
        return False

    def is_there(self, candidate: Candidate) -> bool:
        """Whether a candidate is made as far as it takes to time it: its build is all that takes."""
        return self.do.find(self._build_job(candidate)) is not None

    def _make_to_time(self, candidate: Candidate, done: Measurement, graph: str | None = None) -> Stored:
        """Return a build that is timed as the candidate's own would be, without training. Raises StageError.

        No adapter changes a graph: where the candidate's build is gone, the untouched model in its recipe does. Should that
        turn out to be another than `graph` (a recipe may choose layers by their weights), the candidate itself is made.
        """
        if self.is_there(candidate):
            done.build = self._build(candidate, done)
            return done.build
        self._make(candidate.model_copy(update={"lora": None}), done)
        assert done.build is not None
        if graph is not None and done.build.result["signature"] != graph:
            self._make(candidate, done)
        return done.build

    def timing(
        self,
        candidate: Candidate,
        on_stage: Callable[[str], None] = lambda _: None,
        whole: bool = False,
        graph: str | None = None,
    ) -> Measurement:
        """Time a candidate's graph, which is known to be `graph`; `whole`: until it is known as precisely as the sweep asks
        for. Never raises StageError.
        """
        self._on_stage = on_stage
        done = Measurement()
        try:
            build = self._make_to_time(candidate, done, graph)
            done.cells["graph"] = build.result["signature"]
            for suffix in self.sweep.target.timed:
                self._time(candidate, build, suffix, done, whole)
        except StageError as error:
            done.status, done.error = error.status, printable(redact(" ".join(str(error).split())))
        return done

    def _run(
        self,
        stage: str,
        job: Job,
        done: Measurement,
        timeout: float | None = None,
        found: Stored | None = None,
    ) -> Stored:
        """Do a stage, unless its result is `found` already, and book its cost, that of a failure too."""
        found = found or self.do.find(job)
        if found is None:
            self._on_stage(job.stage)
        began = time.perf_counter()
        try:
            stored = found or self.do(job, timeout)
        except StageError:
            self._book(stage, time.perf_counter() - began, done)
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

    def _source_dir(self, candidate: Candidate, done: Measurement, rung: float = 1.0) -> Path:
        """Return what a candidate is built from and compared with: the base model, or its adapter merged into it.

        No merged model is kept but the last: recipes of one adapter often follow one another.
        """
        if done.adapter is None:
            return self.inputs.base_dir
        if done.merged is None:
            job = self._merge_job(candidate, done.adapter.path, rung)
            if self._merged is not None and self._merged.key != job.key:
                self.do.discard(self._merged)
            self._merged = job
            done.merged = self._run("merge", job, done)
        return done.merged.path

    def horizon(self, lora: Lora) -> int:
        """Return the steps of an adapter's whole training."""
        return lora.horizon(self.inputs.counts["train"])

    def finetune_job(self, candidate: Candidate, rung: float = 1.0) -> FinetuneJob:
        """Return the job that trains a candidate's adapter, as far as to a rung."""
        lora = candidate.lora
        assert lora is not None
        data, file = self.inputs.items["train"]
        horizon = self.horizon(lora) if rung < 1 else None
        stop_at = max(1, round(rung * horizon)) if horizon is not None else None
        return FinetuneJob(
            base=self.inputs.base, data=data, lora=lora, seed=self.sweep.seed, device=self.inputs.device,
            horizon=horizon, stop_at=stop_at, base_dir=self.inputs.base_dir, data_file=file,
            time_limit_s=self.sweep.train.time_limit_s,
        )  # fmt: skip

    def _finetune(self, candidate: Candidate, done: Measurement, rung: float) -> Stored:
        """Train to a rung, going on from the highest below it that is there."""
        job = self.finetune_job(candidate, rung)
        done.cells["adapter"] = self.finetune_job(candidate).key
        found = self.do.find(job)
        if found is None:
            lower = (self.finetune_job(candidate, low) for low in sorted(self.rungs, reverse=True) if low < rung)
            before = next(filter(None, map(self.do.find, lower)), None)
            job = job.model_copy(update={"checkpoint_dir": before.path if before is not None else None})
        stored = self._run("train", job, done, self.sweep.train.time_limit_s + 300, found=found)
        done.cells |= {"train_steps": stored.result["step"], "train_loss": stored.result["loss"]}
        state = json.loads((stored.path / "state.json").read_text(encoding="utf-8"))
        done.curve = state["curve"]
        return stored

    def _merge_job(self, candidate: Candidate, adapter_dir: Path = Path(), rung: float = 1.0) -> MergeJob:
        key = self.finetune_job(candidate, rung).key
        return MergeJob(adapter=key, base=self.inputs.base, base_dir=self.inputs.base_dir, adapter_dir=adapter_dir)

    def _build_job(self, candidate: Candidate, rung: float = 1.0) -> BuildJob:
        """Return the job that builds a candidate; with an adapter, its source is still to be merged."""
        assert candidate.recipe is not None
        source = self.inputs.base if candidate.lora is None else self._merge_job(candidate, rung=rung).key
        return BuildJob(
            source=source,
            recipe=candidate.recipe,
            provider=self.sweep.target.provider,
            source_dir=self.inputs.base_dir,
        )

    def check_job(self, candidate: Candidate) -> CheckJob:
        """Return the job that compares a build with its source on validation items; where both lie is still to be said."""
        assert candidate.recipe is not None
        metric, (data, file) = self.sweep.data.metric, self.inputs.items["validation"]
        shared: dict[str, Any] = {
            "source": self._build_job(candidate).key, "provider": self.sweep.target.provider, "data": data,
            "recipe": candidate.recipe, "max_length": self.sweep.train.max_length,
            "threads": self.sweep.target.threads, "model_dir": Path(), "source_dir": Path(), "data_file": file,
        }  # fmt: skip
        if is_task(metric):
            assert self.inputs.code is not None
            return TaskCheckJob(metric=metric, code_file=self.inputs.code.file, **shared)
        return CheckJob(**shared)

    def _check(self, candidate: Candidate, done: Measurement) -> None:
        """Compare the build with its source. Raises StageError (`failed`) where it is another model."""
        assert done.build is not None
        job = self.check_job(candidate)
        found = self.do.find(job)
        if found is None:
            source = self._source_dir(candidate, done)
            job = job.model_copy(update={"model_dir": done.build.path, "source_dir": source})
        stored = self._run("check", job, done, found=found)
        result = stored.result
        done.cells |= {
            "kl_nats": result.get("kl_nats"), "greedy_agreement": result.get("greedy_agreement"),
            "check_items": result["texts"],
        }  # fmt: skip
        if result["trouble"] is not None:
            # Were it damaged where it lies, another sweep would find it so.
            self.do.discard(job)
            self.do.discard(self._build_job(candidate))
            done.build = None
            raise StageError("failed", f"check: {result['trouble']}")

    def session(self, candidate: Candidate) -> Session:
        """Return how a candidate is served: as its own session says, and where that is silent as the target says."""
        return (candidate.session or Session()).over(self.sweep.target.session)

    def time_job(self, candidate: Candidate, build: Stored, suffix: str = "") -> TimeJob:
        """Return the job that times a candidate's build in one of the sweep's workloads, at this machine's present pace."""
        target = self.sweep.target
        workload = target.timed[suffix]
        drawn = self.inputs.lengths.get(suffix)
        prompt, new = (max(lengths) for lengths in zip(*drawn, strict=True)) if drawn else (None, None)
        return TimeJob(
            graph=build.result["signature"], provider=target.provider, **self.session(candidate).model_dump(),
            prompt_tokens=prompt or workload.prompt_tokens, new_tokens=new or workload.new_tokens, lengths=drawn,
            batch=workload.batch, machine=self.inputs.machine, since=self.pace.since if self.pace else None,
            **target.timing.model_dump(), model_dir=build.path,
        )  # fmt: skip

    def _time(self, candidate: Candidate, build: Stored, suffix: str, done: Measurement, whole: bool = False) -> None:
        """Time a build; a timing from before is trusted only where its graph, timed again, agrees.

        Where candidates are taken up in parts, so is a timing: the least number of processes first, and more (`whole`) for
        what is on the front in the end.
        """
        trusted = self.pace is None or self.pace.trusted  # another sweep may have found a new pace meanwhile
        job = self.time_job(candidate, build, suffix)
        found = self.do.find(job)
        begun: Stored | None = None
        if found is None and self.rungs:
            first = job.model_copy(update={"most": job.processes})
            if whole:
                begun = self.do.find(first)
            else:
                job, found = first, self.do.find(first)
        earlier = found or begun
        # What another sweep has timed just now holds, too.
        if earlier is not None and not trusted and not recent(earlier.made):
            began = time.perf_counter()
            if not self._holds(job, latency_cells(earlier.result["processes"], job.batch)):
                since = self.pace.since if self.pace else None
                job, found, begun = job.model_copy(update={"since": since}), None, None
            self._book("time", time.perf_counter() - began, done)
        if begun is not None:
            job = job.model_copy(update={"begun": tuple(begun.result["processes"])})
        stored = self._run("time", job, done, found=found)
        if self.pace is not None:
            if not stored.cached:
                self.pace.begin()
            done.cells["pace"] = self.pace.name
        cells = in_workload(latency_cells(stored.result["processes"], job.batch), suffix)
        done.cells |= {name: value for name, value in cells.items() if value is not None}

    def score_job(self, candidate: Candidate, split: str, rung: float = 1.0) -> ScoreJob:
        """Return the job that scores a candidate on a split: as built, or in PyTorch where nothing is built.

        Where its files lie is still to be said.
        """
        data, file = self.inputs.items[split]
        metric = self.sweep.data.metric
        shared: dict[str, Any] = {
            "data": data, "data_file": file, "metric": metric, "max_length": self.sweep.train.max_length,
            "labels": self.inputs.labels if metric in LABELLED else (), "threads": self.sweep.target.threads,
            "items": self.inputs.counts[split], "model_dir": Path(),
        }  # fmt: skip
        kind = TaskScoreJob if is_task(metric) else ScoreJob
        if generates(metric):
            shared |= {"max_new_tokens": self.sweep.data.max_new_tokens, "stop": self.sweep.data.stop}
        if metric == "rouge_l":
            shared["code"] = f"rouge-score {installed('rouge-score')}, tokens {ROUGE_TOKENS}"
        if (code := self.inputs.code) is not None:
            shared |= {"code": code.digest, "code_file": code.file, "code_root": code.root}
        if candidate.recipe is not None:
            source = self._build_job(candidate, rung).key
            options = self.session(candidate).provider_options
            return kind(source=source, provider=self.sweep.target.provider, provider_options=options, **shared)
        source = self.inputs.base if candidate.lora is None else self.finetune_job(candidate, rung).key
        return kind(source=source, device=self.inputs.device, **shared)

    def _as_scored(self, candidate: Candidate) -> Candidate:
        """Return the candidate that is scored for one: an adapter alone may be scored as built."""
        if candidate.lora is None or candidate.recipe is not None:
            return candidate
        return candidate.model_copy(update={"recipe": recipe_alone(self.sweep, self.inputs.device)})

    def _score(
        self, candidate: Candidate, split: str, done: Measurement, rung: float = 1.0, items: int | None = None
    ) -> None:
        """Score a candidate on a split, or on the first `items` of it and those up to the next of `LOOKS`."""
        scored = self._as_scored(candidate)
        found: list[dict[str, Any]] = []
        jobs = self._parts(self.score_job(scored, split, rung), items)
        for job in jobs:
            there = self.do.find(job)
            where = self._where(candidate, scored, done, rung) if there is None else {}
            stored = self._run("score", job.model_copy(update=where), done, found=there)
            found.append(json.loads((stored.path / "outcomes.json").read_text(encoding="utf-8")))
        if rung < 1 and scored.recipe is not None:
            self.do.discard(self._build_job(scored, rung))  # large, and of no use but this
        done.outcomes = found[0] if jobs[0].block is None else self._together(found, split)
        value, interval, n = summarise(self.sweep.data.metric, done.outcomes)
        name = self.sweep.score
        if not math.isfinite(value):
            done.outcomes = None
            raise StageError("diverged" if candidate.lora else "failed", f"score: {name} is {value}")
        done.cells |= {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high, f"{name}_n": n}
        if split == "validation":
            done.cells["probability"] = probability(done.outcomes)
        if METRICS[name].turns:
            direction = self.sweep.objectives.get(name, METRICS[name].direction)
            done.cells |= {"score_name": self.sweep.data.metric, "score_direction": direction}

    def _where(self, candidate: Candidate, scored: Candidate, done: Measurement, rung: float) -> dict[str, Path | None]:
        """Return where the files lie of what is scored. Raises StageError."""
        if scored.recipe is None:
            return {"model_dir": self.inputs.base_dir, "adapter_dir": done.adapter.path if done.adapter else None}
        if scored == candidate:
            assert done.build is not None
            return {"model_dir": done.build.path}
        job = self._build_job(scored, rung)
        found = self.do.find(job)
        if found is None:
            job = job.model_copy(update={"source_dir": self._source_dir(candidate, done, rung)})
        return {"model_dir": self._run("build", job, done, found=found).path}

    def _parts(self, whole: ScoreJob, items: int | None) -> list[ScoreJob]:
        """Return the jobs that score all items, or the first so many, what is there already taken in."""
        total = whole.items or 0
        if not self.rungs or is_task(whole.metric) or self.do.find(whole) is not None:
            return [whole]
        ends = [math.ceil(share * total) for share in LOOKS]
        upto = next((end for end in ends if items is not None and end >= items), total)

        def block(first: int, end: int) -> ScoreJob:
            return whole.model_copy(update={"block": (first, end), "items": end - first})

        parts: list[ScoreJob] = []
        reached = 0
        while reached < upto:
            further = (end for end in reversed(ends) if reached < end <= upto)
            end = next((end for end in further if self.do.find(block(reached, end)) is not None), None)
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


def base_candidate(sweep: Sweep) -> Candidate:
    """Return the untouched model: at the provider's most exact precision (fp32), or not built where nothing is."""
    if not sweep.space.recipes:
        return Candidate()
    return Candidate(recipe=Recipe(precision=sweep.provider.precisions[0]))


def recipe_alone(sweep: Sweep, device: str) -> Recipe | None:
    """Return the recipe that an adapter alone is scored in, where adapters are trained on `device`; None: by PyTorch.

    One that will be built for the CPU is scored as built at full precision, which predicts what PyTorch predicts, and
    several times as fast.
    """
    return base_candidate(sweep).recipe if sweep.target.provider == device == "cpu" else None
