"""The hypervolume over time, relative to the best rival of each world at each moment, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.report import quantile

Array = NDArray[np.float64]
MOMENTS = 240
RESAMPLES = 300
LEAST = 0.97
"""What is asked of the ratio to the best rival; it falls short where its interval lies below."""
SHARES = (0.90, 0.95)
FEW_SEEDS = 8
THIRD = 3
"""A rival counts from its so manieth finished candidate on."""


@dataclass
class Curve:
    """What one replay had, when: shares of the best known hypervolume of the world."""

    at_s: list[float] = field(default_factory=list)
    hv: list[float] = field(default_factory=list)
    """From `at_s` on, by the models that the sweep has."""
    hv_settings: list[float] = field(default_factory=list)
    """The same by the truth of their settings, without luck."""
    finished_s: list[float] = field(default_factory=list)
    """When each of the first `THIRD` candidates was fully measured."""
    finished: int = 0
    """Candidates that were fully measured."""
    asked: int = 0
    decision_ms: float = 0.0
    """The longest decision, real milliseconds."""

    def plain(self) -> dict[str, Any]:
        """Return the curve as JSON has it."""
        return {
            "at_s": [round(x, 1) for x in self.at_s], "hv": [round(x, 5) for x in self.hv],
            "hv_settings": [round(x, 5) for x in self.hv_settings], "finished_s": [round(x, 1) for x in self.finished_s[:THIRD]],
            "finished": self.finished, "asked": self.asked, "decision_ms": round(self.decision_ms, 1),
        }  # fmt: skip

    def by_settings(self) -> Curve:
        """Return the curve as judged by the truth of settings."""
        return replace(self, hv=self.hv_settings)

    def at(self, seconds: Array) -> Array:
        """Return the share at these moments."""
        return np.array([0.0, *self.hv])[np.searchsorted(self.at_s, seconds, side="right")]

    def reached_s(self, share: float) -> float:
        """Return from when on it has at least this share and keeps it; inf where that never is."""
        below = [n for n, one in enumerate(self.hv) if one < share]
        after = below[-1] + 1 if below else 0
        return self.at_s[after] if after < len(self.hv) else float("inf")


Runs = Mapping[str, Mapping[int, Curve]]
"""The replays of one world, by strategy and seed."""


def moments(budget_s: float) -> Array:
    """Return the moments that are looked at, seconds."""
    return np.linspace(0, budget_s, MOMENTS + 1)[1:]


def area(curve: Curve, budget_s: float) -> float:
    """Return the mean share over the time of a sweep."""
    ends = np.array([*curve.at_s, budget_s])
    return float(np.sum(np.diff(np.minimum(ends, budget_s)) * np.array(curve.hv)) / budget_s) if curve.hv else 0.0


@dataclass(frozen=True, eq=False)
class Relative:
    """One strategy's median hypervolume beside that of the best rival at each moment; nan before any rival counts."""

    seconds: Array
    ratio: Array
    low: Array
    high: Array
    """Of the ratio's 95 % interval over seeds."""
    rival: list[str]

    @property
    def short(self) -> float:
        """The share of the moments at which it falls short of `LEAST`, its interval included."""
        counted = np.isfinite(self.ratio)
        return float((self.high[counted] < LEAST).mean()) if counted.any() else 0.0


