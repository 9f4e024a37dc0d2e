"""Suggests changes of the sweep file that make a sweep cheaper, with the seconds that each saves by the plan's estimate."""

from __future__ import annotations

from autotune.costs.estimate import ALONE, Line
from autotune.data.schema import Dataset
from autotune.metrics import is_task
from autotune.present.tables import duration
from autotune.scheduler.rehearsal import Rehearsed
from autotune.space.domains import Choice
from autotune.sweepfile.schema import Sweep

_LEAST_SHARE, _LEAST_S = 0.08, 20.0
"""The share of the sweep, and the seconds, that a suggested change saves at least."""
_SHOWN = 3
_ENOUGH_ITEMS = 200
"""The fewest validation items that a change suggests: with fewer, almost every comparison is a tie."""


def savings(sweep: Sweep, rehearsed: Rehearsed, dataset: Dataset | None) -> list[str]:
    """Return the changes in words, the largest saving first; none if `budget.hours` ends the search, which then uses all hours
    anyway.
    """
    if rehearsed.ended == "hours":
        return []
    lines, share = rehearsed.estimate.lines, rehearsed.wall_s / max(rehearsed.estimate.seconds, 1e-9)

    def saved(stage: str, part: float) -> float:
        """Return the wall-clock that a part of a stage takes."""
        seconds = lines.get(stage, Line()).seconds * part
        return seconds if stage in ALONE else seconds * min(1.0, share)

    found: list[tuple[float, str]] = []
    lora = sweep.space.lora or {}
    for name in ("steps", "epochs"):
        domain = lora.get(name)
        if isinstance(domain, Choice) and len(domain.values) == 1 and isinstance(domain.values[0], int | float):
            value = float(domain.values[0])
            half = f"{max(1, round(value / 2))}" if name == "steps" else f"{value / 2:g}"
            if value > 1:
                found.append((saved("train", 0.5), f"half as long trainings (space.lora.{name}: {half})"))
    items = len(dataset.validation) if dataset is not None and not is_task(sweep.data.metric) else 0
    fewer = max(_ENOUGH_ITEMS, items // 2)
    if items > fewer:
        words = f"{fewer} validation items, wider intervals (data.max_items: {{ validation: {fewer} }})"
        found.append((saved("score", 1 - fewer / items), words))
    timing = sweep.target.timing
    if timing.processes > 3:
        part = 1 - 3 / timing.processes
        words = "less precise timings (target.timing: { processes: 3, most: 5 })"
        found.append((saved("time", part) + saved("turns", part), words))
    if len(sweep.space.recipes) > 2 and sweep.space.lora is not None:
        part = 1 / len(sweep.space.recipes)
        words = "each recipe left out of space.build"
        found.append(((saved("build", part) + saved("check", part) + saved("time", part)), words))
    worth = [one for one in found if one[0] >= max(_LEAST_S, _LEAST_SHARE * rehearsed.wall_s)]
    worth = sorted(worth, reverse=True)[:_SHOWN]
    if sweep.budget.trials is not None and sweep.budget.trials > 3 and rehearsed.ended == "trials":
        searched = sum(saved(stage, 0.5) for stage in ("train", "merge", "build", "check", "score"))
        worth.append((searched, f"half as many candidates (budget.trials: {sweep.budget.trials // 2})"))
    return [f"{words} saves about {duration(seconds)}" for seconds, words in worth if seconds >= _LEAST_S]
