"""The `submit` command: a sweep file in, a file for another place out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autotune.durable import write_aside
from autotune.errors import Problem, UsageError
from autotune.submit import azureml, skypilot, slurm
from autotune.submit.plan import make_plan

PLACES = {"slurm": "slurm.sh", "skypilot": "sky.yaml", "azureml": "azureml.yaml"}
"""Where a sweep may run, and how the file for it ends."""
_NEXT = {"slurm": "sbatch {}", "skypilot": "sky jobs launch {}", "azureml": "az ml job create -f {}"}


def write(file: Path, place: str, output: Path | None, sets: Sequence[str]) -> str:
    """Write what runs a sweep at `place`; returns what to do with it. Raises UsageError."""
    plan = make_plan(file, sets)
    notes: list[str] = []
    match place:
        case "slurm":
            text = slurm.script(plan)
        case "skypilot":
            text = skypilot.task(plan)
        case _:
            text, notes = azureml.job(plan)
    output = output or Path(f"{plan.sweep.name}.{PLACES[place]}")
    try:
        write_aside(output, text)
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise UsageError(Problem(rule, file=str(output), remedy="check the path")) from None
    return "\n".join([*notes, f"wrote {output}; run it with: {_NEXT[place].format(output)}"])
