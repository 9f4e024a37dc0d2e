from __future__ import annotations

import time
from pathlib import Path

import pytest

from autotune.analysis.latency import TokenTiming
from autotune.pipeline.timing_validity import RESOLUTION_MS, TOLERANCE, TRUST_S, Pace, agree


def timing(itl: float, half: float | None = None) -> TokenTiming:
    return TokenTiming(itl) if half is None else TokenTiming(itl, itl - half, itl + half)


@pytest.mark.parametrize(
    ("before", "again", "same"),
    [
        (timing(10.0), timing(10.0 * (1 + TOLERANCE)), True),
        (timing(10.0), timing(10.7), False),
        (timing(10.7), timing(10.0), False),
        (timing(10.0, 0.4), timing(10.7, 0.4), True),  # their intervals meet
        (timing(10.0, 0.3), timing(10.7, 0.3), False),
        (timing(10.0, 1.0), timing(10.7), False),
        (timing(0.3), timing(0.29 + RESOLUTION_MS), True),  # so fast that nobody minds
    ],
)
def test_two_timings_agree(before: TokenTiming, again: TokenTiming, same: bool) -> None:
    assert agree(before, again) is same


def test_what_is_known_of_a_machine_is_kept(tmp_path: Path) -> None:
    first = Pace(tmp_path, "a" * 64)
    assert (first.trusted, first.since, first.name) == (False, None, "aaaaaaaa")
    first.begin()
    assert first.trusted
    assert Pace(tmp_path, "a" * 64).trusted
    assert not Pace(tmp_path, "b" * 64).trusted
    first.renew()
    again = Pace(tmp_path, "a" * 64)
    assert again.trusted
    assert again.since is not None
    assert again.name == first.name == f"aaaaaaaa since {again.since}"


def test_an_agreement_holds_for_minutes_and_a_first_timing_is_no_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace, began = Pace(tmp_path, "a" * 64), time.time()
    monkeypatch.setattr(time, "time", lambda: began)
    pace.begin()
    monkeypatch.setattr(time, "time", lambda: began + TRUST_S - 5)
    assert pace.trusted
    monkeypatch.setattr(time, "time", lambda: began + TRUST_S + 5)
    assert not pace.trusted
    pace.begin()
    assert not pace.trusted
    pace.confirm()
    assert pace.trusted
    monkeypatch.setattr(time, "time", lambda: began - 86_400)  # the clock was turned back
    assert not pace.trusted


@pytest.mark.parametrize("content", ["", "{", "[]", '{"since": 1}', '{"since": null, "agreed": "x"}'])
def test_a_damaged_file_is_no_agreement(content: str, tmp_path: Path) -> None:
    (tmp_path / "pace").mkdir()
    (tmp_path / "pace" / f"{'a' * 16}.json").write_text(content, encoding="utf-8")
    assert not Pace(tmp_path, "a" * 64).trusted
