"""Functions as stages: a whole sweep runs in milliseconds, without a model."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.artifacts.store import Stored
from autotune.candidate import Lora, Recipe
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.steps import call_with
from autotune.pipeline.timing_validity import Pace
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.scheduler.events import Event, Events, Note, RowWritten, StageBegan
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.search import run_loop
from autotune.scheduler.status_note import Running
from autotune.scheduler.under_way import Executor
from autotune.stages.delivery_jobs import VerifyJob
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, MergeJob, ScoreJob, TimeJob, TurnsJob, resolved
from autotune.stages.protocol import Call, Job
from autotune.strategies.named import make_strategy
from autotune.strategies.protocol import Proposal, Strategy
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep

ITEMS = 100
SIZES = {"fp32": 540.0, "int8": 267.0, "int4": 90.0}
TOKEN_MS = {"fp32": 35.0, "int8": 14.0, "int4": 8.0}
LOST = {"fp32": 0.0, "int8": 0.01, "int4": 0.03}
"""What each precision costs in accuracy."""
LORA: dict[str, Any] = {"r": {"choice": [4, 8, 16]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": 10}
BUILD: list[dict[str, Any]] = [{"precision": "fp32"}, {"precision": "int8"}, {"precision": "int4"}]
FINITE: dict[str, Any] = {"r": {"choice": [4, 8, 16]}, "dora": {"choice": [False, True]}, "steps": 10}


def make_sweep(lora: Any = LORA, build: Any = BUILD, session: Any = None, **keys: Any) -> Sweep:
    """Return a sweep of the given space; a part that is None is left out."""
    parts = (("lora", lora), ("build", build), ("session", session))
    space = {name: part for name, part in parts if part is not None}
    document = {
        "name": "fake",
        "model": "smollm2-135m-instruct",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"},
        "space": space,
        "strategy": "random",
        "budget": {"trials": 6},
    }
    return parse_sweep(document | keys)


def next_of(strategy: Strategy, pending: Sequence[Proposal] = ()) -> Proposal | None:
    """Return the one proposal that a strategy has for a free worker."""
    proposals = strategy.ask(1, pending)
    return proposals[0] if proposals else None


def score_of(lora: Lora | None, recipe: Recipe | None) -> float:
    """Return the accuracy of a candidate: best at rank 16 and a learning rate of 2e-3."""
    value = 0.4
    if lora is not None:
        value = 0.7 + 0.02 * math.log2(lora.r) - 0.1 * math.log10(lora.learning_rate / 2e-3) ** 2
    return value - LOST[recipe.precision if recipe else "fp32"]


def ids_of(data: str) -> list[str]:
    """Return the ids of a split's items, in their own order."""
    return [hashlib.sha256(f"{data}-{n}".encode()).hexdigest()[:16] for n in range(ITEMS)]


