"""Add rows to oracle tables on a machine with a GPU and many cores, with one process per core.

    python -m benchmarks.gpu.oracle snips xed --minutes 20 --workers 16 --out gpu-tables
    python -m benchmarks.search.oracle xed --merge gpu-tables/xed.jsonl     # afterwards, where the tables are kept

It trains adapters on the GPU and scores them there at fp32; it scores quantised builds on the CPU, with one core each. It does
not measure what stages cost. A process skips a task whose next rows depend on rows that another process makes, and comes back.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.search.oracle import task_file
from benchmarks.search.rows import TABLES

_PAUSE_S = 5.0


def work(number: int, tasks: list[str], out: Path, until: float) -> str | None:
    """Make rows until the time is over or all tables are whole; what it says goes to `worker-NUMBER.log`.

    Returns None, or the last line of that log where a task cannot be worked on.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    whole: set[str] = set()
    with (out / f"worker-{number}.log").open("a", encoding="utf-8") as log:
        while len(whole) < len(tasks):
            for task in tasks:
                left = until - time.monotonic()
                if left <= 0:
                    return None
                command = [sys.executable, "-m", "benchmarks.search.oracle", task, "--threads", "1"]
                command += ["--hours", f"{left / 3600:.4f}", "--out", str(out / f"{Path(task).stem}.jsonl")]
                process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
                try:
                    code = process.wait(left)
                except subprocess.TimeoutExpired:
                    process.terminate()
                    process.wait()
                    return None
                if code == 0:
                    whole.add(task)
                elif code != 1:  # 1: rows are missing still, and wait for those of other workers
                    return Path(log.name).read_text(encoding="utf-8").strip().splitlines()[-1]
            time.sleep(_PAUSE_S)
    return None


def main() -> int:
    """Start the workers and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="in the order in which they are worked on")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True, help="a folder; tables that are there are gone on with")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for task in given.tasks:
        task_file(task)
        if not (given.out / f"{task}.jsonl").exists() and (TABLES / f"{task}.jsonl").exists():
            shutil.copy(TABLES / f"{task}.jsonl", given.out)
    until = time.monotonic() + 60 * given.minutes
    with ThreadPoolExecutor(given.workers) as pool:
        begun = [pool.submit(work, number, given.tasks, given.out, until) for number in range(given.workers)]
        problems = sorted({problem for worker in begun if (problem := worker.result()) is not None})
    for problem in problems:
        print(problem, file=sys.stderr)
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
