"""From the raw samples of timings to the numbers of a row, and to the ratios of what was timed in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autotune.search.statistics import Ratio, column_levels, paired_ratio, t_interval
from autotune.stages.jobs import Result, laps_of
from autotune.store.results import CONDITIONS

ENOUGH_FOR_P90 = 64
Processes = Sequence[Mapping[str, Any]]
"""What each process of a timing measured, in order."""


def latency_cells(processes: Processes, batch: int) -> dict[str, float | int | None]:
    """Return the latency columns of results.csv (times in milliseconds, memory in 10^6 bytes).

    A median is the mean over processes of each one's median, with Student's interval over processes, because tokens of
    one process are not independent. A 90th percentile is of all samples together, and None below 64 of them.
    """
    each = [medians(process, batch) for process in processes]
    itl = [process["itl_ms_p50"] for process in each]
    gpu = [p["gpu_memory_mb"] for p in processes if p.get("gpu_memory_mb") is not None]
    threads = [p["threads"] for p in processes if p.get("threads") is not None]
    cells: dict[str, float | int | None] = {
        "ttft_ms_p50": float(np.mean([process["ttft_ms_p50"] for process in each])),
        "ttft_ms_p90": _p90([x for p in processes for x in p["ttft_ms"]]),
        "itl_ms_p50": float(np.mean(itl)),
        "itl_ms_p90": _p90([x for p in processes for x in p["itl_ms"]]),
        "decode_tps": batch * 1000 / float(np.mean([np.mean(p["itl_ms"]) for p in processes])),
        "peak_memory_mb": float(np.median([p["peak_memory_mb"] for p in processes])),
        "load_s": float(np.median([p["load_s"] for p in processes])),
    }
    if gpu:
        cells["gpu_memory_mb"] = float(np.median(gpu))
    if threads:
        cells["threads"] = max(threads)
    if len(itl) > 1:
        interval = t_interval(itl)
        cells |= {"itl_ms_p50_low": max(0.0, interval.low), "itl_ms_p50_high": interval.high}
    for name in (column.name for column in CONDITIONS):
        known = [p["conditions"][name] for p in processes if p.get("conditions", {}).get(name) is not None]
        if known:
            cells[name] = float(np.mean(known))
    return cells


def medians(process: Mapping[str, Any], batch: int) -> dict[str, float]:
    """Return what one process, or one lap of it, says of each latency metric."""
    return {
        "ttft_ms_p50": float(np.median(process["ttft_ms"])),
        "ttft_ms_p90": float(np.percentile(process["ttft_ms"], 90)),
        "itl_ms_p50": float(np.median(process["itl_ms"])),
        "itl_ms_p90": float(np.percentile(process["itl_ms"], 90)),
        "decode_tps": batch * 1000 / float(np.mean(process["itl_ms"])),
    }


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


def turns_of(graphs: Sequence[str], rounds: Sequence[Sequence[Result]], batch: int, suffix: str = "") -> Turns:
    """Return turns from their raw samples [round][graph], where the last graph is the first once more.

    `suffix`: of the workload in which they were timed, `@long`; empty for the sweep's first.
    """
    columns: list[dict[str, list[float]]] = [{} for _ in graphs]
    for processes in rounds:
        laps = [[medians(lap, batch) for lap in laps_of(process)] for process in processes]
        for metric in laps[0][0]:
            levels = column_levels([[place[metric] for place in lap] for lap in zip(*laps, strict=True)])
            for column, level in zip(columns, levels, strict=True):
                column.setdefault(metric + suffix, []).append(float(level))
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
