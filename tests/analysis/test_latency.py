from __future__ import annotations

import json
from typing import Any

import pytest

from autotune.analysis.latency import TokenTiming, latency_cells, turns_from, turns_of
from autotune.analysis.statistics import paired_ratio, t_interval
from autotune.analysis.stopping import stretch
from autotune.metrics import ENOUGH_FOR_P90, METRICS
from autotune.results.columns import CONDITIONS, LATENCY, SPREAD
from autotune.stages.protocol import Result


def process(itl: list[float], ttft: list[float] | None = None, **others: float) -> dict[str, Any]:
    return {"itl_ms": itl, "ttft_ms": ttft or [30.0], "load_s": 1.0, "peak_memory_mb": 500.0} | others


def test_a_median_is_the_mean_of_the_processes_medians() -> None:
    """Not the median of all tokens: those of one process are not independent, and one may have many more."""
    cells = latency_cells([process([10.0] * 1000), process([12.0] * 10), process([14.0, 14.0, 99.0])], 1)
    assert cells["itl_ms_p50"] == 12.0
    interval = t_interval([10.0, 12.0, 14.0])
    assert (cells["itl_ms_p50_low"], cells["itl_ms_p50_high"]) == (interval.low, interval.high)


def test_processes_timed_beside_other_work_do_not_count_where_enough_others_do() -> None:
    quiet = [process([ms], conditions={"foreign_cpu": 0.05}) for ms in (10.0, 10.2, 9.8)]  # type: ignore[arg-type]
    loud = [process([30.0], conditions={"foreign_cpu": 1.3})] * 2  # type: ignore[arg-type]
    cells = latency_cells([quiet[0], *loud, *quiet[1:]], 1, least=3, most=12)
    assert (cells["itl_ms_p50"], cells["foreign_cpu"]) == (pytest.approx(10.0), pytest.approx(0.05))
    assert cells["itl_ms_p50_high"] == pytest.approx(t_interval([10.0, 10.2, 9.8], stretch=stretch(3, 12)).high)
    assert not TokenTiming.of(cells).disturbed
    few = latency_cells([*quiet, *loud], 1, least=4, most=12)  # too few are left: all count
    assert (few["itl_ms_p50"], TokenTiming.of(few).disturbed) == (18.0, True)


def test_one_process_has_no_interval() -> None:
    cells = latency_cells([process([10.0] * 10)], 1)
    assert cells["itl_ms_p50"] == 10.0
    assert "itl_ms_p50_low" not in cells


