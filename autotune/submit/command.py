"""The `submit` and `job` commands: write the file that runs a sweep elsewhere, send a job to Azure ML, and look after it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from autotune.distribution import pip_install
from autotune.durable import write_aside
from autotune.errors import Exit, Problem, UsageError
from autotune.remote.addresses import Workspace, is_address
from autotune.remote.workspace import has_sdk
from autotune.submit import azureml, sending, skypilot, slurm
from autotune.submit.plan import Plan, make_plan, refuse_others_file, refuse_own_file
from autotune.submit.staging import refuse_secrets, refuse_secrets_in_words, stage

PLACES = {"slurm": "slurm.sh", "skypilot": "sky.yaml", "azureml": "azureml.yaml"}
"""By place where a sweep may run, the end of its file's name."""
_NEXT = {"slurm": "sbatch {}", "skypilot": "sky jobs launch {}", "azureml": "az ml job create -f {}"}


def write(file: Path, place: str, output: Path | None, sets: Sequence[str]) -> str:
    """Write the file that runs a sweep at `place`. Returns lines for the user, with the next command. Raises UsageError."""
    try:
        plan = make_plan(file, sets)
    except UsageError as error:
        raise UsageError([_elsewhere(one, place) for one in error.problems]) from None
    output = output or Path(f"{plan.sweep.name}.{PLACES[place]}")
    refuse_own_file(plan, output)
    refuse_others_file(output)
    if place == "azureml":
        return _written(output, _write_azure(plan, output).notes, place)
    refuse_secrets_in_words(plan)
    _put(output, slurm.script(plan) if place == "slurm" else skypilot.task(plan))
    return _written(output, [], place)


def submit(file: Path, output: Path | None, sets: Sequence[str], follow: bool, say: Callable[[str], None]) -> Exit:
    """Write a job of Azure ML and send it; without the SDK, say what to install. Returns 0. Raises UsageError, MachineError.

    `follow`: print the job's log until it ends.
    """
    plan = make_plan(file, sets)
    output = output or Path(f"{plan.sweep.name}.{PLACES['azureml']}")
    refuse_own_file(plan, output)
    refuse_others_file(output)
    draft = _write_azure(plan, output)
    if not has_sdk():
        say(_written(output, draft.notes, "azureml"))
        say(f"it was not sent: that needs the SDK of Azure ML. {pip_install('azure')}, then the same command")
        return Exit.OK
    for note in draft.notes:
        say(note)
    sent = sending.send(output, draft, plan.sweep.name)
    say(f"sent {output} as the job {sent.job}" + (f": {sent.studio}" if sent.studio else ""))
    say(f"look at it with: autotune job status {sent.job}, autotune job logs {sent.job}")
    say(f"bring its results here with: autotune job fetch {sent.job}")
    return sending.follow(sent, say) if follow else Exit.OK


def look_after(
    action: str,
    named: str,
    workspace: str | None,
    out: Path | None,
    cache: bool,
    as_json: bool,
    say: Callable[[str], None],
) -> Exit:
    """Show, cancel, follow or fetch a job that was sent. Returns the exit code. Raises UsageError, MachineError."""
    sent = sending.find_job(named, read_workspace(workspace))
    match action:
        case "status":
            state = sending.read_state(sent)
            if as_json:
                say(json.dumps(state, indent=1, ensure_ascii=False))
            else:
                say(
                    "\n".join(
                        f"{key}: {value}" for key, value in state.items() if value not in (None, "") and key != "ended"
                    )
                )
        case "cancel":
            say(f"the job {sent.job} is {sending.cancel(sent)}")
        case "logs":
            return sending.follow(sent, say)
        case _:
            folder, count = sending.fetch(sent, out, cache)
            say(f"{count} files of the job {sent.job} are in {folder}; look at them with: autotune select {folder}")
    return Exit.OK


def read_workspace(text: str | None) -> Workspace | None:
    """Return the workspace of SUBSCRIPTION/GROUP/WORKSPACE. Raises UsageError."""
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != len(Workspace._fields) or not all(parts):
        remedy = "write SUBSCRIPTION/GROUP/WORKSPACE"
        raise UsageError(Problem("must be three names", "--workspace", "command line", value=text, remedy=remedy))
    return Workspace(*parts)


def _write_azure(plan: Plan, output: Path) -> azureml.Draft:
    refuse_secrets(plan)
    code = output.with_name(output.name.removesuffix(".yaml").removesuffix(".azureml") + ".azureml.code")
    refuse_own_file(plan, code)
    draft = azureml.draft(plan, code.name, output.parent)
    try:
        stage(plan, code, with_tool=not draft.given.install)
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise UsageError(Problem(rule, file=str(error.filename or code), remedy="check the path")) from None
    _put(output, draft.text)
    return draft


def _elsewhere(problem: Problem, place: str) -> Problem:
    """Return the problem of a wrong address, with another remedy where the place takes no addresses at all."""
    if place == "azureml" or not is_address(problem.value):
        return problem
    return replace(
        problem, remedy="use --to azureml with a right address, or name a file, a folder or a name on the hub"
    )


def _put(output: Path, text: str) -> None:
    try:
        write_aside(output, text)
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise UsageError(Problem(rule, file=str(output), remedy="check the path")) from None


def _written(output: Path, notes: Sequence[str], place: str) -> str:
    return "\n".join([*notes, f"wrote {output}; run it with: {_NEXT[place].format(shlex.quote(str(output)))}"])
