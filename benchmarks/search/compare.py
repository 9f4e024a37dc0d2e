"""Compare strategies on the oracle tables, over many seeds, on simulated time.

python -m benchmarks.search.compare                                 # all peers that are installed, all tables, 50 seeds
python -m benchmarks.search.compare --strategy frontier tpe --table xed --seeds 10
python -m benchmarks.search.compare --table synthetic               # the made-up table

Prints markdown, and with `--out FOLDER` writes search.md, search.csv (the anytime curves) and, with matplotlib, search.png.
Every table is replayed twice: with the stage seconds as measured, and with training charged ten times as long.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search import synthetic
from benchmarks.search.peers import COST_BLIND, WITHOUT_CACHE, strategy
from benchmarks.search.replay import Conditions, Run, Truth, replay
from benchmarks.search.rows import TABLES
from benchmarks.search.table import Table, from_rows, load

SHARES = (0.90, 0.95, 0.98, 0.99)
PROPORTIONS = (1.0, 10.0)
DEFAULT = ("optuna-tpe", "optuna-tpe-cache", "tpe", "nsga2", "gp", "random", "mo-asha", "primo")
SLOW = ("gp", "primo")
"""Their decisions take seconds: fewer seeds, unless they are named."""
SLOW_SEEDS = 5
NEEDS = {"mo-asha": "syne_tune", "primo": "neps", "gp": "torch"}
POINTS = 200
"""Points of an anytime curve."""
RESAMPLES = 2000

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """One replay to do."""

    table: str
    strategy: str
    seed: int
    training: float
    items: int | None


@cache
def table_of(name: str) -> tuple[Table, Truth]:
    """Return a table by its name, and its truth. Raises OSError, ValueError."""
    table = from_rows(synthetic.rows()) if name == "synthetic" else load(TABLES / f"{name}.jsonl")
    return table, Truth(table)


def tables_of(named: Sequence[str] | None) -> list[str]:
    """Return the tables to look at: those that are named, else all but those that are no grid yet. Raises ValueError."""
    names = named or sorted(file.stem for file in TABLES.glob("*.jsonl"))
    found = []
    for name in names:
        try:
            table_of(name)
            found.append(name)
        except (OSError, ValueError) as error:
            if named:
                raise ValueError(f"table {name}: {error}") from None
            sys.stderr.write(f"table {name} is left out: {error}\n")
    if not found:
        raise ValueError(
            "there is no table yet: python -m benchmarks.search.oracle makes one; or take --table synthetic"
        )
    return found


def run(task: Task) -> Run:
    """Do one replay."""
    table, truth = table_of(task.table)
    conditions = Conditions(task.seed, task.strategy not in WITHOUT_CACHE, task.training, task.items)
    budget = truth.everything_s(cache=False, training=task.training)
    return replay(table, truth, strategy(task.strategy), conditions, budget)


def runs_of(
    tables: Sequence[str], strategies: Sequence[str], seeds: int, jobs: int, items: int | None, named: bool
) -> dict[tuple[str, str, float], list[Run]]:
    """Do all replays. Returns by (table, strategy, proportion) one run a seed."""
    tasks = [
        Task(table, name, seed, training, items)
        for table in tables
        for name in strategies
        for seed in range(seeds if named or name not in SLOW else min(seeds, SLOW_SEEDS))
        for training in (PROPORTIONS[:1] if name in COST_BLIND else PROPORTIONS)
    ]
    if jobs == 1:
        results = [run(task) for task in tasks]
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(run, tasks, chunksize=1))
    found: dict[tuple[str, str, float], list[Run]] = {}
    for task, one in zip(tasks, results, strict=True):
        proportions = PROPORTIONS if task.strategy in COST_BLIND else (task.training,)
        for training in proportions:
            told = one.with_training(training) if training != task.training else one
            found.setdefault((task.table, task.strategy, training), []).append(told)
    return found


# --- figures -----------------------------------------------------------------------------------------------------------


def minutes(seconds: float) -> str:
    """Return seconds as minutes; a dash where that moment never comes."""
    return f"{seconds / 60:.1f}" if math.isfinite(seconds) else "-"


def quantile(times: Times, share: float) -> float:
    """Return a quantile that is one of the values, so that misses (inf) are no trouble: nearest rank."""
    return float(np.sort(times)[min(len(times) - 1, math.ceil(share * len(times)) - 1 if share > 0 else 0)])


def median_interval(times: Times, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median, over seeds."""
    rng = np.random.default_rng(seed)
    drawn = np.sort(times[rng.integers(0, len(times), (RESAMPLES, len(times)))], axis=1)
    medians = np.sort(drawn[:, math.ceil(0.5 * len(times)) - 1])
    return float(medians[int(0.025 * RESAMPLES)]), float(medians[int(0.975 * RESAMPLES)])


