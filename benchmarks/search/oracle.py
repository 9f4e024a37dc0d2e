"""Make an oracle table: what every candidate of a task really does, measured by our own stages.

python -m benchmarks.search.oracle xed --hours 3      # xed, snips, phrase_tone, or a sweep file with strategy: grid
python -m benchmarks.search.oracle xed --estimate     # what is missing, and how long it would take
python -m benchmarks.search.oracle xed --threads 1    # as one of several processes at work on the table
python -m benchmarks.search.oracle xed --costs        # what each stage takes, once more, with nothing else at work

Rows go to `benchmarks/search/tables/TASK.jsonl` (see `rows.py`), the most useful first, each as soon as it is measured.
The run may be killed at any moment; the same command goes on from the rows that are there, on another machine and with
an empty cache too: a row is never made again, and an adapter is trained again only if one of its rows is missing.

1. The untouched model in every recipe: built, timed, scored.
2. Every adapter with the sweep's seed: trained to 1/9, 1/3 and all of its steps, each time going on from the rung
   before, and scored at the lower rungs; merged, built in every recipe and scored on validation. What fp32 predicts is
   what PyTorch predicts (benchmarks/measured/parity.md), so a rung is scored on an fp32 build, which takes a third of
   PyTorch's time; what PyTorch takes is measured on the untouched model.
3. Of the adapters within 3 points of the best (in their best recipe): the test items, then all of it for two more seeds.

Two processes with one thread each make 1.4 times as many rows an hour as one with two, each taking the next adapter that
no other is at. Their seconds are not taken as costs: those are measured by themselves (--costs), in minutes.

Where PyTorch sees a GPU, adapters are trained on it, in the CPU's arithmetic (fp32), and what fp32 predicts is taken from
PyTorch; every other recipe is scored on the target's provider as ever (`benchmarks/gpu/oracle.py`).

Before a long run: `git commit` the table now and then; nothing else is needed to go on elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from autotune.artifacts.store import Cache, Stored, default_root
from autotune.candidate import Candidate, Lora, Recipe
from autotune.errors import AutotuneError, Interrupted, StageError
from autotune.execution.executor import Stages
from autotune.execution.host_lock import HostLock
from autotune.execution.local import LocalEngine
from autotune.execution.stop import Stop, stop_on_signals
from autotune.machine import describe, machine_digest
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.prepare import prepare
from autotune.space.domains import Choice
from autotune.space.parameter_tables import Value
from autotune.stages.jobs import BuildJob, FinetuneJob, MergeJob, ScoreJob, TimeJob
from autotune.stages.preparation_jobs import ProbeJob
from autotune.stages.protocol import Job
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Sweep
from benchmarks.search.rows import FORMAT, KEY, TABLES, Row, RowFile, pack_labels, pack_nats

TASKS = Path(__file__).parent / "tasks"
RUNGS = (1 / 9, 1 / 3, 1.0)
SEEDS = 3
NEAR = 0.03
"""Adapters that are this close to the best in accuracy get more seeds, and the test items."""
GUESS_S = {"start": 10.0, "train": 40.0, "score": 45.0, "merge": 3.0, "build": 12.0, "time": 25.0}
"""Seconds of a kind of row of which none is there yet (built-in model, 1,000 items, two cores)."""
_DECIMALS = 4
_SAME = ("format", "model", "data", "labels", "rungs", "gold", "adapters", "recipes")
"""What two headers share if their rows are of one table."""
_ENDS = ("diverged", "unsupported", "failed", "out_of_memory")
"""Troubles that are the candidate's own: they are its row. After any other the maker stops."""


def rung_name(share: float) -> float:
    """Return a rung as it stands in rows."""
    return round(share, _DECIMALS)


