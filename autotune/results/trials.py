"""Count the trials in the rows of a sweep, and round measured numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from autotune.results.columns import Cell, Cells
from autotune.results.rows import Trial


class Trials:
    """The trials that were done, by the last attempt at each candidate. A candidate that the strategy stopped is no trial, even
    where an earlier attempt at it was lost.
    """

    def __init__(self, rows: Iterable[Trial] = ()) -> None:
        self._done: dict[tuple[str | None, int], str] = {}
        """The candidate of each trial, by target and number."""
        for row in rows:
            self.learn(row)

    def __len__(self) -> int:
        return len(self._done)

    @property
    def last(self) -> int:
        """The highest number; 0 where there is none."""
        return max((number for _, number in self._done), default=0)

    def learn(self, row: Trial) -> None:
        """Add a row, which replaces earlier rows of its candidate."""
        trial, name = row.trial or 0, row.candidate
        place = (row.target, trial)
        if trial and row.status != "stopped":
            self._done[place] = name
        elif self._done.get(place) == name:
            del self._done[place]


def rounded(cells: Mapping[str, Cell]) -> Cells:
    """Return cells with measured numbers at six significant digits, so that memory and file hold the same.

    A number that is not finite counts as not measured. Settings (`lora_*`, `build_*`) are not rounded, because they identify the
    candidate. (Settings of sessions have no fractions.)
    """
    return {
        name: _six_digits(value) if isinstance(value, float) and not name.startswith(("lora_", "build_")) else value
        for name, value in cells.items()
    }


def _six_digits(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
