"""What the tuner itself costs over ten thousand candidates, on stages that do nothing.

python -m benchmarks.scale                     # 10,000 candidates with random; writes benchmarks/measured/scale.md
python -m benchmarks.scale --candidates 1000   # another number, printed only
python -m benchmarks.scale --strategy tpe --candidates 1000

Record, cache, pipeline and loop are the real ones; a stage writes the files that its followers read, and takes no time,
so that all of the wall-clock is the tuner's own. Each run is a process of its own, whose memory is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from autotune.artifacts.store import Cache
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.execution.threads import LogOfThread, ThreadedExecutor
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.measure import Pipeline
from autotune.results.record import Record
from autotune.scheduler.events import Event, Events, RowWritten
from autotune.scheduler.loop import Loop
from autotune.scheduler.search import run_loop
from autotune.scheduler.status_note import Running
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, ScoreJob
from autotune.stages.protocol import Job, Result
from autotune.strategies.named import make_strategy
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep

ITEMS = 100
PART = 500
"""Candidates at the start and at the end that are compared."""
TPE = 1_000
"""Candidates of the run with tpe that is shown beside: its own cost grows with every trial."""


class Idle(LocalEngine):
    """An engine whose stages take no time."""

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:  # noqa: ARG002
        """Write what the followers of a stage read."""
        match job:
            case FinetuneJob():
                state = {"step": 30, "horizon": 30, "curve": [[step, 1.0 / step, 1e-3] for step in range(1, 31)]}
                (out / "state.json").write_text(json.dumps(state), encoding="utf-8")
                return {"step": 30, "loss": 0.1}, 0.0
            case BuildJob():
                return {"size_mb": 90.0 + job.recipe.block_size / 100 if job.recipe.block_size else 540.0,
                        "signature": str(job.recipe)}, 0.0  # fmt: skip
            case ScoreJob():
                right = int(job.source[:4], 16) % ITEMS
                outcomes = {"ids": [str(n) for n in range(ITEMS)], "predicted": [int(n >= right) for n in range(ITEMS)],
                            "gold": [0] * ITEMS, "margin": [1.0] * ITEMS}  # fmt: skip
                (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
                return {"items": ITEMS, "cut": 0}, 0.0
            case CheckJob():
                return {"kl_nats": 0.01, "greedy_agreement": 0.9, "texts": 16, "trouble": None}, 0.0
            case _:
                return {}, 0.0

    def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:  # noqa: ARG002
        """Return one process' timing."""
        return {"ttft_ms": [20.0] * 8, "itl_ms": [8.0] * 64, "load_s": 0.5, "peak_memory_mb": 700.0}, 0.0


class Stopwatch:
    """A listener that notes when each candidate ended, and the memory then."""

    def __init__(self) -> None:
        self.ended = [time.perf_counter()]
        self.memory_mb: list[float] = []
        self._this = psutil.Process()

    def __call__(self, event: Event) -> None:
        """Note when a row was written."""
        if isinstance(event, RowWritten):
            self.ended.append(time.perf_counter())
            self.memory_mb.append(self._this.memory_info().rss / 1e6)


def sweep_of(strategy: str, candidates: int) -> Sweep:
    """Return a sweep over a space that never ends."""
    return parse_sweep({
        "name": "scale",
        "model": "smollm2-135m-instruct",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"},
        "space": {
            "lora": {"r": {"choice": [4, 8, 16, 32]}, "learning_rate": {"loguniform": [1e-5, 1e-2]}, "steps": 30},
            "build": [{"precision": "int8"}, {"precision": "int4", "block_size": [32, 128]}],
        },
        "limits": ["accuracy >= base - 0.5"],
        "strategy": strategy,
        "budget": {"trials": candidates},
    })  # fmt: skip


