"""The command `autotune` with a rival of `rivals.WHOLE` in the place of the sweep's strategy.

python -m benchmarks.search.live_rival two-stages run SWEEP --out DIR

All but the choice of candidates is the tool's: stages, cache, checks, timings, record. The sweep is not resumed this way,
because a rival does not learn from the rows of an earlier run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any
from unittest import mock

import autotune.run
from autotune.cli import main as autotune_main
from autotune.metrics import Direction
from autotune.space.space import Space
from autotune.strategies.protocol import Strategy
from benchmarks.search.rivals import WHOLE


def main(arguments: list[str] | None = None) -> int:
    """Run the command whose first argument is the name of the rival; return its exit code."""
    name, *rest = sys.argv[1:] if arguments is None else arguments

    def rival(_: str, space: Space, __: Mapping[str, Direction], seed: int, *___: Any) -> Strategy:
        return WHOLE[name](space, seed)

    with mock.patch.object(autotune.run, "make_strategy", rival):
        return autotune_main(rest)


if __name__ == "__main__":
    sys.exit(main())
