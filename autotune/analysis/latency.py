"""Latency: from the raw samples of timings to the numbers of a row, and to ratios of graphs that were timed in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autotune.analysis.statistics import Ratio, column_levels, paired_ratio, t_interval
from autotune.analysis.stopping import stretch
from autotune.metrics import ENOUGH_FOR_P90

FOREIGN = 0.2
"""Cores that other programs may keep busy while a process is timed, on average, before it counts as disturbed."""

Processes = Sequence[Mapping[str, Any]]
"""The measurements of each process of a timing, in order."""


@dataclass(frozen=True)
class TokenTiming:
    """The time between tokens as a row has it: its median with the ends of its interval, milliseconds (None: not measured,
    no interval), and the cores that other programs kept busy meanwhile.
    """

    itl_ms: float | None
    low: float | None = None
    high: float | None = None
    foreign_cpu: float = 0.0

    @classmethod
    def of(cls, cells: Mapping[str, Any]) -> TokenTiming:
        """Return the timing that cells of results.csv hold, such as those of `latency_cells`."""
        value, low, high = (cells.get(f"itl_ms_p50{end}") for end in ("", "_low", "_high"))
        return cls(value, low, high, float(cells.get("foreign_cpu") or 0.0))

    @property
    def disturbed(self) -> bool:
        """Whether other programs were busy during the timing."""
        return self.foreign_cpu > FOREIGN


def disturbed(process: Mapping[str, Any]) -> bool:
    """Whether other programs were busy while a process was timed, by its `conditions`."""
    return float(process.get("conditions", {}).get("foreign_cpu") or 0.0) > FOREIGN


def counted(processes: Processes, least: int) -> Processes:
    """Return the processes of a timing that count: the undisturbed ones where there are `least` of them, else all.

    Which processes are left out depends on the load of the machine, never on what they measured.
    """
    quiet = [process for process in processes if not disturbed(process)]
    return quiet if len(quiet) >= least else processes


def latency_cells(
    processes: Processes, batch: int, least: int | None = None, most: int | None = None
) -> dict[str, float | int | None]:
    """Return the latency columns of results.csv (times in milliseconds, memory in 10^6 bytes).

    `least` and `most`: the bounds of the number of processes, if they were timed until the interval was narrow; None: their
    number was fixed. With bounds, disturbed processes are left out (`counted`) and the interval is stretched (`stretch`).

    A median is the mean over processes of each one's median, because tokens of one process are not independent. A 90th
    percentile is of all samples together, and None below 64 of them. With two processes or more each number has Student's
    interval over the numbers of the single processes, shifted so that it lies around the number itself.
    """
    if least is not None:
        processes = counted(processes, least)
    each = [medians(process, batch) for process in processes]
    gpu = [p["gpu_memory_mb"] for p in processes if p.get("gpu_memory_mb") is not None]
    threads = [p["threads"] for p in processes if p.get("threads") is not None]
    cells: dict[str, float | int | None] = {
        "ttft_ms_p50": float(np.mean([process["ttft_ms_p50"] for process in each])),
        "ttft_ms_p90": _p90([x for p in processes for x in p["ttft_ms"]]),
        "itl_ms_p50": float(np.mean([process["itl_ms_p50"] for process in each])),
        "itl_ms_p90": _p90([x for p in processes for x in p["itl_ms"]]),
        "decode_tps": batch * 1000 / float(np.mean([np.mean(p["itl_ms"]) for p in processes])),
        "peak_memory_mb": float(np.median([p["peak_memory_mb"] for p in processes])),
        "load_s": float(np.median([p["load_s"] for p in processes])),
    }
    first = [p["warm_up_s"] for p in processes if p.get("warm_up_s") is not None]
    if first:
        cells["warm_up_s"] = float(np.mean(first))
    if gpu:
        cells["gpu_memory_mb"] = float(np.median(gpu))
    if threads:
        cells["threads"] = max(threads)
    cells["processes"] = len(processes)
    singly: dict[str, list[float]] = {name: [process[name] for process in each] for name in each[0]}
    singly |= {name: [p[name] for p in processes] for name in ("peak_memory_mb", "load_s")}
    singly["gpu_memory_mb"] = gpu
    wider = stretch(least, most) if least and most else 1.0
    for name, values in singly.items():
        value = cells.get(name)
        if value is not None and len(values) > 1:
            interval, away = t_interval(values, stretch=wider), value - float(np.mean(values))
            cells |= {f"{name}_low": max(0.0, interval.low + away), f"{name}_high": interval.high + away}
    for name in dict.fromkeys(name for p in processes for name in p.get("conditions", {})):
        known = [p["conditions"][name] for p in processes if p.get("conditions", {}).get(name) is not None]
        if known:
            cells[name] = float(np.mean(known))
    return cells


def laps_of(result: Mapping[str, Any], samples: str) -> list[list[float]]:
    """Return the samples (`ttft_ms` or `itl_ms`) of each turn of a process; one list of all where it took no turns."""
    laps: list[Mapping[str, Any]] = result.get("laps") or [result]
    return [lap[samples] for lap in laps if samples in lap]


def medians(process: Mapping[str, Any], batch: int) -> dict[str, float]:
    """Return each latency metric of one process (times in milliseconds, `decode_tps` in tokens per second)."""
    return {
        "ttft_ms_p50": float(np.median(process["ttft_ms"])),
        "ttft_ms_p90": float(np.percentile(process["ttft_ms"], 90)),
        "itl_ms_p50": float(np.median(process["itl_ms"])),
        "itl_ms_p90": float(np.percentile(process["itl_ms"], 90)),
        "decode_tps": batch * 1000 / float(np.mean(process["itl_ms"])),
    }


def in_turns(processes: Processes, batch: int) -> list[dict[str, float]]:
    """Return each latency metric of processes that took turns, in the order of `processes`.

    Medians and means are compared lap by lap (`column_levels`). A 90th percentile is that of the whole process, because a
    lap is too short to have one.
    """
    found = [medians(process, batch) for process in processes]
    for metric, samples, middle in (
        ("ttft_ms_p50", "ttft_ms", np.median),
        ("itl_ms_p50", "itl_ms", np.median),
        ("decode_tps", "itl_ms", lambda gaps: batch * 1000 / np.mean(gaps)),
    ):
        laps = [[float(middle(lap)) for lap in laps_of(process, samples)] for process in processes]
        levels = column_levels(list(zip(*laps, strict=True)))
        for columns, level in zip(found, levels, strict=True):
            columns[metric] = float(level)
    return found


def _p90(samples: list[float]) -> float | None:
    return float(np.percentile(samples, 90)) if len(samples) >= ENOUGH_FOR_P90 else None


@dataclass(frozen=True)
class Turns:
    """The latencies of finalists that were timed in turns.

    `samples`: for each graph and latency metric one number a round; a graph that left early, because it was clearly slower, has
    the first rounds only. `anchor` is the graph that took two places in every round, and `again` holds its numbers in the
    second place. `stretch`: the factor of the intervals, because the number of rounds was not fixed (`stopping.stretch`).
    """

    anchor: str
    samples: Mapping[str, Mapping[str, Sequence[float]]]
    again: Mapping[str, Sequence[float]]
    stretch: float = 1.0

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(next(iter(self.again.values())))

    def ratio(self, metric: str, graph: str, other: str) -> Ratio | None:
        """Return the ratio of one graph's latency to another's; None where one of them was not in the turns."""
        if metric not in self.again or not {graph, other} <= set(self.samples):
            return None
        key = metric, graph, other
        if key not in self._ratios:  # thousands of candidates share a few graphs
            own, others = self.samples[graph][metric], self.samples[other][metric]
            both = min(len(own), len(others))
            self._ratios[key] = paired_ratio(own[:both], others[:both], stretch=self.stretch)
        return self._ratios[key]

    def noise_floor(self, metric: str) -> float:
        """Return, as a share, by how much a graph may seem to differ from itself; 0 for a metric that was not timed.

        It is the far end of the interval of the ratio between the anchor's two places.
        """
        return self._floors.get(metric, 0.0)

    @cached_property
    def _ratios(self) -> dict[tuple[str, str, str], Ratio]:
        return {}

    @cached_property
    def _floors(self) -> dict[str, float]:
        floors = {}
        for metric, again in self.again.items():
            ratio = paired_ratio(again, self.samples[self.anchor][metric], stretch=self.stretch)
            floors[metric] = max(ratio.high, 1 / ratio.low) - 1
        return floors

    def plain(self) -> dict[str, Any]:
        """Return the turns as plain data, for JSON."""
        return {"anchor": self.anchor, "samples": self.samples, "again": self.again, "stretch": self.stretch}


Round = Sequence[Mapping[str, Any] | None]
"""The measurement of each graph's process in one round of turns; None for a graph that has left."""


