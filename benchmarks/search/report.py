"""Write the results of `compare`: tables, curves, a picture.

Every function takes the runs by table, strategy and proportion (the factor on the seconds of training), one per seed, and the
truth of each table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.peers import LEVERS
from benchmarks.search.replay import AIM, PICKED, Run, Truths
from benchmarks.search.table import PART

SHARES = (0.90, 0.95, 0.98, 0.99)
OURS = "frontier"
PLAIN, CACHED, WARM = "optuna-tpe", ("optuna-tpe-cache", "tpe"), ("optuna-tpe-warm", "optuna-tpe-cache-warm")
"""What a user writes today; the same with our cache, by hand and as our own strategy; and what a user writes who begins with
the adapter that our prior thinks best."""
POINTS = 200
"""Points of an anytime curve."""
RESAMPLES = 2000

Times = NDArray[np.float64]
Found = Mapping[tuple[str, str, float], list[Run]]
OfTables = Mapping[str, Truths]


# --- statistics ---------------------------------------------------------------------------------------------------------


def reached(runs: Sequence[Run], share: float) -> Times:
    """Return when each run had this share of the hypervolume for good: seconds, inf where never."""
    return np.array([one.reached_s(share) for one in runs])


def quantile(times: Times, share: float) -> float:
    """Return a quantile that is one of the values, so that misses (inf) are no trouble: nearest rank."""
    return float(np.sort(times)[min(len(times) - 1, math.ceil(share * len(times)) - 1 if share > 0 else 0)])


def _medians(times: Times, rng: np.random.Generator) -> Times:
    """Return medians of resamples, as `quantile` has them."""
    drawn = np.sort(times[rng.integers(0, len(times), (RESAMPLES, len(times)))], axis=1)
    return np.asarray(drawn[:, math.ceil(0.5 * len(times)) - 1])


def _middle(values: Times) -> tuple[float, float]:
    """Return the ends of the middle 95 %."""
    ordered = np.sort(values)
    return float(ordered[int(0.025 * len(ordered))]), float(ordered[int(0.975 * len(ordered))])


def median_interval(times: Times, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median, over seeds."""
    return _middle(_medians(times, np.random.default_rng(seed)))


