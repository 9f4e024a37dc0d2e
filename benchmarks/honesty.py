"""Whether intervals hold what they promise, and how often a tie is called a win.

python -m benchmarks.honesty            # writes benchmarks/measured/honesty.md
python -m benchmarks.honesty --sweeps 200   # fewer simulated sweeps, printed only

Coverage is computed exactly, from the binomial distribution, on a grid that was fixed beforehand. Ties are simulated
through the rule of the winner itself (`search/winner.py`): items differ in difficulty, so that candidates are right and
wrong together, as they are in life.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.selection import Choice, Entry, choose
from autotune.analysis.statistics import bootstrap_mean, wilson

NS = (100, 150, 200, 300, 400, 600, 1000, 1500, 2000)
PS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
CANDIDATES = 40
P = 0.7
BETTER = 0.05
SWEEPS = 2000
SHARED = (0.0, 0.5, 0.8)
"""Shares of the variance of whether an item is answered rightly that belong to the item: 0.5 to 0.8 is usual."""


def binomial(k: int, n: int, p: float) -> float:
    """Return the probability of k successes among n."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log(1 - p))


def coverage(n: int, p: float) -> float:
    """Return how often the interval of a proportion holds it."""
    intervals = ((k, wilson(k, n)) for k in range(n + 1))
    return sum(binomial(k, n, p) for k, interval in intervals if interval.low <= p <= interval.high)


def coverage_of_means(n: int, sweeps: int, rng: np.random.Generator) -> float:
    """Return how often the bootstrap interval holds the mean of skewed values (log-likelihoods are so)."""
    mean = 1.0
    held = 0
    for _ in range(sweeps):
        interval = bootstrap_mean(rng.gamma(2.0, mean / 2.0, n), resamples=2000, seed=int(rng.integers(1 << 30)))
        held += interval.low <= mean <= interval.high
    return held / sweeps


def outcomes(shares: list[float], n: int, shared: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return 0/1 outcomes (candidates, items): a candidate is right where its skill beats difficulty and luck."""
    difficulty = math.sqrt(shared) * rng.standard_normal(n)
    luck = math.sqrt(1 - shared) * rng.standard_normal((len(shares), n))
    skill = np.array([NormalDist().inv_cdf(share) for share in shares])
    return (skill[:, None] > difficulty + luck).astype(np.float64)


def sweep(shares: list[float], n: int, shared: float, rng: np.random.Generator) -> Choice:
    """Return what the rule chooses among candidates of these true accuracies."""
    drawn = outcomes(shares, n, shared, rng)
    entries = [
        Entry(f"{k:02d}", {"accuracy": float(row.mean())}, counts={"accuracy": n}, outcomes={"accuracy": row})
        for k, row in enumerate(drawn)
    ]
    return choose(entries, {"accuracy": "maximize"}, (), None)


def ties(sweeps: int, n: int, shared: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return shares of sweeps: a false winner among equals; the better one led; it was declared better than all."""
    false = sum(bool(sweep([P] * CANDIDATES, n, shared, rng).steps[0].beaten) for _ in range(sweeps)) / sweeps
    led = alone = 0
    for _ in range(sweeps):
        choice = sweep([P + BETTER] + [P] * (CANDIDATES - 1), n, shared, rng)
        if choice.leader is not None and choice.leader.id == "00":
            led += 1
            alone += not choice.steps[0].tied
    return false, led / sweeps, alone / sweeps


def main() -> int:
    """Compute, simulate, print; the full size is also written down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=SWEEPS)
    sweeps = parser.parse_args().sweeps
    rng = np.random.default_rng(0)

    grid = {(n, p): coverage(n, p) for n in NS for p in PS}
    worst = min(grid, key=lambda cell: grid[cell])
    lines = [
        "# Honest statistics", "", "Made by `python -m benchmarks.honesty`.", "", "## Coverage of 95 % intervals", "",
        f"Of proportions (accuracy, exact match), Wilson's interval, exact, {len(NS)} n from {NS[0]} to {NS[-1]:,} times "
        f"{len(PS)} p from {PS[0]} to {PS[-1]}: mean {np.mean(list(grid.values())):.2%}, worst "
        f"{grid[worst]:.2%} (n {worst[0]}, p {worst[1]}), best {max(grid.values()):.2%}.", "",
        "| n | " + " | ".join(f"p {p}" for p in PS) + " |", "|---|" + "---|" * len(PS),
        *(f"| {n} | " + " | ".join(f"{grid[n, p]:.1%}" for p in PS) + " |" for n in NS), "",
        "Of means of skewed values (log-likelihoods), percentile bootstrap, simulated:", "",
        "| n | coverage |", "|---|---|",
        *(f"| {n} | {coverage_of_means(n, sweeps, rng):.1%} |" for n in (100, 300, 1000)), "",
        f"## Ties among {CANDIDATES} candidates", "",
        f"{sweeps:,} simulated sweeps a cell, true accuracy {P}; shared: how much of whether an item is answered rightly "
        f"belongs to the item. A false winner: among equals, somebody is declared worse than the leader. Found: one "
        f"candidate is truly {BETTER:.0%} better, and it leads; declared: it is also declared better than all others.",
        "", "| items | shared | a false winner | the better one leads | and is declared better than all |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for n in (300, 1000):
        for shared in SHARED:
            false, led, alone = ties(sweeps, n, shared, rng)
            lines.append(f"| {n:,} | {shared} | {false:.1%} | {led:.1%} | {alone:.1%} |")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if sweeps == SWEEPS:
        (Path(__file__).parent / "measured" / "honesty.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
