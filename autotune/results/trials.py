"""What the rows of a sweep count as."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from autotune.results.columns import Cell, Cells
from autotune.results.rows import Trial


class Trials:
    """The trials that were done, by the last attempt at each candidate: what was stopped on the way to a trial is none,
    though a worker was lost at it before.
    """

    def __init__(self, rows: Iterable[Trial] = ()) -> None:
        self._done: dict[tuple[str | None, int], str] = {}
        """By target and number the candidate that it was."""
        for row in rows:
            self.learn(row)

    def __len__(self) -> int:
        return len(self._done)

    @property
    def last(self) -> int:
        """The highest number; 0 where there is none."""
        return max((number for _, number in self._done), default=0)

    def learn(self, row: Trial) -> None:
        """Take in a row, which counts more than those before it."""
        trial, name = row.trial or 0, row.candidate
        place = (row.target, trial)
        if trial and row.status != "stopped":
            self._done[place] = name
        elif self._done.get(place) == name:
            del self._done[place]


def rounded(cells: Mapping[str, Cell]) -> Cells:
    """Return measured numbers at six significant digits, so that what is kept in memory is what a file gives back.

    A number that is not finite was not measured. Settings (`lora_*`, `build_*`) stay as they are: they name the
    candidate. (Those of sessions have no fractions.)
    """
    return {
        name: _six_digits(value) if isinstance(value, float) and not name.startswith(("lora_", "build_")) else value
        for name, value in cells.items()
    }


def _six_digits(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
