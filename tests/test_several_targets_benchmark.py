"""The benchmark of several targets: what it compares, on the made-up table."""

from __future__ import annotations

import pytest

from benchmarks.search.choices import table_of
from benchmarks.search.several import MINUTES, NAMES, WAYS, Targets, page
from benchmarks.search.table import drawn


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_searching_reaches_both_fronts(way: str) -> None:
    shares, training = WAYS[way](drawn(table_of("synthetic"), 0), 0)
    assert len(shares) == len(MINUTES)
    assert all(0 <= share < 1.2 for share in shares)
    assert shares[-1] > 0.8
    assert training > 0


def test_the_two_targets_have_different_fronts_and_one_cache() -> None:
    targets = Targets(drawn(table_of("synthetic"), 0), 0)
    first, second = (targets.tables[name] for name in NAMES)
    assert list(first.latency_ms.argsort()) == list(second.latency_ms.argsort()[::-1])
    worlds = list(targets.worlds.values())
    assert worlds[0]._reached is worlds[1]._reached
    assert worlds[0]._built is worlds[1]._built


def test_the_page_has_a_line_for_each_table_and_way() -> None:
    text = page(["synthetic"], [0])
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| synthetic")] == list(WAYS)
