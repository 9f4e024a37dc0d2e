"""What the loops of one sweep's targets share: the workers, the budget, and adapters that are trained and merged once."""

from __future__ import annotations

from autotune.pipeline.measure import Others
from autotune.scheduler.forecast import Forecast
from autotune.scheduler.ledger import Ledger
from autotune.scheduler.under_way import Executor, UnderWay


class Shared:
    """What is shared by the loops of a sweep: one loop for each target."""

    def __init__(self, executor: Executor) -> None:
        self.under_way = UnderWay(executor)
        self.others = Others()
        self.ledgers: dict[str | None, Ledger] = {}
        self.forecasts: dict[str | None, Forecast] = {}
        self.gone: set[str | None] = set()
        """The targets whose device is gone: their candidates wait for the next run of the command."""

    def add(self, target: str | None, ledger: Ledger, forecast: Forecast) -> None:
        """Add the loop of a target."""
        self.ledgers[target], self.forecasts[target] = ledger, forecast

    def done(self) -> int:
        """Return how many trials were done, of all targets."""
        return sum(len(ledger.trials) for ledger in self.ledgers.values())

    def kept(self, trials: int) -> int:
        """Return how many trials of a budget are kept for targets whose device is gone: of each its equal part, less the
        trials that it had.
        """
        parts = zip(self.ledgers.items(), equal_parts(trials, len(self.ledgers)), strict=True)
        return sum(max(0, part - len(ledger.trials)) for (target, ledger), part in parts if target in self.gone)


def equal_parts(trials: int, count: int) -> list[int]:
    """Divide a number of trials into `count` parts that differ by one at most, the larger ones first."""
    return [trials // count + (place < trials % count) for place in range(count)]
