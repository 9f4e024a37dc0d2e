"""Results as a pandas table."""

from pathlib import Path

import pandas as pd

from autotune.present.frame import results_frame
from autotune.store.results import COLUMNS, Table


def test_types_missing_cells_and_last_attempts(tmp_path: Path) -> None:
    table = Table(tmp_path / "results.csv", COLUMNS)
    shared = {"trial": 1, "kind": "pair", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z"}
    table.append({"candidate": "a", "attempt": 1, "status": "lost", **shared})
    table.append({"candidate": "a", "attempt": 2, "status": "ok", "accuracy": 0.5, "lora_dora": False, **shared})
    frame = results_frame(tmp_path)
    assert len(frame) == 1
    assert frame.loc[0, "status"] == "ok"
    assert frame.loc[0, "accuracy"] == 0.5
    assert pd.isna(frame.loc[0, "size_mb"])
    assert frame["lora_r"].dtype == "Int64"
    assert (frame["ended"] - frame["started"])[0] == pd.Timedelta(minutes=1)
