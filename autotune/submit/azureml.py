"""A command job of Azure Machine Learning that runs a sweep: `az ml job create -f FILE`, or the SDK's `load_job`.

Data on a datastore and a model of a registry are inputs of the job; results and cache are a folder on a datastore that the
next job goes on from.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from autotune.errors import Problem, UsageError
from autotune.submit.plan import Plan
from autotune.sweepfile.submit import AzureML
from autotune.sweepfile.syntax import to_yaml

_PYTHON = "3.11"
_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda12.4-cudnn9-ubuntu22.04:latest"


def job(plan: Plan) -> tuple[str, list[str]]:
    """Return the job as YAML, and notes. Raises UsageError where the workspace's compute is not named."""
    given = plan.submit.azureml or AzureML()
    if given.compute is None:
        remedy = "--set submit.azureml.compute=NAME, or serverless"
        raise UsageError(Problem("names no compute", "submit.azureml", str(plan.file), remedy=remedy))
    name = plan.sweep.name
    output = f"{given.output.rstrip('/')}/{name}"
    words = [*map(shlex.quote, plan.words)]
    inputs: dict[str, Any] = {}
    for key, address in plan.addresses.items():
        short = key.rpartition(".")[2]
        kind = "custom_model" if key == "model" else "uri_file"
        inputs[short] = {"type": kind, "path": address, "mode": "ro_mount"}
        words.append(f"--set={key}=${{{{inputs.{short}}}}}")
    run = f"autotune run {shlex.quote(plan.file.as_posix())} --out ${{{{outputs.folder}}}}/results"
    # 4: done, but no candidate keeps the limits. The cache lies beside the results: a later job goes on from both.
    command = (
        f"export AUTOTUNE_CACHE=${{{{outputs.folder}}}}/cache; code=0; {' '.join([run, *words])} || code=$?; "
        '[ "$code" = 4 ] || exit "$code"'
    )
    notes = _conda_notes(given, plan.file.parent)
    content: dict[str, Any] = {
        "$schema": "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json",
        "type": "command",
        "display_name": name,
        "experiment_name": re.sub(r"[^A-Za-z0-9_-]+", "-", name),
        "code": ".",
        "command": command,
        "environment": _environment(plan, given),
        "compute": f"azureml:{given.compute}" if given.compute != "serverless" else None,
        "resources": {"instance_type": given.instance_type} if given.instance_type else None,
        "queue_settings": {"job_tier": "spot"} if given.spot else None,
        "inputs": inputs or None,
        "outputs": {"folder": {"type": "uri_folder", "mode": "rw_mount", "path": output}},
    }
    where = [
        f"--{option} {shlex.quote(value)}"
        for option, value in (
            ("subscription", given.subscription_id), ("resource-group", given.resource_group),
            ("workspace-name", given.workspace_name),
        )
        if value is not None
    ]  # fmt: skip
    head = f"# az ml job create -f THIS_FILE {' '.join(where)}".rstrip() + "\n"
    head += "".join(f"# {note}\n" for note in notes)
    return head + to_yaml({key: value for key, value in content.items() if value is not None}), notes


def _environment(plan: Plan, given: AzureML) -> Any:
    if given.environment is not None:
        return given.environment if given.environment.startswith("azureml:") else f"azureml:{given.environment}"
    packages = {"pip": [plan.install(given.install)]}
    conda = {"channels": ["conda-forge"], "dependencies": [f"python={_PYTHON}", "pip", packages]}
    return {"image": given.image or (_GPU_IMAGE if plan.needs_gpu else _CPU_IMAGE), "conda_file": conda}


def _conda_notes(given: AzureML, root: Path) -> list[str]:
    """Return what of a named conda file is raised, and why."""
    if given.conda_file is None:
        return []
    file = root / given.conda_file
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        named = [one for one in content["dependencies"] if isinstance(one, str) and one.startswith("python")]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        named = []
    said = f" ({named[0]})" if named else ""
    return [
        f"{given.conda_file}{said} is not used: the environment has python={_PYTHON}, which autotune needs, and the "
        "packages that it needs with it"
    ]
