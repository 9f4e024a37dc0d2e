"""How a sweep begins: on how many items the untouched model is scored at first, and what stages are expected to cost."""

from __future__ import annotations

import math
import random
import statistics

from autotune.analysis.limits import Aims
from autotune.metrics import is_task
from autotune.pipeline.expected import Prices
from autotune.pipeline.measure import LOOKS
from autotune.strategies.baselines import drawn
from autotune.strategies.frontier.cost_model import FirstCosts
from autotune.strategies.protocol import LEAST_ITEMS

_DRAWN = 24
"""Candidates that are priced."""


def priced(prices: Prices) -> FirstCosts:
    """Return the expected seconds of a whole training, a build, a merge, a timing, and of scoring one item: each the mean
    over candidates of the space. What no candidate has keeps its default.
    """
    rng = random.Random(f"priced-{prices.graph.seed}")  # noqa: S311 - no secret
    estimates = [prices.whole(drawn(prices.graph.space, rng)) for _ in range(_DRAWN)]
    items = prices.graph.inputs.counts["validation"]
    found: dict[str, float] = {}
    for name, stage, units in (
        ("train_s", "train", 1), ("build_s", "build", 1), ("merge_s", "merge", 1), ("time_s", "time", 1), ("item_s", "score", items),
    ):  # fmt: skip
        seconds = [estimate.lines[stage].seconds / units for estimate in estimates if stage in estimate.lines]
        found |= {name: statistics.fmean(seconds)} if seconds else {}
    return FirstCosts(**found)


def first_items(aims: Aims, metric: str, items: int, in_parts: bool) -> int | None:
    """Return on how many of the validation items the untouched model is scored at first; None: on all, with a timing.

    A strategy with lower fidelities (`in_parts`) needs only an estimate of that score first. A limit may need it in full.
    """
    if not in_parts or aims.need_base or is_task(metric):
        return None
    least = max(LEAST_ITEMS, math.ceil(LOOKS[0] * items))
    return least if least < items else None
