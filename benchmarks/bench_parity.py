"""Does `autotune bench` say what the benchmark script of onnxruntime-genai says?

`python -m benchmarks.bench_parity SCRIPT MODEL_FOLDER ...` times built models with both, in turns: a fresh process of
ours, then one of theirs, then the other way round. SCRIPT is the unchanged `benchmark/python/benchmark_e2e.py` of
https://github.com/microsoft/onnxruntime-genai; each MODEL_FOLDER is one that the model builder wrote.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from autotune.analysis.latency import medians
from autotune.analysis.statistics import paired_ratio
from autotune.execution.local import LocalEngine
from autotune.machine import hardware, machine_digest
from autotune.stages.jobs import TimeJob

PROMPT, NEW = 32, 16
SAID = {
    "itl_ms_p50": re.compile(r"Median Token Generation Latency \(per token\): ([\d.]+) ms"),
    "ttft_ms_p50": re.compile(r"Median Time to First Token: ([\d.]+) ms"),
}


def ours(engine: LocalEngine, folder: Path, log: Path) -> dict[str, float]:
    """Time a model in one of our processes."""
    job = TimeJob(
        graph="", provider="cpu", prompt_tokens=PROMPT, new_tokens=NEW, machine=machine_digest(), model_dir=folder
    )
    return medians(engine.run_fresh(job, log)[0], 1)


def theirs(script: Path, folder: Path, scratch: Path) -> dict[str, float]:
    """Time a model in one of their processes: greedy, random tokens, as many as ours."""
    options = f"-b 1 -l {PROMPT} -g {NEW} -r 5 -w 2 -k 1 -e cpu --aggregation median --use_random_tokens".split()
    command = [sys.executable, str(script), "-i", str(folder), *options, "-o", str(scratch / "theirs.csv")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    found = {name: pattern.search(said) for name, pattern in SAID.items()}
    return {name: float(match[1]) for name, match in found.items() if match}


def main() -> None:
    """Time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores; prompt {PROMPT}, {NEW} new, {arguments.rounds} rounds\n")
    print("| model | metric | ours, ms | theirs, ms | ours / theirs | 95 % interval |\n|---|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as scratch, LocalEngine() as engine:
        for folder in arguments.folders:
            rounds = []
            for number in range(arguments.rounds):
                both = {}
                for who in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
                    if who == "ours":
                        both[who] = ours(engine, folder.resolve(), Path(scratch) / "log")
                    else:
                        both[who] = theirs(arguments.script.resolve(), folder.resolve(), Path(scratch))
                rounds.append(both)
            for metric in SAID:
                a, b = ([both[who][metric] for both in rounds] for who in ("ours", "theirs"))
                ratio = paired_ratio(a, b)
                print(f"| {folder.name} | {metric} | {statistics.fmean(a):.2f} | {statistics.fmean(b):.2f} | "
                      f"{ratio.value:.3f} | {ratio.low:.3f} to {ratio.high:.3f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
