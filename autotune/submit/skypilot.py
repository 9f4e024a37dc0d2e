"""Writes a task of SkyPilot that runs a sweep; results and cache lie in a bucket, from which the next instance continues."""

from __future__ import annotations

import re
import shlex
from typing import Any

from autotune.submit.plan import Plan, refuse_addresses, words_of_a_copy
from autotune.sweepfile.submit import SkyPilot
from autotune.sweepfile.syntax import to_yaml


def _bucket(named: str) -> dict[str, str]:
    """Return how a task names a bucket: by its address where it has one, else by its name, in the cloud of the task."""
    return {"source": named} if "://" in named else {"name": named}


def task(plan: Plan) -> str:
    """Return the task; `sky jobs launch FILE` runs it. Raises UsageError for addresses of Azure ML, and for files elsewhere."""
    refuse_addresses(plan, "an instance of SkyPilot")
    file, *words = words_of_a_copy(plan)
    given = plan.submit.skypilot or SkyPilot()
    name = re.sub(r"[^a-z0-9]+", "-", plan.sweep.name.lower()).strip("-") or "sweep"  # no name has several in a row
    bucket = f"autotune-{name}"[:60].rstrip("-")
    resources: dict[str, Any] = {
        "infra": given.infra,
        "accelerators": given.accelerators or ("L4:1" if plan.needs_gpu else None),
        "cpus": f"{given.cpus}+" if given.cpus is not None else None,
        "memory": f"{given.memory_gb}+" if given.memory_gb is not None else None,
        "disk_size": given.disk_gb,
        "use_spot": given.spot,
    }
    out = f"/outputs/{plan.sweep.name}"
    command = shlex.join(["autotune", "run", file, "--out", out, *words])
    content: dict[str, Any] = {
        "name": name,
        "resources": {key: value for key, value in resources.items() if value is not None},
        "workdir": ".",
        "file_mounts": {"/outputs": {**_bucket(given.bucket or bucket), "mode": "MOUNT_CACHED"}},
        "envs": {"AUTOTUNE_CACHE": "/outputs/cache"},
        "setup": f"python -m pip install --quiet {shlex.quote(plan.install(given.install))}\n",
        # 4: done, but no candidate keeps the limits.
        "run": f'code=0\n{command} || code=$?\n[ "$code" = 4 ] || exit "$code"\n',
    }
    head = (
        "# sky jobs launch THIS_FILE    (a preempted task is started again, and goes on)\n"
        "# The working directory is copied without what .skyignore, or else .gitignore, names: data must not be among it.\n"
        "# For gated models: sky jobs launch --secret HF_TOKEN THIS_FILE; the token is never written here.\n"
    )
    return head + to_yaml(content)
