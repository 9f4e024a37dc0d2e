from __future__ import annotations

from typing import Any

import pytest

from autotune.metrics import METRICS
from autotune.search.latency import ENOUGH_FOR_P90, latency_cells
from autotune.search.statistics import t_interval
from autotune.store.results import LATENCY


def process(itl: list[float], ttft: list[float] | None = None, **others: float) -> dict[str, Any]:
    return {"itl_ms": itl, "ttft_ms": ttft or [30.0], "load_s": 1.0, "peak_memory_mb": 500.0} | others


def test_a_median_is_the_mean_of_the_processes_medians() -> None:
    """Not the median of all tokens: those of one process are not independent, and one may have many more."""
    cells = latency_cells([process([10.0] * 1000), process([12.0] * 10), process([14.0, 14.0, 99.0])], 1)
    assert cells["itl_ms_p50"] == 12.0
    interval = t_interval([10.0, 12.0, 14.0])
    assert (cells["itl_ms_p50_low"], cells["itl_ms_p50_high"]) == (interval.low, interval.high)


def test_one_process_has_no_interval() -> None:
    cells = latency_cells([process([10.0] * 10)], 1)
    assert cells["itl_ms_p50"] == 10.0
    assert "itl_ms_p50_low" not in cells


def test_an_interval_does_not_go_below_zero() -> None:
    cells = latency_cells([process([1.0]), process([50.0])], 1)
    assert cells["itl_ms_p50_low"] == 0.0


def test_a_percentile_needs_its_samples() -> None:
    few = latency_cells([process([10.0] * (ENOUGH_FOR_P90 - 1))], 1)
    assert few["itl_ms_p90"] is None
    enough = latency_cells([process([float(n) for n in range(ENOUGH_FOR_P90 // 2)])] * 2, 1)
    assert enough["itl_ms_p90"] == pytest.approx(27.9, abs=1.0)
    assert enough["ttft_ms_p90"] is None
    assert enough["ttft_ms_p50"] == 30.0


def test_throughput_counts_the_whole_batch() -> None:
    one, four = (latency_cells([process([10.0, 30.0])], batch) for batch in (1, 4))
    assert one["decode_tps"] == 50.0
    assert four["decode_tps"] == 200.0


def test_memory_and_loading_are_medians_over_processes() -> None:
    cells = latency_cells([process([1.0], load_s=s, peak_memory_mb=100 * s) for s in (1.0, 9.0, 2.0)], 1)
    assert (cells["load_s"], cells["peak_memory_mb"]) == (2.0, 200.0)


def test_every_cell_has_its_column() -> None:
    cells = latency_cells([process([1.0] * 64, [2.0] * 64)] * 2, 1)
    assert set(cells) < {column.name for column in LATENCY}
    assert {n for n, m in METRICS.items() if m.kind == "latency"} <= set(cells)