def one(folder: Path, strategy: str, candidates: int) -> dict[str, Any]:
    """Run, or go on with, a sweep in this process. Returns seconds and memory as they went."""
    began = time.perf_counter()
    sweep = sweep_of(strategy, candidates)
    items = {split: (split, folder / f"{split}.json") for split in ("train", "validation")}
    counts = dict.fromkeys(items, ITEMS)
    inputs = Inputs(folder / "base", "base", items, counts, (" fear", " joy"), "cpu", "machine")
    watch = Stopwatch()
    with Record(folder / "out", sweep) as record, Idle() as engine:
        log = LogOfThread(record.log("x"))
        stages = Stages(Cache(folder / "cache"), engine, log, sweep.model)
        stages.settle([], 0.0, dict.fromkeys(("base", *items), folder))
        executor = ThreadedExecutor(stages, engine, log)
        searching = make_strategy(strategy, sweep.space, sweep.objectives, sweep.seed)
        loop = Loop(
            Pipeline(Graph(sweep, inputs), sweep.aims, stages),
            sweep.budget,
            record,
            searching,
            executor,
            Events(watch, Running(record)),
        )
        run_loop(loop)
        rows = len(record.results.rows)
    times = [after - before for before, after in zip(watch.ended, watch.ended[1:], strict=False)]
    return {"rows": rows, "seconds": time.perf_counter() - began, "times": times, "memory_mb": watch.memory_mb}


def measured(folder: Path, strategy: str, candidates: int) -> dict[str, Any]:
    """Run a sweep in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", str(folder), "--strategy", strategy]
    done = subprocess.run([*command, "--candidates", str(candidates)], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(candidates: int, strategy: str, folder: Path) -> list[str]:
    """Measure a sweep and its reopening; return rows of the table."""
    first = measured(folder, strategy, candidates)
    again = measured(folder, strategy, candidates)
    assert first["rows"] == again["rows"] == candidates + 1
    part = min(PART, candidates // 4)
    times, memory = first["times"][1:], first["memory_mb"][1:]  # the base comes first
    start, end = (statistics.mean(t) * 1000 for t in (times[:part], times[-part:]))
    medians = [statistics.median(t) * 1000 for t in (times[:part], times[-part:])]
    size = (folder / "out" / "results.csv").stat().st_size / 1e6
    lines = [
        (f"own cost a candidate, first {part}: mean (median)", f"{start:.1f} ({medians[0]:.1f}) ms"),
        (f"own cost a candidate, last {part}: mean (median)", f"{end:.1f} ({medians[1]:.1f}) ms"),
        ("ratio of the means (of the medians)", f"{end / start:.2f} ({medians[1] / medians[0]:.2f})"),
        ("longest single candidate", f"{max(times):.2f} s"),
        ("memory after the first 10, at the end", f"{memory[9]:.0f}, {memory[-1]:.0f} MB"),
        ("memory grown by", f"{memory[-1] - memory[9]:.0f} MB"),
        ("whole run", f"{first['seconds']:.0f} s"),
        ("reopening, to the end of the command's work", f"{again['seconds']:.1f} s"),
        ("results.csv", f"{size:.1f} MB"),
    ]
    return [f"| {name} | {value} |" for name, value in lines]


def main() -> int:
    """Measure and print; the full size is also written down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        sys.stdout.write(json.dumps(one(arguments.one, arguments.strategy, arguments.candidates)))
        return 0
    sizes = {arguments.strategy: arguments.candidates}
    whole = sizes == {"random": 10_000}
    if whole:
        sizes["tpe"] = TPE
    lines = [
        "# Scale of the record",
        "",
        "Made by `python -m benchmarks.scale`: stages that do nothing, all else real.",
    ]
    for strategy, candidates in sizes.items():
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            rows = table(candidates, strategy, Path(folder))
        lines += ["", f"## {strategy}, {candidates:,} candidates", "", "| what | measured |", "|---|---|", *rows]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if whole:
        (Path(__file__).parent / "measured" / "scale.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
