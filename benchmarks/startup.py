"""How long do the light commands take? The median wall-clock of ten runs of `autotune --help` and `select`, alternating.

python -m benchmarks.startup results/example
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def main(folder: str) -> int:
    """Print the medians, and for scale that of an empty Python."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "autotune --help": [sys.executable, "-m", "autotune", "--help"],
        "autotune select": [sys.executable, "-m", "autotune", "select", folder],
        "autotune status": [sys.executable, "-m", "autotune", "status", folder],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(11):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        rest = values[1:]  # the first one fills the disk cache
        print(f"{name:18} median {statistics.median(rest):.3f} s  (of {len(rest)}: {min(rest):.3f} to {max(rest):.3f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