def relative(runs: Runs, name: str, rivals: Sequence[str], budget_s: float, seed: int = 0) -> Relative:
    """Compare a strategy with the best rival at each moment, over the seeds that all of them have.

    The best rival is the one with the highest median over seeds; the interval is that of the ratio to that rival, over
    resampled seeds.
    """
    seeds = sorted(set.intersection(*(set(runs[one]) for one in (name, *rivals))))
    seconds = moments(budget_s)
    curves = {one: np.stack([runs[one][s].at(seconds) for s in seeds]) for one in (name, *rivals)}
    middle = {one: np.median(values, axis=0) for one, values in curves.items()}
    counted = []
    for one in rivals:
        third = [([*runs[one][s].finished_s, *[np.inf] * THIRD])[THIRD - 1] for s in seeds]
        counted.append(np.where(seconds >= quantile(np.array(third), 0.5), middle[one], 0.0))
    best = np.argmax(counted, axis=0)
    height = np.max(counted, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(height > 0, middle[name] / height, np.nan)
    drawn = np.random.default_rng(seed).integers(0, len(seeds), (RESAMPLES, len(seeds)))
    resampled = {one: np.median(values[drawn], axis=1) for one, values in curves.items()}
    of_best = np.stack([resampled[one] for one in rivals])[best, :, np.arange(len(seconds))].T
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(of_best > 0, resampled[name] / of_best, np.inf)
    low, high = np.quantile(each, (0.025, 0.975), axis=0, method="nearest")
    unknown = ~np.isfinite(ratio)
    low[unknown], high[unknown] = np.nan, np.nan
    return Relative(seconds, ratio, low, high, [rivals[n] for n in best])


def report(
    title: str, runs: Mapping[str, Runs], budgets: Mapping[str, float], kinds: Mapping[str, tuple[str, str]], own: str
) -> list[str]:
    """Return markdown. `budgets`: seconds of a sweep; `kinds`: shape and kind; both by world. Strategies whose names begin with
    `own` are ours.
    """
    names = list(dict.fromkeys(name for each in runs.values() for name in each))
    ours, rivals = [n for n in names if n.startswith(own)], [n for n in names if not n.startswith(own)]
    seeds = max((len(one) for each in runs.values() for one in each.values()), default=0)
    lines = [f"# {title}: {len(runs)} worlds, {seeds} seed{'s' * (seeds != 1)}", ""]
    if seeds < FEW_SEEDS:
        lines += [f"With fewer than {FEW_SEEDS} seeds the intervals below are too narrow, and medians jump.", ""]
    lines += _areas(runs, budgets, kinds, ours, rivals)
    if rivals:
        for name in ours:
            lines += _beside(runs, budgets, name, rivals)
    return lines + _minutes(runs, kinds, names) + _decisions(runs, names)


def _areas(
    runs: Mapping[str, Runs], budgets: Mapping[str, float], kinds: Mapping[str, tuple[str, str]],
    ours: Sequence[str], rivals: Sequence[str],
) -> list[str]:  # fmt: skip
    names = [*ours, *rivals]
    means = {
        world: {
            name: float(np.mean([area(one, budgets[world]) for one in each[name].values()])) if name in each else np.nan
            for name in names
        }
        for world, each in runs.items()
    }
    groups: dict[str, list[str]] = {}
    for world, (shape, kind) in kinds.items():
        groups.setdefault(f"{shape} {kind}", []).append(world)
    for shape in dict.fromkeys(shape for shape, _ in kinds.values()):
        groups[f"all {shape}"] = [world for world, (one, _) in kinds.items() if one == shape]
    groups["all worlds"] = list(runs)
    cells = []
    for group, worlds in groups.items():
        values = [float(np.mean([means[world][name] for world in worlds])) for name in names]
        best = max((v for v, n in zip(values, names, strict=True) if n in rivals and np.isfinite(v)), default=np.nan)
        cells.append([group, *(f"{v:.3f}" for v in values), *(f"{values[n] / best:.2f}" for n in range(len(ours)))])
    heads = ["kind", *names, *(f"{name} / best rival" for name in ours)]
    return ["Mean share of the best known hypervolume over the time of a sweep:", "", *_table(heads, cells), ""]


def _beside(runs: Mapping[str, Runs], budgets: Mapping[str, float], name: str, rivals: Sequence[str]) -> list[str]:
    cells, short = [], 0
    for world, each in runs.items():
        there = [one for one in rivals if one in each]
        if name not in each or not there:
            continue
        one = relative(each, name, there, budgets[world])
        if not np.isfinite(one.ratio).any():
            continue
        worst = int(np.nanargmin(one.ratio))
        short += one.short > 0
        quarters = [int(len(one.seconds) * share) - 1 for share in (0.1, 0.25, 0.5, 1.0)]
        cells.append([
            world, f"{one.ratio[worst]:.2f} [{one.low[worst]:.2f}, {one.high[worst]:.2f}]",
            f"{one.seconds[worst] / 60:.0f}", one.rival[worst], f"{one.short:.0%}",
            *("" if np.isnan(one.ratio[n]) else f"{one.ratio[n]:.2f} ({one.rival[n]})" for n in quarters),
        ])  # fmt: skip
    heads = [
        "world",
        "least ratio",
        "minute",
        "rival",
        f"moments below {LEAST}",
        "at 10 % of the time",
        "25 %",
        "50 %",
        "end",
    ]
    return [
        f"Median hypervolume of `{name}` over that of the best rival at each moment, from the rival's third finished candidate "
        f"on, with its 95 % interval over seeds; moments at which that lies below {LEAST}. "
        f"It falls short in {short} of {len(cells)} worlds:",
        "", *_table(heads, cells), "",
    ]  # fmt: skip


def _minutes(runs: Mapping[str, Runs], kinds: Mapping[str, tuple[str, str]], names: Sequence[str]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for world, (shape, kind) in kinds.items():
        groups.setdefault(f"{shape} {kind}", []).append(world)
    lines = []
    for share in SHARES:
        cells = []
        for group, worlds in groups.items():
            line = [group]
            for name in names:
                times = [c.reached_s(share) for world in worlds for c in runs[world].get(name, {}).values()]
                middle = quantile(np.array(times), 0.5) / 60 if times else np.inf
                line.append(f"{middle:.1f}" if np.isfinite(middle) else "-")
            cells.append(line)
        lines += [
            f"Minutes to {share:.0%} of the best known, medians over seeds and worlds (`-`: most never have it):",
            "", *_table(["kind", *names], cells), "",
        ]  # fmt: skip
    return lines


def _decisions(runs: Mapping[str, Runs], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        own = [one for each in runs.values() for one in each.get(name, {}).values()]
        asked, finished = (np.mean([getattr(one, key) for one in own]) for key in ("asked", "finished"))
        cells.append([name, f"{asked:.0f}", f"{finished:.0f}", f"{max(one.decision_ms for one in own):.0f}"])
    return [
        "Proposals and fully measured candidates of a replay (means), and the longest decision (ms, beside other work):",
        "", *_table(["strategy", "asked", "measured", "longest ms"], cells),
    ]  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
