"""The last line of a run: how many trials in what time, why it ended, and what of the time no stage ran."""

from __future__ import annotations

from autotune.present.tables import duration

REASONS = {
    "trials": "budget.trials is reached",
    "kept": "the rest of the budget is kept for targets whose device or node is not there",
    "hours": "budget.hours is reached",
    "space": "every candidate is done",
    "export": "no recipe builds the model as it is, so nothing was trained",
    "front": "no candidate that is left promises to move the front",
    "lost": "the device of every target is gone",
}
"""In words why a run ended, by `Summary.ended`."""


def ended_line(ended: str, trials: int, wall_s: float, own_s: float, waited_s: float) -> str:
    """Return the line. `own_s`, `waited_s`: seconds of the wall-clock in which the tuner itself worked, and in which it waited
    for other sweeps on this machine.
    """
    share = own_s / wall_s if wall_s else 0.0
    waited = f"; waited {duration(waited_s)} for other sweeps on this machine" if waited_s > 1 else ""
    earlier = ", by earlier runs: --trials N with a larger N goes on" if not trials and ended == "trials" else ""
    return (
        f"{trials} trial{'s' * (trials != 1)} in {duration(wall_s)} ({REASONS[ended]}{earlier}); "
        f"the tuner's own cost: {own_s:.1f} s, {share:.1%} of the wall-clock{waited}"
    )
