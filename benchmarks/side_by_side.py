"""Is the tuner's own cost no worse than that of an earlier version? Two checkouts, measured in turns on one machine.

git worktree add ../before 718160a
python -m benchmarks.side_by_side ../before . --out benchmarks/measured/side_by_side.md

At 718160a the stages of `benchmarks.scale` do nothing for a check, whose result the loop reads: give its `Idle` the case
`CheckJob` of today first.

In turns, so that what else the machine does hits both: the light commands, decisions of `frontier`, and the loop over
candidates whose stages do nothing (`benchmarks.search.own_cost` and `benchmarks.scale` of each checkout itself). A line
is no worse where the ratio of its medians is at most 1.1, or both differ by less than 20 ms.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WORSE, SMALL_MS = 1.1, 20.0
"""The ratio above which a checkout is worse, and milliseconds that nobody notices."""
SCALE, DECISION = r"last \d+: mean \(median\) \| [\d.]+ \(([\d.]+)\) ms", r"last fifty ([\d.]+) ms"
"""Where in what they print the two benchmarks have their number."""
LIGHT = {
    "autotune --help": ("--help",), "autotune select": ("select", "results/example"), "autotune status": ("status", "results/example"),
}  # fmt: skip


def _ran(tree: Path, cache: Path, *arguments: str) -> tuple[str, float]:
    """Run Python in a checkout. Returns what it printed, and milliseconds. Raises CalledProcessError."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "AUTOTUNE_CACHE": str(cache)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout, 1000 * (time.perf_counter() - began)


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found[1])


def measures(candidates: int, decisions: int) -> dict[str, tuple[int, Callable[[Path, Path], float]]]:
    """Return by name how often something is measured in each checkout, and how; milliseconds."""

    def light(*arguments: str) -> Callable[[Path, Path], float]:
        return lambda tree, cache: _ran(tree, cache, "-m", "autotune", *arguments)[1]

    def scale(tree: Path, cache: Path) -> float:
        text, _ = _ran(tree, cache, "-m", "benchmarks.scale", "--candidates", str(candidates))
        return _number(SCALE, text)

    def decide(tree: Path, cache: Path) -> float:
        text, _ = _ran(tree, cache, "-m", "benchmarks.search.own_cost", "--candidates", str(decisions))
        return _number(DECISION, text)

    return {name: (11, light(*arguments)) for name, arguments in LIGHT.items()} | {
        f"a decision of frontier, the last fifty of {decisions}": (3, decide),
        f"own cost a candidate, the last quarter of {candidates} with random": (3, scale),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 where the second checkout is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--work", type=Path, default=Path("results/side-by-side"), help="where their caches lie")
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--decisions", type=int, default=200)
    parser.add_argument("--out", type=Path, help="file to write the table to, too")
    asked = parser.parse_args(arguments)
    trees = {"before": asked.before.resolve(), "after": asked.after.resolve()}
    names = {
        name: subprocess.run(
            ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, tree in trees.items()
    }
    lines = [
        f"| median, milliseconds | {names['before']} | {names['after']} | ratio | no worse |",
        "|---|--:|--:|--:|---|",
    ]
    worse = False
    for what, (times, measure) in measures(asked.candidates, asked.decisions).items():
        took: dict[str, list[float]] = {name: [] for name in trees}
        for turn in range(times):
            for name in list(trees) if turn % 2 == 0 else list(trees)[::-1]:
                took[name].append(measure(trees[name], asked.work.resolve() / f"cache-{name}"))
        before, after = (statistics.median(values[1:] if times > 3 else values) for values in took.values())
        well = after <= WORSE * before or after - before < SMALL_MS
        worse |= not well
        lines.append(f"| {what} | {before:.1f} | {after:.1f} | {after / before:.2f} | {'yes' if well else 'no'} |")
    text = (
        f"`python -m benchmarks.side_by_side`: {names['before']} and {names['after']} in turns.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    sys.stdout.write(text)
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
