"""Warns where the winner is no better than the untouched model."""

from __future__ import annotations

from autotune.metrics import METRICS, Direction
from autotune.present.tables import number, recipe_name
from autotune.results.rows import Trial


def beside_untouched(row: Trial, base: Trial | None, name: str, direction: Direction) -> list[str]:
    """Return a line that says that the winner's score `name` is no better than the untouched model's; nothing if it is better.

    A winner without an adapter always loses a little by quantisation: its line appears only if the loss is beyond the noise.
    """
    if base is None or base.status != "ok" or row.candidate == base.candidate or METRICS[name].kind != "score":
        return []
    value, other, interval = row.number(name), base.number(name), row.interval(name)
    if value is None or other is None or (value > other if direction == "maximize" else value < other):
        return []
    beyond = interval is not None and not interval.low <= other <= interval.high
    trained = row["lora_r"] is not None
    if not (beyond or trained):
        return []
    head = "WORSE THAN THE UNTOUCHED MODEL" if beyond else "NO BETTER THAN THE UNTOUCHED MODEL"
    noise = "" if beyond else ", a difference within the noise"
    sign = ">=" if direction == "maximize" else "<="
    remedy = "train longer (space.lora.steps), or search more" if trained else "build at a higher precision"
    return [
        f"{head}: {name} {number(value)}, and {number(other)} untouched at {recipe_name(base.settings)}{noise}",
        f"  {remedy}; the limit '{name} {sign} base' keeps such a model from being chosen",
    ]