def ratio_interval(slow: Times, fast: Times, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio of two medians, and its 95 % bootstrap interval (each over its own seeds)."""
    rng = np.random.default_rng(seed)

    def medians(times: Times) -> Times:
        drawn = np.sort(times[rng.integers(0, len(times), (RESAMPLES, len(times)))], axis=1)
        return np.asarray(drawn[:, math.ceil(0.5 * len(times)) - 1])

    with np.errstate(invalid="ignore"):
        ratios = np.sort(np.nan_to_num(medians(slow) / medians(fast), nan=1.0, posinf=math.inf))
        ratio = float(np.divide(quantile(slow, 0.5), quantile(fast, 0.5)))
    return ratio, float(ratios[int(0.025 * RESAMPLES)]), float(ratios[int(0.975 * RESAMPLES)])


def summary(found: dict[tuple[str, str, float], list[Run]], table: str, training: float) -> list[str]:
    """Return the markdown tables of one table in one proportion."""
    truth = table_of(table)[1]
    own = {name: runs for (t, name, p), runs in found.items() if t == table and p == training}
    clairvoyant = [truth.clairvoyant(share, training) for share in SHARES]
    whole = [truth.everything_s(cache, training) for cache in (True, False)]
    proportion = "stage seconds as measured" if training == 1 else f"training charged {training:g} times as long"
    lines = [
        f"## {table}, {proportion}",
        "",
        f"The whole grid takes {minutes(whole[0])} minutes with the cache, {minutes(whole[1])} without.",
        "Minutes until the recommended set keeps a share of the oracle's hypervolume: median (quartiles) [95 % bootstrap",
        "interval of the median], misses of the seeds.",
        "",
        "| strategy | seeds | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |",
        "|---|---|" + "---|" * len(SHARES),
        "| clairvoyant | | " + " | ".join(minutes(seconds) for seconds in clairvoyant) + " |",
    ]
    for name, runs in own.items():
        cells = []
        for share in SHARES:
            times = np.array([one.reached_s(share) for one in runs])
            low, high = median_interval(times)
            quartiles = f"({minutes(quantile(times, 0.25))} to {minutes(quantile(times, 0.75))})"
            misses = int(np.isinf(times).sum())
            missed = f", {misses} missed" if misses else ""
            cells.append(f"{minutes(quantile(times, 0.5))} {quartiles} [{minutes(low)}, {minutes(high)}]{missed}")
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    if "frontier" in own:
        lines += ["", *_ratios(own, clairvoyant)]
    lines += ["", *_picks(own, truth)]
    return lines


def _ratios(own: dict[str, list[Run]], clairvoyant: Sequence[float]) -> list[str]:
    lines = [
        "Times as long as `frontier`, ratio of medians [95 % bootstrap interval]:",
        "",
        "| strategy | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |",
        "|---|" + "---|" * len(SHARES),
    ]
    best = {share: np.array([one.reached_s(share) for one in own["frontier"]]) for share in SHARES}
    for name, runs in own.items():
        if name == "frontier":
            continue
        cells = []
        for share in SHARES:
            times = np.array([one.reached_s(share) for one in runs])
            ratio, low, high = ratio_interval(times, best[share])
            cells.append(f"{ratio:.1f} [{low:.1f}, {high:.1f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    cells = [f"{seconds / quantile(best[share], 0.5):.2f}" for share, seconds in zip(SHARES, clairvoyant, strict=True)]
    return [*lines, "| clairvoyant | " + " | ".join(cells) + " |"]


def _picks(own: dict[str, list[Run]], truth: Truth) -> list[str]:
    texts = [", ".join(map(str, limits)) or "no limit" for limits in truth.limits()]
    lines = [
        "The model chosen at the end by the rule of the winner: true accuracy below the best within the limit, points,",
        "median and 95 % quantile; share of seeds in which a sweep over the whole table, on the same items, calls it a tie",
        "with the best. Then the proposals, and the longest decision of all seeds.",
        "",
        "| strategy | " + " | ".join(texts) + " | proposals | decision |",
        "|---|" + "---|" * (len(texts) + 2),
    ]
    for name, runs in own.items():
        cells = []
        for kind in range(len(texts)):
            points = np.array([100 * one.regrets[kind][0] for one in runs])
            inside = np.mean([one.regrets[kind][1] for one in runs])
            cells.append(f"{np.median(points):.1f}, {quantile(points, 0.95):.1f}; {inside:.0%}")
        asked = int(np.median([one.asked for one in runs]))
        longest = max(float(one.decision_ms.max(initial=0.0)) for one in runs)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {asked} | {longest:.0f} ms |")
    return lines


def anytime(runs: Sequence[Run], seconds: Times) -> NDArray[np.float64]:
    """Return the quartiles of the hypervolume at these moments: (3, moments)."""
    return np.asarray(np.quantile(np.stack([one.at(seconds) for one in runs]), (0.25, 0.5, 0.75), axis=0))


def curves(found: dict[tuple[str, str, float], list[Run]]) -> list[dict[str, str | float]]:
    """Return the rows of the anytime curves, at moments that are evenly spaced in the logarithm."""
    rows: list[dict[str, str | float]] = []
    for (table, name, training), runs in found.items():
        truth = table_of(table)[1]
        start, end = truth.clairvoyant(0.5, training) / 2, truth.everything_s(cache=False, training=training)
        seconds = np.geomspace(start, end, POINTS)
        for at, low, middle, high in zip(seconds, *anytime(runs, seconds), strict=True):
            rows.append({"table": table, "training": training, "strategy": name, "seconds": round(float(at), 1),
                         "hv_q25": round(float(low), 4), "hv_median": round(float(middle), 4), "hv_q75": round(float(high), 4)})  # fmt: skip
    return rows


def behind(found: dict[tuple[str, str, float], list[Run]], ours: str = "frontier") -> list[str]:
    """Say of every table and proportion by how much, at most, our median is behind that of the two plain TPEs, from
    their third finished candidate on."""
    lines = []
    for (table, name, training), runs in found.items():
        mine = found.get((table, ours, training))
        if mine is None or name not in ("optuna-tpe", "optuna-tpe-cache"):
            continue
        third = float(np.median([np.sort(one.finished_s)[min(2, len(one.finished_s) - 1)] for one in runs]))
        seconds = np.geomspace(third, table_of(table)[1].everything_s(cache=False, training=training), 5 * POINTS)
        gap = anytime(runs, seconds)[1] - anytime(mine, seconds)[1]
        worst = int(np.argmax(gap))
        lines.append(f"- {table}, training x{training:g}: behind {name} by at most {max(0.0, gap[worst]):.3f} "
                     f"of the hypervolume" + (f" (at {minutes(float(seconds[worst]))} min)" if gap[worst] > 0 else ""))  # fmt: skip
    return ["## Anytime, from the third finished candidate on", "", *lines, ""] if lines else []


def draw(found: dict[tuple[str, str, float], list[Run]], file: Path) -> None:
    """Draw the anytime curves: a panel for each table and proportion."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(table, training) for table, _, training in found})
    figure, places = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4.5), squeeze=False)
    colours = {name: f"C{n}" for n, name in enumerate(dict.fromkeys(name for _, name, _ in found))}
    rows = curves(found)
    for place, (table, training) in zip(places[0], panels, strict=True):
        for name in colours:
            own = [row for row in rows if (row["table"], row["training"], row["strategy"]) == (table, training, name)]
            if own:
                hours = [float(row["seconds"]) / 3600 for row in own]
                place.plot(hours, [row["hv_median"] for row in own], color=colours[name], label=name)
                low, high = [row["hv_q25"] for row in own], [row["hv_q75"] for row in own]
                place.fill_between(hours, low, high, color=colours[name], alpha=0.12, linewidth=0)
        place.set(xscale="log", ylim=(0, 1.01), xlabel="simulated hours", title=f"{table}, training x{training:g}")
    places[0][0].set_ylabel("share of the oracle's hypervolume (median, quartiles)")
    places[0][-1].legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def installed(name: str) -> bool:
    """Whether a strategy's package is there."""
    return name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None


