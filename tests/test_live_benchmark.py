"""Live sweeps compared: fronts over time from the rows, and the hypervolume of what they truly are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran, TinySweep

from autotune.metrics import Direction
from autotune.results.rows import CommandRun, Trial
from autotune.results.table import read_table
from autotune.sweepfile.resolve import load_sweep
from benchmarks.search import live_rival
from benchmarks.search.live import SWEEP, Moment, moments, overtaken, reached, report, turns, volumes

AIMS: dict[str, Direction] = {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}


def row(candidate: str, ended: str, accuracy: float | None, ms: float = 10.0, **more: Any) -> Trial:
    cells: dict[str, Any] = {
        "candidate": candidate, "trial": 1, "kind": "pair", "status": "ok" if accuracy is not None else "stopped",
        "ended": f"2026-01-01T00:{ended}Z", "accuracy": accuracy, "itl_ms_p50": ms, "size_mb": 100.0, "graph": f"g{ms:g}",
    }  # fmt: skip
    return Trial(cells | more)


ROWS = [
    row("base", "01:00", 0.3, trial=0, kind="base", graph="untouched", size_mb=200.0),
    row("a", "02:00", 0.5),
    row("half", "03:00", None),
    row("fast", "04:00", 0.4, ms=5.0),
    row("lucky", "05:00", 0.9),
]


def runs(*started: str, wall_s: float = 0.0) -> list[CommandRun]:
    return [CommandRun({"started": f"2026-01-01T00:{one}Z", "wall_s": wall_s}) for one in started]


def test_pairs_take_turns_in_being_first(tmp_path: Path) -> None:
    order = [(turn.strategy, turn.pair) for turn in turns(tmp_path, ["x", "y"], 3)]
    assert order == [("x", 0), ("y", 0), ("y", 1), ("x", 1), ("x", 2), ("y", 2)]


def test_a_rival_runs_in_the_place_of_the_strategy(tmp_path: Path) -> None:
    tool, rival = turns(tmp_path, ["tpe", "two-stages"], 1)
    assert (tool.command[1:], tool.settings) == (["-m", "autotune"], ("strategy=tpe", "seed=0"))
    assert rival.command[1:] == ["-m", "benchmarks.search.live_rival", "two-stages"]
    assert rival.settings == ("seed=0",)  # the file's strategy stands in the record


def test_two_stages_search_a_real_sweep(
    keeps_workers: None,
    tiny_sweep: TinySweep,
    autotune: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Three adapters at int4, then the best of them in the other recipes."""
    monkeypatch.setattr("conftest.main", lambda arguments: live_rival.main(["two-stages", *arguments]))
    changes = ("strategy=random", "space.lora.steps=5", "space.lora.r={choice: [2, 4, 8, 16]}", "budget.trials=5")
    changed = [word for change in changes for word in ("--set", change)]
    done = autotune("run", tiny_sweep.file, "--out", tmp_path / "out", *changed)
    assert done.code == 0, done.err
    rows = [row for row in read_table(tmp_path / "out" / "results.csv", Trial) if row.trial]
    assert [row["build_precision"] for row in rows] == ["int4", "int4", "int4", "fp32", "int8"]
    adapters = [row.adapter for row in rows]
    best = max(rows[:3], key=lambda row: row.number("accuracy") or 0.0)
    assert len(set(adapters[:3])) == 3
    assert adapters[3:] == [best.adapter] * 2


def test_a_front_is_followed_from_row_to_row() -> None:
    followed = list(moments(ROWS, runs("00:30"), AIMS))
    assert [moment.seconds for moment in followed] == [30.0, 90.0, 150.0, 210.0, 270.0]
    names = [[str(one["candidate"]) for one in moment.rows] for moment in followed]
    assert names == [["base"], ["a"], ["a"], ["a", "fast"], ["fast", "lucky"]]
    assert all(moment.untouched == [ROWS[0]] for moment in followed)


def test_a_pause_between_two_runs_is_no_time_of_the_search() -> None:
    """It stopped at 3:10, after 160 seconds, and went on at 3:30."""
    followed = list(moments(ROWS, runs("00:30", "03:30", wall_s=160.0), AIMS))
    assert [moment.seconds for moment in followed] == [30.0, 90.0, 150.0, 190.0, 250.0]


def test_volumes_are_of_what_the_candidates_truly_are(tmp_path: Path) -> None:
    """Who was lucky on validation is worse on test than whom it replaced, and the curve falls."""
    turn, other = turns(tmp_path, ["x", "y"], 1)
    followed = {turn: list(moments(ROWS, runs("00:00"), AIMS)), other: [Moment(60.0, [ROWS[0]], [ROWS[0]])]}
    scores = {turn: {"base": 0.3, "a": 0.5, "fast": 0.4, "lucky": 0.45}, other: {"base": 0.3}}
    curves = volumes(followed, scores, "accuracy", AIMS)
    # The reference is 0.3, 11 ms and 200 MB; the 100 MB that they are below it are in all of them.
    whole = (0.5 - 0.3) * 1 + (0.4 - 0.3) * 5
    ends = (0.45 - 0.3) * 1 + (0.4 - 0.3) * 5
    assert [volume for _, volume in curves[turn]] == pytest.approx([0, 0.2 / whole, 0.2 / whole, 1.0, ends / whole])
    assert curves[other] == [(60.0, 0.0)]
    assert reached(curves[turn], 0.9) == 240.0
    assert reached(curves[turn], 0.95) is None  # it was reached, and lost again
    assert "| 0 | x | 0.929 | 4.0 | 4.0 | 4.0 | - |" in report(curves)


def test_it_says_when_the_first_strategy_had_what_the_others_end_with(tmp_path: Path) -> None:
    x, y, behind, ahead = turns(tmp_path, ["x", "y"], 2)
    curves = {
        x: [(60.0, 0.5), (90.0, 0.2), (120.0, 0.7)],
        y: [(300.0, 0.4)],
        ahead: [(60.0, 0.5)],
        behind: [(90.0, 0.6)],
    }
    curves[y].append((600.0, 0.4))  # nothing more came of it
    assert list(overtaken(curves))[-2:] == ["| 0 | y | 0.400 | 5.0 | 2.0 | 2.5 |", "| 1 | y | 0.600 | 1.5 | - | - |"]
    assert "had in the end" in report(curves)
    assert "had in the end" not in report({x: curves[x]})


def test_where_nothing_is_better_than_the_untouched_model_there_is_nothing_to_compare(tmp_path: Path) -> None:
    (turn,) = turns(tmp_path, ["x"], 1)
    with pytest.raises(SystemExit, match="nothing to compare"):
        volumes({turn: [Moment(1.0, [ROWS[0]], [ROWS[0]])]}, {turn: {"base": 0.3}}, "accuracy", AIMS)


def test_what_is_scored_on_test_is_of_the_sweep_that_ran(tmp_path: Path) -> None:
    """Its seed is the models': with another one they would be trained anew."""
    for turn in turns(tmp_path, ["frontier", "tpe"], 2):
        sweep = load_sweep(str(SWEEP), turn.settings)
        assert (sweep.strategy, sweep.seed) == (turn.strategy, turn.pair)
