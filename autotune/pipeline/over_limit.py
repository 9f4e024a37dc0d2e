"""Decide that a candidate is `over_limit`: a limit on latency, size or memory is certainly broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.analysis.limits import Limit
from autotune.metrics import METRICS


def over_limit(values: Mapping[str, float], limits: Sequence[Limit], base: Mapping[str, float]) -> str | None:
    """Return a sentence about the first limit that the values measured so far break; None where they break none.

    `base` holds the untouched model's values, which limits may refer to. A limit on a score is judged at the end, with its
    interval, and never here.
    """
    for limit in limits:
        if METRICS[limit.metric].kind == "score":
            continue
        gap = limit.gap(values.get(limit.metric), base.get(limit.metric))
        if gap is not None and gap > 0:
            return f"{limit} cannot be kept: {limit.metric} is {values[limit.metric]:.6g}"
    return None