class FakeStages:
    """What `engine.stages.Stages` is to the search. `trouble(job)` runs before a stage and may raise."""

    def __init__(self, root: Path, trouble: Callable[[Job], None] = lambda job: None) -> None:
        self.root, self.trouble = root, trouble
        self.found: Callable[[CheckJob], str | None] = lambda job: None
        """What a check finds wrong with a build."""
        self.ran: Counter[str] = Counter()
        """How often each stage was done."""
        self.keys: Counter[tuple[str, str]] = Counter()
        """How often each result was made, by stage and key."""
        self.spent_s = 0.0
        self.slower = 1.0
        """How many times slower than usual the machine is."""
        self.resolved = 5
        """Processes that a timing takes until it is precise enough."""
        self.foreign: Callable[[TimeJob], float | None] = lambda job: None
        """Cores that others keep busy while a graph is timed; it is slower by that."""
        self.repeated = 0
        """How often something was timed again."""
        self.jobs: list[Job] = []
        self.needed: list[str] = []
        self.pinned: dict[Path, list[str]] = {}
        self.done: dict[str, Stored] = {}
        self.steps = 0
        """Training steps in all."""
        self.step_s = 0.2
        """What a training step takes; any other stage takes 2 seconds."""
        self.trained: dict[str, float] = {}
        """The share of its steps that what has this key was trained for."""
        self.scored = 0
        """Items in all."""
        self.verified: list[VerifyJob] = []
        self.wrong: tuple[str, ...] = ()
        """What the kept winner is found to do otherwise than is recorded."""
        self._loras: dict[str, Lora] = {}
        self._builds: dict[str, tuple[Lora | None, Recipe]] = {}

    @property
    def merged(self) -> list[str]:
        """The merged models that are there."""
        return [key for key, stored in self.done.items() if stored.path.parent.name == "merge"]

    def find(self, job: Job) -> Stored | None:
        found = self.done.get(job.key)
        return None if found is None else replace(found, cached=True)

    def discard(self, job: Job) -> None:
        assert job.stage in ("merge", "build", "check")
        self.done.pop(job.key, None)

    def let_go(self, *needed: Job) -> None:
        self.needed = [job.key for job in needed]

    def settle(self, files: Iterable[Path], model_mb: float, places: Mapping[str, Path] | None = None) -> None: ...

    def _place(self, key: str) -> Path:
        found = self.done.get(key)
        return (
            found.path if found is not None else self.root.parent / key.removesuffix(" digest")
        )  # of the sweep's inputs

    def close(self) -> None:
        self.needed = []

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None:
        self.pinned = {folder: [job.key for job in jobs]}

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        found = self.find(job)
        if found is not None:
            return found
        job = resolved(job, self._place)
        self.jobs.append(job)
        self.trouble(job)
        out = self.root / job.stage / job.key[:12]
        out.mkdir(parents=True, exist_ok=True)
        before = self.steps
        result = self._do(job, out)
        self.ran[job.stage] += 1
        self.keys[job.stage, job.key] += 1
        trained = self.steps - before
        self.done[job.key] = Stored(out, result, trained * self.step_s if trained else 2.0, cached=False)
        return self.done[job.key]

    def alone(self, job: Job, timeout: float | None = None) -> tuple[dict[str, Any], float]:
        assert isinstance(job, VerifyJob)
        self.verified.append(job)
        return {"items": job.most, "wrong": list(self.wrong)}, 2.0

    def again(self, job: TimeJob, timings: int = 1) -> tuple[dict[str, Any], float]:
        self.repeated += timings
        return {"processes": self._processes(job, 5)}, 2.0

    def _processes(self, job: TimeJob, count: int) -> list[dict[str, Any]]:
        """Return what processes measure that time a graph at the machine's pace; each a little slower than the last."""
        built = next(r for _, r in self._builds.values() if f"graph of {r}" == job.graph)
        ms = TOKEN_MS[built.precision] * self.slower * (1.5 if job.arena is False else 1.0) * job.prompt_tokens / 32
        conditions = {"load_avg": 0.5}
        if (foreign := self.foreign(job)) is not None:
            conditions["foreign_cpu"], ms = foreign, ms * (1 + foreign)
        shared = {"load_s": 0.5, "peak_memory_mb": 700.0, "conditions": conditions}
        return [shared | {"ttft_ms": [3 * ms] * 4, "itl_ms": [ms + n / 100] * 64} for n in range(count)]

    def _do(self, job: Job, out: Path) -> dict[str, Any]:
        match job:
            case FinetuneJob():
                self._loras[job.key] = job.lora
                step = job.stop_at or 10
                first = 0
                if job.checkpoint_dir is not None:
                    first = json.loads((job.checkpoint_dir / "state.json").read_text(encoding="utf-8"))["step"]
                self.steps += step - first
                self.trained[job.key] = step / 10
                curve = [[1, 1.5, 1e-3], [2, 1.25, 5e-4]]
                state = {"step": step, "horizon": 10, "curve": [point for point in curve if point[0] <= step]}
                (out / "state.json").write_text(json.dumps(state), encoding="utf-8")
                for name in ("adapter_model.safetensors", "optimizer.safetensors"):
                    (out / name).write_text(job.key, encoding="utf-8")
                return {"step": step, "loss": 1.0 / 3.0}
            case MergeJob():
                assert job.adapter in self._loras
                self.trained[job.key] = self.trained[job.adapter]
                self._loras[job.key] = self._loras[job.adapter]
                (out / "merged.txt").write_text(job.key, encoding="utf-8")
                return {}
            case BuildJob():
                if job.source in self._loras:  # the merged model, not the base
                    assert (job.source_dir / "merged.txt").read_text(encoding="utf-8") == job.source
                self._builds[job.key] = (self._loras.get(job.source), job.recipe)
                self.trained[job.key] = self.trained.get(job.source, 1.0)
                (out / "model.onnx").write_text(job.key, encoding="utf-8")
                (out / "genai_config.json").write_text('{"model": {"decoder": {}}}', encoding="utf-8")
                (out / "manifest.json").write_text("{}", encoding="utf-8")
                return {"size_mb": SIZES[job.recipe.precision] + 1 / 3, "signature": f"graph of {job.recipe}"}
            case CheckJob():
                lora, _ = self._builds[job.source]
                assert (job.model_dir / "model.onnx").read_text(encoding="utf-8") == job.source
                assert (job.source_dir / "merged.txt").exists() == (lora is not None)
                return {"kl_nats": 0.01, "greedy_agreement": 0.9, "texts": 16, "trouble": self.found(job)}
            case TimeJob():
                count = self.resolved if job.most > job.processes else job.processes
                return {"processes": self._processes(job, count)}
            case TurnsJob():
                places = [self._processes(graph, 5) for graph in job.graphs]
                return {"rounds": [list(processes) for processes in zip(*places, strict=True)]}
            case ScoreJob():
                lora, recipe = self._builds.get(job.source, (self._loras.get(job.source), None))
                right = round(score_of(lora, recipe) * self.trained.get(job.source, 1.0) ** 0.1 * ITEMS)
                order = sorted(range(ITEMS), key=lambda n: hashlib.sha256(f"{n}".encode()).digest())
                ids = ids_of(job.data)
                places = range(ITEMS) if job.block is None else sorted(range(ITEMS), key=ids.__getitem__)
                places = places[slice(*(job.block or (0, ITEMS)))]
                self.scored += len(places)
                outcomes = {
                    "ids": [ids[place] for place in places],
                    "predicted": [int(place not in order[:right]) for place in places],
                    "gold": [0] * len(places),
                    "loss": [0.2 if place in order[:right] else 1.6 for place in places],
                }
                (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
                return {"items": len(places), "cut": 0}
            case _:
                raise AssertionError(job)


class Watched:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[int, str]] = []
        self.rows: list[tuple[Trial, Trial | None]] = []
        self.notes: list[str] = []

    def __call__(self, event: Event) -> None:
        match event:
            case StageBegan(trial, _, stage):
                self.stages.append((trial, stage))
            case RowWritten(row, best):
                self.rows.append((row, best))
            case Note(text):
                self.notes.append(text)
            case _:
                pass


