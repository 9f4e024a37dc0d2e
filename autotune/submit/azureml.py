"""Writes a command job of Azure Machine Learning that runs a sweep: its file, and the folder of its code.

Data and model are inputs of the job, wherever they lie; results and cache lie in a folder of a datastore, from which the
next job continues. The SDK sends the file, and `az ml job create -f FILE` takes it as well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.errors import Problem, UsageError, printable
from autotune.paths import relative
from autotune.remote.addresses import is_address, parse, split_rows
from autotune.submit.environment import conda, requirements
from autotune.submit.plan import Plan, find_local
from autotune.submit.secret import SECRET
from autotune.submit.staging import TOOL
from autotune.sweepfile.submit import AzureML
from autotune.sweepfile.syntax import to_yaml

_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda12.4-cudnn9-ubuntu22.04:latest"
_ORDER = ("model", "data.train", "data.validation", "data.test")
_WORKSPACE = ("subscription_id", "resource_group", "workspace_name")
_COMPUTE = re.compile(r"[A-Za-z0-9][\w.-]*|/subscriptions/\S+")
"""A name, or an address in the workspace's cloud; other texts are placeholders of a file that nobody has filled in."""
_READ_BY_A_SHELL = re.compile(r"[\"$`\\\n\r]")
"""What a shell does not take as it is within double quotes."""
_SIZE = re.compile(r"(?:Standard|Basic)_[A-Z]", re.IGNORECASE)
"""How the names of Azure's sizes of machines begin."""
_IN_THE_JOB = ("azure-identity>=1.25", "azure-keyvault-secrets>=4.10")
"""Packages with which the job reads a secret of a key vault."""


@dataclass
class Draft:
    """A job before it is written."""

    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    given: AzureML = field(default_factory=AzureML)
    output: str = ""
    """The address of the folder of results and cache."""

    @property
    def text(self) -> str:
        """The job's file."""
        options = ("subscription", "resource-group", "workspace-name")
        where = [
            f"--{option} {shlex.quote(value)}"
            for option, name in zip(options, _WORKSPACE, strict=True)
            if (value := getattr(self.given, name)) is not None
        ]
        head = f"# az ml job create -f THIS_FILE {' '.join(where)}".rstrip() + "\n"
        head += "".join(f"# {printable(note)}\n" for note in self.notes)
        return head + to_yaml({key: value for key, value in self.content.items() if value is not None})


def draft(plan: Plan, code: str, beside: Path) -> Draft:
    """Return the job. `code`: the folder of its code, as the file names it; `beside`: the folder of that file.

    Raises UsageError where the workspace's compute is not named, or a conda file cannot be used.
    """
    given = plan.submit.azureml or AzureML()
    _check_place(plan, given)
    if not _on_datastore(given.output):
        rule, remedy = "must be a folder of a datastore", "e.g. azureml://datastores/workspaceblobstore/paths/autotune"
        raise UsageError(Problem(rule, "submit.azureml.output", str(plan.file), value=given.output, remedy=remedy))
    name = plan.sweep.name
    output = f"{given.output.rstrip('/')}/{name}"
    serverless = compute_of(given) == "serverless"
    made = Draft({}, given=given, output=output)
    if given.spot and not serverless:
        made.notes.append(
            f"spot: the tier of {given.compute} is that of the compute; a job on a low-priority compute that is stopped goes on"
        )
    inputs, bound = _inputs(plan, beside)
    identity = given.identity or ("managed" if given.hf_token else None)
    made.content = {
        "$schema": "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json",
        "type": "command",
        "display_name": name,
        "experiment_name": re.sub(r"[^A-Za-z0-9_-]+", "-", name),
        "code": code,
        "command": _command(plan, bound, with_tool=not given.install),
        "environment": _environment(plan, given, made.notes),
        "environment_variables": {SECRET: given.hf_token} if given.hf_token else None,
        "identity": {"type": identity} if identity else None,
        "compute": f"azureml:{compute_of(given)}" if not serverless else None,
        "resources": {"instance_type": given.instance_type} if given.instance_type else None,
        "queue_settings": {"job_tier": "spot"} if given.spot and serverless else None,
        "inputs": inputs or None,
        "outputs": {"folder": {"type": "uri_folder", "mode": "rw_mount", "path": output}},
    }
    return made


def compute_of(given: AzureML) -> str:
    """Return the plain name of the compute, which a job of Azure ML writes as azureml:NAME."""
    return (given.compute or "").removeprefix("azureml:")