def test_every_number_of_a_timing_has_its_interval() -> None:
    """So that every latency, memory and time to load can be compared; medians and percentiles keep their own middle."""
    each = [process([10.0 + k] * 64, [30.0 + k * k] * 64, load_s=1.0 + k, gpu_memory_mb=50.0) for k in (0, 1, 5)]
    cells = latency_cells(each, 2)
    assert cells["processes"] == 3
    for name in (*(name for name, metric in METRICS.items() if metric.kind == "latency"), "load_s", "peak_memory_mb"):
        low, value, high = (cells[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert low is not None
        assert value is not None
        assert high is not None
        assert low == 0 or high - value == pytest.approx(value - low)
        assert low <= value <= high
    interval = t_interval([1.0, 2.0, 6.0])
    assert cells["load_s_high"] == pytest.approx(2.0 + (interval.high - interval.low) / 2)
    assert (cells["gpu_memory_mb_low"], cells["gpu_memory_mb_high"]) == (50.0, 50.0)
    assert not [name for name in latency_cells(each[:1], 2) if name.endswith(("_low", "_high"))]


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
    assert set(cells) < {column.name for column in (*LATENCY, *SPREAD)}
    assert {n for n, m in METRICS.items() if m.kind == "latency"} <= set(cells)


def test_what_the_machine_did_meanwhile_is_a_mean_over_processes() -> None:
    loads = [process([10.0]) | {"conditions": {"load_avg": load, "cpu_mhz": None}} for load in (1.0, 2.0)]
    cells = latency_cells([*loads, process([10.0])], 1)
    assert cells["load_avg"] == 1.5
    assert "cpu_mhz" not in cells
    assert "load_avg" in {column.name for column in CONDITIONS}


# --- In turns --------------------------------------------------------------------------------------------------------


def rounds(*places: list[float]) -> list[list[dict[str, Any]]]:
    """Return raw samples [round][place] with these medians [place][round]."""
    return [[process([ms] * 3, [3 * ms]) for ms in each] for each in zip(*places, strict=True)]


def test_turns_relate_what_drifts_alike() -> None:
    drift = [10.0, 11.0, 14.0, 9.0, 20.0]
    turns = turns_of(["a", "b", "a"], rounds(drift, [1.1 * ms for ms in drift], [1.001 * ms for ms in drift]), 2)
    ratio = turns.ratio("itl_ms_p50", "b", "a")
    assert ratio is not None
    assert ratio[:3] == pytest.approx((1.1, 1.1, 1.1))
    assert ratio.p < 1e-6
    assert turns.rounds == 5
    assert turns.noise_floor("itl_ms_p50") == pytest.approx(0.001, rel=1e-3)
    speeds = turns.ratio("decode_tps", "b", "a")
    assert speeds is not None
    assert speeds.value == pytest.approx(1 / 1.1)
    assert turns.ratio("itl_ms_p50", "b", "c") is None
    assert turns.ratio("size_mb", "b", "a") is None
    assert turns.noise_floor("size_mb") == 0.0


def lapped(laps: list[list[float]]) -> Result:
    """What a process that took turns measured between tokens."""
    each = [part for lap in laps for part in ({"ttft_ms": [5 * lap[0]]}, {"itl_ms": lap})]
    return process([ms for lap in laps for ms in lap], [5 * lap[0] for lap in laps]) | {"laps": each}


def test_laps_that_were_disturbed_do_not_change_a_ratio() -> None:
    """Another job slows half of the laps down threefold; within two of them it begins or ends between two turns."""
    slow = [1, 3, 3, 1, 1, 3, 3, 1]
    a = lapped([[10.0 * pace] * 3 for pace in slow])
    b = lapped([[11.0 * pace] * 3 for pace in (3, 3, 3, 1, 1, 3, 1, 1)])
    turns = turns_of(["a", "b", "a"], [[a, b, a], [a, b, a]], 1)
    ratio = turns.ratio("itl_ms_p50", "b", "a")
    assert ratio is not None
    assert ratio.value == pytest.approx(1.1)
    first = turns.ratio("ttft_ms_p50", "b", "a")
    assert first is not None
    assert first.value == pytest.approx(1.1)
    assert turns.noise_floor("itl_ms_p50") == pytest.approx(0.0, abs=1e-9)
    assert 10.0 <= turns.samples["a"]["itl_ms_p50"][0] <= 30.0


def test_the_noise_floor_is_the_far_end_of_the_interval() -> None:
    first, again = [10.0, 10.2, 9.8, 10.1, 9.9], [10.1, 9.7, 10.0, 10.4, 9.8]
    turns = turns_of(["a", "a"], rounds(first, again), 1)
    ratio = paired_ratio(again, first)
    assert ratio.low < 1 < ratio.high
    assert turns.noise_floor("itl_ms_p50") == max(ratio.high, 1 / ratio.low) - 1 > 0.01


def test_one_that_left_is_compared_in_the_rounds_that_it_took() -> None:
    whole = rounds([10.0, 11.0, 12.0, 13.0], [20.0, 22.4, 23.8, 1.0], [10.1, 11.1, 12.0, 13.0])
    left = [[a, b if number < 3 else None, again] for number, (a, b, again) in enumerate(whole)]
    turns = turns_of(["a", "b", "a"], left, 1, wider=1.1)
    ratio = turns.ratio("itl_ms_p50", "b", "a")
    assert ratio == paired_ratio([20.0, 22.4, 23.8], [10.0, 11.0, 12.0], stretch=1.1)
    assert turns.rounds == 4
    assert turns_from(json.loads(json.dumps(turns.plain()))) == turns
    spoilt = turns.plain() | {"samples": {"a": {"itl_ms_p50": [1.0, 1.0]}}}
    assert turns_from(spoilt) is None  # who the others are compared with never leaves


def test_turns_of_earlier_versions_are_read_as_they_were_judged() -> None:
    turns = turns_of(["a", "b", "a"], rounds([10.0, 11.0], [12.0, 13.0], [10.1, 11.2]), 1)
    plain = turns.plain()
    del plain["stretch"]
    assert turns_from(plain) == turns


def test_turns_come_back_from_plain_data_and_from_nothing_else() -> None:
    turns = turns_of(["a", "b", "a"], rounds([10.0, 11.0], [12.0, 13.0], [10.1, 11.2]), 1)
    plain = json.loads(json.dumps(turns.plain()))
    assert turns_from(plain) == turns
    odd = {"itl_ms_p50": [0.0, 1.0]}
    for spoilt in (
        None, [], {}, {"anchor": "a"}, plain | {"anchor": "c"}, plain | {"again": {}}, plain | {"again": odd}, plain | {"samples": {"a": odd}},
        plain | {"samples": {"a": {"itl_ms_p50": [1.0]}}}, plain | {"again": {"itl_ms_p50": ["x", "y"]}}, plain | {"samples": [1]},
    ):  # fmt: skip
        assert turns_from(spoilt) is None, spoilt