class Inline:
    """An executor that does a call at once."""

    width, parked = 1, 0

    def __init__(self, stages: FakeStages) -> None:
        self.stages = stages

    def submit(self, call: Call, log: Path) -> Future[Stored]:
        future: Future[Stored] = Future()
        try:
            future.set_result(call_with(self.stages)(call))
        except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
            future.set_exception(error)
        return future

    def wait(self, futures: Sequence[Future[Stored]]) -> None:
        assert any(future.done() for future in futures)

    def close(self) -> None: ...


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def inputs_in(root: Path, test: bool = False) -> Inputs:
    """Return the inputs of a fake sweep."""
    files = {split: (f"{split} digest", root / f"{split}.json") for split in ("train", "validation")}
    if test:
        files["test"] = ("test digest", root / "test.json")
    counts = dict.fromkeys(files, ITEMS)
    for data, file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        items = [{"id": name, "prompt": f"text {name}", "completion": " joy"} for name in ids_of(data)]
        file.write_text(json.dumps(items), encoding="utf-8")
    return Inputs(root / "base", "base digest", files, counts, (" fear", " joy"), "cpu", "machine digest")


class Sweeping:
    """A sweep in a folder: `run` as often as one likes, with the stages' results kept in between."""

    def __init__(self, folder: Path, sweep: Sweep, test: bool = False, stages: FakeStages | None = None) -> None:
        self.folder, self.sweep = folder, sweep
        self.stages = stages or FakeStages(folder / "cache")
        self.inputs = inputs_in(folder, test)
        self.watched = Watched()
        self.clock = Clock()
        self.loop: Loop | None = None
        self.executor: Callable[[FakeStages], Executor] = Inline
        self.machine = ""
        """The machine whose pace is looked after; empty: none is."""
        self.foreign: Callable[[], float] = lambda: 0.0
        """How many cores others keep busy now."""

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def pipeline(self, sweep: Sweep | None = None) -> Pipeline:
        """Return the stages of a sweep, in order."""
        pace = Pace(self.folder / "cache", self.machine) if self.machine else None
        return Pipeline(Graph(sweep or self.sweep, self.inputs), (sweep or self.sweep).aims, self.stages, pace)

    def run(self, sweep: Sweep | None = None, strategy: Strategy | None = None) -> Summary:
        sweep = sweep or self.sweep
        with Record(self.out, sweep, self.clock) as record:
            pipeline = self.pipeline(sweep)
            strategy = strategy or make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed)
            events = Events(self.watched, Running(record))
            self.loop = Loop(pipeline, sweep.budget, record, strategy, self.executor(self.stages), events, self.clock)
            provisional = self.loop.stale_timings.provisional
            provisional.foreign, provisional.wait = self.foreign, lambda seconds: None
            return run_loop(self.loop)