def at_place(rounds: Sequence[Round], place: int) -> list[Mapping[str, Any]]:
    """Return the measurements of the graph at `place`, one for each round in which it took part."""
    return [found for results in rounds if (found := results[place]) is not None]


def turns_of(graphs: Sequence[str], rounds: Sequence[Round], batch: int, suffix: str = "", wider: float = 1.0) -> Turns:
    """Return turns from their raw samples [round][graph], where the last graph is the first one again.

    `suffix`: of the workload, for example `@long`; empty for the sweep's first. `wider`: the stretch of the intervals.
    """
    columns: list[dict[str, list[float]]] = [{} for _ in graphs]
    for results in rounds:
        present = [place for place, result in enumerate(results) if result is not None]
        levels = in_turns([result for result in results if result is not None], batch)
        for place, level in zip(present, levels, strict=True):
            for metric, value in level.items():
                columns[place].setdefault(metric + suffix, []).append(value)
    return Turns(graphs[0], dict(zip(graphs[:-1], columns[:-1], strict=True)), columns[-1], wider)


def turns_from(plain: Any) -> Turns | None:
    """Return turns from the data of `Turns.plain`; None where the data are damaged."""
    try:
        turns = Turns(
            str(plain["anchor"]),
            {str(graph): _series(columns) for graph, columns in plain["samples"].items()},
            _series(plain["again"]),
            float(plain.get("stretch", 1.0)),
        )
        rounds = turns.rounds
        lengths = [{len(series) for series in columns.values()} for columns in (turns.again, *turns.samples.values())]
        sound = all(len(found) == 1 and 2 <= min(found) <= rounds for found in lengths) and 1 <= turns.stretch < 100
        whole = sound and turns.anchor in turns.samples and {rounds} == lengths[0] == _lengths(turns, turns.anchor)
        same = all(set(columns) == set(turns.again) for columns in turns.samples.values())
        return turns if whole and same else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, StopIteration):
        return None


def _lengths(turns: Turns, graph: str) -> set[int]:
    return {len(series) for series in turns.samples[graph].values()}


def _series(columns: Any) -> dict[str, list[float]]:
    """Return the numbers of each metric, one a round. Raises ValueError for a number that is no latency."""
    series = {str(metric): [float(x) for x in column] for metric, column in columns.items()}
    if not all(1e-9 < x < 1e12 for column in series.values() for x in column):
        raise ValueError("no latency")
    return series
