"""What mattered, how the front grew, and where the time went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.metrics import Direction
from autotune.report.columnar import column_of
from autotune.report.history import MOST_POINTS, curves_of, progress_of, timeline_of
from autotune.report.importance import explained, groups_of, importance
from autotune.results.rows import Trial

OBJECTIVES: dict[str, Direction] = {"accuracy": "maximize", "size_mb": "minimize"}


def row(second: int, accuracy: float | None, size: float, **more: Any) -> Trial:
    """Return a measured row that ended at a second."""
    times = {"started": f"2026-01-01T00:00:{second - 1:02d}Z", "ended": f"2026-01-01T00:00:{second:02d}Z"}
    cells = {"candidate": f"c{second}", "trial": second, "status": "ok", "accuracy": accuracy, "size_mb": size}
    return Trial(cells | times | more)


def test_hypervolume_grows_with_the_front_alone() -> None:
    rows = [row(1, 0.5, 100.0), row(2, 0.4, 120.0), row(4, 0.9, 50.0), row(9, 0.7, 60.0)]
    found = progress_of(rows, OBJECTIVES)
    assert found is not None
    assert found["seconds"] == [0.0, 1.0, 4.0, 9.0]
    assert found["measured"] == [0, 1, 3, 4]
    assert found["volume"] == sorted(found["volume"])
    assert found["volume"][-1] == pytest.approx(1.0)  # the third is the best in both
    # (0.1 + 0.01 * 0.5) / 0.505 of the one, (20 + 0.01 * 70) / 70.7 of the other
    assert found["volume"][1] == pytest.approx((0.105 / 0.505) * (20.7 / 70.7))


def test_hypervolume_needs_two_candidates_that_differ() -> None:
    assert progress_of([row(1, 0.5, 100.0)], OBJECTIVES) is None
    assert progress_of([row(1, 0.5, 100.0), row(2, 0.5, 100.0)], OBJECTIVES) is None
    assert progress_of([row(1, 0.5, 100.0), row(2, None, 90.0)], OBJECTIVES) is None


def test_a_setting_that_decides_explains_all_and_chance_nothing() -> None:
    draw = np.random.default_rng(0)
    rows = []
    for i in range(60):
        rank, seed = (4, 8, 16)[i % 3], float(draw.random())
        rows.append(
            row(1, rank / 20, 10.0, lora_r=rank, lora_dropout=seed, build_precision="int4") | {"candidate": f"c{i}"}
        )
    found = importance(rows, ["accuracy", "size_mb"])
    shares = {one["setting"]: one["share"] for one in found["accuracy"]}
    assert shares == {"lora_r": pytest.approx(1.0), "lora_dropout": pytest.approx(0.0, abs=0.1)}
    assert found["size_mb"] == []  # it does not vary


def test_epsilon_squared_is_on_average_zero_without_an_effect() -> None:
    draw = np.random.default_rng(1)
    raw = []
    for _ in range(400):
        numbers = draw.normal(size=24)
        groups = draw.integers(4, size=24)
        raw.append(explained(groups.tolist(), numbers.tolist()) or 0.0)
    assert 0 < float(np.mean(raw)) < 0.09  # cut at 0; eta squared would be 3 / 23 = 0.13


def test_groups_are_values_or_quarters() -> None:
    assert groups_of([1, 2, 1, None]) == [1, 2, 1, None]
    assert sorted(set(groups_of(list(range(100))))) == [0, 1, 2, 3]
    assert groups_of(["a", "b"] * 10) == ["a", "b"] * 10


def test_columns_keep_what_they_hold() -> None:
    for cells in (
        ["a", None, "b"],
        [1.5, float("nan"), 2.0],
        [True, False, None],
        [3] * 9,
        [1.0, 2.0] * 20,
        [1, 1.0, True, None] * 5,
    ):
        found = column_of(cells)  # type: ignore[arg-type]
        if "constant" in found:
            read = [found["constant"]] * len(cells)
        else:
            read = found["values"] if "values" in found else [found["words"][place] for place in found["of"]]
        assert [None if cell != cell else cell for cell in cells] == read
        assert [type(cell) for cell in cells if cell == cell] == [
            type(cell) for cell in read if cell is not None or None in cells
        ][: len([cell for cell in cells if cell == cell])]


def test_curves_and_timeline_are_read_and_damaged_ones_left_out(tmp_path: Path) -> None:
    lines = [f"a,{step},{2 - step / 200},0.001,,," for step in range(1, 201)]
    lines.append("a,200,,,accuracy,0.8,50")
    head = "adapter,step,train_loss,learning_rate,metric,score,score_n\n"
    (tmp_path / "curves.csv").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "timeline.csv").write_text(
        "stage,began,ended,alone\ntrain,10,40,false\ntime,41,43,true\n", encoding="utf-8"
    )
    found = curves_of(tmp_path, [], "accuracy")
    assert len(found["adapters"]) == 1
    assert len(found["adapters"][0]["loss"]) <= MOST_POINTS + 1
    assert found["adapters"][0]["loss"][-1] == (200.0, 1.0)
    assert found["adapters"][0]["score"] == [(200.0, 0.8)]
    assert timeline_of(tmp_path)["totals"] == {"train": 30.0, "time": 2.0}
    assert timeline_of(tmp_path)["spans"] == [["train", 0.0, 30.0, False], ["time", 31.0, 33.0, True]]
    (tmp_path / "timeline.csv").write_text("nonsense\n1\n", encoding="utf-8")
    assert timeline_of(tmp_path)["totals"] == {}
