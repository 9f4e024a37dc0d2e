"""From the raw samples of a timing's processes to the numbers of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autotune.search.statistics import t_interval

ENOUGH_FOR_P90 = 64


def latency_cells(processes: Sequence[dict[str, Any]], batch: int) -> dict[str, float | int | None]:
    """Return the latency columns of results.csv (times in milliseconds, memory in 10^6 bytes).

    A median is the mean over processes of each one's median, with Student's interval over processes, because tokens of
    one process are not independent. A 90th percentile is of all samples together, and None below 64 of them.
    """
    itl = [float(np.median(p["itl_ms"])) for p in processes]
    gpu = [p["gpu_memory_mb"] for p in processes if p.get("gpu_memory_mb") is not None]
    threads = [p["threads"] for p in processes if p.get("threads") is not None]
    cells: dict[str, float | int | None] = {
        "ttft_ms_p50": float(np.mean([np.median(p["ttft_ms"]) for p in processes])),
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
    return cells


def _p90(samples: list[float]) -> float | None:
    return float(np.percentile(samples, 90)) if len(samples) >= ENOUGH_FOR_P90 else None
