"""Puts a plan into words: what a sweep will do, how long each stage takes, on what evidence, and what would be cheaper."""

from __future__ import annotations

from typing import Any

from autotune.costs.model import ALIKE, MACHINE, MODEL, SIZE
from autotune.data.labels import label_lines
from autotune.data.schema import LeftOut
from autotune.metrics import is_task
from autotune.present.tables import duration

STAGES = {
    "own": "the tuner itself", "prepare": "look at model, data and machine", "train": "train adapters", "merge": "merge", "build": "build",
    "check": "check builds", "time": "time graphs", "score": "score items", "turns": "time finalists in turns",
    "verify": "try the winner",
}  # fmt: skip
"""The stages of a plan in words, in the order in which they are shown."""
_ENDS = {
    "trials": "budget.trials", "hours": "budget.hours", "space": "every candidate of the space is measured",
}  # fmt: skip


def as_text(plan: dict[str, Any]) -> str:
    """Return the plan in words."""
    workers = f", {plan['workers']} workers" if plan.get("workers", 1) > 1 else ""
    targets = plan.get("targets", {})
    on = " and ".join(f"{one['provider']} ({name})" for name, one in targets.items()) or plan["provider"]
    lines = [f"{plan['sweep']}: {plan['model']} on {on}, strategy {plan['strategy']}{workers}"]
    if "estimate" in plan:
        lines += ["", *_table(plan), ""]
    size = plan["candidates"]
    lines.append(f"measures {_trials(plan)} of {size if size is not None else 'infinitely many'} candidates")
    if targets:
        lines.append("adapters are trained and merged once for all targets, and so is a build that is the same")
    for name, one in targets.items():
        lines += [f"target {name}:", *(f"  {line}" for line in _of_target(one))]
        lines += [f"  note: {note}" for note in one["notes"]]
    lines += [] if targets else _of_target(plan)
    if plan["data"]:
        lines += _data_lines(plan["data"], plan["metric"])
    if "disk" in plan:
        lines += [
            f"{what}: about {plan[what]['needed_mb']} MB at most, {plan[what]['free_mb']} MB free"
            for what in ("disk", "memory")
        ]
    lines += [f"cheaper: {words}" for words in plan.get("savings", ())]
    lines += [f"note: {note}" for note in plan["notes"]]
    return "\n".join(lines)


def _of_target(plan: dict[str, Any]) -> list[str]:
    """Return in words what is built, served and timed on a target, and what is left out."""
    lines = []
    if plan["recipes"]:
        lines.append(f"recipes ({len(plan['recipes'])}):")
        lines += [f"  {recipe}" for recipe in plan["recipes"]]
    if plan["sessions"]:
        lines.append(f"sessions ({len(plan['sessions'])}); every recipe is timed in each:")
        lines += [f"  {session}" for session in plan["sessions"]]
    lines += [f"timed: {words}" for words in plan["workloads"]]
    if plan["left_out"]:
        lines.append(f"left out ({len(plan['left_out'])}), cannot run here:")
        lines += [f"  {item['combination']}: {item['reason']}" for item in plan["left_out"]]
    return lines


def _trials(plan: dict[str, Any]) -> str:
    """Return how many candidates are measured, and why so many."""
    ends_by = plan["ends_by"]
    if ends_by != "hours":
        return f"{plan['trials']} ({_ENDS[ends_by]})"
    hours = duration(plan["hours_budget"] * 3600) if plan["hours_budget"] else "the time that you give it"
    return f"about {plan['trials']} ({hours}, budget.hours)" if "estimate" in plan else f"what fits into {hours}"


def _table(plan: dict[str, Any]) -> list[str]:
    """Return a row a stage, and the total."""
    rows = [("stage", "how often", "each", "in all", "on what evidence")]
    for line in plan["estimate"]["stages"]:
        if not line["seconds"]:
            continue
        often = line["units"] if line["stage"] == "score" else line["times"]
        each = line["seconds"] / often if often else 0.0
        alone = line["stage"] in ("own", "prepare")
        rows.append(
            (
                STAGES[line["stage"]], "" if alone else _often(line, plan), "" if alone else _short(each),
                _short(line["seconds"]), _evidence(line),
            )
        )  # fmt: skip
    estimate = plan["estimate"]
    between = f"80 % interval: {_short(estimate['low_s'])} to {_short(estimate['high_s'])}"
    rows.append(("in all", "", "", _short(estimate["total_s"]), between))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in (1, 2, 3)), row[4]]).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    cached = plan["cached"]
    done = [f"{cached} results that it needs are in the cache already, and cost nothing"] if cached else []
    return [lines[0], rule, *lines[1:-1], rule, lines[-1], *done]


def _often(line: dict[str, Any], plan: dict[str, Any]) -> str:
    """Return how often a stage is done."""
    match line["stage"]:
        case "score":
            return f"{line['units']:,} items"
        case "train" if plan["adapters"] != plan["trainings"]:
            whole = f"{plan['trainings']:g}"
            return f"{plan['adapters']}, {whole} in full" if plan["adapters"] else f"{whole} in full"
        case "train":
            return f"{plan['adapters']}"
        case _:
            return f"{line['times']}"


def _short(seconds: float) -> str:
    """Return seconds as `duration` does, those below ten with the digits that count."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)


def _evidence(line: dict[str, Any]) -> str:
    """Return the evidence behind the seconds of a stage, in words."""
    count = line["measured"]
    return {
        ALIKE: f"{count} like these, measured here",
        MODEL: f"{count} of this model, measured here",
        MACHINE: f"{count} of other models, measured here",
        SIZE: "estimate by model size",
    }[line["evidence"]]


def _data_lines(data: dict[str, Any], metric: str) -> list[str]:
    """Return in words what the data holds: splits, labels with their rows, rows left out."""
    if is_task(metric):
        lines = [f"data: {data['train']} train; scored on {metric}"]
    else:
        counts = f"{data['train']} train, {data['validation']} validation, {data['test']} test"
        lines = [f"data: {counts}; {len(data['labels'])} labels"]
    for split, share in data["held_out"].items():
        default = "; the default, since neither data.validation nor data.holdout is given"
        why = default if split == "validation" and data["holdout_by_default"] else ""
        lines.append(f"  {split}: a share of {share:g} of train, held out by content{why}")
    lines += label_lines(data["label_rows"])
    for left in map(LeftOut.model_validate, data["left_out"]):
        lines.append(f"  {left.rows} rows of {left.split} left out: {left.reason}{left.places}")
    return lines