def main(arguments: list[str] | None = None) -> int:
    """Compare, and print markdown."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--strategy", nargs="+", help=f"default: {', '.join(DEFAULT)}, as far as installed")
    parser.add_argument("--table", nargs="+", help="default: every table in benchmarks/search/tables")
    parser.add_argument("--items", type=int, help="validation items that a sweep has; default: as many as the table")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="a folder for search.md, search.csv and search.png")
    given = parser.parse_args(arguments)
    try:
        tables = tables_of(given.table)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    strategies = given.strategy or [name for name in DEFAULT if installed(name)]
    found = runs_of(tables, strategies, given.seeds, given.jobs, given.items, bool(given.strategy))
    lines = [
        "# How soon each strategy has the front",
        "",
        "Made by `python -m benchmarks.search.compare`; see `benchmarks/search/README.md`.",
        "",
    ]
    for table in tables:
        for training in PROPORTIONS:
            lines += [*summary(found, table, training), ""]
    text = "\n".join([*lines, *behind(found)]).rstrip() + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "search.md").write_text(text, encoding="utf-8")
        rows = curves(found)
        with (given.out / "search.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        if importlib.util.find_spec("matplotlib") is not None:
            draw(found, given.out / "search.png")
        else:
            sys.stderr.write("search.png needs matplotlib: pip install matplotlib\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
