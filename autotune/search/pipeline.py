"""One candidate through the stages: fine-tune, merge, build, time, score, and the row that comes of it.

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

from autotune.candidate import Candidate, Recipe, Session
from autotune.errors import StageError, printable
from autotune.metrics import LABELLED, METRICS, generates, is_task
from autotune.search.latency import latency_cells
from autotune.search.limits import Limit
from autotune.search.scores import summarise
from autotune.secrets import redact
from autotune.stages.jobs import BuildJob, FinetuneJob, Job, MergeJob, ScoreJob, TaskScoreJob, TimeJob, installed
from autotune.store.cache import Stored
from autotune.store.results import Row, workload_names
from autotune.sweep import Sweep
from autotune.usercode import Code


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
    build: Stored | None = None
    seconds: float = 0.0
    """Seconds inside stages that ran now."""


class Pipeline:
    """The stages of one sweep, in order."""

    def __init__(self, sweep: Sweep, inputs: Inputs, do: Do) -> None:
        self.sweep, self.inputs, self.do = sweep, inputs, do
        self._merged: MergeJob | None = None
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
    ) -> Measurement:
        """Take a candidate through all stages. Never raises StageError: trouble is the measurement's status.

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
            if candidate.lora is not None:
                done.adapter = self._finetune(candidate, done)
            if candidate.recipe is not None:
                build = self._build_job(candidate)
                found = self.do.find(build)
                if done.adapter is not None and found is None:
                    merged = self._merge(self._merge_job(candidate, done.adapter.path), done)
                    build = build.model_copy(update={"source_dir": merged.path})
                done.build = self._run("build", build, done, found=found)
                done.cells |= {"size_mb": done.build.result["size_mb"], "graph": done.build.result["signature"]}
                if broken({"size_mb": done.build.result["size_mb"]}):
                    return done
                for suffix in self.sweep.target.timed:
                    self._time(candidate, done.build, suffix, done)
                    if broken(
                        {n: float(v) for n, v in done.cells.items() if n in METRICS and isinstance(v, int | float)}
                    ):
                        return done
            self._score(candidate, split, done)
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
        done.cells[f"cost_{stage}_s"] = float(done.cells.get(f"cost_{stage}_s") or 0.0) + seconds
        done.seconds += seconds

    def _merge(self, job: MergeJob, done: Measurement) -> Stored:
        """Merge, and keep no merged model but this one: recipes of one adapter often follow one another."""
        if self._merged is not None and self._merged.key != job.key:
            self.do.discard(self._merged)
        self._merged = job
        return self._run("merge", job, done)

    def finetune_job(self, candidate: Candidate) -> FinetuneJob:
        """Return the job that trains a candidate's adapter."""
        assert candidate.lora is not None
        data, file = self.inputs.items["train"]
        limit = self.sweep.train.time_limit_s
        return FinetuneJob(
            base=self.inputs.base, data=data, lora=candidate.lora, seed=self.sweep.seed, device=self.inputs.device,
            base_dir=self.inputs.base_dir, data_file=file, time_limit_s=limit,
        )  # fmt: skip

    def _finetune(self, candidate: Candidate, done: Measurement) -> Stored:
        job = self.finetune_job(candidate)
        done.cells["adapter"] = job.key
        stored = self._run("train", job, done, self.sweep.train.time_limit_s + 300)
        done.cells |= {"train_steps": stored.result["step"], "train_loss": stored.result["loss"]}
        state = json.loads((stored.path / "state.json").read_text(encoding="utf-8"))
        done.curve = state["curve"]
        return stored

    def _merge_job(self, candidate: Candidate, adapter_dir: Path = Path()) -> MergeJob:
        key = self.finetune_job(candidate).key
        return MergeJob(adapter=key, base=self.inputs.base, base_dir=self.inputs.base_dir, adapter_dir=adapter_dir)

    def _build_job(self, candidate: Candidate) -> BuildJob:
        """Return the job that builds a candidate; with an adapter, its source is still to be merged."""
        assert candidate.recipe is not None
        source = self.inputs.base if candidate.lora is None else self._merge_job(candidate).key
        return BuildJob(
            source=source,
            recipe=candidate.recipe,
            provider=self.sweep.target.provider,
            source_dir=self.inputs.base_dir,
        )

    def session(self, candidate: Candidate) -> Session:
        """Return how a candidate is served: as its own session says, and where that is silent as the target says."""
        return (candidate.session or Session()).over(self.sweep.target.session)

    def time_job(self, candidate: Candidate, build: Stored, suffix: str = "") -> TimeJob:
        """Return the job that times a candidate's build in one of the sweep's workloads."""
        target = self.sweep.target
        workload = target.timed[suffix]
        drawn = self.inputs.lengths.get(suffix)
        prompt, new = (max(lengths) for lengths in zip(*drawn, strict=True)) if drawn else (None, None)
        return TimeJob(
            graph=build.result["signature"], provider=target.provider, **self.session(candidate).model_dump(),
            prompt_tokens=prompt or workload.prompt_tokens, new_tokens=new or workload.new_tokens, lengths=drawn,
            batch=workload.batch, machine=self.inputs.machine, model_dir=build.path,
        )  # fmt: skip

    def _time(self, candidate: Candidate, build: Stored, suffix: str, done: Measurement) -> None:
        job = self.time_job(candidate, build, suffix)
        cells = latency_cells(self._run("time", job, done).result["processes"], job.batch)
        columns = workload_names(suffix) if suffix else [*cells]
        done.cells |= {name: value for name in columns if (value := cells.get(name.removesuffix(suffix))) is not None}

    def score_job(self, candidate: Candidate, split: str, adapter: Stored | None, build: Stored | None) -> ScoreJob:
        """Return the job that scores a candidate on a split: as built, or in PyTorch where nothing is built."""
        data, file = self.inputs.items[split]
        metric = self.sweep.data.metric
        shared: dict[str, Any] = {
            "data": data, "data_file": file, "metric": metric, "max_length": self.sweep.train.max_length,
            "labels": self.inputs.labels if metric in LABELLED else (), "threads": self.sweep.target.threads,
            "items": self.inputs.counts[split],
        }  # fmt: skip
        kind = TaskScoreJob if is_task(metric) else ScoreJob
        if generates(metric):
            shared |= {"max_new_tokens": self.sweep.data.max_new_tokens, "stop": self.sweep.data.stop}
        if metric == "rouge_l":
            shared["code"] = f"rouge-score {installed('rouge-score')}"
        if (code := self.inputs.code) is not None:
            shared |= {"code": code.digest, "code_file": code.file, "code_root": code.root}
        if build is not None:
            source = self._build_job(candidate).key
            return kind(
                source=source, provider=self.sweep.target.provider, model_dir=build.path,
                provider_options=self.session(candidate).provider_options, **shared,
            )  # fmt: skip
        source = self.inputs.base if adapter is None else self.finetune_job(candidate).key
        return kind(
            source=source, device=self.inputs.device, model_dir=self.inputs.base_dir,
            adapter_dir=adapter.path if adapter else None, **shared,
        )  # fmt: skip

    def _score(self, candidate: Candidate, split: str, done: Measurement) -> None:
        stored = self._run("score", self.score_job(candidate, split, done.adapter, done.build), done)
        done.outcomes = json.loads((stored.path / "outcomes.json").read_text(encoding="utf-8"))
        value, interval, n = summarise(self.sweep.data.metric, done.outcomes)
        name = self.sweep.score
        if not math.isfinite(value):
            done.outcomes = None
            raise StageError("diverged" if candidate.lora else "failed", f"score: {name} is {value}")
        done.cells |= {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high, f"{name}_n": n}
        if METRICS[name].turns:
            direction = self.sweep.objectives.get(name, METRICS[name].direction)
            done.cells |= {"score_name": self.sweep.data.metric, "score_direction": direction}


def base_candidate(sweep: Sweep) -> Candidate:
    """Return the untouched model: at the provider's most exact precision (fp32), or not built where nothing is."""
    if not sweep.space.recipes:
        return Candidate()
    return Candidate(recipe=Recipe(precision=sweep.provider.precisions[0]))
