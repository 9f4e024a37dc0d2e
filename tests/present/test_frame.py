"""Results as a pandas table."""

from pathlib import Path

import pandas as pd

from autotune.present.frame import results_frame
from autotune.results.columns import workload_names
from autotune.results.rows import Trial
from autotune.results.table import Table


def test_types_missing_cells_and_last_attempts(tmp_path: Path) -> None:
    table = Table(tmp_path / "results.csv", Trial)
    shared = {"trial": 1, "kind": "pair", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z"}
    table.append(Trial({"candidate": "a", "attempt": 1, "status": "lost", **shared}))
    cells = {"candidate": "a", "attempt": 2, "status": "ok", "accuracy": 0.5, "lora_dora": False}
    table.append(Trial({**cells, **shared}))
    frame = results_frame(tmp_path)
    assert len(frame) == 1
    assert frame.loc[0, "status"] == "ok"
    assert frame.loc[0, "accuracy"] == 0.5
    assert pd.isna(frame.loc[0, "size_mb"])
    assert frame["lora_r"].dtype == "Int64"
    assert (frame["ended"] - frame["started"])[0] == pd.Timedelta(minutes=1)


def test_metrics_of_workloads_are_numbers(tmp_path: Path) -> None:
    table = Table(tmp_path / "results.csv", Trial, workload_names("@long"))
    for name, value in (("a", 4.5), ("b", None)):
        row = {"trial": 1, "attempt": 1, "kind": "pair", "status": "ok", "started": "2026-01-01T00:00:00Z"}
        table.append(Trial({"candidate": name, "itl_ms_p50@long": value, **row}))
    frame = results_frame(tmp_path)
    assert frame["itl_ms_p50@long"].dtype == "Float64"
    assert frame.loc[0, "itl_ms_p50@long"] == 4.5
    assert pd.isna(frame.loc[1, "itl_ms_p50@long"])