def adapters_of(sweep: Sweep) -> list[Lora]:
    """Return the adapters of a grid in the order in which they are made, in which the first half of it is a grid too.

    `alpha_over_r` outermost, then `learning_rate`, each in the order of its values as written.
    """
    found = dict.fromkeys(candidate.lora for candidate in sweep.space.grid() if candidate.lora is not None)
    domains = sweep.space.lora or {}

    def place(name: str, value: Value) -> int:
        domain = domains.get(name)
        return domain.values.index(value) if isinstance(domain, Choice) else 0

    return sorted(
        found,
        key=lambda lora: (place("alpha_over_r", lora.alpha / lora.r), place("learning_rate", lora.learning_rate)),
    )


def adapter_id(lora: Lora) -> str:
    """Return an adapter's name in a table."""
    return Candidate(lora=lora).id


@dataclass(frozen=True)
class Step:
    """One row to make, or what must be there for others."""

    kind: str
    lora: Lora | None = None
    seed: int | None = None
    rung: float | None = None
    recipe: Recipe | None = None
    split: str | None = None

    def key(self) -> Row:
        """The fields of the row that say which it is."""
        key: Row = {"kind": self.kind}
        if self.lora is not None:
            key["adapter"] = adapter_id(self.lora)
        for name, value in (("seed", self.seed), ("rung", self.rung), ("split", self.split)):
            if value is not None:
                key[name] = value
        if self.recipe is not None:
            key["recipe"] = str(self.recipe)
        return key


