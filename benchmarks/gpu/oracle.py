"""Go on with oracle tables on a machine with a GPU and many cores, a process a core.

    python -m benchmarks.gpu.oracle snips xed --minutes 20 --workers 16 --out /tmp/tables
    python -m benchmarks.search.oracle xed --merge /tmp/tables/xed.jsonl      # afterwards, where the tables are kept

Adapters are trained on the GPU and scored there at fp32; the quantised builds are scored on the CPU, a core each. What
stages cost is not measured here. A task whose next rows wait for others' is left to them and looked at again.
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

from benchmarks.search.rows import TABLES

_PAUSE_S = 5.0


def work(number: int, tasks: list[str], out: Path, until: float) -> None:
    """Make rows until the time is over or all tables are whole; what it says goes to `worker-NUMBER.log`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    whole: set[str] = set()
    with (out / f"worker-{number}.log").open("a", encoding="utf-8") as log:
        while len(whole) < len(tasks):
            for task in tasks:
                left = until - time.monotonic()
                if left <= 0:
                    return
                command = [sys.executable, "-m", "benchmarks.search.oracle", task, "--threads", "1"]
                command += ["--hours", f"{left / 3600:.4f}", "--out", str(out / f"{task}.jsonl")]
                process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
                try:
                    if process.wait(left) == 0:
                        whole.add(task)
                except subprocess.TimeoutExpired:
                    process.terminate()
                    process.wait()
                    return
            time.sleep(_PAUSE_S)


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
        if not (given.out / f"{task}.jsonl").exists() and (TABLES / f"{task}.jsonl").exists():
            shutil.copy(TABLES / f"{task}.jsonl", given.out)
    until = time.monotonic() + 60 * given.minutes
    with ThreadPoolExecutor(given.workers) as pool:
        for done in [pool.submit(work, number, given.tasks, given.out, until) for number in range(given.workers)]:
            done.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
