"""Which jobs pay for imports: the first in each worker of the stages that share them."""

from __future__ import annotations

from collections import Counter

from autotune.costs.prior import imported_by


class Imports:
    """Counts jobs as they begin, or are priced."""

    def __init__(self, workers: int) -> None:
        """`workers`: that have imported nothing yet."""
        self.workers, self._begun = workers, Counter[str]()

    def first(self, stage: str) -> bool:
        """Say that a job of a stage begins. Returns whether its worker still has to import what it needs, about."""
        name = imported_by(stage)
        self._begun[name] += 1
        return self._begun[name] <= self.workers
