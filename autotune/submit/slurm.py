"""Writes a batch script of Slurm that runs a sweep, and queues itself again until the sweep has ended."""

from __future__ import annotations

import shlex

from autotune.submit.plan import Plan, refuse_addresses
from autotune.sweepfile.submit import Slurm

_SCRIPT = """\
cd "${{SLURM_SUBMIT_DIR:-.}}" || exit
export AUTOTUNE_CACHE="${{AUTOTUNE_CACHE:-$PWD/autotune-cache}}"
# A token for the Hugging Face hub is taken from the environment (HF_TOKEN), and is never written here.
{setup}
set -u  # not before: modules and conda environments read variables that are not set
asked=0
child=
trap 'asked=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
{command} &
child=$!
[ "$asked" = 0 ] || kill -TERM "$child" 2>/dev/null  # asked between these two lines
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done
# Asked to end before the sweep did (the time is up, or another job has priority): go on in the queue. 143: it had not begun to
# listen.
if [ "$asked" = 1 ] && {{ [ "$code" = 130 ] || [ "$code" = 143 ]; }}; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


def _time(hours: float) -> str:
    minutes = max(5, round(hours * 60))
    return f"{minutes // 1440}-{minutes % 1440 // 60:02d}:{minutes % 60:02d}:00"


def script(plan: Plan) -> str:
    """Return the script; submit it with `sbatch`. Raises UsageError for addresses of Azure ML."""
    refuse_addresses(plan, "a cluster with Slurm")
    given = plan.submit.slurm or Slurm()
    name = plan.sweep.name
    options: dict[str, object] = {
        "job-name": name, "output": f"{name}-%j.log", "open-mode": "append", "time": _time(given.hours),
        "partition": given.partition, "account": given.account,
        "gpus": (given.gpus or "").removeprefix("gpu:") or ("1" if plan.needs_gpu else None), "cpus-per-task": given.cpus,
        "mem": f"{given.memory_gb}G" if given.memory_gb is not None else None,
        "requeue": True, "signal": "B:TERM@180",
    }  # fmt: skip
    lines = ["#!/usr/bin/env bash"]
    for option, value in options.items():
        if value is not None:
            lines.append(f"#SBATCH --{option}" + ("" if value is True else f"={value}"))
    command = shlex.join(["autotune", "run", plan.file.as_posix(), "--out", f"results/{name}", *plan.words])
    setup = "\n".join(given.setup)
    if given.install is not None:
        setup += f"\npython -m pip install --quiet {shlex.quote(given.install)}"
    return "\n".join([*lines, "", _SCRIPT.format(setup=setup, command=command)])
