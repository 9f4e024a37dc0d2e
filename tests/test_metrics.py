"""Metrics by name: those of the workloads of a sweep are known too."""

from __future__ import annotations

import pytest

from autotune.metrics import METRICS, PER_WORKLOAD, beside


@pytest.mark.parametrize("name", sorted(PER_WORKLOAD))
def test_a_metric_of_a_workload_is_that_metric(name: str) -> None:
    found, plain = METRICS[f"{name}@batch-8_x"], METRICS[name]
    assert (found.direction, found.kind) == (plain.direction, plain.kind)
    assert found.name == f"{name}@batch-8_x"
    assert found.meaning.endswith("in the workload batch-8_x")
    assert found.name in METRICS


@pytest.mark.parametrize(
    "name",
    ["accuracy@long", "size_mb@long", "load_s@long", "itl_ms_p50@", "itl_ms_p50@Long", "itl_ms_p50@a@b", "@long", "itl@x",
     "itl_ms_p50@" + "a" * 33, "", "itl_ms_p50_low@long"],
)  # fmt: skip
def test_nothing_else_is_a_metric(name: str) -> None:
    assert name not in METRICS
    with pytest.raises(KeyError):
        METRICS[name]


def test_going_over_the_metrics_gives_the_plain_ones() -> None:
    assert all("@" not in name for name in METRICS)
    assert 3 not in METRICS


def test_an_interval_stands_beside_its_metric() -> None:
    assert beside("itl_ms_p50", "low") == "itl_ms_p50_low"
    assert beside("itl_ms_p50@long", "high") == "itl_ms_p50_high@long"