def _check_place(plan: Plan, given: AzureML) -> None:
    """Raise UsageError where a workspace is named in part, or no compute that could run the sweep."""
    problems: list[Problem] = []

    def wrong(rule: str, key: str, remedy: str, value: object = None) -> None:
        problems.append(Problem(rule, f"submit.azureml{key}", str(plan.file), value=value, remedy=remedy))

    left = [name for name in _WORKSPACE if getattr(given, name) is None]
    if 0 < len(left) < len(_WORKSPACE):
        wrong(f"names a workspace without its {' and '.join(left)}", "", f"--set submit.azureml.{left[0]}=...")
    compute = compute_of(given)
    example = given.instance_type or "Standard_NC24ads_A100_v4"
    if not compute:
        also = f", with instance_type={example}" if plan.needs_gpu else ""
        wrong("names no compute", "", f"--set submit.azureml.compute=NAME, or serverless{also}")
    elif not _COMPUTE.fullmatch(compute):
        wrong("is no name of a compute", ".compute", "write its name as the workspace shows it", compute)
    elif _SIZE.match(compute):
        remedy = f"write compute: serverless and instance_type: {compute}, or the name of a cluster of that size"
        wrong("is a size of machines, and no compute", ".compute", remedy, compute)
    elif compute == "serverless" and plan.needs_gpu and given.instance_type is None:
        remedy = f"--set submit.azureml.instance_type={example}, or another size that your quota has"
        wrong("serverless gives a machine without a GPU, which the sweep needs", ".instance_type", remedy)
    if problems:
        raise UsageError(problems)


def _command(plan: Plan, bound: Sequence[str], with_tool: bool) -> str:
    """Return the job's shell command. `bound`: options for its inputs; `with_tool`: its code holds a copy of this tool."""
    out = "${{outputs.folder}}"
    words = [*map(shlex.quote, plan.words), *bound]
    run = " ".join([f'autotune run {shlex.quote(plan.file.name)} --out "{out}/results"', *words])
    # PYTHONPATH: the copy goes before an installed tool of the same name.
    tool = f' PYTHONPATH="$PWD/{TOOL}${{PYTHONPATH:+:$PYTHONPATH}}"' if with_tool else ""
    # Exit code 4: done, but no candidate keeps the limits. The cache lies beside the results: a later job goes on from both.
    return (
        f'export AUTOTUNE_CACHE="{out}/cache"{tool}; autotune() {{ python -m autotune.in_job "$@"; }}; code=0; '
        f'{run} || code=$?; [ "$code" = 4 ] || exit "$code"'
    )


def _inputs(plan: Plan, beside: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the inputs of the job, and the `--set` options that point the command to them."""
    inputs: dict[str, Any] = {}
    words: list[str] = []
    places = {key: split_rows(place) if key != "model" else (place, "") for key, place in plan.addresses.items()}
    places |= {key: (str(path), rows) for key, (path, rows) in find_local(plan).items()}
    for key in sorted(places, key=_ORDER.index):
        short = key.rpartition(".")[2]
        path, rows = places[key]
        if found := _READ_BY_A_SHELL.search(path.replace("\\", "/").rstrip("/").rpartition("/")[2]):
            rule = f"has {found[0]!r} in its name, which the shell of the job would read as its own"
            raise UsageError(Problem(rule, key, str(plan.file), value=path, remedy="give it another name"))
        if is_address(path):
            kind = "uri_file" if key != "model" else "uri_folder" if _on_datastore(path) else "custom_model"
        else:
            kind = "uri_folder" if key == "model" else "uri_file"
            path = relative(Path(path).absolute(), beside.absolute())
        inputs[short] = {"type": kind, "path": path, "mode": "ro_mount"}
        words.append(f'"--set={key}=${{{{inputs.{short}}}}}{rows}"')  # the mounted path ends in the file's own name
    return inputs, words


def _on_datastore(address: str) -> bool:
    try:
        return parse(address).kind == "datastore"
    except ValueError:
        return False


def _environment(plan: Plan, given: AzureML, notes: list[str]) -> Any:
    if given.environment is not None:
        named = given.environment.removeprefix("azureml:")
        if named.startswith("//"):
            return given.environment
        return f"azureml:{named}" if re.search("[:@]", named) else f"azureml:{named}@latest"
    pip = [given.install] if given.install else requirements(*plan.extras)
    if given.hf_token:
        pip += [one for one in _IN_THE_JOB if one not in pip]
    older = plan.file.parent / given.conda_file if given.conda_file else None
    content, said = conda(pip, older, given.conda_file or "")
    notes += said
    return {"image": given.image or (_GPU_IMAGE if plan.needs_gpu else _CPU_IMAGE), "conda_file": content}