class Others:
    """How many cores other processes used since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = self._seconds()

    @staticmethod
    def _seconds() -> tuple[float, float]:
        whole = psutil.cpu_times()
        this = psutil.Process()
        own = 0.0
        for process in (this, *this.children(recursive=True)):
            try:
                used = process.cpu_times()
            except psutil.Error:  # ended meanwhile
                continue
            own += used.user + used.system + used.children_user + used.children_system
        idle = whole.idle + getattr(whole, "iowait", 0.0)
        return sum(whole) - idle - getattr(whole, "guest", 0.0), own

    def cores(self) -> float:
        """Return the mean number of cores, rounded."""
        busy, own = self._seconds()
        return round(max(0.0, (busy - self._busy - own + self._own) / max(1e-3, time.monotonic() - self._began)), 2)


class Maker:
    """Makes the rows of one table that are missing."""

    def __init__(
        self, sweep: Sweep, stages: Stages, rows: RowFile, say: Callable[[str], None], threads: int | None = None
    ) -> None:
        self.sweep, dataset, self.inputs = prepare(sweep, stages, stages.cache.root)
        self.one_of_several = threads is not None
        self.on_gpu = self.inputs.device == "cuda"
        self.threads = threads or self.sweep.target.threads
        self.stages, self.rows, self.say = stages, rows, say
        self.pipeline = Pipeline(Graph(self.sweep, self.inputs), self.sweep.aims, stages)
        self.adapters = adapters_of(self.sweep)
        self.recipes = self.sweep.space.recipes
        self.exact = Recipe(precision=self.sweep.provider.precisions[0])
        self.began = time.monotonic()
        stages.settle(self.inputs.files, self.inputs.model_mb, self.inputs.places)
        header: Row = {
            "kind": "header", "format": FORMAT, "task": sweep.name, "sweep": self.sweep.resolved(),
            "model": self.inputs.base, "data": {split: key for split, (key, _) in self.inputs.items.items()},
            "labels": list(dataset.labels), "rungs": [rung_name(rung) for rung in RUNGS],
            "gold": {
                split: pack_labels([dataset.labels.index(item.completion) for item in getattr(dataset, split)])
                for split in ("validation", "test") if getattr(dataset, split)
            },
            "adapters": {adapter_id(lora): lora.model_dump(mode="json", exclude_none=True) for lora in self.adapters},
            "recipes": {str(recipe): recipe.model_dump(mode="json", exclude_none=True) for recipe in self.recipes},
            "made": describe(),
        }  # fmt: skip
        if rows.header is None:
            with contextlib.suppress(ValueError):  # another process was first
                rows.append(header)
        if rows.header is not None:
            other = [name for name in _SAME if rows.header[name] != header[name]]
            if other:
                raise SystemExit(
                    f"{rows.file} was made of other inputs ({', '.join(other)}): move it away, or restore them"
                )

    # --- which rows -------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """Yield all rows of the table, the most useful first; later ones depend on earlier ones' content."""
        yield Step("start")
        for recipe in self.recipes:
            yield Step("build", recipe=recipe)
            yield Step("time", recipe=recipe)
            yield Step("score", recipe=recipe, split="validation")
        yield Step("score", split="validation")
        first = self.sweep.seed
        for lora in self.adapters:
            yield from self._trained(lora, first)
            yield from self._pairs(lora, first, "validation")
        near = self.near()
        if "test" in self.inputs.items:
            for recipe in self.recipes:
                yield Step("score", recipe=recipe, split="test")
            for lora in near:
                yield from self._pairs(lora, first, "test")
        for seed in range(first + 1, first + SEEDS):
            for lora in near:
                yield from self._trained(lora, seed)
                for split in ("validation", "test"):
                    if split in self.inputs.items:
                        yield from self._pairs(lora, seed, split)

    def _trained(self, lora: Lora, seed: int) -> Iterator[Step]:
        for rung in RUNGS:
            yield Step("train", lora, seed, rung_name(rung))
            if rung < 1:
                yield Step("score", lora, seed, rung_name(rung), split="validation")

    def _pairs(self, lora: Lora, seed: int, split: str) -> Iterator[Step]:
        yield Step("merge", lora, seed)
        for recipe in self.recipes:
            yield Step("build", lora, seed, recipe=recipe)
            yield Step("score", lora, seed, 1.0, recipe, split)

    def missing(self) -> Iterator[Step]:
        """Yield the rows that are not there, nor impossible because an adapter diverged."""
        for step in self.steps():
            if self.one_of_several and step.lora is None:
                continue  # costs, and what all need
            if self.rows.find(**step.key()) is None and not self._ended(step):
                yield step

    def _ended(self, step: Step) -> bool:
        """Whether training ended before this step could be, or the build failed."""
        if step.lora is None:
            return False
        for rung in map(rung_name, RUNGS):
            row = self.rows.find(**Step("train", step.lora, step.seed, rung).key())
            if row is not None and row["status"] != "ok":
                return step.rung is None or step.rung >= rung
        if step.kind == "score" and step.recipe is not None:
            row = self.rows.find(**Step("build", step.lora, step.seed, recipe=step.recipe).key())
            return row is not None and row["status"] != "ok"
        return False

    def near(self) -> list[Lora]:
        """Return the adapters within `NEAR` of the best, each in its best recipe, with the first seed on validation."""
        best: dict[Lora, float] = {}
        assert self.rows.header is not None
        gold = self.rows.header["gold"]["validation"]
        for lora in self.adapters:
            for recipe in self.recipes:
                row = self.rows.find(**Step("score", lora, self.sweep.seed, 1.0, recipe, "validation").key())
                if row is not None and row["status"] == "ok":
                    share = sum(a == b for a, b in zip(row["predicted"], gold, strict=True)) / len(gold)
                    best[lora] = max(share, best.get(lora, 0.0))
        most = max(best.values(), default=0.0)
        return [lora for lora in self.adapters if best.get(lora, -1.0) >= most - NEAR - 1e-9]

    # --- making them ------------------------------------------------------------------------------------------------

    def make(self, step: Step) -> Row:
        """Measure one row and write it. Raises StageError where the trouble is not the candidate's own."""
        others, began = Others(), time.monotonic()
        row = step.key()
        try:
            stored, found = self._measured(step)
            row |= {"status": "ok", "seconds": round(stored.seconds, 3)} | found
            cached = stored.cached
        except StageError as error:
            if error.status not in _ENDS:
                raise
            row |= {"status": error.status, "error": str(error)[:200], "seconds": round(time.monotonic() - began, 3)}
            cached = False
        row |= {"load": None, "others": None} if cached else {"load": _load(), "others": others.cores()}
        if self.one_of_several:
            row["threads"] = self.threads
        if self.on_gpu and (step.kind == "train" or (step.kind == "score" and self._by_torch(step))):
            row["device"] = "cuda"
        return self.rows.append(row)

    def _measured(self, step: Step) -> tuple[Stored, Row]:
        match step.kind:
            case "start":
                return self._start(), {}
            case "train":
                assert step.lora is not None
                assert step.rung is not None
                stored = self._train(step.lora, step.seed or 0, step.rung)
                result = stored.result
                return stored, {"step": result["step"], "step_s": result["step_s"], "loss": round(result["loss"], 5)}
            case "merge":
                return self._merge(step), {}
            case "build":
                stored = self._build(step)
                return stored, {"size_mb": stored.result["size_mb"], "graph": stored.result["signature"]}
            case "time":
                return self._time(step)
            case "score":
                return self._score(step)
            case _:
                raise AssertionError(step)

    def _start(self) -> Stored:
        """Start a worker of our own, look at the machine (which imports torch), end it."""
        # The host's lock is waited for before the clock starts.
        with HostLock().shared(), LocalEngine() as engine, tempfile.TemporaryDirectory() as scratch:
            began = time.perf_counter()
            job = ProbeJob(machine=machine_digest(), packages_digest="start")
            engine.run(job, Path(scratch), Path(scratch) / "log")
            seconds = time.perf_counter() - began
        return Stored(Path(), {}, seconds, cached=False)

    def _train_job(self, lora: Lora, seed: int, rung: float) -> FinetuneJob:
        horizon = lora.steps
        if horizon is None:
            raise SystemExit("a table needs space.lora.steps: rungs are shares of them")
        shares = {rung_name(share): max(1, round(share * horizon)) for share in RUNGS}
        job = self.pipeline.graph.finetune_job(Candidate(lora=lora))
        update: dict[str, Any] = {
            "seed": seed, "horizon": horizon, "stop_at": shares[rung], "threads": self.threads,
        }  # fmt: skip
        if self.on_gpu:
            update["lora"] = job.lora.model_copy(update={"dtype": "fp32"})
        return job.model_copy(update=update)

    def _train(self, lora: Lora, seed: int, rung: float) -> Stored:
        """Train to a rung, going on from the one before."""
        rungs = [rung_name(share) for share in RUNGS]
        job = self._train_job(lora, seed, rung)
        if self.stages.find(job) is None and rung != rungs[0]:
            before = self._train(lora, seed, rungs[rungs.index(rung) - 1])
            job = job.model_copy(update={"checkpoint_dir": before.path})
        return self.stages(job)

    def _merge_job(self, lora: Lora, seed: int, rung: float = 1.0) -> MergeJob:
        key = self._train_job(lora, seed, rung).key
        return MergeJob(adapter=key, base=self.inputs.base, base_dir=self.inputs.base_dir, adapter_dir=Path())

    def _merge(self, step: Step, rung: float = 1.0) -> Stored:
        assert step.lora is not None
        job = self._merge_job(step.lora, step.seed or 0, rung)
        found = self.stages.find(job)
        if found is not None:
            return found
        adapter = self._train(step.lora, step.seed or 0, rung)
        return self.stages(job.model_copy(update={"adapter_dir": adapter.path}))

    def _build_job(self, step: Step, rung: float = 1.0) -> BuildJob:
        merged = self._merge_job(step.lora, step.seed or 0, rung).key if step.lora else None
        return BuildJob(
            source=merged or self.inputs.base, recipe=step.recipe or self.exact,
            provider=self.sweep.target.provider, source_dir=self.inputs.base_dir,
        )  # fmt: skip

    def _build(self, step: Step, rung: float = 1.0) -> Stored:
        job = self._build_job(step, rung)
        found = self.stages.find(job)
        if found is not None or step.lora is None:
            return found or self.stages(job)
        return self.stages(job.model_copy(update={"source_dir": self._merge(step, rung).path}))

    def _time(self, step: Step) -> tuple[Stored, Row]:
        build, target = self._build(step), self.sweep.target
        job = TimeJob(
            graph=build.result["signature"], provider=target.provider, threads=target.threads,
            prompt_tokens=target.workload.prompt_tokens, new_tokens=target.workload.new_tokens,
            batch=target.workload.batch, machine=self.inputs.machine, model_dir=build.path,
        )  # fmt: skip
        stored = self.stages(job)
        processes = [
            {
                "itl_ms": [round(ms, 3) for ms in process["itl_ms"]],
                "ttft_ms": [round(ms, 2) for ms in process["ttft_ms"]],
                "load_s": round(process["load_s"], 3),
            }
            for process in stored.result["processes"]
        ]
        return stored, {"graph": job.graph, "processes": processes}

    def _score_job(self, step: Step) -> ScoreJob:
        """Return the job of a score; where its model lies is still to be said, if it is not the untouched one."""
        assert step.split is not None
        data, file = self.inputs.items[step.split]
        shared: dict[str, Any] = {
            "data": data, "data_file": file, "metric": self.sweep.data.metric, "labels": self.inputs.labels,
            "max_length": self.sweep.train.max_length, "threads": self.threads,
            "items": self.inputs.counts[step.split],
        }  # fmt: skip
        if step.lora is None and step.recipe is None:
            return ScoreJob(
                source=self.inputs.base, device=self.inputs.device, model_dir=self.inputs.base_dir, **shared
            )
        rung = 1.0 if step.rung is None else step.rung
        if self._by_torch(step):
            assert step.lora is not None
            source = self._merge_job(step.lora, step.seed or 0, rung).key
            return ScoreJob(source=source, device=self.inputs.device, dtype="fp32", model_dir=Path(), **shared)
        source = self._build_job(step, rung).key
        return ScoreJob(source=source, provider=self.sweep.target.provider, model_dir=Path(), **shared)

    def _by_torch(self, step: Step) -> bool:
        """Whether an adapter is scored in PyTorch: on a GPU that takes a tenth of the time."""
        return self.on_gpu and step.lora is not None and step.recipe in (None, self.exact)

    def _score(self, step: Step) -> tuple[Stored, Row]:
        job, rung = self._score_job(step), 1.0 if step.rung is None else step.rung
        if job.model_dir == Path() and self.stages.find(job) is None:
            of = self._merge(step, rung) if self._by_torch(step) else self._build(step, rung)
            job = job.model_copy(update={"model_dir": of.path})
        stored = self.stages(job)
        found = json.loads((stored.path / "outcomes.json").read_text(encoding="utf-8"))
        return stored, {
            "load_s": round(stored.result["load_s"], 3), "predicted": pack_labels(found["predicted"]),
            "loss": pack_nats(found["loss"]), "margin": pack_nats(found["margin"]),
        }  # fmt: skip

    # --- the whole run ----------------------------------------------------------------------------------------------

    def measure_costs(self, stop: Stop | None = None) -> None:
        """Measure what each stage takes, whatever is in the cache: all in one go, so that they compare."""
        take = 1 + max((row["take"] for row in self.rows.rows if row["kind"] == "cost"), default=0)

        def afresh(stage: str, job: Job, **about: Any) -> Stored:
            if stop is not None:
                stop.check()
            if self.stages.find(job) is not None:
                self.stages.discard(job)
            others = Others()
            stored = self.stages(job)
            row: Row = {"kind": "cost", "stage": stage, "take": take, **about, "seconds": round(stored.seconds, 3)}
            row |= {n: stored.result[n] for n in ("step", "step_s", "load_s") if n in stored.result}
            self.rows.append(row | {"load": _load(), "others": others.cores()})
            self.say(f"{stage} {' '.join(map(str, about.values()))}: {stored.seconds:.1f} s, others {others.cores()}")
            return stored

        for recipe in self.recipes:
            name, where = str(recipe), {"source_dir": self.inputs.base_dir}
            build = afresh("build", self._build_job(Step("build", recipe=recipe)).model_copy(update=where), recipe=name)
            check = self.pipeline.graph.check_job(Candidate(recipe=recipe))
            afresh("check", check.model_copy(update=where | {"model_dir": build.path}), recipe=name)
            step = Step("score", recipe=recipe, split="validation")
            afresh("score", self._score_job(step).model_copy(update={"model_dir": build.path}), recipe=name)
        for lora in self._sizes():
            job = self._train_job(lora, self.sweep.seed, rung_name(RUNGS[0]))
            adapter = afresh("train", job, adapter=adapter_id(lora))
        merge = MergeJob(
            adapter=job.key, base=self.inputs.base, base_dir=self.inputs.base_dir, adapter_dir=adapter.path
        )
        afresh("merge", merge, adapter=adapter_id(lora))
        self.stages.let_go()

    def _sizes(self) -> list[Lora]:
        """Return the first adapter of each size."""
        return list({(lora.r, lora.target_modules): lora for lora in reversed(self.adapters)}.values())

    def run(self, hours: float, stop: Stop | None = None) -> bool:
        """Make what is missing until it is all there, or `hours` have passed. Returns whether it is all there."""
        holding: tuple[Lora | None, int | None] | None = None
        mine, others = None, False
        for step in self.missing():
            if stop is not None:
                stop.check()
            if time.monotonic() - self.began > hours * 3600:
                return False
            if (step.lora, step.seed) != holding:
                if mine is not None and holding is not None:
                    self._clear(*holding)
                    mine.release()
                holding = (step.lora, step.seed)
                mine = self._claim(step)
            self.rows.refresh()
            others = others or mine is None
            later = step.split == "test" or (step.seed or self.sweep.seed) != self.sweep.seed
            if others and later and not self._ranked():
                return False  # which adapters are near the best is not known yet
            if mine is not None and self.rows.find(**step.key()) is None:
                self._make_and_say(step)
        if mine is not None and holding is not None:
            self._clear(*holding)
        return not others

    def _ranked(self) -> bool:
        """Whether every adapter is scored with the first seed."""
        first = (step for lora in self.adapters for step in self._pairs(lora, self.sweep.seed, "validation"))
        return all(self.rows.find(**step.key()) or self._ended(step) for step in first if step.kind == "score")

    def _claim(self, step: Step) -> FileLock | None:
        """Return a lock on what a step needs; None: another process is at it."""
        name = "base" if step.lora is None else adapter_id(step.lora)
        lock = FileLock(self.stages.cache.root / f"oracle-{self.sweep.name}-{name}-{step.seed}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def _make_and_say(self, step: Step) -> None:
        began = time.monotonic()
        row = self.make(step)
        took = time.monotonic() - began
        left = self.estimate()
        what = " ".join(str(part) for name, part in step.key().items() if name != "kind")
        shown = f"{row['status']}, {took:.1f} s" + (f", others {row['others']}" if row["others"] else "")
        self.say(f"{step.kind} {what}: {shown}; about {left / 3600:.1f} h left")

    def _clear(self, lora: Lora | None, seed: int | None) -> None:
        """Remove of an adapter what is large and made again in seconds: builds, merged model, lower rungs."""
        if lora is not None:
            jobs: list[Job] = [self._build_job(Step("build", lora, seed, recipe=recipe)) for recipe in self.recipes]
            for rung in map(rung_name, RUNGS):
                jobs += [self._merge_job(lora, seed or 0, rung), self._build_job(Step("build", lora, seed), rung)]
                jobs += [self._train_job(lora, seed or 0, rung)] if rung < 1 else []
            for job in jobs:
                if self.stages.cache.folder(job).exists():
                    self.stages.discard(job)
        self.stages.let_go()

    def estimate(self) -> float:
        """Return about how many seconds the missing rows take, from the rows that are there (what `near` says now)."""
        known: dict[tuple[Any, ...], list[float]] = {}
        for row in self.rows.rows:
            if row.get("seconds") is not None:
                known.setdefault(_like(row), []).append(float(row["seconds"]))
        seconds = {like: sum(values) / len(values) for like, values in known.items()}
        kinds: dict[str, list[float]] = {}
        for like, value in seconds.items():
            kinds.setdefault(like[0], []).append(value)
        total = 0.0
        for step in self.missing():
            like = _like(step.key())
            total += seconds.get(like) or max(kinds.get(like[0], [GUESS_S[step.kind]]))
        return total


def merge(rows: RowFile, others: RowFile) -> int:
    """Append what a table lacks of another's rows, but for what says how fast that machine is. Returns how many.

    Raises SystemExit where they are of other inputs.
    """
    if rows.header is None or others.header is None or any(rows.header.get(n) != others.header.get(n) for n in _SAME):
        raise SystemExit(f"{others.file} is no table of the same inputs as {rows.file}")
    known = ("cost", "start", "time")
    found = (row for row in others.rows if row["kind"] not in known)
    missing = [row for row in found if rows.find(**{name: row.get(name) for name in KEY}) is None]
    for row in missing:
        rows.append(row)
    return len(missing)


def _like(row: Row) -> tuple[Any, ...]:
    """Return by what the time of a row goes."""
    return row["kind"], row.get("rung"), row.get("recipe"), row.get("split")


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def task_file(task: str) -> Path:
    """Return the sweep file of a task, by its name or its own path. Raises SystemExit."""
    file = TASKS / f"{task}.yaml" if (TASKS / f"{task}.yaml").exists() else Path(task)
    if not file.exists():
        names = ", ".join(sorted(path.stem for path in TASKS.glob("*.yaml")))
        raise SystemExit(f"no such task: {task}; there are {names}, or name a sweep file with strategy: grid")
    return file


def main(arguments: list[str] | None = None) -> int:
    """Make a table, or go on with it. Returns 0 where it is whole, 1 where the hours are over, 130 where interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="xed, snips, phrase_tone, or a sweep file")
    parser.add_argument("--hours", type=float, default=12.0, help="begin no new row after so many hours")
    parser.add_argument("--out", type=Path, help="the table; default: benchmarks/search/tables/TASK.jsonl")
    parser.add_argument("--estimate", action="store_true", help="only say what is missing and how long it would take")
    parser.add_argument("--costs", action="store_true", help="only measure what each stage takes, once more")
    parser.add_argument("--merge", type=Path, help="only take the rows over that another machine made of this table")
    parser.add_argument("--threads", type=int, help="train and score with so many: one of several processes at work")
    given = parser.parse_args(arguments)
    try:
        sweep = load_sweep(str(task_file(given.task)))
        rows = RowFile(given.out or TABLES / f"{sweep.name}.jsonl")
        if given.merge is not None:
            _say(f"{rows.file}: {merge(rows, RowFile(given.merge))} rows of {given.merge}")
            return 0
        with tempfile.TemporaryDirectory(prefix="oracle-") as scratch, stop_on_signals(_stopping) as stop:
            logs = rows.file.with_suffix(".log") if given.out else Path(scratch) / "log"
            with LocalEngine(offline=True, memory_mb=sweep.workers.memory_mb) as engine:
                stages = Stages(Cache(default_root()), engine, lambda: logs, sweep.model, stop)
                with closing(stages):
                    maker = Maker(sweep, stages, rows, _say, given.threads)
                    missing = len(list(maker.missing()))
                    _say(f"{rows.file}: {len(rows.rows)} rows, {missing} known to be missing, "
                         f"about {maker.estimate() / 3600:.1f} h")  # fmt: skip
                    if given.estimate:
                        return 0
                    if given.costs:
                        maker.measure_costs(stop)
                        return 0
                    whole = maker.run(given.hours, stop)
    except Interrupted:
        _say("interrupted: run the same command again to go on")
        return 130
    except AutotuneError as error:
        _say(f"error: {error}")
        return 3
    _say("the table is whole" if whole else "the hours are over: run the same command again to go on")
    return 0 if whole else 1


def _stopping() -> None:
    _say("stopping after this stage; once more to stop now")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
