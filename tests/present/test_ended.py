"""The last line of a run tells the tuner's own cost from waits for other sweeps."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from fakes import make_sweep

from autotune.execution.host_lock import Interval
from autotune.present.ended import ended_line
from autotune.results.record import Record
from autotune.scheduler.timeline import Timeline


def span(began: float, ended: float) -> Interval:
    return Interval("score", began, ended, alone=False)


def test_waits_are_told_where_there_were_any() -> None:
    line = ended_line("hours", 2, 1140.0, 57.0, 0.0)
    assert line == "2 trials in 19 min (budget.hours is reached); the tuner's own cost: 57.0 s, 5.0% of the wall-clock"
    assert ended_line("space", 1, 100.0, 1.0, 61.0).endswith(
        "1.0% of the wall-clock; waited 61 s for other sweeps on this machine"
    )


def test_what_was_waited_while_another_stage_ran_costs_nothing(tmp_path: Path) -> None:
    stages = deque([span(0, 10), span(8, 20), span(50, 60)])
    with Record(tmp_path, make_sweep()) as record:
        timeline = Timeline(record, stages, deque([span(15, 30), span(25, 40), span(55, 58)]))
        assert timeline.busy_s == 30
        assert timeline.waited_s == 20
