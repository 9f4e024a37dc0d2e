"""Reads results into a pandas table, for notebooks and dashboards: typed columns, missing cells as NA."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from autotune.results.columns import with_workloads
from autotune.results.folder import read_results
from autotune.results.rows import Trial

_TYPES = {str: "string", int: "Int64", float: "Float64", bool: "boolean"}


def results_frame(place: Path | str) -> pd.DataFrame:
    """Return the rows that count (each candidate's last attempt) of a results folder or CSV, one column a name.

    `started` and `ended` are UTC times. Raises UsageError where there are no results.
    """
    rows = read_results(Path(place))
    columns = with_workloads(Trial.columns, (name for row in rows for name in row.cells))
    frame = pd.DataFrame([row.cells for row in rows], columns=[column.name for column in columns])
    frame = frame.astype({column.name: _TYPES[column.type] for column in columns})
    for name in ("started", "ended"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame
