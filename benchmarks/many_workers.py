"""How much of four workers' time is used, in a sweep with real worker processes whose stages only sleep?

python -m benchmarks.many_workers                      # writes benchmarks/measured/many_workers.md
python -m benchmarks.many_workers --workers 2 --candidates 16

Workers, cache, record, pipeline, loop and the host's lock are the real ones. The ideal time is the sum of three: the stages
that share the machine, divided by the number of workers; the untouched model and the end of the sweep; and the timings,
which have the machine to themselves. `timeline.csv` of the run says what ran when.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from autotune.artifacts.store import Cache
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.execution.threads import LogOfThread, ThreadedExecutor
from autotune.execution.workers import Slot
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.measure import Pipeline
from autotune.results.record import Record
from autotune.results.rows import StageSpan
from autotune.results.table import read_table
from autotune.scheduler.events import Event, Events, RowWritten
from autotune.scheduler.loop import Loop
from autotune.scheduler.search import run_loop
from autotune.scheduler.status_note import Running
from autotune.scheduler.timeline import Timeline
from autotune.stages.jobs import TurnsJob
from autotune.stages.protocol import Job, Result
from autotune.strategies.named import make_strategy
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep
from benchmarks.sleeping import ITEMS, SECONDS, sleeping

PROCESSES = 2
"""Processes of a timing."""


class Sleeping(LocalEngine):
    """The real engine, whose jobs sleep in its real processes."""

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job that sleeps in a warm worker."""
        return super().run(sleeping(job), out, log, timeout)

    def run_fresh(self, job: Job, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        """Do a job that sleeps in a fresh process."""
        return super().run_fresh(sleeping(job), log, timeout)

    def time_in_turns(
        self, job: TurnsJob, log: Path, timeout: float | None = None
    ) -> tuple[list[list[Result | None]], float]:
        """Time models one after another, alone on the host."""
        began, rounds = time.perf_counter(), list[list[Result | None]]()
        with self.host.alone(job.stage):
            for _ in range(job.processes):
                found = [self.run_fresh(graph, log, timeout)[0] for graph in job.graphs]
                laps = [{"ttft_ms": [20.0]}, {"itl_ms": [8.0] * 64}] * 2
                rounds.append([result | {"laps": laps} for result in found])
        return rounds, time.perf_counter() - began


class Rows:
    """A listener that notes when the first row and the last row of a trial were written."""

    def __init__(self) -> None:
        self.base, self.last = 0.0, 0.0

    def __call__(self, event: Event) -> None:
        """Note a row."""
        if isinstance(event, RowWritten):
            if event.row.trial:
                self.last = time.time()
            else:
                self.base = time.time()


def sweep_of(candidates: int) -> Sweep:
    """Return a sweep of so many candidates, each with an adapter of its own."""
    return parse_sweep({
        "name": "many-workers",
        "model": "smollm2-135m-instruct",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"},
        "space": {
            "lora": {"r": {"choice": [4, 8, 16, 32]}, "learning_rate": {"loguniform": [1e-5, 1e-2]}, "steps": 30},
            "build": [{"precision": "int8"}, {"precision": "int4"}],
        },
        "target": {"timing": {"processes": PROCESSES, "most": PROCESSES, "repeats": 0}},
        "strategy": "random",
        "budget": {"trials": candidates},
    })  # fmt: skip


def measured(folder: Path, workers: int, candidates: int) -> list[tuple[str, str]]:
    """Run the sweep. Returns what was measured, in words; the last entry is the efficiency."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # other sweeps on this host do not wait for this one, nor it for them
    sweep, rows = sweep_of(candidates), Rows()
    items = {split: (split, folder / f"{split}.json") for split in ("train", "validation")}
    counts = dict.fromkeys(items, ITEMS)
    inputs = Inputs(folder / "base", "base", items, counts, (" fear", " joy"), "cpu", "machine")
    with Record(folder / "out", sweep) as record, Sleeping() as engine:
        engine.resize([Slot() for _ in range(workers)])
        log = LogOfThread(record.log("x"))
        stages = Stages(Cache(folder / "cache"), engine, log, sweep.model)
        stages.settle([], 0.0, dict.fromkeys(("base", *items), folder))
        executor = ThreadedExecutor(stages, engine, log)
        strategy = make_strategy(sweep.strategy, sweep.space, sweep.objectives, sweep.seed)
        events = Events(rows, Running(record), Timeline(record, engine.host.intervals))
        loop = Loop(
            Pipeline(Graph(sweep, inputs), sweep.aims, stages), sweep.budget, record, strategy, executor, events
        )
        assert run_loop(loop).trials == candidates
    spans = [
        (span.stage, span.began or 0.0, span.ended or 0.0, bool(span.alone))
        for span in read_table(folder / "out" / "timeline.csv", StageSpan)
    ]
    searched = [span for span in spans if rows.base <= span[1] <= rows.last]
    alone_s = sum(ended - began for _, began, ended, alone in searched if alone)
    shared_s = sum(SECONDS[stage] for stage, _, _, alone in searched if not alone)
    wall_s, ideal_s = rows.last - rows.base, alone_s + shared_s / workers
    overlaps = sum(
        one is not other and one[1] < other[2] and other[1] < one[2] for one in spans if one[3] for other in spans
    )
    return [
        ("workers, candidates", f"{workers}, {candidates}"),
        ("stages during the search", f"{len(searched)}, {shared_s:.1f} s of known length"),
        ("of it alone on the host (timings)", f"{alone_s:.1f} s"),
        ("wall-clock of the search", f"{wall_s:.1f} s"),
        ("ideal", f"{ideal_s:.1f} s"),
        ("timings that overlap another stage", str(overlaps)),
        ("efficiency", f"{ideal_s / wall_s:.1%}"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the full size is also written down. Returns 1 below 95 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=64)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        rows = measured(Path(folder), asked.workers, asked.candidates)
    seconds = ", ".join(f"{stage} {value:g}" for stage, value in SECONDS.items())
    lines = [
        "# What many workers make of their time",
        "",
        f"Made by `python -m benchmarks.many_workers`: real processes; stages sleep, seconds: {seconds}.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if (asked.workers, asked.candidates) == (4, 64):
        (Path(__file__).parent / "measured" / "many_workers.md").write_text(text, encoding="utf-8")
    return int(float(rows[-1][1].rstrip("%")) < 95)


if __name__ == "__main__":
    sys.exit(main())
