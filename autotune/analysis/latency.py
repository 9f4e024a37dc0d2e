"""From the raw samples of timings to the numbers of a row, and to the ratios of what was timed in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autotune.analysis.statistics import Ratio, column_levels, paired_ratio, t_interval
from autotune.metrics import ENOUGH_FOR_P90

Processes = Sequence[Mapping[str, Any]]
"""What each process of a timing measured, in order."""


def latency_cells(processes: Processes, batch: int) -> dict[str, float | int | None]:
    """Return the latency columns of results.csv (times in milliseconds, memory in 10^6 bytes).

    A median is the mean over processes of each one's median, because tokens of one process are not independent. A 90th
    percentile is of all samples together, and None below 64 of them. Each number of two processes or more has an
    interval: Student's over what the single processes say, as wide, around the number.
    """
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
    if gpu:
        cells["gpu_memory_mb"] = float(np.median(gpu))
    if threads:
        cells["threads"] = max(threads)
    cells["processes"] = len(processes)
    singly: dict[str, list[float]] = {name: [process[name] for process in each] for name in each[0]}
    singly |= {name: [p[name] for p in processes] for name in ("peak_memory_mb", "load_s")}
    singly["gpu_memory_mb"] = gpu
    for name, values in singly.items():
        value = cells.get(name)
        if value is not None and len(values) > 1:
            interval, away = t_interval(values), value - float(np.mean(values))
            cells |= {f"{name}_low": max(0.0, interval.low + away), f"{name}_high": interval.high + away}
    for name in dict.fromkeys(name for p in processes for name in p.get("conditions", {})):
        known = [p["conditions"][name] for p in processes if p.get("conditions", {}).get(name) is not None]
        if known:
            cells[name] = float(np.mean(known))
    return cells


def laps_of(result: Mapping[str, Any], samples: str) -> list[list[float]]:
    """Return the samples (`ttft_ms`, `itl_ms`) of each turn of a process that has some; all of them where it took none."""
    laps: list[Mapping[str, Any]] = result.get("laps") or [result]
    return [lap[samples] for lap in laps if samples in lap]


def medians(process: Mapping[str, Any], batch: int) -> dict[str, float]:
    """Return what one process says of each latency metric."""
    return {
        "ttft_ms_p50": float(np.median(process["ttft_ms"])),
        "ttft_ms_p90": float(np.percentile(process["ttft_ms"], 90)),
        "itl_ms_p50": float(np.median(process["itl_ms"])),
        "itl_ms_p90": float(np.percentile(process["itl_ms"], 90)),
        "decode_tps": batch * 1000 / float(np.mean(process["itl_ms"])),
    }


def in_turns(processes: Processes, batch: int) -> list[dict[str, float]]:
    """Return what processes that took turns say of each latency metric: of medians and means, lap by lap.

    A 90th percentile is that of each process, because a lap is too short to have one.
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
    """What finalists were timed at in turns.

    `samples`: of each graph and latency metric one number a round. `anchor` is the graph that took two places in every
    round: `again` is what it was timed at in the second.
    """

    anchor: str
    samples: Mapping[str, Mapping[str, Sequence[float]]]
    again: Mapping[str, Sequence[float]]

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(next(iter(self.again.values())))

    def ratio(self, metric: str, graph: str, other: str) -> Ratio | None:
        """Return what one graph is timed at in relation to another; None where one of them was not in the turns."""
        if metric not in self.again or not {graph, other} <= set(self.samples):
            return None
        return paired_ratio(self.samples[graph][metric], self.samples[other][metric])

    def noise_floor(self, metric: str) -> float:
        """Return, as a share, by how much a graph may seem to differ from itself: the far end of the interval of its
        second place over its first; 0 for what was not timed.
        """
        return self._floors.get(metric, 0.0)

    @cached_property
    def _floors(self) -> dict[str, float]:
        floors = {}
        for metric, again in self.again.items():
            ratio = paired_ratio(again, self.samples[self.anchor][metric])
            floors[metric] = max(ratio.high, 1 / ratio.low) - 1
        return floors

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"anchor": self.anchor, "samples": self.samples, "again": self.again}


def turns_of(graphs: Sequence[str], rounds: Sequence[Processes], batch: int, suffix: str = "") -> Turns:
    """Return turns from their raw samples [round][graph], where the last graph is the first once more.

    `suffix`: of the workload in which they were timed, `@long`; empty for the sweep's first.
    """
    places = list(zip(*(in_turns(processes, batch) for processes in rounds), strict=True))
    columns = [{metric + suffix: [found[metric] for found in place] for metric in place[0]} for place in places]
    return Turns(graphs[0], dict(zip(graphs[:-1], columns[:-1], strict=True)), columns[-1])


def turns_from(plain: Any) -> Turns | None:
    """Return turns as `plain` gave them; None where the data are no such thing."""
    try:
        turns = Turns(
            str(plain["anchor"]),
            {str(graph): _series(columns) for graph, columns in plain["samples"].items()},
            _series(plain["again"]),
        )
        lengths = {len(series) for columns in (turns.again, *turns.samples.values()) for series in columns.values()}
        whole = turns.anchor in turns.samples and len(lengths) == 1 and lengths.pop() >= 2
        same = all(set(columns) == set(turns.again) for columns in turns.samples.values())
        return turns if whole and same else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _series(columns: Any) -> dict[str, list[float]]:
    """Return one number a round of each metric. Raises ValueError for what no timing measures."""
    series = {str(metric): [float(x) for x in column] for metric, column in columns.items()}
    if not all(1e-9 < x < 1e12 for column in series.values() for x in column):
        raise ValueError("no latency")
    return series