def ratio_interval(slow: Times, fast: Times, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio of two medians, and its 95 % bootstrap interval (each over its own seeds)."""
    rng = np.random.default_rng(seed)
    with np.errstate(invalid="ignore"):
        ratios = np.nan_to_num(_medians(slow, rng) / _medians(fast, rng), nan=1.0, posinf=math.inf)
        ratio = float(np.divide(quantile(slow, 0.5), quantile(fast, 0.5)))
    return ratio, *_middle(ratios)


def anytime(runs: Sequence[Run], seconds: Times) -> NDArray[np.float64]:
    """Return the quartiles of the hypervolume at these moments: (3, moments)."""
    return np.asarray(np.quantile(np.stack([one.at(seconds) for one in runs]), (0.25, 0.5, 0.75), axis=0))


def behind(theirs: Sequence[Run], ours: Sequence[Run], until: float) -> tuple[float, float]:
    """Return by how much at most our median is behind theirs from their third finished candidate on, and when (seconds)."""
    third = float(np.median([np.sort(one.finished_s)[min(2, len(one.finished_s) - 1)] for one in theirs]))
    seconds = np.geomspace(third, until, 5 * POINTS)
    gap = anytime(theirs, seconds)[1] - anytime(ours, seconds)[1]
    worst = int(np.argmax(gap))
    return max(0.0, float(gap[worst])), float(seconds[worst])


# --- tables -------------------------------------------------------------------------------------------------------------


def minutes(seconds: float) -> str:
    """Return seconds as minutes; a dash where that moment never comes."""
    return f"{seconds / 60:.1f}" if math.isfinite(seconds) else "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return [lines[0], "|" + "---|" * len(heads), *lines[1:]]


def _times(ratio: tuple[float, float, float]) -> str:
    if math.isnan(ratio[0]):  # neither ever has it
        return "-"
    return f"{ratio[0]:.1f} [{ratio[1]:.1f}, {ratio[2]:.1f}]"


def _moments() -> str:
    return " and ".join(f"{times:g}" for times in PICKED) + " times"


def _own(found: Found, table: str, training: float) -> dict[str, list[Run]]:
    return {name: runs for (t, name, p), runs in found.items() if t == table and p == training}


def headline(found: Found, truths: OfTables, exhaustive: str | None = None) -> list[str]:
    """Return one row for each table and proportion of what the benchmark is for; nothing without `frontier`. With
    `exhaustive`, a strategy that measures everything in the end: how often that misses the aim.
    """
    heads = ("table", "training", f"clairvoyant, min to {AIM:.0%}", f"`{OURS}`, min", "of it clairvoyant",
             "plain TPE takes", "TPE with our cache", "the best peer", "TPE that begins with our prior",
             "without the prior", "with a wrong one", "behind TPE at most", f"pick within noise after {_moments()}",
             *(["everything measured"] if exhaustive else []))  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for table, training in sorted({(table, training) for table, name, training in found if name == OURS}):
        own, truth = _own(found, table, training), truths[table]
        mine = reached(own[OURS], AIM)
        ideal, middle, misses = truth.clairvoyant(AIM, training), quantile(mine, 0.5), int(np.isinf(mine).sum())
        peers = {name: reached(runs, AIM) for name, runs in own.items() if name != OURS and name not in LEVERS}
        rivals = [name for name in peers if name not in WARM]

        def own_median(name: str, own: Mapping[str, Sequence[Run]] = own) -> str:
            return minutes(quantile(reached(own[name], AIM), 0.5)) if name in own else ""

        def against(names: Sequence[str], peers: dict[str, Times] = peers, mine: Times = mine) -> tuple[str, str]:
            there = [name for name in names if name in peers]
            if not there:
                return "", ""
            best = min(there, key=lambda name: quantile(peers[name], 0.5))
            few = f" of {len(peers[best])} seeds" if len(peers[best]) < len(mine) else ""
            return best + few, "x " + _times(ratio_interval(peers[best], mine))

        best, times = against(rivals)
        plain = [own[name] for name in (PLAIN, *CACHED) if name in own]
        until = truth.everything_s(cache=False, training=training)
        gaps = [behind(theirs, own[OURS], until)[0] for theirs in plain]
        picks = [
            min(np.mean([one.picks[moment][kind][1] for one in own[OURS]]) for kind in range(len(truth.limits())))
            for moment in range(len(PICKED))
        ]
        rows.append((table, f"x {training:g}", minutes(ideal),
                     minutes(middle) + (f", {misses} of {len(mine)} missed" if misses else ""),
                     f"{middle / ideal:.1f}", against([PLAIN])[1], against(CACHED)[1],
                     f"{times} ({best})" if best else "", against(WARM)[1], own_median(f"{OURS}-without-prior"),
                     own_median(f"{OURS}-misled"), f"{max(gaps):.3f}" if gaps else "",
                     ", ".join(f"{share:.0%}" for share in picks)))  # fmt: skip
        if exhaustive:
            whole = reached(own.get(exhaustive, []), AIM)
            rows[-1] = (*rows[-1], f"{int(np.isinf(whole).sum())} of {len(whole)} missed" if len(whole) else "")
    return _table(heads, rows) if rows else []


def summary(found: Found, truth: Truths, table: str, training: float) -> list[str]:
    """Return the markdown tables of one table in one proportion."""
    own = _own(found, table, training)
    clairvoyant = [truth.clairvoyant(share, training) for share in SHARES]
    whole = [truth.everything_s(cache, training) for cache in (True, False)]
    proportion = "stage seconds as measured" if training == 1 else f"training charged {training:g} times as long"
    rows = [["clairvoyant", "", *map(minutes, clairvoyant)]]
    for name, runs in own.items():
        cells = []
        for share in SHARES:
            times = reached(runs, share)
            low, high = median_interval(times)
            quartiles = f"({minutes(quantile(times, 0.25))} to {minutes(quantile(times, 0.75))})"
            misses = int(np.isinf(times).sum())
            missed = f", {misses} missed" if misses else ""
            cells.append(f"{minutes(quantile(times, 0.5))} {quartiles} [{minutes(low)}, {minutes(high)}]{missed}")
        rows.append([name, str(len(runs)), *cells])
    lines = [
        f"## {table}, {proportion}",
        "",
        f"The whole grid takes {minutes(whole[0])} minutes with the cache, {minutes(whole[1])} without.",
        "Minutes until the recommended set keeps a share of the oracle's hypervolume: median (quartiles) [95 % bootstrap",
        "interval of the median], misses of the seeds.",
        "",
        *_table(["strategy", "seeds", *(f"{share:.0%}" for share in SHARES)], rows),
        "",
    ]
    if OURS in own:
        lines += [*_ratios(own, clairvoyant), ""]
    return lines + _picks(own, truth)


def _ratios(own: Mapping[str, Sequence[Run]], clairvoyant: Sequence[float]) -> list[str]:
    best = {share: reached(own[OURS], share) for share in SHARES}
    rows = [
        [name, *(_times(ratio_interval(reached(runs, share), best[share])) for share in SHARES)]
        for name, runs in own.items()
        if name != OURS
    ]
    middle = [quantile(best[share], 0.5) for share in SHARES]
    ideal = [f"{s / own:.2f}" if math.isfinite(own) else "-" for s, own in zip(clairvoyant, middle, strict=True)]
    return [
        f"Times as long as `{OURS}`, ratio of medians [95 % bootstrap interval]; `{OURS}-without-...`: with one lever off.",
        "",
        *_table(["strategy", *(f"{share:.0%}" for share in SHARES)], [*rows, ["clairvoyant", *ideal]]),
    ]


def _picks(own: Mapping[str, Sequence[Run]], truth: Truths) -> list[str]:
    texts = [", ".join(map(str, limits)) or "no limit" for limits in truth.limits()]
    rows = []
    for name, runs in own.items():
        cells = []
        for kind in range(len(texts)):
            points = np.array([[100 * picks[kind][0] for picks in one.picks] for one in runs])
            inside = np.mean([[picks[kind][1] for picks in one.picks] for one in runs], axis=0)
            cells.append("; ".join(
                f"{np.median(points[:, n]):.1f}, {quantile(points[:, n], 0.95):.1f}, {inside[n]:.0%}" for n in range(len(PICKED))
            ))  # fmt: skip
        asked = int(np.median([one.asked for one in runs]))
        longest = max(float(one.decision_ms.max(initial=0.0)) for one in runs)
        rows.append([name, *cells, str(asked), f"{longest:.0f} ms"])
    return [
        f"The models that the rule of the winner chooses after {_moments()} the time that a clairvoyant needs to {AIM:.0%}:",
        "true accuracy below the best within the limit, points, median and 95 % quantile; share of seeds in which a sweep over",
        "the whole table, on the same items, calls it a tie with the best. Then the proposals, and the longest decision of",
        "all seeds.",
        "",
        *_table(["strategy", *texts, "proposals", "decision"], rows),
    ]


def all_behind(found: Found, truths: OfTables) -> list[str]:
    """Say of every table and proportion by how much, at most, our median is behind that of each TPE."""
    lines = []
    for (table, name, training), theirs in found.items():
        ours = found.get((table, OURS, training))
        if ours is not None and name in (PLAIN, *CACHED):
            gap, at = behind(theirs, ours, truths[table].everything_s(cache=False, training=training))
            when = f" (at {minutes(at)} min)" if gap > 0 else ""
            lines.append(
                f"- {table}, training x {training:g}: behind {name} by at most {gap:.3f} of the hypervolume{when}"
            )
    return ["## Anytime, from the third finished candidate on", "", *lines, ""] if lines else []


# --- curves -------------------------------------------------------------------------------------------------------------


def curves(found: Found, truths: OfTables) -> list[dict[str, str | float]]:
    """Return the rows of the anytime curves, at moments that are evenly spaced in the logarithm."""
    rows: list[dict[str, str | float]] = []
    for (table, name, training), runs in found.items():
        if name in LEVERS:
            continue
        truth = truths[table]
        start, end = truth.clairvoyant(0.5, training) / 2, truth.everything_s(cache=False, training=training)
        seconds = np.geomspace(start, end, POINTS)
        for at, low, middle, high in zip(seconds, *anytime(runs, seconds), strict=True):
            rows.append({"table": table, "training": training, "strategy": name, "seconds": round(float(at), 1),
                         "hv_q25": round(float(low), 4), "hv_median": round(float(middle), 4), "hv_q75": round(float(high), 4)})  # fmt: skip
    return rows


def draw(rows: Sequence[Mapping[str, str | float]], file: Path) -> None:
    """Draw the anytime curves: a row for each proportion, a column for each table, but for parts of tables."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if not str(row["table"]).endswith(PART)] or rows
    tables, proportions, names = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("table", "training", "strategy")
    )
    size = (6 * len(tables), 4.2 * len(proportions))
    figure, places = plt.subplots(len(proportions), len(tables), figsize=size, squeeze=False)
    for place, (training, table) in zip(places.flat, ((p, t) for p in proportions for t in tables), strict=True):
        for number, name in enumerate(names):
            own = [row for row in rows if (row["table"], row["training"], row["strategy"]) == (table, training, name)]
            if own:
                hours = [float(row["seconds"]) / 3600 for row in own]
                wide = 2.5 if name == OURS else 1.2
                place.plot(hours, [row["hv_median"] for row in own], color=f"C{number}", label=name, linewidth=wide)
                low, high = [row["hv_q25"] for row in own], [row["hv_q75"] for row in own]
                place.fill_between(hours, low, high, color=f"C{number}", alpha=0.12, linewidth=0)
        place.axhline(AIM, color="0.7", linewidth=0.8, linestyle=":")
        place.set(xscale="log", ylim=(0, 1.01), xlabel="simulated hours", title=f"{table}, training x {training:g}")
    for place in places[:, 0]:
        place.set_ylabel("share of the oracle's hypervolume")
    lines = {str(line.get_label()): line for place in places.flat for line in place.get_legend_handles_labels()[0]}
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncol=min(6, len(lines)), fontsize="small")
    figure.savefig(file, dpi=110)
    plt.close(figure)
