"""How often does the interval of a latency hold the truth, although measuring ends when it is narrow?

`python -m benchmarks.coverage [RESULTS_FOLDER ...] --pools benchmarks/measured/coverage.jsonl --out
benchmarks/measured/coverage.md`. A pool holds the measurements of many single processes of one build, and its mean is the
truth. The script simulates timings: it draws processes from the pool with replacement until the sweep's rule stops. The file's
pools are large. The timings of a results folder (`outcomes/timings.jsonl`) have a dozen processes each, so their relative
deviations from their own mean are joined into one pool per folder.

`--collect MODEL_FOLDER --name NAME --processes 100` times a build (a folder for ONNX Runtime GenAI) and adds a pool.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.analysis.latency import FOREIGN, medians
from autotune.analysis.statistics import FloatArray, t_interval, t_quantile
from autotune.analysis.stopping import stretch
from autotune.execution.local import LocalEngine
from autotune.machine import machine_digest
from autotune.metrics import PRECISION
from autotune.results.folder import read_timings
from autotune.results.trials import rounded
from autotune.stages.jobs import TimeJob

LEAST, MOST = TimeJob.model_fields["processes"].default, TimeJob.model_fields["most"].default
TIMINGS = 40_000


def collect(folder: Path, name: str, processes: int) -> dict[str, object]:
    """Time a build in so many processes."""
    job = TimeJob(
        graph=folder.name, provider="cpu", prompt_tokens=32, new_tokens=16, machine=machine_digest(), processes=processes,
        most=processes, model_dir=folder,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch, LocalEngine() as engine:
        found, _ = engine.time(job, Path(scratch) / "log")
    return {"name": name, "processes": [rounded(medians(one, 1) | dict(one["conditions"])) for one in found]}


def beside_others(process: dict[str, Any]) -> bool:
    """Whether a process of a results folder was timed beside other work."""
    return float(process.get("foreign_cpu") or 0.0) > FOREIGN


def pools_of(file: Path | None, folders: Sequence[Path]) -> dict[str, FloatArray]:
    """Return the time between tokens of each process, by pool."""
    pools: dict[str, FloatArray] = {}
    lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.exists() else []
    for pool in map(json.loads, lines):
        pools[pool["name"]] = np.array([process["itl_ms_p50"] for process in pool["processes"]])
        quiet = [process["itl_ms_p50"] for process in pool["processes"] if not beside_others(process)]
        if LEAST * 4 <= len(quiet) < len(pool["processes"]):
            pools[f"{pool['name']}, undisturbed processes"] = np.array(quiet)
    for folder in folders:
        parts = []
        for timing in read_timings(folder):
            found = np.array([process["itl_ms_p50"] for process in timing["processes"] if not beside_others(process)])
            if len(found) >= LEAST:  # what they differ by from their own mean is too small by sqrt((n - 1) / n)
                parts.append(1 + (found / found.mean() - 1) * math.sqrt(len(found) / (len(found) - 1)))
        if parts:
            pools[f"{folder.name}, {len(parts)} timings put together"] = np.concatenate(parts)
    return pools


def timed(pool: FloatArray, wider: float, seed: int = 0) -> tuple[float, float, float]:
    """Return how often the interval holds the pool's mean, how many processes a timing takes on average, and the median
    half-width, as a share of the mean.
    """
    draws = pool[np.random.default_rng(seed).integers(len(pool), size=(TIMINGS, MOST))]
    counts = np.arange(1, MOST + 1)
    means = np.cumsum(draws, axis=1) / counts
    centred = draws - pool.mean()
    offset = np.cumsum(centred, axis=1) / counts
    spread = np.maximum(np.cumsum(centred**2, axis=1) - counts * offset**2, 0) / np.maximum(counts - 1, 1)
    quantiles = np.array([t_quantile(0.95, max(1, n)) for n in range(MOST)])
    half = wider * quantiles * np.sqrt(spread / counts)
    stops = half <= PRECISION * means
    stops[:, : LEAST - 1], stops[:, -1] = False, True
    at, rows = stops.argmax(axis=1), np.arange(TIMINGS)
    held = np.abs(offset[rows, at]) <= half[rows, at] + 1e-12
    return float(held.mean()), float(at.mean() + 1), float(np.median(half[rows, at] / means[rows, at]))


def in_order(pool: FloatArray, wider: float) -> float | None:
    """Return how often the interval holds the pool's mean where its processes are taken one after another, as they came.

    Not drawn: where the machine's pace drifts, minutes differ by more than the processes of a minute do.
    """
    starts = range(len(pool) - MOST + 1)
    held = 0
    for start in starts:
        for n in range(LEAST, MOST + 1):
            low, high = t_interval(pool[start : start + n], stretch=wider)
            if high - low <= 2 * PRECISION * pool[start : start + n].mean():
                break
        held += low <= pool.mean() <= high
    return held / len(starts) if starts else None


def report(pools: dict[str, FloatArray]) -> str:
    """Return the table."""
    wider = stretch(LEAST, MOST)
    lines = [
        f"Timings of {LEAST} to {MOST} processes, until the interval is within {PRECISION:.0%}; {TIMINGS} drawn from each "
        f"pool. Before: Student's interval; after: {wider:.3f} times as wide.",
        "",
        "| pool | processes | spread | skewness | holds the mean, before | after | processes a timing, before | after | "
        "half-width, before | after | after, in the order they came |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    normal = {
        f"normal, spread {spread:.1%}": 1 + spread * np.random.default_rng(1).standard_normal(20_000)
        for spread in (0.01, 0.03, 0.045, 0.06, 0.1)
    }
    for name, pool in (pools | normal).items():
        before, after = timed(pool, 1.0), timed(pool, wider)
        centred = (pool - pool.mean()) / pool.std()
        ordered = None if name in normal or "together" in name else in_order(pool, wider)
        lines.append(
            f"| {name} | {len(pool)} | {pool.std() / pool.mean():.1%} | {np.mean(centred**3):+.1f} | {before[0]:.1%} | "
            f"{after[0]:.1%} | {before[1]:.1f} | {after[1]:.1f} | {before[2]:.1%} | {after[2]:.1%} | "
            f"{'' if ordered is None else f'{ordered:.0%}'} |"
        )
    lines += [
        "",
        "A pool's truth is its mean over all minutes. Drawn in any order, its processes are independent, as the interval takes "
        "them to be. In the order they came they are not where the machine's pace drifts: an interval is about the minutes in "
        "which it was taken, and what is compared over hours is timed in turns.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Collect, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="results folders")
    parser.add_argument("--pools", type=Path, default=Path(__file__).parent / "measured" / "coverage.jsonl")
    parser.add_argument("--collect", type=Path, help="a built model, to time it in many processes")
    parser.add_argument("--name", default="", help="of the pool that is collected")
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.collect is not None:
        pool = collect(arguments.collect.resolve(), arguments.name or arguments.collect.name, arguments.processes)
        with arguments.pools.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(pool, separators=(",", ":")) + "\n")
    text = report(pools_of(arguments.pools, arguments.folders)) + "\n"
    sys.stdout.write(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
